"""Scan of an HBN-EEG tree: who is there, which copy of each recording is used, and what each rule says of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from cerebro.data.participants import ALSO_IN, with_names
from cerebro.data.readers.base import Entry, Event, Finding, Scan, Severity
from cerebro.data.readers.bids_sidecar import read_json, sidecar_number
from cerebro.data.readers.hbn_files import SIGNAL_SUFFIXES, RecordingFiles, ReleaseFolder, is_task_cell, recording_files
from cerebro.data.readers.hbn_modes import FACTORS, Mode, left_out_by_mode
from cerebro.data.readers.hbn_rules import FILM_SECONDS, contrast_change_findings, film_events, resting_findings
from cerebro.data.readers.hbn_sidecars import EventsFile, read_channels, read_events
from cerebro.errors import DataError
from cerebro.montage import hbn_129
from cerebro.progress import progress


@dataclass
class _Person:
    """A participant, the release that counts, and the copies of it that hold the person, in the order of reading."""

    release: str
    row: pd.Series
    homes: list[ReleaseFolder] = field(default_factory=list)


@dataclass
class TreeScan:
    """Scan of the release folders of one tree.

    Parameters
    ----------
    folders : list of ReleaseFolder
        In the order of reading: of two copies the first is preferred.
    tasks, mode, releases, use_caution, min_duration_s
        As given to the reader.
    require_signals : bool
        Whether a recording without a signal file is skipped.
    findings : list of Finding
        What was found before; the scan adds to it.
    """

    folders: list[ReleaseFolder]
    tasks: tuple[str, ...]
    mode: Mode
    releases: tuple[str, ...]
    use_caution: bool
    min_duration_s: float
    require_signals: bool
    findings: list[Finding]

    def scan(self) -> Scan:
        """List recordings, findings and participants.

        Raises
        ------
        DataError
            If none of the releases asked for is there.
        """
        self._entries: list[Entry] = []
        self._also_in: dict[str, set[str]] = {}
        people = self._people()
        if not people:
            found = sorted({release for folder in self.folders for release in folder.table["release_number"]})
            raise DataError(
                f"{self.folders[0].path.parent} holds none of the releases {', '.join(self.releases)} (found "
                f"{', '.join(found) or 'none'}); set releases."
            )
        for folder in self.folders:
            self.findings += folder.quality[1]
        for name in progress(sorted(people), "scan", "participant", len(people)):
            self._take_person(name, people[name])
        rows = {name: person.row for name, person in people.items()}
        table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="participant_id", dtype=object))
        table = table.drop(columns=[column for column in table.columns if is_task_cell(str(column))]).sort_index()
        table = table.infer_objects()
        if self.mode == "challenge2":
            self._count_missing_factors(table)
        return Scan(self._entries, self.findings, with_names(table, ALSO_IN, self._also_in))

    def _find(self, rule: str, severity: Severity, where: str, detail: str) -> None:
        self.findings.append(Finding(rule, severity, where, detail))

    # People -----------------------------------------------------------------------------------------------------------
    def _people(self) -> dict[str, _Person]:
        people: dict[str, _Person] = {}
        for folder in self.folders:
            for name in folder.repeated:
                self._find("participant-row-twice", "repaired", f"{folder.path.name}/{name}", "equal rows count once")
            for name, release, row in self._rows(folder):
                if self.releases and release not in self.releases:
                    continue
                known = people.get(name)
                if known is None:
                    people[name] = _Person(release, row, [folder])
                    if name not in folder.table.index:
                        detail = "no row in participants.tsv: labels missing"
                        self._find("participant-not-listed", "repaired", name, detail)
                elif known.release == release:
                    known.homes.append(folder)
                    self._compare(name, known, folder)
                else:
                    detail = f"also listed by another release; recordings below {folder.path.name} are left out"
                    self._find("participant-in-two-releases", "skipped", name, detail)
                    self._also_in.setdefault(name, set()).add(release)
        return people

    def _rows(self, folder: ReleaseFolder) -> Iterator[tuple[str, str, pd.Series]]:
        """Name, release and table row of everyone in a folder; people without a row come with their folder's release.

        A person whom another copy of the release lists needs no row of his own.
        """
        for name, row in folder.table.iterrows():
            yield str(name), str(row["release_number"]), row
        listed = {
            name for other in self.folders if other.release == folder.release for name in other.table.index
        } | set(folder.table.index)
        for name in sorted(set(folder.people) - listed):
            yield name, folder.release, pd.Series({"release_number": folder.release}, dtype=object)

    def _compare(self, name: str, known: _Person, folder: ReleaseFolder) -> None:
        """Count a person whose labels differ between two copies; those of the copy read first are used."""
        if name not in folder.table.index:
            return
        other = folder.table.loc[name]
        shared = [column for column in known.row.index if column in other.index and not is_task_cell(str(column))]
        differs = [
            str(column)
            for column in shared
            if known.row[column] != other[column] and not (pd.isna(known.row[column]) and pd.isna(other[column]))
        ]
        if differs:
            detail = f"{', '.join(differs)} differ; those of {known.homes[0].path.name} are used"
            self._find("copies-disagree", "repaired", f"{folder.path.name}/{name}", detail)

    def _count_missing_factors(self, table: pd.DataFrame) -> None:
        """Challenge 2 keeps people whose factor is unknown: the label is masked, the recording still serves."""
        present = [column for column in FACTORS if column in table.columns]
        for name in sorted({entry.participant for entry in self._entries}):
            missing = [column for column in present if table[column].isna()[name]]
            if missing or not present:
                self._find("factors-missing", "repaired", name, f"{', '.join(missing or FACTORS)} masked, kept")

    # Recordings -------------------------------------------------------------------------------------------------------
    def _take_person(self, name: str, person: _Person) -> None:
        copies: dict[str, list[RecordingFiles]] = {}
        for home in person.homes:
            for stem, files in recording_files(home, name, self.tasks).items():
                copies.setdefault(stem, []).append(files)
        cells = {str(column): cell for column, cell in person.row.items() if is_task_cell(str(column), self.tasks)}
        said = {column: cell for column, cell in cells.items() if isinstance(cell, str)}
        self._check_cells(f"{person.release}/{name}", said, {found[0].cell for found in copies.values()})
        for stem in sorted(copies):
            self._take(self._best_copy(copies[stem]), person.release, said.get(copies[stem][0].cell, "available"))

    def _check_cells(self, person_key: str, said: dict[str, str], there: set[str]) -> None:
        """Count cells of the participants table that no recording stands behind."""
        for cell, state in said.items():
            where = f"{person_key}/{cell}"
            if cell not in there and state == "unavailable":
                self._find("task-unavailable", "skipped", where, "marked unavailable, no recording")
            elif cell not in there:
                self._find("recording-absent", "skipped", where, f"marked {state}, no recording")

    def _best_copy(self, copies: list[RecordingFiles]) -> RecordingFiles:
        """The first copy whose signal is there, else the first; the others are counted and not read."""
        there = [files for files in copies if files.present()]
        best = (there or copies)[0]
        for files in there if self.require_signals else copies:
            if files is not best:
                detail = f"the copy in {best.home.path.name} is used"
                self._find("second-copy", "skipped", f"{files.home.path.name}/{files.path}", detail)
        return best

    def _take(self, files: RecordingFiles, release: str, state: str) -> None:
        """Judge one recording and list it unless a rule leaves it out."""
        key = f"{release}/{files.path}"
        if state == "unavailable":
            return self._find("task-unavailable", "skipped", key, "marked unavailable in participants.tsv")
        if state == "caution":
            if not self.use_caution:
                return self._find("task-caution", "skipped", key, "marked caution in participants.tsv")
            self._find("task-caution", "repaired", key, "marked caution in participants.tsv, used")
        signals = files.present()
        if not signals and self.require_signals:
            return self._find("signal-missing", "skipped", key, f"no {', '.join(SIGNAL_SUFFIXES)} file")
        try:
            duration_s, skip = self._check_sidecars(files, key)
            if skip is None:
                n_before = len(self.findings)
                events = self._events(files, key, duration_s)
                seen = {finding.rule for finding in self.findings[n_before:]}
                skip = left_out_by_mode(self.mode, events, key, sorted(seen))
                if skip is not None:
                    del self.findings[n_before:]  # they say what the recording is kept with
        except DataError as error:
            return self._find("sidecar-damaged", "failed", key, str(error))
        if skip is not None:
            self.findings.append(skip)
            return None
        if len(signals) > 1:
            self._find("several-signals", "repaired", key, f"{len(signals)} signal files; {signals[0].suffix} is used")
        self._entries.append(
            Entry(
                key=key,
                participant=files.participant,
                task=files.task,
                path=(signals or files.signals or [files.beside("_eeg.set")])[0],
                run=files.run,
                session=files.session,
                release=release,
                events=events,
            )
        )
        return None

    def _check_sidecars(self, files: RecordingFiles, key: str) -> tuple[float, Finding | None]:
        """Duration in seconds (NaN if unknown) and the finding that leaves the recording out, if any."""
        own = files.beside("_eeg.json")
        sidecar = files.home.sidecar(files.task) | (read_json(own) if own.exists() else {})
        if not own.exists():
            self._find("sidecar-missing", "repaired", key, "rate and duration come from the signal")
        elif math.isnan(sidecar_number(sidecar, "SamplingFrequency")):
            self._find("sampling-rate-missing", "repaired", key, "the rate comes from the signal")
        duration_s = sidecar_number(sidecar, "RecordingDuration")
        channels = files.beside("_channels.tsv")
        count = sidecar_number(sidecar, "EEGChannelCount")
        if channels.exists():
            verdict = read_channels(channels)
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
        skip = None if math.isnan(count) else too_few_channels(key, int(count))
        return duration_s, skip or too_short(key, duration_s, self.min_duration_s)

    def _events(self, files: RecordingFiles, key: str, duration_s: float) -> tuple[Event, ...]:
        path = files.beside("_events.tsv")
        table = EventsFile((), (), 0, {})
        if path.exists():
            table = read_events(path, duration_s)
            for rule, n in table.dropped.items():
                if n:
                    self._find(rule, "repaired", key, f"{n} of {table.n_rows} events dropped")
        else:
            self._find("events-missing", "repaired", key, "no events.tsv; kept without events")
        quality = files.home.quality[0].get((files.participant, files.cell))
        if quality is not None:
            self.findings += quality.findings(key, duration_s, table.n_rows)
        found = table.events
        findings: list[Finding] = []
        if files.task in FILM_SECONDS:
            found, findings = film_events(files.task, found, duration_s, key)
        elif files.task == "RestingState":
            findings = resting_findings(found, key)
        elif files.task == "contrastChangeDetection":
            findings = contrast_change_findings(found, table.columns, key)
        self.findings += findings
        return found


def too_short(key: str, duration_s: float, min_duration_s: float) -> Finding | None:
    """The finding that leaves a short recording out; None where it is long enough or its length is unknown."""
    if duration_s < min_duration_s:  # False where unknown
        return Finding("too-short", "skipped", key, f"{duration_s:g} s, shorter than {min_duration_s:g} s")
    return None


def too_few_channels(key: str, n_electrodes: int) -> Finding | None:
    """The finding that leaves a recording of fewer than half of the net's electrodes out."""
    n_montage = len(hbn_129().channels)
    if n_electrodes < n_montage / 2:
        detail = f"{n_electrodes} of {n_montage} electrodes, fewer than half"
        return Finding("six-channel-recording", "skipped", key, detail)
    return None
