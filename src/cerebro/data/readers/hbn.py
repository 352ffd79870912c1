"""HBN-EEG in BIDS: one release or a folder of several (Shirazi et al. 2024, doi:10.1101/2024.10.03.615261).

Every defect of the real data is met by a rule that is named, counted and listed in ``docs/reference/hbn_rules.md``.
"""

import json
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pandas as pd

from cerebro.data.participants import ALSO_IN, read_participants, with_names
from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan, Skip
from cerebro.data.readers.hbn_rules import FILM_SECONDS, contrast_change_findings, film_events, resting_findings
from cerebro.data.readers.signal_file import read_signal
from cerebro.data.tables import is_missing, number, parse_table, read_table
from cerebro.errors import ConfigError, DataError, check_exists, check_positive
from cerebro.montage import Montage, canonical_names, hbn_129
from cerebro.progress import progress

TASKS = (
    "RestingState",
    "DespicableMe",
    "DiaryOfAWimpyKid",
    "FunwithFractals",
    "ThePresent",
    "contrastChangeDetection",
    "surroundSupp",
    "seqLearning6target",
    "seqLearning8target",
    "symbolSearch",
)
SIGNAL_SUFFIXES = (".set", ".bdf", ".edf")  # the first that is there is read
DURATION_TOLERANCE_S = 1.0
_NAME = re.compile(
    r"(?P<stem>(?P<participant>sub-[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?_task-(?P<task>[A-Za-z0-9]+)"
    r"(?:_run-(?P<run>[0-9]+))?)_(?P<kind>eeg|events|channels)(?P<suffix>\.[a-z]+)"
)
_CELL = re.compile(r"(?P<task>[A-Za-z0-9]+?)(?:_(?P<run>[0-9]+))?")


@dataclass
class _Files:
    """What the tree holds of one recording."""

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


class HBN(Reader):
    """The Healthy Brain Network's EEG, 129 channels (GSN-HydroCel-129), reference Cz.

    Parameters
    ----------
    root : Path
        A release (the folder of ``participants.tsv``) or a folder of releases.
    tasks : tuple of str
        Tasks to use, of ``TASKS``; all by default.
    releases : tuple of str
        Releases to use, such as ``R1``; empty uses all that are there.
    use_caution : bool
        Whether recordings that the authors marked ``caution`` are used. Of the 87 such recordings in the four releases
        at hand 65 are rests, mostly long ones; 64 have all their events, 11 more were resampled from 250 Hz, and 12
        lack events, which other rules meet. So they are used by default, and counted.
    min_duration_s : float
        Shorter recordings are skipped; 4 s is the shortest that the challenge's start kit uses.

    Raises
    ------
    ConfigError
        If a task is unknown or the duration not positive.
    """

    corpus = "HBN"

    def __init__(
        self,
        root: Path,
        tasks: tuple[str, ...] = TASKS,
        releases: tuple[str, ...] = (),
        use_caution: bool = True,
        min_duration_s: float = 4.0,
    ) -> None:
        unknown = sorted(set(tasks) - set(TASKS))
        if unknown:
            raise ConfigError(f"HBN has no task {', '.join(unknown)}; set tasks to some of {', '.join(TASKS)}.")
        check_positive("min_duration_s", min_duration_s)
        self.root = Path(root)
        self.tasks = tuple(tasks)
        self.releases = tuple(releases)
        self.use_caution = use_caution
        self.min_duration_s = min_duration_s

    def montage(self) -> Montage:
        """Give the net's 129 electrodes."""
        return hbn_129()

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings; see `Reader.scan` and ``docs/reference/hbn_rules.md``."""
        check_exists(self.root, "HBN folder", "set root to a release (ds005505, R1 ...) or a folder of releases.")
        folders = [self.root] if (self.root / "participants.tsv").exists() else sorted(self.root.iterdir())
        folders = [folder for folder in folders if (folder / "participants.tsv").exists()]
        if not folders:
            raise DataError(
                f"{self.root} holds no participants.tsv, nor does a folder in it; set root to a release (ds005505, R1 "
                "...) or a folder of releases."
            )
        entries: list[Entry] = []
        findings: list[Finding] = []
        tables: list[pd.DataFrame] = []
        known: set[str] = set()
        also_in: dict[str, set[str]] = {}
        for folder in folders:
            table = read_participants(folder / "participants.tsv")
            table.index = pd.Index([_with_prefix(name) for name in table.index], name="participant_id", dtype=object)
            if "release_number" not in table:
                table["release_number"] = folder.name
            table["release_number"] = table["release_number"].fillna(folder.name)
            if self.releases:
                table = table[table["release_number"].isin(self.releases)]
                if table.empty:
                    continue
            again = sorted(known & set(table.index))
            for person in again:
                detail = f"also listed by another release; recordings below {folder.name} are left out"
                findings.append(Finding("participant-in-two-releases", "skipped", person, detail))
                also_in.setdefault(person, set()).add(str(table.loc[person, "release_number"]))
            table = table.drop(index=again)
            known |= set(table.index)
            release = _Release(self, folder, table, set(again), require_signals)
            entries += release.entries
            findings += release.findings
            tables.append(release.participants)
        if not tables:
            raise DataError(f"{self.root} holds none of the releases {', '.join(self.releases)}; set releases.")
        return Scan(entries, findings, with_names(pd.concat(tables).sort_index(), ALSO_IN, also_in))

    def load(self, entry: Entry) -> Recording:
        """Open one signal; see `Reader.load`."""
        recording = read_signal(entry.path, self.montage(), "Cz", entry.key)
        skip = _too_few_channels(entry.key, len(recording.channels))
        duration_s = recording.eeg.shape[1] / recording.sfreq
        skip = skip or _too_short(entry.key, duration_s, self.min_duration_s)
        if skip:
            raise Skip(skip)
        sidecar = entry.path.with_suffix(".json")
        if sidecar.exists():
            said_s = _number(_read_json(sidecar), "RecordingDuration")
            if abs(said_s - duration_s) > DURATION_TOLERANCE_S:  # False where unknown
                detail = f"{duration_s:.1f} s in the signal, {said_s:.1f} s in {sidecar.name}; the signal is used"
                recording.findings.append(Finding("duration-differs", "repaired", entry.key, detail))
        return recording


class _Release:
    """Scan of one release: entries, findings and participants."""

    def __init__(
        self, reader: HBN, folder: Path, table: pd.DataFrame, left_out: set[str], require_signals: bool
    ) -> None:
        self.reader = reader
        self.folder = folder
        self.require_signals = require_signals
        self.entries: list[Entry] = []
        self.findings: list[Finding] = []
        self.defaults = {task: self._task_sidecar(task) for task in reader.tasks}
        folders = {path.name: path for path in folder.iterdir() if path.name.startswith("sub-") and path.is_dir()}
        people = sorted(set(table.index) | (set() if reader.releases else set(folders) - left_out))
        cells = [name for name in table.columns if (match := _CELL.fullmatch(name)) and match["task"] in reader.tasks]
        for person in progress(people, f"scan {folder.name}", "participant", len(people)):
            row = table.loc[person] if person in table.index else pd.Series({"release_number": folder.name})
            if person not in table.index:
                self._find("participant-not-listed", "repaired", person, "no row in participants.tsv: labels missing")
            files = _files_of(folders[person], reader.tasks) if person in folders else {}
            said = {cell: str(row[cell]) for cell in cells if cell in row and isinstance(row[cell], str)}
            release = str(row["release_number"])
            self._check_cells(f"{release}/{person}", said, {file.cell for file in files.values()})
            for file in files.values():
                self._take(file, release, said.get(file.cell, "available"))
        self.participants = table.reindex(people).drop(columns=[n for n in table.columns if _is_task_cell(n)])
        self.participants["release_number"] = self.participants["release_number"].fillna(folder.name)

    def _find(self, rule: str, severity: str, where: str, detail: str) -> None:
        self.findings.append(Finding(rule, severity, where, detail))  # type: ignore[arg-type]

    def _task_sidecar(self, task: str) -> dict[str, object]:
        """What all recordings of a task inherit (BIDS inheritance principle)."""
        path = self.folder / f"task-{task}_eeg.json"
        return _read_json(path) if path.exists() else {}

    def _check_cells(self, person_key: str, said: dict[str, str], there: set[str]) -> None:
        """Count cells of the participants table that no recording stands behind."""
        for cell, state in said.items():
            where = f"{person_key}/{cell}"
            if cell not in there and state == "unavailable":
                self._find("task-unavailable", "skipped", where, "marked unavailable, no recording")
            elif cell not in there:
                self._find("recording-absent", "skipped", where, f"marked {state}, no recording")

    def _take(self, file: _Files, release: str, state: str) -> None:
        """Judge one recording and list it unless a rule leaves it out."""
        relative = file.folder.relative_to(self.folder).as_posix()
        key = f"{release}/{relative}/{file.stem}"
        if state == "unavailable":
            return self._find("task-unavailable", "skipped", key, "marked unavailable in participants.tsv")
        if state == "caution":
            if not self.reader.use_caution:
                return self._find("task-caution", "skipped", key, "marked caution in participants.tsv")
            self._find("task-caution", "repaired", key, "marked caution in participants.tsv, used")
        signals = [path for path in file.signals if path.exists()]  # a link may lead nowhere
        if not signals and self.require_signals:
            return self._find("signal-missing", "skipped", key, f"no {', '.join(SIGNAL_SUFFIXES)} file")
        try:
            duration_s, skip = self._check_sidecars(file, key)
            if skip is None:
                events = self._events(file, key, duration_s)
        except DataError as error:
            return self._find("sidecar-damaged", "failed", key, str(error))
        if skip is not None:
            self.findings.append(skip)
            return None
        if len(signals) > 1:
            self._find("several-signals", "repaired", key, f"{len(signals)} signal files; {signals[0].suffix} is used")
        self.entries.append(
            Entry(
                key=key,
                participant=file.participant,
                task=file.task,
                path=(signals or file.signals or [file.folder / f"{file.stem}_eeg.set"])[0],
                run=file.run,
                session=file.session,
                release=release,
                events=events,
            )
        )
        return None

    def _check_sidecars(self, file: _Files, key: str) -> tuple[float, Finding | None]:
        """Duration in seconds (NaN if unknown) and the finding that leaves the recording out, if any."""
        own = file.folder / f"{file.stem}_eeg.json"
        sidecar = self.defaults[file.task] | (_read_json(own) if own.exists() else {})
        if not own.exists():
            self._find("sidecar-missing", "repaired", key, "rate and duration come from the signal")
        elif math.isnan(_number(sidecar, "SamplingFrequency")):
            self._find("sampling-rate-missing", "repaired", key, "the rate comes from the signal")
        duration_s = _number(sidecar, "RecordingDuration")
        channels = file.folder / f"{file.stem}_channels.tsv"
        count = _number(sidecar, "EEGChannelCount")
        if channels.exists():
            verdict = _judge_channels(_read_text(channels))
            if verdict.has_missing_types:
                self._find("channel-types-missing", "repaired", key, "channels are told by their names")
            if verdict.has_missing_units:
                self._find("channel-units-missing", "repaired", key, "the unit comes from the signal")
            if own.exists() and math.isnan(count):
                detail = f"EEGChannelCount missing; {verdict.n_electrodes} counted in channels.tsv"
                self._find("channel-count-missing", "repaired", key, detail)
            elif not math.isnan(count) and count != verdict.n_electrodes:
                detail = f"EEGChannelCount {count:g}, {verdict.n_electrodes} in channels.tsv; the signal decides"
                self._find("channel-count-differs", "repaired", key, detail)
            count = verdict.n_electrodes
        else:
            self._find("channels-missing", "repaired", key, "no channels.tsv; channels come from the signal")
        skip = None if math.isnan(count) else _too_few_channels(key, int(count))
        return duration_s, skip or _too_short(key, duration_s, self.reader.min_duration_s)

    def _events(self, file: _Files, key: str, duration_s: float) -> tuple[Event, ...]:
        path = file.folder / f"{file.stem}_events.tsv"
        columns: tuple[str, ...] = ()
        events: list[Event] = []
        if path.exists():
            table = read_table(path)
            columns = table.columns
            if not {"onset", "value"} <= set(columns):
                raise DataError(f"{path} has no column onset or value (found {', '.join(columns)}).")
            onsets, names = table.column("onset"), table.column("value")
            durations = table.column("duration") if "duration" in columns else ["n/a"] * len(onsets)
            kept, dropped = [], {"event-without-onset": 0, "event-without-name": 0, "event-outside": 0}
            for onset, name, duration in zip(onsets, names, durations, strict=True):
                onset_s, length_s = _seconds(onset, path), _seconds(duration, path)
                if math.isnan(onset_s):
                    dropped["event-without-onset"] += 1
                elif is_missing(name):
                    dropped["event-without-name"] += 1
                elif onset_s < 0 or onset_s > duration_s:
                    dropped["event-outside"] += 1
                else:
                    kept.append(Event(onset_s, name, 0.0 if math.isnan(length_s) else length_s))
            for rule, n in dropped.items():
                if n:
                    self._find(rule, "repaired", key, f"{n} of {len(onsets)} events dropped")
            events = sorted(kept, key=lambda event: event.onset_s)
        else:
            self._find("events-missing", "repaired", key, "no events.tsv; kept without events")
        found = tuple(events)
        if file.task in FILM_SECONDS:
            found, findings = film_events(file.task, found, duration_s, key)
        elif file.task == "RestingState":
            findings = resting_findings(found, key)
        elif file.task == "contrastChangeDetection":
            findings = contrast_change_findings(found, columns, key)
        else:
            findings = []
        self.findings += findings
        return found


@dataclass(frozen=True)
class _Channels:
    n_electrodes: int
    has_missing_types: bool
    has_missing_units: bool


@lru_cache(maxsize=64)  # nearly all recordings have the same table
def _judge_channels(text: str) -> _Channels:
    table = parse_table(text, "\t", Path("channels.tsv"))
    if "name" not in table.columns:
        raise DataError(f"channels.tsv has no column name (found {', '.join(table.columns)}).")
    names = canonical_names(table.column("name"), hbn_129())
    types = table.column("type") if "type" in table.columns else ["n/a"]
    units = table.column("units") if "units" in table.columns else ["n/a"]
    return _Channels(
        n_electrodes=sum(name is not None for name in names),
        has_missing_types=any(is_missing(cell) for cell in types),
        has_missing_units=any(is_missing(cell) for cell in units),
    )


def _files_of(folder: Path, tasks: tuple[str, ...]) -> dict[str, _Files]:
    """Recordings below one participant's folder, by stem, sorted; known by any of their files."""
    found: dict[str, _Files] = {}
    for path in sorted([*folder.glob("eeg/*"), *folder.glob("ses-*/eeg/*")]):
        match = _NAME.fullmatch(path.name)
        if match is None or match["task"] not in tasks or match["participant"] != folder.name:
            continue
        stem = match["stem"]
        file = found.setdefault(
            stem,
            _Files(
                folder=path.parent,
                stem=stem,
                participant=match["participant"],
                session=match["session"] or "",
                task=match["task"],
                run=int(match["run"] or 0),
            ),
        )
        if match["kind"] == "eeg" and match["suffix"] in SIGNAL_SUFFIXES:
            file.signals.append(path)
            file.signals.sort(key=lambda signal: SIGNAL_SUFFIXES.index(signal.suffix))
    return found


def _too_short(key: str, duration_s: float, min_duration_s: float) -> Finding | None:
    if duration_s < min_duration_s:  # False where unknown
        return Finding("too-short", "skipped", key, f"{duration_s:g} s, shorter than {min_duration_s:g} s")
    return None


def _too_few_channels(key: str, n_electrodes: int) -> Finding | None:
    n_montage = len(hbn_129().channels)
    if n_electrodes < n_montage / 2:
        detail = f"{n_electrodes} of {n_montage} electrodes, fewer than half"
        return Finding("six-channel-recording", "skipped", key, detail)
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); replace it by a whole copy.") from None


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); replace it by a whole copy.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; replace it by a whole copy.")
    return content


def _number(sidecar: dict[str, object], field_name: str) -> float:
    """Value of a sidecar field; NaN where it is absent, ``n/a`` or no number."""
    value = sidecar.get(field_name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return number(str(value))
    except ValueError:
        return math.nan


def _seconds(cell: str, path: Path) -> float:
    try:
        return number(cell)
    except ValueError:
        raise DataError(f"{path} has an onset or duration {cell!r}, expected seconds or n/a.") from None


def _with_prefix(name: str) -> str:
    return name if name.startswith("sub-") else f"sub-{name}"


def _is_task_cell(name: str) -> bool:
    match = _CELL.fullmatch(name)
    return bool(match) and match["task"] in TASKS  # type: ignore[index]
