"""The contract of every reader: what recordings a corpus holds, and one of them in microvolts.

A reader is used in two steps. ``scan`` reads tables and names only and lists what is to be used, repaired and skipped;
``load`` opens one signal. Everything that is repaired, skipped or failed becomes a `Finding` under a named rule, so
that a build report can count it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
from jaxtyping import Float32
from numpy import ndarray

from cerebro.montage import Montage

Severity = Literal["repaired", "skipped", "failed"]


@dataclass(frozen=True)
class Event:
    """Something that happened during a recording.

    Parameters
    ----------
    onset_s : float
        Seconds from the first sample.
    name : str
        The BIDS ``value``, such as ``video_start``.
    duration_s : float
        Seconds; 0 where the file says nothing.
    """

    onset_s: float
    name: str
    duration_s: float = 0.0


@dataclass(frozen=True)
class Finding:
    """Something about one recording, participant or file that a rule repaired, skipped or failed.

    Parameters
    ----------
    rule : str
        Short name that a build report counts by, such as ``six-channel-recording``.
    severity : {"repaired", "skipped", "failed"}
        What was done.
    where : str
        Key of the recording, or the participant or file concerned.
    detail : str
        What was seen, in one line.
    """

    rule: str
    severity: Severity
    where: str
    detail: str


@dataclass(frozen=True)
class Segment:
    """One window of a recording that is no continuous signal but windows side by side, which may overlap or leave gaps.

    Parameters
    ----------
    parent_window_id, sub_window_id : int
        Order within the recording: first by parent, then by sub-window.
    start_s, stop_s : float
        Seconds from the start of the run.
    n_valid : int
        Samples that were there; the rest of the segment is padding, all zeros.
    """

    parent_window_id: int
    sub_window_id: int
    start_s: float
    stop_s: float
    n_valid: int


class Skip(Exception):
    """Raised by `Reader.load` for a recording that a rule leaves out after a look at its signal."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.where}: {finding.rule}: {finding.detail}")
        self.finding = finding

    def __reduce__(self) -> tuple[type["Skip"], tuple[Finding]]:  # crosses process borders whole
        return Skip, (self.finding,)


@dataclass(frozen=True)
class Entry:
    """One recording as a scan lists it; the signal has not been opened.

    Parameters
    ----------
    key : str
        Unique and stable within the corpus: a relative path with ``/`` and no suffix.
    participant : str
        As in the participants table of the scan, without the corpus.
    task : str
        Name of the task.
    path : Path
        The signal file.
    run : int
        Run number, 0 where the task has no runs.
    session, release : str
        Empty where the corpus has none.
    events : tuple of Event
        Sorted by onset.
    labels : mapping of str to float
        Labels of this recording alone, such as ``{"arithmetic": 1.0}``.
    part : str
        Which part of the file this recording is, where a file holds several; empty where it is the whole file.
    source_sha256 : str
        SHA-256 of the recording, where ``path`` holds more than this one; empty: the files at ``path`` are hashed.
    """

    key: str
    participant: str
    task: str
    path: Path
    run: int = 0
    session: str = ""
    release: str = ""
    events: tuple[Event, ...] = ()
    labels: Mapping[str, float] = field(default_factory=dict)
    part: str = ""
    source_sha256: str = ""


@dataclass
class Scan:
    """What a reader found without opening a signal.

    Parameters
    ----------
    entries : list of Entry
        Recordings to use, sorted by key.
    findings : list of Finding
        Sorted by where, then rule.
    participants : pandas.DataFrame
        Index ``participant_id`` (sorted); any of ``release_number, sex, age, p_factor, attention, internalizing,
        externalizing`` and others; missing values are NaN.
    """

    entries: list[Entry]
    findings: list[Finding]
    participants: pd.DataFrame

    def __post_init__(self) -> None:
        self.entries.sort(key=lambda entry: entry.key)
        self.findings.sort(key=lambda finding: (finding.where, finding.rule, finding.detail))


@dataclass
class Recording:
    """One continuous recording in memory.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Microvolts.
    channels : tuple of str
        C names, spelled as the reader's montage spells them.
    sfreq : float
        Hz.
    reference : str
        ``Cz``, ``average``, ``linked-ears`` or ``unknown``.
    findings : list of Finding
        What was repaired while loading.
    is_ready : bool
        The signal has the store's rate and band already: it is neither filtered nor resampled, only its offset goes.
    segments : tuple of Segment
        Not empty where ``eeg`` holds windows side by side, T / len(segments) samples each, in order; such a recording
        is always ready, and the store keeps it channel by channel.
    offsets_uV : tuple of float
        Not empty where a store held the recording before: C offsets that were removed from ``eeg`` then, and are handed
        on as they are. Such a recording is always ready.
    n_clipped : int
        Samples that were clipped then.
    """

    eeg: Float32[ndarray, "C T"]
    channels: tuple[str, ...]
    sfreq: float
    reference: str
    findings: list[Finding] = field(default_factory=list)
    is_ready: bool = False
    segments: tuple[Segment, ...] = ()
    offsets_uV: tuple[float, ...] = ()
    n_clipped: int = 0


class Reader(ABC):
    """Recordings, events and participants of one corpus; final classes take ``(root, ...)``.

    ``corpus`` is the namespace of its participants: the rest of cerebro knows a person as ``corpus:participant``.
    Readers are strangers to each other. ``scan_only`` names arguments that choose recordings and do not change what
    `load` gives: a build that asks for more of them reads only what is new.
    """

    corpus: str
    scan_only: tuple[str, ...] = ()

    @abstractmethod
    def montage(self) -> Montage:
        """Electrodes that this reader's channel names belong to."""

    @abstractmethod
    def scan(self, require_signals: bool = True) -> Scan:
        """List what the corpus holds from names and tables alone.

        Parameters
        ----------
        require_signals : bool
            True skips recordings whose signal file is absent (rule ``signal-missing``); False lists them too, which is
            how ``cerebro prepare --plan`` reads a tree of metadata.

        Raises
        ------
        DataError
            If the tree as a whole cannot be read: no folder, no participants table, duplicate participants.
        """

    @abstractmethod
    def load(self, entry: Entry) -> Recording:
        """Open one signal.

        Raises
        ------
        DataError
            In one line, if the file cannot be used.
        Skip
            If a rule leaves the recording out after a look at its signal.
        """
