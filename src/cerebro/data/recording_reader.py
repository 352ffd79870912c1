"""How windows of several channels of one recording leave a store that keeps them channel by channel."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int16
from torch import Tensor

from cerebro.data.gather_runs import gather_count_runs, gather_microvolt_runs
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.data.windows import BufferPool, WindowTable
from cerebro.errors import DataError

Ints = npt.NDArray[np.int64]


class RecordingReader:
    """Cuts batches of stored windows out of a store; the same calls as `WindowReader`.

    A batch is as long as its longest row, in whole windows; what others lack is zeros. Of every channel one run of
    bytes is copied, however many windows it holds.
    """

    def __init__(self, store: Store, table: WindowTable, pin_memory: bool = False) -> None:
        self.store = store
        self.table = table
        index = store.index
        recording, start, self._n_valid = table.recording[:], table.start[:], table.n_valid[:]
        samples = index["segment_samples"].astype(np.int64)[recording]
        odd = np.flatnonzero((index["layout"][recording] != CHANNEL_MAJOR) | (samples == 0))
        if len(odd):
            key = store.recordings["key"].iloc[int(recording[odd[0]])]
            raise DataError(
                f"recording {key} of {store.path} has no windows side by side; prepare it with ParquetWindows."
            )
        n_times = index["n_times"].astype(np.int64)[recording]
        self._length = -(-self._n_valid // samples) * samples  # whole windows
        outside = np.flatnonzero((start < 0) | (self._n_valid < 1) | (start + self._length > n_times))
        if len(outside):
            row = int(outside[0])
            key = store.recordings["key"].iloc[int(recording[row])]
            raise DataError(
                f"row {row} leaves its recording {key} ({self._n_valid[row]} samples from {start[row]} of "
                f"{n_times[row]}); use fewer windows."
            )
        self._montage = index["montage"].astype(np.int64)[recording]
        self._check_columns()
        self._counts = BufferPool(torch.int16, pin_memory)
        self._microvolts = BufferPool(torch.float32)
        self._recording = recording
        self._shard = index["shard"].astype(np.int64)[recording]
        self._first = index["offset"].astype(np.int64)[recording] + start  # of the first channel
        self._n_times = n_times
        self._scale = index["scale"].astype(np.float32)[recording]
        self._offset_row = index["offset_row"].astype(np.int64)[recording]
        flats = [store.flat(number) for number in range(int(self._shard.max(initial=-1)) + 1)]  # mapped by the store
        self._address = np.array([flat.ctypes.data for flat in flats], np.int64)
        self._is_verified = np.zeros(len(recording), bool)
        n_most = max((len(columns) for columns in table.columns), default=1)
        self.bytes_per_window = 2 * int(self._length.max(initial=1)) * n_most  # at most

    def starts(self, rows: Ints, keys: Ints) -> Ints:
        """First sample of each row in its recording; (B,). No crop is drawn."""
        return self.table.start[rows]

    def deviations_uV(self, rows: Ints) -> Float32[Tensor, "B C"]:
        """Standard deviation of each channel over its whole recording; 0 where it never changes."""
        place = self._offset_row[rows][:, None] + self._columns(rows)
        return torch.from_numpy(self.table.channel_deviation_uV[place])

    def read(self, rows: Ints, keys: Ints) -> Int16[Tensor, "B T C"]:
        """Counts of ``rows`` (B,), which share one montage, in their order; in memory channel by channel."""
        out = self._counts.take(self._shape(rows))
        gather_count_runs(self._places(rows), self._n_valid[rows], out.numpy())
        return out.transpose(1, 2)

    def read_microvolts(self, rows: Ints, keys: Ints) -> Float32[Tensor, "B C T"]:
        """The same in microvolts: what `RawBatch.to_microvolts` makes of `read`, to the bit."""
        out = self._microvolts.take(self._shape(rows))
        gather_microvolt_runs(self._places(rows), self._n_valid[rows], self._scale[rows], out.numpy())
        return out

    def will_need(self, rows: Ints, keys: Ints) -> None:
        """Ask the system to fetch ``rows`` (B,), of any montages, from the disk; returns before it has."""
        for montage in np.unique(self._montage[rows]).tolist():
            some = rows[self._montage[rows] == montage]
            first = self._first_values(some)
            n_channels = first.shape[1]
            self.store.will_need(
                np.repeat(self._shard[some], n_channels),
                2 * first.ravel(),
                np.repeat(2 * self._n_valid[some], n_channels),
            )

    def _shape(self, rows: Ints) -> tuple[int, int, int]:
        return len(rows), len(self._columns(rows)), int(self._length[rows].max())

    def _columns(self, rows: Ints) -> Ints:
        return self.table.columns[int(self._montage[rows[0]])]

    def _first_values(self, rows: Ints) -> Ints:
        """Where in its shard each channel of each row begins, in values (B, C)."""
        return self._first[rows][:, None] + self._columns(rows) * self._n_times[rows][:, None]

    def _places(self, rows: Ints) -> Ints:
        """Address of each channel of each row (B, C); their checksums have been verified."""
        first = self._first_values(rows)
        if not self._is_verified[rows].all():
            self._verify(rows, first)
        return self._address[self._shard[rows]][:, None] + 2 * first

    def _verify(self, rows: Ints, first: Ints) -> None:
        """Verify the checksums of rows, once for each."""
        n_valid = self._n_valid[rows]
        for n in np.unique(n_valid).tolist():
            is_of = n_valid == n
            shard = np.repeat(self._shard[rows[is_of]], first.shape[1])
            self.store.touch(shard, 2 * first[is_of].ravel(), 2 * n)
        self._is_verified[rows] = True

    def _check_columns(self) -> None:
        """Raise DataError if a row holds no channel, or one that its recordings do not have."""
        for montage in np.unique(self._montage).tolist():
            columns = self.table.columns[montage]
            if not len(columns) or columns.min() < 0 or columns.max() >= len(self.store.montages[montage].channels):
                raise DataError(
                    f"rows of montage {self.store.montages[montage].name} hold channels {columns.tolist()} of "
                    f"{len(self.store.montages[montage].channels)}; choose channels that it has."
                )
