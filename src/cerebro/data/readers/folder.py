"""Any folder of recordings that MNE-Python reads, or of tables, with a table of participants."""

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd

from cerebro.data.participants import read_participants
from cerebro.data.readers.apart import each_apart
from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan, Skip
from cerebro.data.readers.bids_sidecar import compare_with_sidecar
from cerebro.data.readers.events_file import annotations, bids_events
from cerebro.data.readers.found_files import files_below
from cerebro.data.readers.label_table import LabelTable, with_labels
from cerebro.data.readers.signal_file import electrode_names, read_signal
from cerebro.data.readers.table_file import TableFormat, is_table, read_table_file, table_electrodes, table_events
from cerebro.errors import ConfigError, DataError, check_exists, check_positive
from cerebro.montage import Montage, hbn_129, read_asa, standard_1005

MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
WHO_AND_WHAT = (
    "participants",
    "participant_column",
    "participant_from",
    "session_from",
    "run_from",
    "tasks",
    "labels",
    "label_tables",
)
Value = TypeVar("Value", str, float)


class Folder(Reader):
    """Recordings below one folder; what a recording is stands in its name, who was recorded in a table.

    Names below are paths relative to ``root``, with ``/`` and without suffix. Demographics come from the table of
    participants alone: those in a file's header are often wrong (in nearly all files of PhysioNet's eegmat). A BIDS
    sidecar ``*_eeg.json`` beside a signal is compared with it in rate and duration (`compare_with_sidecar`).

    Parameters
    ----------
    root : Path
        Folder of the recordings.
    name : str
        Name of the data set: the namespace of its participants.
    participants : Path or None
        ``.csv`` or ``.tsv`` table, one row per person. Without one, people are those that names speak of and have no
        labels (counted as ``no-participants-table``).
    participant_column : str
        Its column that names the person.
    participant_from : str
        Regular expression that finds the person in a recording's name; its first group is the value in
        ``participant_column``.
    tasks : dict of str to str
        Regular expression on the name -> task. Recordings that none matches are skipped (rule ``task-unknown``); empty
        = all have the task ``recording``.
    pattern : str
        Glob of the recordings below ``root``; ``**/*.edf`` looks into sub-folders.
    session_from, run_from : str
        Regular expressions that find the session and the number of the run in a recording's name, in their first group;
        empty = there are none.
    labels : dict of str to dict of str to float
        Label -> {regular expression on the name: value}. Where none matches the label is missing (``label-missing``).
    label_tables : dict of str to LabelTable
        Label -> the table in which it stands, in one row or several of each recording, whose median counts.
    montage : {"standard_1005", "hbn_129"}
        Electrodes that channel labels may mean, and where they are.
    asa_path : Path or None
        ASA electrode file (``.elc``) with names and places to use in place of ``montage``.
    files : tuple of Path
        These files below ``root``, whatever ``pattern``; empty = all that it finds.
    reference : {"Cz", "average", "linked-ears", "unknown"}
        Reference of the recordings.
    min_duration_s : float
        Shorter recordings are skipped.
    events : {"none", "annotations", "bids"}
        Where events stand: in the files, as annotations of MNE-Python, or in ``<name>_events.tsv`` beside
        ``<name>_eeg.*``. Those of tables are their markers.
    table : TableFormat or None
        What the columns mean, where recordings are tables (``.parquet``, ``.csv``, ``.tsv``, also ``.gz``).

    Raises
    ------
    ConfigError
        If a regular expression cannot be used or ``name`` is no plain word.
    DataError
        If the electrode file cannot be read.
    """

    scan_only = (*WHO_AND_WHAT, "pattern", "files", "events")

    def __init__(
        self,
        root: Path,
        name: str,
        participants: Path | None = None,
        participant_column: str = "participant_id",
        participant_from: str = "sub-([A-Za-z0-9]+)",
        tasks: dict[str, str] = {},  # noqa: B006 - never changed
        pattern: str = "*.edf",
        labels: dict[str, dict[str, float]] = {},  # noqa: B006 - never changed
        montage: Literal["standard_1005", "hbn_129"] = "standard_1005",
        reference: Literal["Cz", "average", "linked-ears", "unknown"] = "unknown",
        min_duration_s: float = 4.0,
        session_from: str = "",
        run_from: str = "",
        events: Literal["none", "annotations", "bids"] = "none",
        table: TableFormat | None = None,
        label_tables: dict[str, LabelTable] = {},  # noqa: B006 - never changed
        asa_path: Path | None = None,
        files: tuple[Path, ...] = (),
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(f"name={name!r} must be one plain word; set name to letters, digits, dash or underscore.")
        check_positive("min_duration_s", min_duration_s)
        self.corpus = name
        self.root = Path(root)
        self.participants = participants if participants is None else Path(participants)
        self.participant_column = participant_column
        self.participant_from = _group("participant_from", participant_from, r"'(Subject\d+)_'")
        self.session_from = _group("session_from", session_from or "()", r"'_ses-(\d+)_'")
        self.run_from = _group("run_from", run_from or "()", r"'_run-(\d+)_'")
        self.tasks = {_compile("tasks", regex): task for regex, task in (tasks or {"": "recording"}).items()}
        self.labels = {
            label: {_compile(f"labels.{label}", regex): float(value) for regex, value in values.items()}
            for label, values in labels.items()
        }
        self.pattern = pattern
        self.files = tuple(map(Path, files))
        self.reference = reference
        self.min_duration_s = min_duration_s
        self.events = events
        self.table = table
        self.label_tables = dict(label_tables)
        for label in set(self.label_tables) & set(self.labels):
            raise ConfigError(f"label {label} stands in labels and in label_tables; take it out of one of them.")
        self._montage = montage
        self._own_montage = None if asa_path is None else read_asa(Path(asa_path))

    def montage(self) -> Montage:
        """Give the electrodes named at construction, or those of its electrode file."""
        return MONTAGES[self._montage]() if self._own_montage is None else self._own_montage

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings by name; see `Reader.scan`.

        Raises
        ------
        DataError
            If folder, table or every recording is absent, or two values of a label match one name.
        """
        check_exists(self.root, f"folder of data set {self.corpus}", "set root to the folder of the recordings.")
        paths = sorted(self.files) or files_below(self.root, self.pattern)
        if not paths:
            raise DataError(f"{self.root} holds no file {self.pattern}; set root or pattern.")
        if self.table is None and any(map(is_table, paths)):
            name = next(path.name for path in paths if is_table(path))
            raise ConfigError(
                f"{name} is a table and nothing says what its columns are; set table: {{sfreq: 256.0}}, in Hz, and its "
                "other keys."
            )
        findings: list[Finding] = []
        named = [entry for path in paths if (entry := self._entry(path, findings)) is not None]
        absent = {entry.key for entry in named if not entry.path.exists()} if require_signals else set()
        findings += [Finding("signal-missing", "skipped", key, "a link that leads nowhere") for key in sorted(absent)]
        named = [entry for entry in named if entry.key not in absent]
        twice = sorted(key for key, n in Counter(entry.key for entry in named).items() if n > 1)
        if twice:
            raise DataError(f"{self.root} holds {twice[0]} under two suffixes; narrow pattern={self.pattern!r}.")
        entries = self._with_events(named, findings)
        for label, where in self.label_tables.items():
            entries = with_labels(label, where, entries, findings)
        recorded = sorted({entry.participant for entry in entries})
        if self.participants is None:
            detail = f"{len(recorded)} people are known by names alone; they have no age, sex or other label"
            findings.append(Finding("no-participants-table", "repaired", self.corpus, detail))
            people = pd.DataFrame(index=pd.Index([], dtype=object))
        else:
            people = read_participants(self.participants, self.participant_column)
            for person in sorted(set(people.index) - set(recorded)):
                detail = "in the table, no recording"
                findings.append(Finding("participant-without-recording", "skipped", person, detail))
            for person in sorted(set(recorded) - set(people.index)):
                detail = f"no row in {self.participants.name}: labels missing"
                findings.append(Finding("participant-not-listed", "repaired", person, detail))
        return Scan(entries, findings, _rows(people, recorded))

    def _entry(self, path: Path, findings: list[Finding]) -> Entry | None:
        """What a file's name says; None, and a finding, where it does not say enough."""
        name = path.relative_to(self.root)
        key = (name.with_suffix("") if name.suffix.lower() == ".gz" else name).with_suffix("").as_posix()
        person = _found(self.participant_from, key)
        task = _one_match("tasks", self.tasks, key)
        if not person:
            detail = f"participant_from={self.participant_from.pattern!r} finds nobody in the name"
            findings.append(Finding("participant-unknown", "skipped", key, detail))
            return None
        if task is None:
            findings.append(Finding("task-unknown", "skipped", key, "no expression of tasks matches the name"))
            return None
        labels = {}
        for label, values in self.labels.items():
            value = _one_match(f"labels.{label}", values, key)
            if value is None:
                findings.append(Finding("label-missing", "repaired", key, f"no value of {label} for this name"))
            else:
                labels[label] = value
        session, run = (_found(regex, key) for regex in (self.session_from, self.run_from))
        if run and not run.isdecimal():
            raise DataError(f"run_from={self.run_from.pattern!r} finds {run!r} in {key}, no whole number; mend it.")
        return Entry(
            key=key, participant=person, task=task, path=path, run=int(run or 0), session=session, labels=labels
        )

    def _with_events(self, entries: list[Entry], findings: list[Finding]) -> list[Entry]:
        """Entries with their events; those whose events cannot be read are left out as failed."""
        in_files = [
            e.path for e in entries if self.events == "annotations" and not is_table(e.path) and e.path.exists()
        ]
        marks = dict(zip(in_files, annotations(in_files), strict=True))
        kept = []
        for entry in entries:
            events, problem = marks.get(entry.path, ((), ""))
            try:
                if self.table is not None and is_table(entry.path):
                    events = table_events(entry.path, self.table) if entry.path.exists() else ()
                elif self.events == "bids":
                    found = bids_events(entry.path)
                    if found is None:
                        detail = "no events.tsv beside it; kept without events"
                        findings.append(Finding("events-missing", "repaired", entry.key, detail))
                    else:
                        events, n_dropped = found
                        if n_dropped:
                            detail = f"{n_dropped} rows without onset or name dropped"
                            findings.append(Finding("events-dropped", "repaired", entry.key, detail))
            except DataError as error:
                problem = str(error)
            if problem:
                findings.append(Finding("unusable-events", "failed", entry.key, " ".join(problem.split())))
            else:
                kept.append(replace(entry, events=events))
        return kept

    def electrodes(self, entries: Sequence[Entry]) -> Generator[tuple[tuple[str, ...] | None, str], None, None]:
        """Electrodes of each recording, in the montage's order and spelling, from headers; no sample is read.

        ``None`` and in one line why, where a header cannot be used.
        """
        return each_apart(partial(_electrodes, self.montage(), self.table), [entry.path for entry in entries])

    def load(self, entry: Entry) -> Recording:
        """Open one signal; see `Reader.load`."""
        if self.table is not None and is_table(entry.path):
            recording = read_table_file(entry.path, self.table, self.montage(), self.reference, entry.key)
        else:
            recording = read_signal(entry.path, self.montage(), self.reference, entry.key)
            compare_with_sidecar(recording, entry.path, entry.key)
        duration_s = recording.eeg.shape[1] / recording.sfreq
        if duration_s < self.min_duration_s:
            detail = f"{duration_s:g} s, shorter than {self.min_duration_s:g} s"
            raise Skip(Finding("too-short", "skipped", entry.key, detail))
        return recording


def _electrodes(montage: Montage, table: TableFormat | None, path: Path) -> tuple[str, ...]:
    if table is not None and is_table(path):
        return table_electrodes(path, table, montage)
    return electrode_names(path, montage)


def _compile(key: str, regex: str) -> "re.Pattern[str]":
    try:
        return re.compile(regex)
    except re.error as error:
        raise ConfigError(f"{key}={regex!r} is no regular expression ({error}); mend it.") from None


def _group(key: str, regex: str, example: str) -> "re.Pattern[str]":
    """Expression with a group."""
    compiled = _compile(key, regex)
    if compiled.groups < 1:
        raise ConfigError(f"{key}={regex!r} has no group; put brackets around what it finds, such as {example}.")
    return compiled


def _found(regex: "re.Pattern[str]", name: str) -> str:
    """First group of ``regex`` in ``name``; empty where it finds nothing."""
    match = regex.search(name)
    return (match[1] or "") if match else ""


def _one_match(key: str, values: "dict[re.Pattern[str], Value]", name: str) -> Value | None:
    """Value whose expression is found in ``name``; None if there is none, DataError if they contradict."""
    found = [(regex.pattern, value) for regex, value in values.items() if regex.search(name)]
    if len({value for _, value in found}) > 1:
        raise DataError(
            f"recording {name} is matched by {key} {found[0][0]!r} and {found[1][0]!r}; make them exclusive."
        )
    return found[0][1] if found else None


def _rows(table: pd.DataFrame, people: list[str]) -> pd.DataFrame:
    """Rows of ``people``; NaN for those that the table does not list."""
    rows = table.reindex(people)
    rows.index.name = "participant_id"
    return rows
