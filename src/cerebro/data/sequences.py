"""Sequences: all windows of one channel of one recording, from a store that keeps windows channel by channel.

A sequence is one run of bytes in a shard. A batch is as long as its longest sequence; what is missing is zeros, and
``n_valid`` says where they begin.
"""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int16
from torch import Tensor

from cerebro.data.columns import column_of
from cerebro.data.deviations import deviations_uV
from cerebro.data.overlap import overlap_of_windows
from cerebro.data.recording_reader import RecordingReader
from cerebro.data.sources import WindowSource
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.data.window_source import counted
from cerebro.data.windowed_recordings import (
    columns_of_channels,
    first_segments,
    labels_of_recordings,
    short_inside,
    windowed_recordings,
)
from cerebro.data.windows import BufferPool, Omission, WindowReader, WindowTable
from cerebro.errors import ConfigError, DataError

POOLED_BYTES = 1 << 22  # the system hands smaller buffers out again by itself, faster than a pool can

Rows = npt.NDArray[np.int64]


class ChannelSequences(WindowSource):
    """One sample = one channel of one recording, all its windows in order (such as 124 windows of 2,048 samples).

    A sequence never crosses recordings, and so never runs. Where the last window is shorter, the sequence ends where
    its samples end; a shorter window before it keeps its zeros, and is counted. The labels of a sequence are those of
    its participant (``data.targets: [remission]``) and those of its recording that ``labels`` names.

    Batches carry the standard deviation of each channel over its whole recording (`cerebro.data.deviations`); channels
    that never change are left out, and windows that overlap in time are remarked on (`cerebro.data.overlap`).

    Parameters
    ----------
    max_windows : int
        Longer sequences are cut to their first ``max_windows`` windows; 0 = none is.
    channels : tuple of str
        Electrodes to use; empty = all.
    tasks : tuple of str
        Tasks to use; empty = all.
    labels : tuple of str
        Labels of recordings (columns ``label/NAME`` of the store) that are targets under their names.
    """

    def __init__(
        self,
        max_windows: int = 0,
        channels: tuple[str, ...] = (),
        tasks: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        if max_windows < 0:
            raise ConfigError(f"max_windows={max_windows} is negative; set max_windows to 0 or more.")
        self.max_windows = max_windows
        self.channels = tuple(channels)
        self.tasks = tuple(tasks)
        self.labels = tuple(labels)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Sequences by recording, then by channel as the recording has them."""
        chosen, samples, left_out = windowed_recordings(store, self.tasks, "ChannelSequences")
        index = store.index
        recording, channel = self._channels(store, chosen)
        n_windows = index["n_times"].astype(np.int64) // samples
        n_used = np.minimum(n_windows, self.max_windows) if self.max_windows else n_windows
        left_out += counted(int((n_windows - n_used)[chosen].sum()), "windows", f"behind the first {self.max_windows}")
        n_valid = _valid_samples(store, chosen, n_used, samples, left_out)
        left_out += overlap_of_windows(store, chosen, n_used)
        deviation = deviations_uV(store)[index["offset_row"][recording] + channel]
        is_live = deviation > 0
        left_out += counted(int((~is_live).sum()), "sequences", "channels that never change")
        recording, channel, deviation = recording[is_live], channel[is_live], deviation[is_live]
        if not len(recording):
            raise DataError(f"no channel of {store.path} that was chosen ever changes; choose other channels or tasks.")
        labels = labels_of_recordings(store, self.labels)
        table = WindowTable(
            recording=column_of(recording.astype(np.int32)),
            start=column_of(np.zeros(len(recording), np.int64)),
            n_times=int(n_used[recording].max()) * samples,
            targets={name: column_of(values[recording]) for name, values in labels.items()},
            channel=column_of(channel.astype(np.int32)),
            n_valid=column_of(n_valid[recording]),
            deviation_uV=column_of(deviation),
        )
        return table, left_out

    def _channels(self, store: Store, chosen: Rows) -> tuple[Rows, Rows]:
        """Recording and channel of each sequence."""
        wanted = columns_of_channels(store, self.channels)
        montage = store.index["montage"][chosen]
        n_each = np.array([len(channels) for channels in wanted], np.int64)[montage]
        channel = np.concatenate([wanted[number] for number in montage.tolist()])
        return np.repeat(chosen, n_each), channel


class SequenceReader:
    """Cuts batches of sequences out of a store; the same calls as `WindowReader`."""

    def __init__(self, store: Store, table: WindowTable, pin_memory: bool = False) -> None:
        index = store.index
        recording, start, channel = table.recording[:], table.start[:], table.channel[:]
        samples = index["segment_samples"].astype(np.int64)[recording]
        odd = np.flatnonzero((index["layout"][recording] != CHANNEL_MAJOR) | (samples == 0))
        if len(odd):
            key = store.recordings["key"].iloc[int(recording[odd[0]])]
            raise DataError(
                f"recording {key} of {store.path} has no windows side by side; prepare it with ParquetWindows."
            )
        n_times = index["n_times"].astype(np.int64)[recording]
        self._n_valid = table.n_valid[:]
        self._length = -(-self._n_valid // samples) * samples  # whole windows
        outside = np.flatnonzero(
            (start < 0)
            | (self._n_valid < 1)
            | (start + self._length > n_times)
            | (channel < 0)
            | (channel >= index["n_channels"][recording])
        )
        if len(outside):
            row = int(outside[0])
            key = store.recordings["key"].iloc[int(recording[row])]
            raise DataError(
                f"sequence {row} leaves its recording {key} (channel {channel[row]}, {self._n_valid[row]} "
                f"samples from {start[row]}); use shorter sequences."
            )
        self.store = store
        self.table = table
        self._pool = BufferPool(torch.int16, pin_memory)
        self._shard = index["shard"].astype(np.int64)[recording]
        self._first = index["offset"].astype(np.int64)[recording] + channel * n_times + start
        self.bytes_per_window = 2 * int(self._length.max(initial=1))  # at most
        self._is_verified = np.zeros(len(recording), bool)
        self._flat: dict[int, npt.NDArray[np.int16]] = {}  # shards that hold a verified sequence

    def starts(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """First sample of each sequence in its channel; (B,). No crop is drawn."""
        return self.table.start[rows]

    def read(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> Int16[Tensor, "B T 1"]:
        """Counts of the sequences ``rows`` (B,) in their order; T is that of the longest, the rest of others zeros."""
        if False in self._is_verified[rows].tolist():
            self._verify(rows)
        valid = self._n_valid[rows].tolist()
        longest = max(self._length[rows].tolist())
        if self._pool.pin_memory or 2 * len(valid) * longest > POOLED_BYTES:
            out = self._pool.take((len(valid), longest, 1))
            counts = out.numpy()
        else:
            counts = np.empty((len(valid), longest, 1), np.int16)
            out = torch.from_numpy(counts)
        places = zip(counts, self._shard[rows].tolist(), self._first[rows].tolist(), valid, strict=True)
        for row, shard, start, n in places:
            row[:n, 0] = self._flat[shard][start : start + n]
            if n < longest:
                row[n:] = 0
        return out

    def will_need(self, rows: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> None:
        """Ask the system to fetch the sequences ``rows`` (B,) from the disk; returns before it has."""
        self.store.will_need(self._shard[rows], 2 * self._first[rows], 2 * self._n_valid[rows])

    def _verify(self, rows: npt.NDArray[np.int64]) -> None:
        """Verify the checksums of sequences, once for each: a second look would take as long as the copy."""
        n_valid = self._n_valid[rows]
        for n in np.unique(n_valid).tolist():
            some = rows[n_valid == n]
            self.store.touch(self._shard[some], self._first[some] * 2, 2 * n)
        self._is_verified[rows] = True
        for shard in np.unique(self._shard[rows]).tolist():
            if shard not in self._flat:
                self._flat[shard] = self.store.shard(shard).numpy()


def reader_of(
    store: Store, table: WindowTable, pin_memory: bool = False
) -> WindowReader | SequenceReader | RecordingReader:
    """What reads the rows of a table: one channel, several channels of stored windows, or windows of all channels."""
    if len(table.channel):
        return SequenceReader(store, table, pin_memory)
    return RecordingReader(store, table, pin_memory) if table.columns else WindowReader(store, table, pin_memory)


def _valid_samples(
    store: Store, chosen: Rows, n_used: npt.NDArray[np.int64], samples: int, left_out: list[Omission]
) -> npt.NDArray[np.int64]:
    """Samples (R,) from the start of each recording to the end of the last window used that are there."""
    segments = store.segments
    is_short = segments["n_valid"].to_numpy(np.int64) < samples
    recording = segments["recording"].to_numpy(np.int64)
    first = first_segments(store)
    place = np.arange(len(segments)) - first[recording]
    is_inside = is_short & (place < n_used[recording] - 1) & np.isin(recording, chosen)
    left_out += short_inside(int(is_inside.sum()))
    valid = n_used * samples
    last = first[chosen] + n_used[chosen] - 1
    valid[chosen] -= samples - segments["n_valid"].to_numpy(np.int64)[last]
    return np.asarray(valid, np.int64)
