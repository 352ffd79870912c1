"""Any folder of recordings that MNE-Python reads, with a table of participants."""

import re
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd

from cerebro.data.participants import read_participants
from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan, Skip
from cerebro.data.readers.signal_file import read_signal
from cerebro.errors import ConfigError, DataError, check_exists, check_positive
from cerebro.montage import Montage, hbn_129, standard_1005

MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
Value = TypeVar("Value", str, float)


class Folder(Reader):
    """Recordings below one folder; what a recording is stands in its name, who was recorded in a table.

    Names below are paths relative to ``root``, with ``/`` and without suffix. Demographics come from the table alone:
    those in a file's header are often wrong (in nearly all files of PhysioNet's eegmat).

    Parameters
    ----------
    root : Path
        Folder of the recordings.
    name : str
        Name of the data set: the namespace of its participants.
    participants : Path
        ``.csv`` or ``.tsv`` table, one row per person.
    participant_column : str
        Its column that names the person.
    participant_from : str
        Regular expression that finds the person in a recording's name; its first group is the value in
        ``participant_column``.
    pattern : str
        Glob of the recordings below ``root``; ``**/*.edf`` looks into sub-folders.
    tasks : dict of str to str
        Regular expression on the name -> task. Recordings that none matches are skipped (rule ``task-unknown``).
    labels : dict of str to dict of str to float
        Label -> {regular expression on the name: value}. Where none matches the label is missing (``label-missing``).
    montage : {"standard_1005", "hbn_129"}
        Electrodes that channel labels may mean.
    reference : {"Cz", "average", "linked-ears", "unknown"}
        Reference of the recordings.
    min_duration_s : float
        Shorter recordings are skipped.

    Raises
    ------
    ConfigError
        If a regular expression cannot be used or ``name`` is no plain word.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        participants: Path,
        participant_column: str,
        participant_from: str,
        tasks: dict[str, str],
        pattern: str = "*.edf",
        labels: dict[str, dict[str, float]] = {},  # noqa: B006 - never changed
        montage: Literal["standard_1005", "hbn_129"] = "standard_1005",
        reference: Literal["Cz", "average", "linked-ears", "unknown"] = "unknown",
        min_duration_s: float = 4.0,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(f"name={name!r} must be one plain word; set name to letters, digits, dash or underscore.")
        check_positive("min_duration_s", min_duration_s)
        self.corpus = name
        self.root = Path(root)
        self.participants = Path(participants)
        self.participant_column = participant_column
        self.participant_from = _compile("participant_from", participant_from)
        if self.participant_from.groups < 1:
            raise ConfigError(
                f"participant_from={participant_from!r} has no group; put brackets around the participant, such as "
                r"'(Subject\d+)_'."
            )
        self.tasks = {_compile("tasks", regex): task for regex, task in tasks.items()}
        self.labels = {
            label: {_compile(f"labels.{label}", regex): float(value) for regex, value in values.items()}
            for label, values in labels.items()
        }
        self.pattern = pattern
        self.reference = reference
        self.min_duration_s = min_duration_s
        self._montage = montage

    def montage(self) -> Montage:
        """Give the electrodes named at construction."""
        return MONTAGES[self._montage]()

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings by name; see `Reader.scan`. ``require_signals`` changes nothing: only files are listed.

        Raises
        ------
        DataError
            If folder, table or every recording is absent, or two values of a label match one name.
        """
        check_exists(self.root, f"folder of data set {self.corpus}", "set root to the folder of the recordings.")
        table = read_participants(self.participants, self.participant_column)
        paths = sorted(path for path in self.root.glob(self.pattern) if path.is_file())
        if not paths:
            raise DataError(f"{self.root} holds no file {self.pattern}; set root or pattern.")
        entries: list[Entry] = []
        findings: list[Finding] = []
        for path in paths:
            key = path.relative_to(self.root).with_suffix("").as_posix()
            match = self.participant_from.search(key)
            task = _one_match("tasks", self.tasks, key)
            if match is None or not match[1]:
                detail = f"participant_from={self.participant_from.pattern!r} finds nobody in the name"
                findings.append(Finding("participant-unknown", "skipped", key, detail))
            elif task is None:
                findings.append(Finding("task-unknown", "skipped", key, "no expression of tasks matches the name"))
            else:
                labels = {}
                for label, values in self.labels.items():
                    value = _one_match(f"labels.{label}", values, key)
                    if value is None:
                        findings.append(Finding("label-missing", "repaired", key, f"no value of {label} for this name"))
                    else:
                        labels[label] = value
                entries.append(Entry(key=key, participant=match[1], task=task, path=path, labels=labels))
        recorded = sorted({entry.participant for entry in entries})
        for person in sorted(set(table.index) - set(recorded)):
            findings.append(Finding("participant-without-recording", "skipped", person, "in the table, no recording"))
        for person in sorted(set(recorded) - set(table.index)):
            detail = f"no row in {self.participants.name}: labels missing"
            findings.append(Finding("participant-not-listed", "repaired", person, detail))
        twice = sorted({entry.key for entry in entries if sum(other.key == entry.key for other in entries) > 1})
        if twice:
            raise DataError(f"{self.root} holds {twice[0]} under two suffixes; narrow pattern={self.pattern!r}.")
        return Scan(entries, findings, _rows(table, recorded))

    def load(self, entry: Entry) -> Recording:
        """Open one signal; see `Reader.load`."""
        recording = read_signal(entry.path, self.montage(), self.reference, entry.key)
        duration_s = recording.eeg.shape[1] / recording.sfreq
        if duration_s < self.min_duration_s:
            detail = f"{duration_s:g} s, shorter than {self.min_duration_s:g} s"
            raise Skip(Finding("too-short", "skipped", entry.key, detail))
        return recording


def _compile(key: str, regex: str) -> "re.Pattern[str]":
    try:
        return re.compile(regex)
    except re.error as error:
        raise ConfigError(f"{key}={regex!r} is no regular expression ({error}); mend it.") from None


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
