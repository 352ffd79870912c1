"""Windows of recordings: where they lie, and how a batch of them leaves the memory map.

A window is a row of numbers, never a Python object, and those of one recording are a run, of which only the first and
the stride are kept. A batch is one copy per window out of the flat int16 shard into a tensor that stands ready, at the
speed of a memory copy.
"""

import hashlib
import math
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int16
from torch import Tensor

from cerebro.data.columns import Column, column_of
from cerebro.data.gather import gather_counts, gather_microvolts
from cerebro.data.store import TIME_MAJOR, Store
from cerebro.errors import DataError
from cerebro.montage import Montage
from cerebro.randomness import uniform
from cerebro.signal import SignalSpec

CROP_STREAM = 1 << 20  # stream of random numbers for the place of a crop; masks and augmentations use small ones
_N_BUFFERS = 7  # kept for reuse
_NO_COLUMN: Column[Any] = column_of(np.empty(0, np.int64))
_OPTIONAL = ("channel", "n_valid", "film_ms", "deviation_uV")  # columns of a table
FARTHEST_SAME_PLACE_MM = 10.0  # of one channel name in two montages


@dataclass(frozen=True)
class Omission:
    """What a table left out, counted: ``n`` recordings, trials or windows, and why; ``n`` = 0 only remarks."""

    n: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.n:,} {self.what} left out: {self.why}" if self.n else self.why


@dataclass(frozen=True)
class WindowTable:
    """Windows as columns; the number of a row is the window's ``sample`` in every batch.

    A run of windows (those of one recording, of one state) costs the same whether it has one window or a million; all
    columns have the same runs. `column_of` makes a column of an array.

    Parameters
    ----------
    recording : int32 (W,)
        Row of the store's index.
    start : int64 (W,)
        First sample of the window in its recording; the earliest one if the window is a random crop.
    n_times : int
        Samples of every window.
    jitter : int
        A crop starts 0 to ``jitter`` samples (both included) after ``start``; 0 = fixed windows.
    pair : int64 (W,)
        Equal where people saw the same film at the same time; -1 = none. Leave out for windows without pairs.
    targets : dict of float32 (W,)
        Labels of single windows, NaN where missing. Labels of people are looked up in the participants table.
    channel : int32 (W,)
        Channel of its recording that a window holds; leave out for windows of all channels.
    film_ms : int64 (W,)
        Milliseconds from the start of the film that the recording's task names; leave out for windows of no film.
    n_valid : int64 (W,)
        Samples of each window that are there, ``n_times`` at most; leave out where all are.
    deviation_uV : float32 (W,)
        Standard deviation of each window's channel over its whole recording; leave out for windows of all channels.
    columns : tuple of int64 (C,)
        By montage of the store: channels of its recordings that a row holds, where it is made of stored windows of
        several channels; leave out for windows of one channel, or cut from continuous recordings.
    channel_deviation_uV : float32 (K,)
        With ``columns``: standard deviation of each channel over its whole recording, where ``index["offset_row"]``
        says; 0 where a channel never changes, which hides it.
    """

    recording: Column[np.int32]
    start: Column[np.int64]
    n_times: int
    jitter: int = 0
    pair: Column[np.int64] = _NO_COLUMN
    targets: dict[str, Column[np.float32]] = field(default_factory=dict)
    channel: Column[np.int32] = _NO_COLUMN
    n_valid: Column[np.int64] = _NO_COLUMN
    film_ms: Column[np.int64] = _NO_COLUMN
    deviation_uV: Column[np.float32] = _NO_COLUMN
    columns: tuple[npt.NDArray[np.int64], ...] = ()
    channel_deviation_uV: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        runs = self.recording.runs
        if not len(self.pair):
            object.__setattr__(self, "pair", Column(runs, np.broadcast_to(np.int64(-1), len(runs.sizes))))
        columns: dict[str, Column[Any]] = {"start": self.start, "pair": self.pair, **self.targets}
        columns |= {name: column for name in _OPTIONAL if len(column := getattr(self, name))}
        for name, column in columns.items():
            if len(column) != len(self):
                raise DataError(
                    f"column {name} has {len(column):,} rows and the table {len(self):,} windows; give one each."
                )
            if column.runs is not runs and not np.array_equal(column.runs.sizes, runs.sizes):
                raise DataError(f"column {name} has other runs than the recordings; cut all columns alike.")

    def __len__(self) -> int:
        return len(self.recording)

    def places(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """``recording`` and ``start`` of ``rows`` (B,) with one look."""
        located = self.recording.runs.locate(rows)
        return self.recording.at(*located), self.start.at(*located)

    def digest(self) -> str:
        """SHA-256 of where every window lies and what it holds; labels, pairs and films decide no sample of it."""
        digest = hashlib.sha256()
        for entry in fields(self):
            if entry.name in ("pair", "targets", "film_ms"):
                continue
            value = getattr(self, entry.name)
            digest.update(f"{entry.name} {len(self)};".encode())
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Column):
                    digest.update(f"{part.step};".encode() + part.runs.sizes.tobytes())
                array = np.ascontiguousarray(part.first if isinstance(part, Column) else part)
                digest.update(f"{array.dtype} {array.shape};".encode() + array.tobytes())
        return digest.hexdigest()

    @property
    def recordings(self) -> npt.NDArray[np.int64]:
        """Rows of the store's index that have a window, ascending."""
        return np.unique(self.recording.first[self.recording.runs.sizes > 0]).astype(np.int64)


def check_inside(table: WindowTable, store: Store) -> None:
    """Raise DataError if a window or its latest crop leaves its recording: it would read the neighbour's samples."""
    runs = table.recording.runs
    used = np.flatnonzero(runs.sizes)
    recording = table.recording.first[used]
    length = store.index["n_times"].astype(np.int64)[recording]
    ends = [table.start[runs.first[used]], table.start[runs.end[used] - 1]]
    low, high = np.minimum(*ends), np.maximum(*ends) + table.jitter + table.n_times
    outside = np.flatnonzero((low < 0) | (high > length))
    if len(outside):
        at = int(outside[0])
        key = store.recordings["key"].iloc[int(recording[at])]
        raise DataError(
            f"windows {runs.first[used[at]]:,} to {runs.end[used[at]] - 1:,} leave their recording {key} (samples "
            f"{low[at]} to {high[at]} of {length[at]}); use shorter windows."
        )


def check_layout(store: Store) -> None:
    """Raise DataError unless all recordings are continuous and time-major, with the channels of their montage."""
    n_channels = np.array([len(montage.channels) for montage in store.montages])[store.index["montage"]]
    odd = np.flatnonzero(
        (store.index["layout"] != TIME_MAJOR)
        | (store.index["segment_samples"] != 0)
        | (store.index["n_channels"] != n_channels)
    )
    if len(odd):
        key = store.recordings["key"].iloc[int(odd[0])]
        raise DataError(
            f"recording {key} of {store.path} is no continuous time-major recording of its montage; windows are cut "
            "from such recordings only: run `cerebro prepare` again."
        )


class BufferPool:
    """Buffers that are used again once nobody holds a tensor of them: fresh memory costs a third of the copy.

    Page-locked buffers come from torch's own cache, which waits for pending copies to the device.
    """

    def __init__(self, dtype: torch.dtype = torch.int16, pin_memory: bool = False) -> None:
        self.dtype = dtype
        self.pin_memory = pin_memory
        self._lock = threading.Lock()
        self._buffers: list[npt.NDArray[Any]] = [self._new(0)]
        self._n_references_when_free = self._n_references(0)

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Tensor of ``shape`` with undefined content."""
        if self.pin_memory:
            return torch.empty(shape, dtype=self.dtype, pin_memory=True)
        size = math.prod(shape)
        with self._lock:
            for i in range(len(self._buffers)):
                # A tensor made by from_numpy refers to its array for as long as any view of its storage lives.
                if self._buffers[i].size >= size and self._n_references(i) == self._n_references_when_free:
                    return torch.from_numpy(self._buffers[i])[:size].view(shape)
            self._buffers = [buffer for buffer in self._buffers if buffer.size >= size][-_N_BUFFERS:]
            self._buffers.append(self._new(size))
            return torch.from_numpy(self._buffers[-1]).view(shape)

    def _new(self, size: int) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = torch.empty(size, dtype=self.dtype).numpy()  # torch aligns it for vectors
        return array

    def _n_references(self, i: int) -> int:
        return sys.getrefcount(self._buffers[i])


class WindowReader:
    """Cuts batches of windows out of a store: as int16 for a device that scales them, or as microvolts on the CPU."""

    def __init__(self, store: Store, table: WindowTable, pin_memory: bool = False) -> None:
        check_inside(table, store)
        check_layout(store)
        self.store = store
        self.table = table
        self._counts = BufferPool(torch.int16, pin_memory)
        self._microvolts = BufferPool(torch.float32, pin_memory)
        self._shard = store.index["shard"].astype(np.int64)
        self._offset = store.index["offset"].astype(np.int64)
        self._n_channels = store.index["n_channels"].astype(np.int64)
        self._scale = store.index["scale"].astype(np.float32)
        flats = [store.flat(number) for number in range(int(self._shard.max(initial=-1)) + 1)]  # mapped by the store
        self._address = np.array([flat.ctypes.data for flat in flats], np.int64)
        self.bytes_per_window = 2 * table.n_times * int(self._n_channels.max(initial=1))  # at most

    def starts(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """First sample of each window: its place in the table plus the crop that its key draws; (B,)."""
        return self._cropped(self.table.start[rows], keys)

    def longest(self, rows: npt.NDArray[np.int64]) -> int:
        """Samples T of a batch of ``rows`` (B,)."""
        return self.table.n_times

    def read(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> Int16[Tensor, "B T C"]:
        """Counts of the windows ``rows`` (B,), which share one montage, in their order."""
        addresses, _, n_channels = self._places(rows, keys)
        out = self._counts.take((len(rows), self.table.n_times, n_channels))
        gather_counts(addresses, out.numpy())
        return out

    def read_microvolts(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> Float32[Tensor, "B C T"]:
        """The same windows in microvolts, channel-major: what `RawBatch.to_microvolts` makes of `read`, to the bit."""
        addresses, recording, n_channels = self._places(rows, keys)
        out = self._microvolts.take((len(rows), n_channels, self.table.n_times))
        gather_microvolts(addresses, self._scale[recording], out.numpy())
        return out

    def will_need(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> None:
        """Ask the system to fetch the windows ``rows`` (B,) from the disk, all at once; returns before it has."""
        recording, start = self.table.places(rows)
        n_channels = self._n_channels[recording]
        first = self._offset[recording] + self._cropped(start, keys) * n_channels
        self.store.will_need(self._shard[recording], 2 * first, 2 * n_channels * self.table.n_times)

    def _places(
        self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
        """Address (B,), recording (B,) and channels of windows; their checksums have been verified."""
        recording, start = self.table.places(rows)
        n_channels = int(self._n_channels[recording[0]])
        shard = self._shard[recording]
        first_byte = 2 * (self._offset[recording] + self._cropped(start, keys) * n_channels)
        self.store.touch(shard, first_byte, 2 * self.table.n_times * n_channels)  # once per page
        return self._address[shard] + first_byte, recording, n_channels

    def _cropped(self, start: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not self.table.jitter:
            return start
        draw = uniform(torch.from_numpy(keys), 1, CROP_STREAM)[:, 0].numpy().astype(np.float64)
        return start + np.floor(draw * (self.table.jitter + 1)).astype(np.int64)


def signal_of(store: Store, n_times: int, targets: tuple[str, ...]) -> SignalSpec:
    """SignalSpec of a store's windows: the channels of all its montages, each name once, in order of appearance.

    Raises
    ------
    DataError
        As `places_of`.
    """
    try:
        places = places_of(store.montages)
    except DataError as error:
        raise DataError(
            f"{error} in {store.path}; set data.channels to {{class_path: MapChannels}}, or prepare them as separate "
            "stores."
        ) from None
    return SignalSpec(tuple(places), tuple(places.values()), store.sfreq, n_times, targets)


def places_of(montages: Iterable[Montage]) -> dict[str, tuple[float, float, float]]:
    """Position of each channel name of some montages, in order of appearance; NaN where no montage knows it.

    Raises
    ------
    DataError
        If two montages place one name more than 1 cm apart.
    """
    places: dict[str, tuple[float, float, float]] = {}
    for montage in montages:
        for name, xyz in zip(montage.channels, montage.positions.tolist(), strict=True):
            place = (float(xyz[0]), float(xyz[1]), float(xyz[2]))
            if not np.isfinite(places.get(name, place)).all():
                places[name] = place
            known = places.setdefault(name, place)
            apart_mm = 1000 * float(np.linalg.norm(np.subtract(known, place)))
            if apart_mm > FARTHEST_SAME_PLACE_MM:
                raise DataError(f"two montages place channel {name} {apart_mm:.0f} mm apart")
    return places


def channel_rows(store: Store, signal: SignalSpec) -> list[npt.NDArray[np.int64]]:
    """Row of ``signal.channels`` for each channel of each montage of the store."""
    row = {name: i for i, name in enumerate(signal.channels)}
    return [np.array([row[name] for name in montage.channels], np.int64) for montage in store.montages]
