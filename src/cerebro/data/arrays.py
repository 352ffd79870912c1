"""A store from arrays in memory: for tests, examples and data that no reader knows."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32
from numpy import ndarray

from cerebro.data.preprocess import quantise
from cerebro.data.readers.base import Event, Segment
from cerebro.data.seal import make_tables, seal
from cerebro.data.shards import STAGING, Piece, StoredRecording, write_counts
from cerebro.data.store import FINDING_COLUMNS, Store, crc32c
from cerebro.errors import DataError
from cerebro.files import lock_folder
from cerebro.montage import Montage

_NONE: Mapping[str, Any] = MappingProxyType({})


def write_store(
    path: Path,
    eeg: Mapping[str, Float32[ndarray, "C T"]],
    montage: Montage,
    sfreq: float,
    tasks: Mapping[str, str],
    people: Mapping[str, str],
    participants: pd.DataFrame,
    events: Mapping[str, tuple[Event, ...]] = _NONE,
    corpus: str = "arrays",
    reference: str = "unknown",
    lsb_uV: float = 0.05,
    releases: Mapping[str, str] = _NONE,
    runs: Mapping[str, int] = _NONE,
    labels: Mapping[str, Mapping[str, float]] = _NONE,
    channels: Mapping[str, tuple[str, ...]] = _NONE,
    segments: Mapping[str, tuple[Segment, ...]] = _NONE,
) -> Store:
    """Write a store from arrays in memory and open it; for tests, examples and data that no reader knows.

    Every mapping is keyed by recording.

    Parameters
    ----------
    path : Path
        New folder.
    eeg : mapping of str to float32 array (C, T)
        Microvolts at ``sfreq``; quantised without a filter, after each channel's mean was removed.
    montage : Montage
        Electrodes; all recordings have all of them unless ``channels`` names fewer.
    sfreq : float
        Hz.
    tasks, people : mapping of str to str
        Task and participant of each recording.
    participants : pandas.DataFrame
        Indexed by participant_id.
    corpus, reference : str
        As in `Store`.
    lsb_uV : float
        Microvolts per count.
    events, releases, runs, labels, channels, segments : mapping
        For the recordings that have them.

    Raises
    ------
    DataError
        If rows and channel names differ in number, or a sample is not finite.
    """
    with lock_folder(path, "write_store"):
        rows = []
        for key in sorted(eeg):
            offsets = eeg[key].mean(axis=1, dtype=np.float64).astype(np.float32)
            if not np.isfinite(offsets).all():
                raise DataError(f"recording {key} holds samples that are NaN or infinite; leave it out or mend it.")
            counts, clipped = quantise(eeg[key] - offsets[:, None], lsb_uV)
            name = hashlib.sha256(key.encode()).hexdigest()
            file = path / STAGING / f"{name}.i16"
            laid = np.ascontiguousarray(counts.T) if key in segments else counts
            write_counts(file, laid)
            names = channels.get(key, montage.channels)
            if len(names) != counts.shape[1]:
                raise DataError(
                    f"recording {key} has {counts.shape[1]} rows and {len(names)} channel names; name each row."
                )
            rows.append(
                StoredRecording(
                    key=key,
                    participant=people[key],
                    task=tasks[key],
                    channels=names,
                    piece=Piece(file, 0, counts.shape[0], counts.shape[1], crc32c(laid)),
                    offsets_uV=tuple(map(float, offsets)),
                    run=runs.get(key, 0),
                    release=releases.get(key, ""),
                    reference=reference,
                    clipped=clipped,
                    piece_key=name,
                    events=events.get(key, ()),
                    labels=labels.get(key, {}),
                    segments=segments.get(key, ()),
                )
            )
        findings = pd.DataFrame([], columns=list(FINDING_COLUMNS), dtype=str)
        return seal(path, make_tables(rows, montage, participants, findings, {}, sfreq, lsb_uV, corpus))
