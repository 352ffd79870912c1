"""Batches for a training loop: read ahead by threads, resumed at any step, the same for any number of ranks."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from cerebro.data.recording_reader import RecordingReader
from cerebro.data.sampling import Codes, Order, rank_slice
from cerebro.data.sequences import SequenceReader
from cerebro.data.targets import Labels
from cerebro.data.windows import WindowReader
from cerebro.errors import CheckpointError, ConfigError
from cerebro.randomness import sample_keys
from cerebro.signal import KEEP_CHANNELS, ChannelMap, RawBatch

READ_AHEAD = 2  # batches that stand ready
FETCH_AHEAD_BYTES = 128_000_000  # that the disk is asked for at once, in the order of the disk


class BatchMaker:
    """Turns rows of a window table into a batch with everything that is known of them.

    Parameters
    ----------
    reader : WindowReader, SequenceReader or RecordingReader
        Cuts the windows.
    labels : Labels
        Targets of the windows.
    channels : sequence of int64 (C,)
        By montage: row of ``SignalSpec.channels`` of each channel that the model sees, -1 = padding.
    seed : int
        Seed of the keys.
    maps : sequence of ChannelMap
        By montage: what makes these channels on the device; empty where they are those of the recording.
    on_cpu : bool
        Whether the model runs on the CPU: windows come as microvolts, the same to the bit.
    pair : int64 (W,), optional
        Pair id of every window; those of the table if left out.
    """

    def __init__(
        self,
        reader: WindowReader | SequenceReader | RecordingReader,
        labels: Labels,
        channels: Sequence[npt.NDArray[np.int64]],
        seed: int,
        maps: Sequence[ChannelMap] = (),
        on_cpu: bool = False,
        pair: Codes | None = None,
    ) -> None:
        self.reader = reader
        self.labels = labels
        self.seed = seed
        self.on_cpu = on_cpu
        self._pair: Codes = reader.table.pair if pair is None else pair
        index = reader.store.index
        self._channels = [torch.from_numpy(rows) for rows in channels]
        self._is_padded = [bool((rows < 0).any()) for rows in channels]
        self._maps = maps or (KEEP_CHANNELS,) * len(channels)
        self._montage = index["montage"].astype(np.int64)
        self._participant = index["participant"].astype(np.int64)
        self._scale = index["scale"].astype(np.float32)

    def make(self, rows: npt.NDArray[np.int64], key_epoch: int) -> RawBatch:
        """Batch of ``rows`` (B,), all of one montage; their random numbers are keyed by ``key_epoch``."""
        table = self.reader.table
        keys = sample_keys(self.seed, key_epoch, rows)
        recording = table.recording[rows].astype(np.int64)
        participant = self._participant[recording]
        targets, known = self.labels.batch(rows, participant)
        montage = int(self._montage[recording[0]])
        channel = self._channels[montage].expand(len(rows), -1)
        if len(table.channel):  # a row of the batch is one channel
            channel = channel.gather(1, torch.from_numpy(table.channel[rows].astype(np.int64))[:, None])
        microvolts = torch.empty(0, 0, 0)
        if self.on_cpu and not isinstance(self.reader, SequenceReader):
            microvolts = self.reader.read_microvolts(rows, keys)
            counts, n_times = torch.empty((len(rows), 0, 0), dtype=torch.int16), microvolts.shape[2]
        else:
            counts = self.reader.read(rows, keys)
            n_times = counts.shape[1]
        n_valid = torch.full((len(rows),), table.n_times, dtype=torch.int64)
        is_padded = self._is_padded[montage]  # windows lie inside their recordings, and a batch has one montage
        if len(table.n_valid):
            n_valid = torch.from_numpy(table.n_valid[rows])
            is_padded = is_padded or bool((n_valid < n_times).any())
        deviation = torch.empty(0, 0)
        if len(table.deviation_uV):
            deviation = torch.from_numpy(table.deviation_uV[rows])[:, None]
        elif isinstance(self.reader, RecordingReader):
            channel, deviation = self._of_recordings(self.reader, rows, montage)
            is_padded = is_padded or bool((channel < 0).any())
        return RawBatch(
            counts=counts,
            microvolts_per_count=torch.from_numpy(self._scale[recording]),
            channel=channel,
            n_valid=n_valid,
            key=torch.from_numpy(keys),
            sample=torch.from_numpy(rows),
            recording=torch.from_numpy(recording),
            participant=torch.from_numpy(participant),
            pair=torch.from_numpy(self._pair[rows]),
            targets=targets,
            known=known,
            is_padded=is_padded,
            channel_map=self._maps[montage],
            microvolts=microvolts,
            deviation=deviation,
        )

    def _of_recordings(
        self, reader: RecordingReader, rows: npt.NDArray[np.int64], montage: int
    ) -> tuple[Int64[Tensor, "B O"], Float32[Tensor, "B O"]]:
        """Channel of every row that the model sees, -1 where it never changes, and its standard deviation."""
        channel_map, channel = self._maps[montage], self._channels[montage]
        if channel_map is KEEP_CHANNELS:
            channel = channel[torch.from_numpy(reader.table.columns[montage])]
        deviation = channel_map.of_microvolts(channel_map.of_channels(reader.deviations_uV(rows)[:, :, None]))[:, :, 0]
        return torch.where(deviation > 0, channel, -1), deviation


class BatchLoader:
    """Iterable of `RawBatch`.

    Training (``is_training``): iteration goes on where the loader stands, ends with the epoch, and leaves the loader at
    the start of the next one. A batch counts as consumed when it is handed out; batches that were read ahead do not.
    Evaluation: every iteration starts at the first batch, and the loader has no position.

    Parameters
    ----------
    maker : BatchMaker
        Makes the batches.
    order : Order
        Says which rows they hold.
    is_training : bool
        Whether epochs follow each other.
    rank, world_size : int
        This process and their number; each makes its share of every global batch.
    n_threads : int
        Threads that make batches ahead, each two; 0 makes a batch when it is asked for. The batches are the same.
    """

    def __init__(
        self,
        maker: BatchMaker,
        order: Order,
        is_training: bool,
        rank: int = 0,
        world_size: int = 1,
        n_threads: int = 1,
    ) -> None:
        n_least = world_size * order.rows_together
        if is_training and order.batch_size % n_least:
            raise ConfigError(
                f"batch_size={order.batch_size} cannot be shared by {world_size} processes; set data.batch_size to a "
                f"multiple of {n_least}."
            )
        self.maker = maker
        self.order = order
        self.is_training = is_training
        self.rank = rank
        self.world_size = world_size
        self.n_threads = n_threads
        self._epoch = 0
        self._step = 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``, or stay where the loader is if it is inside that epoch already."""
        if epoch != self._epoch:
            self._epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Position behind the last batch handed out: ``{"epoch", "step"}`` with step below ``len(self)``."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises
        ------
        CheckpointError
            If this loader has no such position.
        """
        epoch, step = int(state["epoch"]), int(state["step"])
        if epoch < 0 or not 0 <= step <= len(self):
            raise CheckpointError(
                f"the checkpoint stands at batch {step} of epoch {epoch}, but an epoch has {len(self)} batches here; "
                "resume with the same data settings or start anew."
            )
        self._epoch, self._step = self._behind(epoch, step)

    def batch(self, epoch: int, step: int) -> RawBatch:
        """This rank's share of batch ``step`` of ``epoch``."""
        return self.maker.make(*self._share(epoch, step))

    def __iter__(self) -> Iterator[RawBatch]:
        epoch, first = (self._epoch, self._step) if self.is_training else (0, 0)
        ahead: deque[Future[RawBatch]] = deque()
        fetched: deque[Future[None]] = deque()
        threads = ThreadPoolExecutor(max_workers=max(1, self.n_threads), thread_name_prefix="cerebro-read-ahead")
        fetcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cerebro-fetch")
        n_ahead = READ_AHEAD * self.n_threads
        try:
            for step in range(first, len(self) + n_ahead):
                if step < len(self):
                    fetched.extend(self._fetch(fetcher, epoch, step, first))
                    while fetched and fetched[0].done():
                        fetched.popleft().result()  # what went wrong there is not kept quiet
                    ahead.append(threads.submit(self.batch, epoch, step))
                if step - first < n_ahead:
                    continue
                batch = ahead.popleft().result()
                if self.is_training:
                    self._epoch, self._step = self._behind(epoch, step - n_ahead + 1)
                yield batch
            for asked in fetched:
                asked.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            fetcher.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, fetcher: ThreadPoolExecutor, epoch: int, step: int, first: int) -> list[Future[None]]:
        """Where a group of batches begins, have the disk read the next one (and the first one, to begin with)."""
        if self.maker.reader.store.is_at_hand:
            return []
        n = max(1, FETCH_AHEAD_BYTES // (self.order.batch_size * self.maker.reader.bytes_per_window))
        groups = [first] * (step == first) + [step + n] * ((step - first) % n == 0)
        return [fetcher.submit(self._will_need, epoch, group, group + n) for group in groups]

    def _will_need(self, epoch: int, first: int, stop: int) -> None:
        """Ask for this rank's share of batches ``first`` to ``stop`` of ``epoch``."""
        parts = [self._share(epoch, step) for step in range(first, min(stop, len(self)))]
        if parts:
            keys = [sample_keys(self.maker.seed, key_epoch, rows) for rows, key_epoch in parts]
            self.maker.reader.will_need(np.concatenate([rows for rows, _ in parts]), np.concatenate(keys))

    def _share(self, epoch: int, step: int) -> tuple[npt.NDArray[np.int64], int]:
        rows, key_epoch = self.order.batch(epoch, step)
        return rank_slice(rows, self.rank, self.world_size, self.is_training, self.order.rows_together), key_epoch

    def _behind(self, epoch: int, step: int) -> tuple[int, int]:
        return (epoch + 1, 0) if step == len(self) else (epoch, step)
