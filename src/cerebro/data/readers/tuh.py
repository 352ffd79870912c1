"""The TUH EEG Corpus and its subsets, EDF trees of all layouts (Obeid & Picone 2016, doi:10.3389/fnins.2016.00196).

Every rule is named, counted and listed in ``docs/reference/tuh_rules.md``.
"""

from pathlib import Path
from typing import Literal

import pandas as pd

from cerebro.data.participants import read_participants
from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan, Skip
from cerebro.data.readers.edf import read_header, read_microvolts, read_patient
from cerebro.data.readers.found_files import files_below
from cerebro.data.readers.tuh_channels import choose_channels, settle_doubles
from cerebro.data.readers.tuh_names import TuhName, read_name
from cerebro.data.readers.tuh_people import demographics, with_releases
from cerebro.errors import ConfigError, DataError, check_exists, check_positive
from cerebro.montage import Montage, montage_named
from cerebro.progress import progress

TASK = "clinical"  # what was done during a recording is not said
SLOWEST_HZ, FASTEST_HZ = 100.0, 2000.0  # the corpus has 200 to 1000 Hz; beyond these a header is damaged


class TUH(Reader):
    """Clinical EEG of Temple University Hospital: TUEG and its subsets TUAB, TUEP, TUSZ, TUAR, TUSL, TUEV.

    Patients are participants, in one namespace over all subsets. ``train``, ``dev`` and ``eval`` are releases;
    ``normal``/``abnormal`` gives the label ``abnormal``, ``epilepsy``/``no_epilepsy`` the label ``epilepsy``. The
    reference is that of the labels (``-REF`` average, ``-LE`` linked ears), else of the montage folder.

    Parameters
    ----------
    root : Path
        Folder of the corpus, of one subset or of several; where in it the recordings lie does not matter.
    demographics : {"none", "header"}
        Whether age and sex are read from EDF headers (``Age:51``, ``M``/``F``); values that cannot be are missing.
    participants : Path, optional
        A table of patients instead, ``.csv`` or ``.tsv``.
    participant_column : str
        Its column that names the patient.
    montage : str
        Electrodes that labels may mean: ``standard_1005``, or the path of an ASA electrode file (``.elc``).
    min_electrodes : int
        Recordings with fewer are skipped (``too-few-electrodes``); a full 10-20 recording has 19.
    min_duration_s : float
        Shorter recordings are skipped.

    Raises
    ------
    ConfigError
        If a number is out of range, the montage unknown, or demographics have two sources.
    """

    corpus = "TUH"
    scan_only = ("demographics", "participants", "participant_column")

    def __init__(
        self,
        root: Path,
        demographics: Literal["none", "header"] = "none",
        participants: Path | None = None,
        participant_column: str = "participant_id",
        montage: str = "standard_1005",
        min_electrodes: int = 16,
        min_duration_s: float = 4.0,
    ) -> None:
        check_positive("min_electrodes", min_electrodes)
        check_positive("min_duration_s", min_duration_s)
        if participants is not None and demographics != "none":
            raise ConfigError("participants and demographics: header both say who was recorded; keep one of them.")
        self.root = Path(root)
        self.demographics = demographics
        self.participants = None if participants is None else Path(participants)
        self.participant_column = participant_column
        self.min_electrodes = min_electrodes
        self.min_duration_s = min_duration_s
        self._montage = montage_named(montage)

    def montage(self) -> Montage:
        """Give the electrodes named at construction."""
        return self._montage

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings by their paths; see `Reader.scan` and ``docs/reference/tuh_rules.md``.

        Headers are opened for demographics only.
        """
        check_exists(self.root, "TUH folder", "set root to the corpus or to a subset (tuh_eeg, tuh_eeg_abnormal ...).")
        table = None if self.participants is None else read_participants(self.participants, self.participant_column)
        files = files_below(self.root, "**/*")
        paths = [path for path in files if path.suffix.lower() == ".edf"]
        if not paths:
            raise DataError(f"{self.root} holds no .edf file; set root to the corpus or to a subset of it.")
        entries: list[Entry] = []
        findings = [
            Finding("signal-missing", "skipped", path.relative_to(self.root).as_posix(), "a link that leads nowhere")
            for path in files
            if not path.suffix and not path.exists()  # a folder, perhaps, whose disk is not there
        ]
        for path in progress(paths, "scan", "file", len(paths)):
            key = path.relative_to(self.root).with_suffix("").as_posix()
            name = read_name(key)
            if isinstance(name, str):
                findings.append(Finding("layout-unknown", "skipped", key, name))
            elif require_signals and not path.exists():
                findings.append(Finding("signal-missing", "skipped", key, "a link that leads nowhere"))
            else:
                entries.append(_entry(key, path, name))
        keys = [entry.key for entry in entries]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{self.root} holds {twice} as .edf and .EDF; remove one of them.")
        people, counted = self._people(entries, table)
        findings += counted
        people, counted = with_releases(people, entries)
        return Scan(entries, findings + counted, people)

    def load(self, entry: Entry) -> Recording:
        """Open one signal; see `Reader.load`."""
        header = read_header(entry.path)
        if header.is_discontinuous:
            detail = "marked EDF+D: there may be gaps between its records"
            raise Skip(Finding("discontinuous", "skipped", entry.key, detail))
        duration_s = header.n_records * header.record_s
        if duration_s < self.min_duration_s:
            detail = f"{duration_s:g} s, shorter than {self.min_duration_s:g} s"
            raise Skip(Finding("too-short", "skipped", entry.key, detail))
        name = read_name(entry.key)
        folder_reference = name.reference if isinstance(name, TuhName) else ""
        choice = choose_channels(header, self._montage, folder_reference, entry.key)
        self._check_enough(set(choice.names), entry, [signal.label for signal in header.signals])
        if not SLOWEST_HZ <= choice.sfreq <= FASTEST_HZ:
            raise DataError(
                f"{entry.path} says a rate of {choice.sfreq:g} Hz, expected {SLOWEST_HZ:g} to {FASTEST_HZ:g}; replace "
                "it by a whole copy or take it out."
            )
        eeg = read_microvolts(header, choice.picks)
        eeg, channels, doubles = settle_doubles(eeg, choice.names, self._montage, entry.key)
        self._check_enough(set(channels), entry, choice.names)
        return Recording(eeg, channels, choice.sfreq, choice.reference, [*choice.findings, *doubles])

    def _check_enough(self, channels: set[str], entry: Entry, labels: "list[str] | tuple[str, ...]") -> None:
        if len(channels) < self.min_electrodes:
            shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            detail = f"{len(channels)} electrodes, fewer than {self.min_electrodes} (labels: {shown})"
            raise Skip(Finding("too-few-electrodes", "skipped", entry.key, detail))

    def _people(self, entries: list[Entry], table: pd.DataFrame | None) -> tuple[pd.DataFrame, list[Finding]]:
        """Participants table of the patients recorded, and what was counted on the way."""
        recorded = sorted({entry.participant for entry in entries})
        if table is not None:
            findings = [
                Finding("participant-not-listed", "repaired", person, "no row in the table: labels missing")
                for person in sorted(set(recorded) - set(table.index))
            ]
            return table.reindex(pd.Index(recorded, name="participant_id", dtype=object)), findings
        if self.demographics == "none":
            return pd.DataFrame(index=pd.Index(recorded, name="participant_id", dtype=object)), []
        shown = progress(entries, "headers", "recording", len(entries))
        return demographics(entries, {entry.key: read_patient(entry.path) for entry in shown if entry.path.exists()})


def _entry(key: str, path: Path, name: TuhName) -> Entry:
    return Entry(
        key=key,
        participant=name.patient,
        task=TASK,
        path=path,
        run=name.token,
        session=name.session,
        release=name.release,
        labels=name.labels,
    )
