"""Parquet files of windows: one row per window, one list of samples per channel, as tables of a primary data set."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan, Segment
from cerebro.data.readers.found_files import files_below
from cerebro.data.readers.windows_channels import differing_channels, electrode_columns, named_channels
from cerebro.data.readers.windows_file import (
    FIXED,
    LABEL,
    Recordings,
    Rows,
    batches,
    fixed_columns,
    integers,
    lists,
    numbers,
    open_parquet,
    read_columns,
    recordings_of,
)
from cerebro.data.readers.windows_people import people_of, read_table_of_people
from cerebro.errors import ConfigError, DataError, check_exists, check_positive
from cerebro.montage import Montage, hbn_129, read_asa, standard_1005

MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
MICROVOLTS = {"uV": 1.0, "mV": 1e3, "V": 1e6}
RATE_TOLERANCE = 0.01


class ParquetWindows(Reader):
    """Windows of a fixed length in Parquet files: a recording is one participant's run, whatever the files.

    Columns ``participant, run, parent_window_id, sub_window_id, window_start, window_end``, optionally ``remission`` (0
    or 1), in any case, and one column of lists per channel. Windows are ordered by parent, then sub-window, and kept
    side by side as they are: they must have the store's rate and band already; only the offset of each channel goes.
    Shorter windows are padded at their end and longer ones cut, and counted (``window-padded``, ``window-cut``).

    A file is read row group by row group, so that memory holds one recording and 16 MB of its file, and a recording
    that shares a file with others is found fastest where it has row groups of its own. Checksums of pages are verified
    where the file has them (``write_page_checksum=True`` in pyarrow).

    Parameters
    ----------
    root : Path
        Folder of the files.
    name : str
        Name of the data set: the namespace of its participants.
    pattern : str
        Glob of the files below ``root``.
    sfreq : float
        Rate of the samples in Hz.
    window_length : int
        Samples of a window.
    unit : {"uV", "mV", "V"}
        Unit of the samples.
    window_times : {"seconds", "samples"}
        What ``window_start`` and ``window_end`` count, from the start of the run.
    task : str
        Task of all recordings.
    montage : {"standard_1005", "hbn_129"}
        Electrodes that columns may mean, and where they are.
    asa_path : Path or None
        ASA electrode file (``.elc``) with names and places to use in place of ``montage``.
    reference : {"Cz", "average", "linked-ears", "unknown"}
        Reference of the recordings.
    ignore_columns : tuple of str
        Columns of lists that are no electrodes and are to be left out.
    participants : Path or None
        ``.csv`` or ``.tsv`` table, one row per person: ``remission``, age, sex and other columns become labels of the
        person. A ``remission`` in the rows must agree with it.
    participant_column : str
        Its column that names the person.
    labels : tuple of str
        Columns of numbers that are labels of recordings, one value in all rows of a recording: ``label/NAME`` in the
        store.

    Raises
    ------
    ConfigError
        If ``name`` is no plain word or a number is not positive.
    DataError
        If the electrode file cannot be read.
    """

    scan_only = ("pattern", "task", "participants", "participant_column", "labels")

    def __init__(
        self,
        root: Path,
        name: str,
        pattern: str = "**/*.parquet",
        sfreq: float = 256.0,
        window_length: int = 2048,
        unit: Literal["uV", "mV", "V"] = "uV",
        window_times: Literal["seconds", "samples"] = "seconds",
        task: str = "recording",
        montage: Literal["standard_1005", "hbn_129"] = "standard_1005",
        reference: Literal["Cz", "average", "linked-ears", "unknown"] = "unknown",
        ignore_columns: tuple[str, ...] = (),
        participants: Path | None = None,
        participant_column: str = "participant_id",
        asa_path: Path | None = None,
        labels: tuple[str, ...] = (),
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(f"name={name!r} must be one plain word; set name to letters, digits, dash or underscore.")
        check_positive("sfreq", sfreq)
        check_positive("window_length", window_length)
        named = [label for label in labels if label.lower() in (*FIXED, LABEL)]
        if named:
            raise ConfigError(f"labels names {named[0]}, which is read in any case; take it out of labels.")
        self.corpus = name
        self.root = Path(root)
        self.pattern = pattern
        self.sfreq = float(sfreq)
        self.window_length = int(window_length)
        self.unit = unit
        self.window_times = window_times
        self.task = task
        self.reference = reference
        self.ignore_columns = tuple(ignore_columns)
        self.participants = None if participants is None else Path(participants)
        self.participant_column = participant_column
        self.labels = tuple(labels)
        self._montage = montage
        self._own_montage = None if asa_path is None else read_asa(Path(asa_path))

    def montage(self) -> Montage:
        """Give the electrodes named at construction, or those of its electrode file."""
        return MONTAGES[self._montage]() if self._own_montage is None else self._own_montage

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings from the columns that name them; see `Reader.scan`. No channel is read.

        A file whose columns cannot be used, a recording that stands in two files, a participant with two labels and a
        file that lacks channels which the others have are findings, and the rest goes on.

        Raises
        ------
        DataError
            If the folder is absent or holds no file, or the table of participants cannot be used.
        """
        check_exists(self.root, f"folder of data set {self.corpus}", "set root to the folder of the Parquet files.")
        paths = files_below(self.root, self.pattern)
        if not paths:
            raise DataError(f"{self.root} holds no file {self.pattern}; set root or pattern.")
        table = None
        if self.participants is not None:
            table = read_table_of_people(self.participants, self.participant_column)
        findings: list[Finding] = []
        found: dict[tuple[str, str], list[tuple[Path, Recordings]]] = {}
        channels: dict[str, frozenset[str]] = {}
        for path in paths:
            where = path.relative_to(self.root).as_posix()
            try:
                listed = recordings_of(path, self.labels)
            except DataError as error:
                findings.append(Finding("unusable-file", "failed", where, " ".join(str(error).split())))
                continue
            n_broken = sum(bool((np.diff(rows) != 1).any()) for rows in listed.rows.values())
            if n_broken:
                detail = f"rows of {n_broken} of {len(listed.rows)} recordings do not stand together; sorted"
                findings.append(Finding("rows-unsorted", "repaired", where, detail))
            channels[where] = named_channels(listed.list_columns, self.montage(), self.ignore_columns)
            for pair in listed.rows:
                found.setdefault(pair, []).append((path, listed))
        findings += differing_channels(channels)
        in_rows: dict[str, set[float]] = {}
        for pair, places in found.items():
            in_rows.setdefault(pair[0], set()).update(*(listed.labels[pair] for _, listed in places))
        has_labels = any(listed.has_labels for places in found.values() for _, listed in places)
        name = "" if self.participants is None else self.participants.name
        participants, contradicted, counted = people_of(in_rows, has_labels, table, name)
        findings += counted
        entries = []
        for (person, run), places in sorted(found.items()):
            key = f"{person}_run-{run.removeprefix('run-')}"
            path, listed = places[0]
            values = listed.labels[person, run]
            if len(places) > 1:
                names = " and ".join(place.relative_to(self.root).as_posix() for place, _ in places[:2])
                findings.append(Finding("recording-in-two-files", "failed", key, f"its windows stand in {names}"))
            elif twice := [name for name, of in listed.numbers[person, run].items() if len(of) > 1]:
                detail = f"{twice[0]} differs between rows of one recording; make them agree"
                findings.append(Finding("label-contradiction", "failed", key, detail))
            elif person not in contradicted:
                if listed.has_labels and not values:
                    findings.append(Finding("label-missing", "repaired", key, f"no {LABEL} in its rows"))
                others = {name: of for name, of in listed.numbers[person, run].items() if of}
                for name in sorted(set(self.labels) - set(others)):
                    findings.append(Finding("label-missing", "repaired", key, f"no {name} in its rows"))
                number = re.fullmatch(r"(?:run-?)?(\d+)", run)
                entries.append(
                    Entry(
                        key=key,
                        participant=person,
                        task=self.task,
                        path=path,
                        run=int(number[1]) if number else 0,
                        labels={
                            **{name: next(iter(of)) for name, of in others.items()},
                            **({LABEL: next(iter(values))} if values else {}),
                        },
                        part=f"{person}\t{run}",
                    )
                )
        return Scan(entries, findings, participants)

    def load(self, entry: Entry) -> Recording:
        """Read all windows of one recording, in order and side by side; see `Reader.load`.

        Raises
        ------
        DataError
            In one line, naming file, column and window: a damaged file, a missing or unknown column, another type than
            lists of numbers, an empty or missing cell, lists of differing lengths in one window, a window twice, or
            times that contradict the rate.
        """
        file = open_parquet(entry.path)
        columns = fixed_columns(file, entry.path)
        channels = electrode_columns(file, self.montage(), self.ignore_columns, entry.path)
        rows = recordings_of(entry.path).rows.get((entry.participant, entry.part.rpartition("\t")[2]))
        if rows is None:
            raise DataError(f"{entry.path} holds no windows of {entry.key}; run `cerebro prepare` again.")
        where = read_columns(file, [columns[name] for name in FIXED[2:]], entry.path).take(rows)
        ids = [integers(where, columns[name], entry.path) for name in FIXED[2:4]]
        starts, stops = (numbers(where, columns[name], entry.path) for name in FIXED[4:])
        if self.window_times == "samples":
            starts, stops = starts / self.sfreq, stops / self.sfreq
        findings: list[Finding] = []
        order = np.lexsort((ids[1], ids[0]))
        parent, sub = ids[0][order], ids[1][order]
        twice = np.flatnonzero((np.diff(parent) == 0) & (np.diff(sub) == 0))
        if len(twice):
            raise DataError(
                f"{entry.path} holds window {parent[twice[0]]}/{sub[twice[0]]} (parent/sub) of {entry.key} more than "
                f"once ({len(twice)} rows too many); keep one row of each window."
            )
        n_misplaced = int(np.count_nonzero(order != np.arange(len(order))))
        if n_misplaced:
            detail = f"{n_misplaced} of {len(order)} windows stood out of order; sorted by parent, then sub-window"
            findings.append(Finding("windows-unsorted", "repaired", entry.key, detail))
        place = np.full(file.metadata.num_rows, -1, np.int64)  # row of the file -> window of the recording
        place[rows[order]] = np.arange(len(order))
        names = [f"{p}/{s}" for p, s in zip(parent, sub, strict=True)]
        eeg, lengths = self._windows(file, channels, place, names, entry.path)
        starts, stops = starts[order], stops[order]
        n_odd = self._check_times(stops - starts, lengths, entry)
        n_back = int((np.diff(starts) < 0).sum())
        if n_odd or n_back:
            detail = (
                f"of {len(starts)} windows {n_back} start before the one before them and {n_odd} do not last as long "
                "as their samples; kept in the order of their ids"
            )
            findings.append(Finding("window-times", "repaired", entry.key, detail))
        n_valid = np.minimum(lengths, self.window_length)
        for rule, n in (
            ("window-padded", int((lengths < self.window_length).sum())),
            ("window-cut", int((lengths > self.window_length).sum())),
        ):
            if n:
                detail = f"{n} of {len(lengths)} windows do not have {self.window_length} samples"
                findings.append(Finding(rule, "repaired", entry.key, detail))
        stops = np.where(lengths == self.window_length, stops, starts + n_valid / self.sfreq)
        segments = tuple(
            Segment(int(p), int(s), float(start), float(stop), int(n))
            for p, s, start, stop, n in zip(parent, sub, starts, stops, n_valid, strict=True)
        )
        return Recording(
            eeg.reshape(len(channels), -1),
            tuple(channels),
            self.sfreq,
            self.reference,
            findings,
            is_ready=True,
            segments=segments,
        )

    def _windows(
        self, file: Any, channels: dict[str, str], place: Rows, names: Sequence[str], path: Path
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """Microvolts (C, W, L), padded with each channel's mean, and the samples (W,) that each window had."""
        length = self.window_length
        eeg = np.zeros((len(channels), len(names), length), np.float32)
        lengths = np.zeros(len(names), np.int64)
        for first, batch in batches(file, list(channels.values()), place, length, path):
            at = place[first : first + batch.num_rows]
            chosen = np.flatnonzero(at >= 0)
            here = batch if len(chosen) == len(at) else batch.take(pa.array(chosen))
            at = at[chosen]
            for number, column in enumerate(channels.values()):
                n_samples, values = lists(here.column(column), column, [names[window] for window in at], path)
                if number == 0:
                    lengths[at] = n_samples
                for window in at[n_samples != lengths[at]][:1]:
                    raise DataError(
                        f"{path} window {names[window]}: channel {column} has another number of samples than "
                        f"{next(iter(channels.values()))} ({lengths[window]}); mend the window."
                    )
                if (n_samples == length).all():
                    eeg[number, at] = values.reshape(len(at), length)
                else:
                    ends = np.cumsum(n_samples)
                    for window, start, stop in zip(at, ends - n_samples, ends, strict=True):
                        eeg[number, window, : stop - start] = values[start : min(stop, start + length)]
        if not lengths.all():
            raise DataError(f"{path} holds fewer windows than its footer says; replace it by a whole copy.")
        is_there = np.arange(length) < lengths[:, None]  # (W, L)
        for column, samples in zip(channels.values(), eeg, strict=True):
            samples *= np.float32(MICROVOLTS[self.unit])
            mean = samples.mean(where=is_there, dtype=np.float64)
            if not np.isfinite(mean):
                window = int(np.flatnonzero(~np.isfinite(samples).all(axis=1, where=is_there))[0])
                raise DataError(f"{path} window {names[window]}: channel {column} holds NaN or infinite samples.")
            # The mean of all samples stays the mean of those that are there, and the padding is zero once it is gone.
            samples[~is_there] = np.float32(mean)
        return eeg, lengths

    def _check_times(self, duration_s: npt.NDArray[np.float64], lengths: Rows, entry: Entry) -> int:
        """How many windows have a start and end that contradict their samples; DataError where half of them do.

        A wrong rate is the likely reason for many.
        """
        n_stated = duration_s * self.sfreq
        possible = np.stack([lengths, np.full_like(lengths, self.window_length)])  # a padded window may state either
        apart = np.abs(n_stated - possible).min(axis=0)
        most = max(1.0, RATE_TOLERANCE * self.window_length)
        if not np.median(apart) <= most:
            raise DataError(
                f"{entry.path}: windows of {entry.key} last {np.median(duration_s):g} s by window_start and window_end "
                f"and hold {np.median(lengths):g} samples, which at sfreq={self.sfreq:g} last "
                f"{np.median(lengths) / self.sfreq:g} s; set sfreq, or window_times (now {self.window_times})."
            )
        return int((apart > most).sum())
