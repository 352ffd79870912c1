"""HBN-EEG in BIDS: one release or a folder of several (Shirazi et al. 2024, doi:10.1101/2024.10.03.615261).

Every defect of the real data is met by a rule that is named, counted and listed in ``docs/reference/hbn_rules.md``.
"""

from pathlib import Path

from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan, Skip
from cerebro.data.readers.bids_sidecar import compare_with_sidecar
from cerebro.data.readers.hbn_files import Copies, release_folders, release_name
from cerebro.data.readers.hbn_modes import TASKS, Mode, tasks_of
from cerebro.data.readers.hbn_scan import TreeScan, too_few_channels, too_short
from cerebro.data.readers.signal_file import read_signal
from cerebro.errors import check_one_of, check_positive
from cerebro.montage import Montage, hbn_129

__all__ = ["HBN", "TASKS"]


class HBN(Reader):
    """The Healthy Brain Network's EEG, 129 channels (GSN-HydroCel-129), reference Cz.

    Parameters
    ----------
    root : Path
        A release (the folder of ``participants.tsv``) or a folder of releases, originals (``.set``, 500 Hz) and copies
        of the 2025 EEG Foundation Challenge (``R5_L100_bdf``, 100 Hz) side by side.
    tasks : tuple of str
        Tasks to use; empty uses all of the mode.
    mode : {"pretrain", "movies", "resting", "challenge1", "challenge2"}
        What the store is for. ``pretrain`` takes every recording; ``movies`` the four films, without those whose start
        cannot be trusted; ``resting`` rests with eyes cues; ``challenge1`` contrast change detection with an answered
        target; ``challenge2`` contrast change detection of 4 s or more, people with unknown factors included, whose
        labels are masked. What a mode leaves out is a finding.
    releases : tuple of str
        Releases to use, such as ``R1``; empty uses all that are there.
    copies : {"any", "original", "challenge"}
        Which copies of a release are read. ``any``: of a recording that is there twice the original is used, else the
        challenge copy, else that of the challenge's small form; the others are counted.
    use_caution : bool
        Whether recordings that the authors marked ``caution`` are used. Of the 87 such recordings in the four releases
        at hand 65 are rests, mostly long ones; 64 have all their events, 11 more were resampled from 250 Hz, and 12
        lack events, which other rules meet. So they are used by default, and counted.
    min_duration_s : float
        Shorter recordings are skipped; 4 s is the shortest that the challenge's start kit uses.

    Raises
    ------
    ConfigError
        If a mode or task is unknown, they contradict each other, or the duration is not positive.
    """

    corpus = "HBN"
    scan_only = ("tasks", "mode", "releases", "copies", "use_caution")

    def __init__(
        self,
        root: Path,
        tasks: tuple[str, ...] = (),
        mode: Mode = "pretrain",
        releases: tuple[str, ...] = (),
        copies: Copies = "any",
        use_caution: bool = True,
        min_duration_s: float = 4.0,
    ) -> None:
        check_positive("min_duration_s", min_duration_s)
        check_one_of("copies", copies, ("any", "original", "challenge"))
        self.root = Path(root)
        self.mode: Mode = mode
        self.tasks = tasks_of(mode, tuple(tasks), min_duration_s)
        self.releases = tuple(release_name(release) for release in releases)
        self.copies: Copies = copies
        self.use_caution = use_caution
        self.min_duration_s = min_duration_s

    def montage(self) -> Montage:
        """Give the net's 129 electrodes."""
        return hbn_129()

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings; see `Reader.scan` and ``docs/reference/hbn_rules.md``."""
        folders, findings = release_folders(self.root, self.copies)
        return TreeScan(
            folders,
            self.tasks,
            self.mode,
            self.releases,
            self.use_caution,
            self.min_duration_s,
            require_signals,
            findings,
        ).scan()

    def load(self, entry: Entry) -> Recording:
        """Open one signal; see `Reader.load`."""
        recording = read_signal(entry.path, self.montage(), "Cz", entry.key)
        n_electrodes, n_montage = len(recording.channels), len(self.montage().channels)
        duration_s = recording.eeg.shape[1] / recording.sfreq
        skip = too_few_channels(entry.key, n_electrodes) or too_short(entry.key, duration_s, self.min_duration_s)
        if skip:
            raise Skip(skip)
        if n_electrodes < n_montage:
            detail = f"{n_electrodes} of {n_montage} electrodes; stored with those that are there"
            recording.findings.append(Finding("electrodes-missing", "repaired", entry.key, detail))
        compare_with_sidecar(recording, entry.path, entry.key)
        return recording
