"""Recordings that nobody has prepared, as the windows that a trained model takes: raw files, folders, primary Parquet.

Each file is read in a child process (`cerebro.data.readers.apart`), so that a damaged one never ends the command.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from cerebro.data.primary import windowed
from cerebro.data.processing import Processing
from cerebro.data.readers.apart import each_apart
from cerebro.data.readers.base import Entry, Finding, Recording, Skip
from cerebro.data.readers.found_files import files_below
from cerebro.data.readers.parquet import ParquetWindows
from cerebro.data.readers.signal_file import read_signal
from cerebro.data.readers.table_file import TableFormat, is_table, read_table_file
from cerebro.data.readers.windows_file import recordings_of
from cerebro.data.source_files import hash_sources
from cerebro.errors import DataError

SIGNALS = (".edf", ".bdf", ".gdf", ".set", ".vhdr", ".fif", ".cnt", ".mff", ".nwb", ".fif.gz")
WINDOW_COLUMNS = {"parent_window_id", "sub_window_id"}  # by which a table of windows is known


@dataclass(frozen=True)
class NewRecording:
    """Windows of one recording, without offset, in order.

    Parameters
    ----------
    key, participant : str
        Name of the recording, and of the person.
    source_sha256 : str
        First 16 digits of the hash of its bytes, as stamps keep them.
    eeg : float32 array (N, C, L)
        Microvolts, zero behind the valid samples of a window.
    channels : tuple of str
        C names.
    start_s, end_s : float64 array (N,)
        Seconds from the start of the recording.
    n_valid : int64 array (N,)
        Samples of each window that are there.
    sfreq : float
        Hz.
    findings : tuple of Finding
        What was repaired or left out.
    absent : tuple of str
        Channels that were asked for and are not in the recording.
    """

    key: str
    participant: str
    source_sha256: str
    eeg: Float32[ndarray, "N C L"]
    channels: tuple[str, ...]
    start_s: Float64[ndarray, " N"]
    end_s: Float64[ndarray, " N"]
    n_valid: Int64[ndarray, " N"]
    sfreq: float
    findings: tuple[Finding, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What is asked of new recordings.

    Parameters
    ----------
    plan : Processing, optional
        What is done to raw recordings; None = unknown, so that only windows can be read.
    channels : tuple of str
        Channels of the model; others are left out.
    sfreq : float
        Rate of the model in Hz.
    table_sfreq : float
        Rate of recordings that are continuous tables; 0 = not said.
    participant_from : str
        Regular expression on the name of a file, whose first group is the participant; empty = the name.
    """

    plan: Processing | None
    channels: tuple[str, ...]
    sfreq: float
    table_sfreq: float = 0.0
    participant_from: str = ""


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Files that are named, and the recordings below folders that are, each once and in order.

    Raises
    ------
    DataError
        In one line: nothing there, or a folder without a recording.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"recording {path} not found; give files, folders of them or a primary Parquet file.")
        below = [path]
        if path.is_dir() and path.suffix.lower() not in SIGNALS:
            below = [file for file in files_below(path, "**/*") if _is_recording(file)]
            if not below:
                raise DataError(
                    f"{path} holds no recording ({', '.join(SIGNALS[:6])}, .parquet, ...); give another folder."
                )
        found |= dict.fromkeys(below)
    return list(found)


def read_new(paths: Sequence[Path], wanted: Wanted) -> Iterator[tuple[Path, list[NewRecording], str]]:
    """Each file, its recordings, and in one line why there are none.

    Parameters
    ----------
    paths : sequence of Path
        Files, as `files_of` gives them.
    wanted : Wanted
        What is asked of them.
    """
    for path, (found, problem) in zip(paths, each_apart(partial(_read, wanted=wanted), paths), strict=True):
        yield path, found or [], " ".join(problem.split())


def is_windows(path: Path) -> bool:
    """Whether a file is a table of windows, as ``cerebro process-primary`` writes."""
    if path.suffix.lower() != ".parquet":
        return False
    try:
        return {name.lower() for name in pq.read_schema(path).names} >= WINDOW_COLUMNS
    except (pa.ArrowException, OSError):
        return False


def _is_recording(file: Path) -> bool:
    return file.name.lower().endswith((*SIGNALS, ".parquet"))


def _read(path: Path, wanted: Wanted) -> list[NewRecording]:
    """Recordings of one file; runs in a child process."""
    try:
        return _windows(path, wanted) if is_windows(path) else [_raw(path, wanted)]
    except Skip as skip:
        raise DataError(f"{path}: {skip.finding.detail}; give a longer or cleaner recording.") from None
    except DataError as error:
        text = str(error)
        raise DataError(text if str(path) in text else f"{path}: {text}") from None


def _raw(path: Path, wanted: Wanted) -> NewRecording:
    plan, key = wanted.plan, _stem(path)
    if plan is None:
        raise DataError(
            f"{path} is a raw recording, and the model does not know how its own were processed; add --processing "
            "FILE (the config of `cerebro process-primary`), or give a primary Parquet file."
        )
    recording = _signal(path, plan, wanted, key)
    there = {name.upper() for name in recording.channels}
    asked = plan.channels or wanted.channels
    present = tuple(name for name in asked if name.upper() in there)
    if not present:
        raise DataError(
            f"{path} has no channel of the model ({', '.join(asked[:6])}); it has {', '.join(recording.channels[:6])}; "
            "give a recording of the same headset."
        )
    found = windowed(recording, replace(plan, channels=present), key)
    return NewRecording(
        key=key,
        participant=_participant(path, wanted.participant_from),
        source_sha256=hash_sources(path).source[:16],
        eeg=np.ascontiguousarray(found.eeg),
        channels=found.channels,
        start_s=found.start_s,
        end_s=found.end_s,
        n_valid=np.full(len(found.eeg), found.eeg.shape[2], np.int64),
        sfreq=plan.downsample_hz,
        findings=found.findings,
        absent=tuple(name for name in asked if name.upper() not in there),
    )


def _signal(path: Path, plan: Processing, wanted: Wanted, key: str) -> Recording:
    montage = plan.electrodes()
    if is_table(path):
        if not wanted.table_sfreq:
            raise DataError(f"{path} is a table and nothing says its rate; add --sfreq HZ.")
        return read_table_file(path, TableFormat(sfreq=wanted.table_sfreq), montage, "unknown", key)
    return read_signal(path, montage, "unknown", key)


def _windows(path: Path, wanted: Wanted) -> list[NewRecording]:
    """Every recording of a table of windows."""
    listed = recordings_of(path)
    reader = ParquetWindows(path.parent, "new", sfreq=wanted.sfreq, window_length=_window_samples(path))
    ignored = _other_lists(path, reader)
    if ignored:
        reader = ParquetWindows(
            path.parent, "new", sfreq=wanted.sfreq, window_length=reader.window_length, ignore_columns=ignored
        )
    found = []
    for person, run in sorted(listed.rows):
        part = f"{person}\t{run}"
        entry = Entry(f"{person}_run-{run.removeprefix('run-')}", person, "recording", path, part=part)
        recording = reader.load(entry)
        found.append(_from_segments(recording, entry, hash_sources(path, part).source[:16], wanted))
    return found


def _from_segments(recording: Recording, entry: Entry, digest: str, wanted: Wanted) -> NewRecording:
    n, place = len(recording.segments), {name.upper(): row for row, name in enumerate(recording.channels)}
    present = [name for name in wanted.channels if name.upper() in place]
    if not present:
        raise DataError(
            f"{entry.path} has no channel of the model ({', '.join(wanted.channels[:6])}); it has "
            f"{', '.join(recording.channels[:6])}; give a recording of the same headset."
        )
    n_valid = np.array([segment.n_valid for segment in recording.segments], np.int64)
    rows = [place[name.upper()] for name in present]
    eeg = np.ascontiguousarray(recording.eeg.reshape(len(recording.channels), n, -1)[rows].transpose(1, 0, 2))
    is_there = np.arange(eeg.shape[2]) < n_valid[:, None]  # (N, L)
    mean = (eeg * is_there[:, None]).sum(axis=(0, 2), dtype=np.float64) / is_there.sum()
    eeg = np.where(is_there[:, None], eeg - mean[None, :, None], 0.0).astype(np.float32)
    return NewRecording(
        key=entry.key,
        participant=entry.participant,
        source_sha256=digest,
        eeg=eeg,
        channels=tuple(name.upper() for name in present),
        start_s=np.array([segment.start_s for segment in recording.segments]),
        end_s=np.array([segment.stop_s for segment in recording.segments]),
        n_valid=n_valid,
        sfreq=recording.sfreq,
        findings=tuple(recording.findings),
        absent=tuple(name for name in wanted.channels if name.upper() not in place),
    )


def _window_samples(path: Path) -> int:
    """Samples of the first window of a table of windows."""
    file = pq.ParquetFile(path)
    lists = [
        field.name for field in file.schema_arrow if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    ]
    lists += [field.name for field in file.schema_arrow if pa.types.is_fixed_size_list(field.type)]
    if not lists or not file.metadata.num_rows:
        raise DataError(f"{path} holds no windows; write it again with `cerebro process-primary`.")
    first = next(file.iter_batches(batch_size=1, columns=lists[:1]))
    return max(1, len(first.column(0)[0]))


def _other_lists(path: Path, reader: ParquetWindows) -> tuple[str, ...]:
    """Columns of lists that are no electrodes: a table of windows may hold more than the model asks for."""
    from cerebro.montage import canonical_names

    schema = pq.read_schema(path)
    lists = [field.name for field in schema if pa.types.is_nested(field.type)]
    return tuple(
        name for name, known in zip(lists, canonical_names(lists, reader.montage()), strict=True) if known is None
    )


def _participant(path: Path, regex: str) -> str:
    if not regex:
        return _stem(path)
    try:
        match = re.search(regex, path.as_posix())
    except re.error as error:
        raise DataError(f"--participant-from {regex!r} is no regular expression ({error}); mend it.") from None
    if match is None or not match.groups() or not match[1]:
        raise DataError(
            f"--participant-from {regex!r} finds nobody in {path}; put brackets around what names the person."
        )
    return match[1]


def _stem(path: Path) -> str:
    name = path.name
    for suffix in sorted((*SIGNALS, ".csv.gz", ".tsv.gz", ".csv", ".tsv", ".parquet"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem
