"""Standard deviation of every channel of recordings that a store keeps as windows, measured once and kept beside it.

Models of sequences standardise by it. It is a figure of the store and no part of it: two files lie beside the others,
``deviations.npy``, float32 microvolts in the order of ``offsets.npy`` (NaN for continuous recordings, which no sequence
takes), and ``deviations.json``, which says of which content they are. Neither is named by the store's manifest, and
without them, or where they are damaged or of other content, the deviations are measured anew.
"""

import logging
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int16, Int64
from numpy import ndarray

from cerebro.compiled import compiled
from cerebro.data.mixture import Mixture
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.errors import DataError
from cerebro.files import read_checked_json, sha256_file, write_atomically, write_checked_json
from cerebro.progress import progress

DEVIATIONS, PROOF = "deviations.npy", "deviations.json"
VERSION = 1  # of how they are measured

_log = logging.getLogger(__name__)


def deviations_uV(store: Store) -> Float32[ndarray, " K"]:
    """Standard deviation in microvolts of each channel of each recording, at ``index["offset_row"]`` and behind it.

    Over all samples that are there: the padding of windows that were shorter is left out. 0 exactly where a channel
    never changes; NaN where a recording is continuous. Of a mixture, each member keeps its own.

    Raises
    ------
    DataError
        If a checksum of the store's samples does not agree.
    """
    if isinstance(store, Mixture):
        return np.concatenate([deviations_uV(member.store) for member in store.members])
    found = _read(store)
    if found is None:
        found = _measure(store)
        _write(store, found)
    return found


def _measure(store: Store) -> Float32[ndarray, " K"]:
    """Measure all recordings that are windows, in one pass over their counts."""
    index = store.index
    found = np.full(int(index["n_channels"].sum(dtype=np.int64)), np.nan, np.float32)
    windowed = np.flatnonzero((index["layout"] == CHANNEL_MAJOR) & (index["segment_samples"] > 0))
    segments = store.segments
    n_there = np.bincount(segments["recording"], weights=segments["n_valid"], minlength=len(index)).astype(np.int64)
    for number in progress(windowed.tolist(), "standard deviations", "recording", len(windowed)):
        totals, squares = sums(store.samples(number).T)
        first, n, scale = int(index["offset_row"][number]), int(n_there[number]), float(index["scale"][number])
        for channel, (total, square) in enumerate(zip(totals.tolist(), squares.tolist(), strict=True)):
            found[first + channel] = scale * math.sqrt(n * square - total * total) / n  # whole numbers: 0 is 0
    return found


def sums(counts: Int16[ndarray, "C T"]) -> tuple[Int64[ndarray, " C"], Int64[ndarray, " C"]]:
    """Sum and sum of squares of each channel, exact for fewer than 2^33 samples; padding with 0 adds to neither."""
    totals, squares = np.empty(len(counts), np.int64), np.empty(len(counts), np.int64)
    _sums(counts, totals, squares)
    return totals, squares


@compiled
def _sums(counts: ndarray, totals: ndarray, squares: ndarray) -> None:
    n_channels, n_times = counts.shape
    for channel in range(n_channels):
        row = counts[channel]
        total, square = np.int64(0), np.int64(0)
        for place in range(n_times):
            value = np.int32(row[place])
            total += value
            square += np.int64(value * value)
        totals[channel], squares[channel] = total, square


def _read(store: Store) -> Float32[ndarray, " K"] | None:
    """What lies beside the store, if it is whole and of this content."""
    file, proof = store.path / DEVIATIONS, store.path / PROOF
    if not (file.is_file() and proof.is_file()):
        return None
    try:
        content = read_checked_json(proof)
        if content.get("version") != VERSION or content.get("data_hash") != store.data_hash:
            _log.info("%s is of other data; the standard deviations are measured anew.", file)
            return None
        if content.get("sha256_of_file") != sha256_file(file):
            raise DataError(f"{file} is damaged; the standard deviations are measured anew.")
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    except DataError as error:
        _log.warning("%s", error)
    except OSError as error:
        _log.warning("%s cannot be read (%s); the standard deviations are measured anew.", file, error.strerror)
    return None


def _write(store: Store, found: npt.NDArray[np.float32]) -> None:
    """Keep them, the proof last; where that cannot be done one line says so, and they count all the same."""
    file = store.path / DEVIATIONS

    def save(handle: BinaryIO) -> None:
        np.save(handle, found)

    try:
        write_atomically(file, save, found.nbytes)
        write_checked_json(file.with_name(PROOF), _proof(store, file))
    except (OSError, DataError) as error:  # a folder that may only be read; a full disk
        reason = error.strerror if isinstance(error, OSError) else error
        _log.warning("%s cannot be kept (%s); every run measures the standard deviations anew.", file, reason)


def _proof(store: Store, file: Path) -> dict[str, Any]:
    return {"version": VERSION, "data_hash": store.data_hash, "sha256_of_file": sha256_file(file)}
