"""Where the recordings of HBN-EEG lie: release folders, their 500 Hz and 100 Hz copies, the files of a recording.

A release can lie in a folder of any name (``ds005509``, ``cmi_bids_R5``), and the 2025 EEG Foundation Challenge hands
out copies at 100 Hz in folders named ``R5_L100``, ``R5_L100_bdf`` or, with few people, ``R5_mini_L100_bdf``. Copies of
one release hold the same people and recordings under the same names.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from cerebro.data.participants import read_people
from cerebro.data.readers.base import Finding
from cerebro.data.readers.hbn_modes import TASKS
from cerebro.data.readers.hbn_sidecars import Quality, quality_tables, task_sidecar
from cerebro.errors import DataError, check_exists

Copies = Literal["any", "original", "challenge"]
SIGNAL_SUFFIXES = (".set", ".bdf", ".edf")  # the first that is there is read
# Releases of the OpenNeuro data sets, for tables that do not say (README of ds005509).
DATA_SETS = {f"ds{5505 + at:06d}": f"R{1 + at}" for at in range(8)} | {
    "ds005514": "R9",
    "ds005515": "R10",
    "ds005516": "R11",
}
_NUMBER = re.compile(r"(\d+)(?:\.0)?|(?:.*_)?R(\d+)(?:_.*)?", re.IGNORECASE)
_CHALLENGE = re.compile(r"_L100(?:_bdf)?$", re.IGNORECASE)
_NAME = re.compile(
    r"(?P<stem>(?P<participant>sub-[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?_task-(?P<task>[A-Za-z0-9]+)"
    r"(?:_run-(?P<run>[0-9]+))?)_(?P<kind>eeg|events|channels)(?P<suffix>\.[a-z]+)"
)
_CELL = re.compile(r"(?P<task>[A-Za-z0-9]+?)(?:_(?P<run>[0-9]+))?")


@dataclass
class ReleaseFolder:
    """One copy of one release: the folder of a ``participants.tsv``.

    Parameters
    ----------
    path : Path
        The folder.
    release : str
        Release of most of its people, such as ``R5``.
    table : pandas.DataFrame
        Participants by ``sub-...``; ``release_number`` is filled and spelled ``R5``.
    repeated : tuple of str
        People who stand in the table more than once, with equal rows.
    """

    path: Path
    release: str
    table: pd.DataFrame
    repeated: tuple[str, ...] = ()
    _sidecars: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def is_challenge(self) -> bool:
        """Whether this is a 100 Hz copy of the challenge, by its name."""
        return bool(_CHALLENGE.search(self.path.name))

    @property
    def rank(self) -> tuple[int, str, int, str]:
        """Order of reading: by release, then original before challenge copy before its small form."""
        kind = (1 + ("_mini" in self.path.name.lower())) if self.is_challenge else 0
        number = re.fullmatch(r"R(\d+)", self.release)
        return (int(number[1]) if number else 10_000, self.release, kind, self.path.name)

    @cached_property
    def people(self) -> dict[str, Path]:
        """Folders of participants by their names."""
        return {path.name: path for path in self.path.iterdir() if path.name.startswith("sub-") and path.is_dir()}

    def sidecar(self, task: str) -> dict[str, object]:
        """What all recordings of a task inherit (BIDS inheritance principle)."""
        if task not in self._sidecars:
            self._sidecars[task] = task_sidecar(self.path, task)
        return self._sidecars[task]

    @cached_property
    def quality(self) -> tuple[dict[tuple[str, str], Quality], list[Finding]]:
        """What the authors' quality tables say of (participant, cell), and tables that cannot be read."""
        return quality_tables(self.path / "code")


@dataclass
class RecordingFiles:
    """What one copy holds of one recording."""

    home: ReleaseFolder
    folder: Path
    stem: str
    participant: str
    session: str
    task: str
    run: int
    signals: list[Path] = field(default_factory=list)

    @property
    def cell(self) -> str:
        """Column of the participants table that speaks of this recording."""
        return f"{self.task}_{self.run}" if self.run else self.task

    @property
    def path(self) -> str:
        """Name below the release folder, without suffix: the same in every copy."""
        return f"{self.folder.relative_to(self.home.path).as_posix()}/{self.stem}"

    def beside(self, ending: str) -> Path:
        """A file of this recording, such as ``_events.tsv``."""
        return self.folder / f"{self.stem}{ending}"

    def present(self) -> list[Path]:
        """Signal files that can be opened; a link may lead nowhere."""
        return [path for path in self.signals if path.exists()]


def release_folders(root: Path, copies: Copies) -> tuple[list[ReleaseFolder], list[Finding]]:
    """Folders to read in their order, and the copies that ``copies`` leaves out.

    Raises
    ------
    DataError
        If there is no such folder, or none of the kind asked for.
    """
    hint = "set root to a release (ds005505, R1 ...) or a folder of releases."
    check_exists(root, "HBN folder", hint)
    paths = [root] if (root / "participants.tsv").exists() else sorted(root.iterdir())
    paths = [path for path in paths if (path / "participants.tsv").exists()]
    if not paths:
        raise DataError(f"{root} holds no participants.tsv, nor does a folder in it; {hint}")
    folders = [_open(path) for path in paths]
    kept = [folder for folder in folders if copies in ("any", "challenge" if folder.is_challenge else "original")]
    if not kept:
        found = ", ".join(folder.path.name for folder in folders)
        raise DataError(f"{root} holds no {copies} copy of a release (found {found}); set copies to any.")
    left_out = [
        Finding("copy-left-out", "skipped", folder.path.name, f"copies={copies} does not read this folder")
        for folder in folders
        if folder not in kept
    ]
    return sorted(kept, key=lambda folder: folder.rank), left_out


def _open(path: Path) -> ReleaseFolder:
    table, repeated = read_people(path / "participants.tsv")
    table.index = pd.Index([_with_prefix(name) for name in table.index], name="participant_id", dtype=object)
    if twice := sorted(set(table.index[table.index.duplicated()])):
        raise DataError(f"{path / 'participants.tsv'} lists {twice[0]} with and without sub-; keep one row of each.")
    own = release_name(path.name)
    if "release_number" not in table:
        table["release_number"] = own
    releases = [own if pd.isna(cell) else release_name(str(cell)) for cell in table["release_number"]]
    table["release_number"] = pd.Series(releases, index=table.index, dtype=object)
    counts = {name: releases.count(name) for name in sorted(set(releases))}
    most = max(counts, key=lambda name: counts[name]) if counts else own
    return ReleaseFolder(path, most, table, tuple(_with_prefix(name) for name in repeated))


def release_name(text: str) -> str:
    """``R5`` for ``R5``, ``5``, ``R5_L100_bdf``, ``cmi_bids_R5`` and ``ds005509``; other text as it is."""
    if text in DATA_SETS:
        return DATA_SETS[text]
    number = _NUMBER.fullmatch(text)
    return f"R{int(number[1] or number[2])}" if number else text


def recording_files(home: ReleaseFolder, person: str, tasks: tuple[str, ...]) -> dict[str, RecordingFiles]:
    """Recordings below one participant's folder, by stem, sorted; known by any of their files."""
    if person not in home.people:
        return {}
    folder = home.people[person]
    found: dict[str, RecordingFiles] = {}
    for path in sorted([*folder.glob("eeg/*"), *folder.glob("ses-*/eeg/*")]):
        match = _NAME.fullmatch(path.name)
        if match is None or match["task"] not in tasks or match["participant"] != folder.name:
            continue
        stem = match["stem"]
        session, run = match["session"] or "", int(match["run"] or 0)
        files = found.setdefault(
            stem, RecordingFiles(home, path.parent, stem, match["participant"], session, match["task"], run)
        )
        if match["kind"] == "eeg" and match["suffix"] in SIGNAL_SUFFIXES:
            files.signals.append(path)
            files.signals.sort(key=lambda signal: SIGNAL_SUFFIXES.index(signal.suffix))
    return found


def is_task_cell(name: str, tasks: tuple[str, ...] = TASKS) -> bool:
    """Whether a column of the participants table speaks of a recording of these tasks."""
    match = _CELL.fullmatch(name)
    return match is not None and match["task"] in tasks


def _with_prefix(name: str) -> str:
    return name if name.startswith("sub-") else f"sub-{name}"
