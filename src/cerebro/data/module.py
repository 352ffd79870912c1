"""The one LightningDataModule: a store or a mixture, a way to cut windows, a split by participant, loaders."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from cerebro.data.channels import AsPrepared, ChannelSpace, MapChannels
from cerebro.data.columns import Column, Ints, Rows, Runs
from cerebro.data.lengths import telling_lengths
from cerebro.data.loader import BatchLoader, BatchMaker
from cerebro.data.mixture import Mixture, normalised, open_store, participant_keys
from cerebro.data.mixture_order import MixtureOrder, mixed_pairs, mixed_windows
from cerebro.data.mixture_split import sides_of
from cerebro.data.raw_files import sources_of
from cerebro.data.sampling import Codes, FixedOrder, Order, PairedOrder, ShuffledOrder, evenly_spaced
from cerebro.data.sequences import reader_of
from cerebro.data.shuffled_pairs import without_moments
from cerebro.data.sources import WindowSource
from cerebro.data.splits import ParticipantSplit, person_numbers
from cerebro.data.store import Store
from cerebro.data.targets import participant_values, resolve
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, DataError, check_one_of, check_positive
from cerebro.signal import KEEP_CHANNELS, EEGBatch, RawBatch, SignalSpec

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")
MOST_FILM_PEOPLE = 50  # whose time courses are compared after training


class EEGData(LightningDataModule):
    """Windows of a prepared store or mixture, split by participant.

    Parameters
    ----------
    store : Path
        Folder that `cerebro prepare` wrote: a store, or a mixture of stores.
    windows : WindowSource
        How recordings are cut.
    split : ParticipantSplit
        Who trains, validates and tests.
    targets : tuple of str
        Labels that batches carry: those of the windows (``response_time``, a recording's label) or columns of the
        participants table (``p_factor``, ``age``, ``sex`` with M = 0 and F = 1).
    batch_size : int
        Windows of a batch, over all processes together.
    order : {"shuffled", "pairs"}
        ``pairs``: batches of couples of different people with the same ``pair`` (film and time, state, task: see the
        window sources), each of one montage, in validation too; two names of one person are no couple.
    batches_per_epoch : int
        Length of an epoch; 0 = every training window once.
    max_eval_windows : int
        Validate on at most this many windows, evenly spaced; 0 = all. Tests use all.
    seed : int
        Seed of order, crops and keys.
    channels : ChannelSpace
        Which channels a model sees: what the mixture's config says (`AsPrepared`), those of the store (`AsRecorded`),
        or those of a target montage (`MapChannels`).
    weights : dict of str to float
        Of a mixture: share of the training batches by member, in place of those in its ``mixture.json``; empty = those.
        A member of share 0 neither trains nor validates; its people may be tested.
    shuffle_pairs : bool
        A control: the pair ids of the training windows are dealt out anew within each recording (or, where they are a
        few classes, among all windows of a person), so that positives come from other moments. All else stays: the
        order of people and pair ids, and validation.
    prefetch_threads : int
        Threads that read batches ahead, two each; 0 reads a batch when it is asked for. The batches are the same.
    """

    def __init__(
        self,
        store: Path,
        windows: WindowSource,
        split: ParticipantSplit,
        targets: tuple[str, ...] = (),
        batch_size: int = 64,
        order: Literal["shuffled", "pairs"] = "shuffled",
        batches_per_epoch: int = 0,
        max_eval_windows: int = 0,
        seed: int = 0,
        channels: ChannelSpace = AsPrepared(),  # noqa: B008  has no state
        weights: dict[str, float | int] = {},  # noqa: B006  never changed
        shuffle_pairs: bool = False,
        prefetch_threads: int = 1,
    ) -> None:
        super().__init__()
        check_positive("batch_size", batch_size)
        check_one_of("order", order, ("shuffled", "pairs"))
        counts = {
            "batches_per_epoch": batches_per_epoch,
            "max_eval_windows": max_eval_windows,
            "prefetch_threads": prefetch_threads,
        }
        for name, value in counts.items():
            if value < 0:
                raise ConfigError(f"{name}={value} is negative; set data.{name} to 0 or more.")
        self.store_path = Path(store)
        self.windows = windows
        self.split = split
        self.targets = tuple(targets)
        self.batch_size = batch_size
        self.order = order
        self.batches_per_epoch = batches_per_epoch
        self.max_eval_windows = max_eval_windows
        self.seed = seed
        self.channels = channels
        self.weights = dict(weights)
        self.shuffle_pairs = shuffle_pairs
        self.prefetch_threads = prefetch_threads
        self._is_on_cpu = False
        self._is_set_up = False

    def setup(self, stage: str = "") -> None:
        """Open the store, list the windows, split the participants; every process does so, and only once."""
        if self._is_set_up:
            return
        self._store = open_store(self.store_path)
        self._shares = self._shares_of(self._store)
        self._plan = self.channels.plan(self._store)
        self._table, self._omissions = self.windows.table(self._store)
        self._check_channels()
        self._sides = sides_of(self.split, self._store, self._only_tested)
        self._rows = {side: self._rows_of(side) for side in STAGES}
        people = self._store.participants.index.astype(str)
        may_use = ~people.isin(set(self._sides.train) - set(self._sides.labelled))
        self._may_use = np.asarray(may_use, bool)
        self._labels = resolve(self.targets, self._table, self._store.participants, self._may_use)
        self._signal = SignalSpec(
            self._plan.names, self._plan.positions, self._store.sfreq, self._table.n_times, self.targets
        )
        self._is_set_up = True
        _log(logging.INFO, self.summary())

    def for_device(self, device: torch.device) -> None:
        """Where batches go: to a CPU as microvolts, in one pass; elsewhere, or where nothing is said, as int16.

        The microvolts of a window are the same to the bit. Loaders that were made before stay as they are.
        """
        self._is_on_cpu = device.type == "cpu"

    @property
    def signal(self) -> SignalSpec:
        """What a model must know of the data."""
        self.setup()
        return self._signal

    @property
    def store(self) -> Store:
        """The opened store."""
        self.setup()
        return self._store

    @property
    def table(self) -> WindowTable:
        """All windows; ``EEGBatch.sample`` is the row."""
        self.setup()
        return self._table

    @property
    def omissions(self) -> tuple[Omission, ...]:
        """What the window source left out, and why."""
        self.setup()
        return tuple(self._omissions)

    @property
    def data_hash(self) -> str:
        """Hash of the store's content."""
        return self.store.data_hash

    @property
    def windows_hash(self) -> str:
        """Hash of which samples of the store a model sees in each window: with `data_hash`, of every signal."""
        return hashlib.sha256(f"{self.table.digest()} {self._plan.digest()}".encode()).hexdigest()

    def rows(self, stage: Stage) -> Column[np.int64]:
        """Rows of the window table on a side, ascending: in runs, ``rows[:]`` for all of them."""
        self.setup()
        return self._rows[stage]

    def labels(self, stage: Stage) -> tuple[Ints, dict[str, npt.NDArray[np.float32]]]:
        """Recording (N,) of each window of a side, and its targets (N,), NaN where not known; no signal is read."""
        rows = self.rows(stage)[:]
        participant = self._participant(rows)
        values = {name: self._labels.values(name, rows, participant) for name in self.targets}
        return np.asarray(self._table.recording[rows], np.int64), values

    def participants(self, stage: Stage) -> tuple[str, ...]:
        """Sorted ``corpus:participant`` of everyone with a window on a side."""
        keys = participant_keys(self.store)
        return tuple(sorted(keys[row] for row in self._people_of(stage)))

    def recordings(self, stage: Stage) -> dict[str, str]:
        """Hash of a source (SHA-256, 16 digits) -> key, of every recording of the participants of a side.

        Recordings without a window count too: by any of them a person is known who has another name elsewhere. Where
        windows were cut from raw files (`cerebro.data.processing`), the hashes of those count as well.
        """
        store = self.store
        mine = store.recordings[np.isin(store.index["participant"], self._people_of(stage))]
        return sources_of(store, mine)

    def participant_keys(self) -> tuple[str, ...]:
        """``corpus:participant`` by row of the participants table, as ``EEGBatch.participant`` counts."""
        return participant_keys(self.store)

    def split_counts(self) -> str:
        """Participants and windows of each side, in one line."""
        self.setup()
        return "; ".join(
            f"{side} {len(self.participants(side))} participants, {len(self._rows[side]):,} windows" for side in STAGES
        )

    def summary(self) -> str:
        """What the data are, what was left out, which labels are missing, in one line."""
        parts = [self.split_counts(), *self._sides.notes, *map(str, self._omissions), *self._plan.notes]
        if isinstance(self._store, Mixture):
            parts.append("shares " + ", ".join(f"{name} {share:.3g}" for name, share in self._shares.items()))
            parts += [f"{name} neither trains nor validates" for name in self._only_tested]
            parts += self._store.notes
        if self._sides.unused:
            parts.append(f"{len(self._sides.unused)} training participants left out by max_train_participants")
        if len(self._sides.labelled) < len(self._sides.train):
            n_hidden = len(self._sides.train) - len(self._sides.labelled)
            parts.append(f"labels of {n_hidden} training participants hidden by max_labelled_participants")
        for name in self.targets:
            sides = (self._rows[side] for side in STAGES)
            if n_missing := sum(self._labels.n_missing(name, one, self._participant(one.first)) for one in sides):
                parts.append(f"{name} missing in {n_missing:,} windows")
        parts += self._telling_lengths()
        return f"data {self.store_path.name}: " + "; ".join(parts)

    def _telling_lengths(self) -> list[str]:
        """A line for every target that the length of the training samples tells."""
        rows = self._rows["train"][:]
        if not len(self._table.n_valid) or not len(rows):
            return []
        samples = int(self._store.index["segment_samples"].max())
        n_valid, people = self._table.n_valid[rows], self._participant(rows)
        labels = {name: self._labels.values(name, rows, people) for name in self.targets}
        return telling_lengths(n_valid, labels, samples)

    def train_dataloader(self) -> BatchLoader:
        """Training batches; a new loader at epoch 0."""
        rows, world_size = self._some_rows("train"), self._world()[1]
        pair: Ints | Column[np.int64] = self._table.pair
        if self.shuffle_pairs:
            pair = without_moments(self._store, self._table, rows[:], self.windows.has_few_pairs, self.seed)
        order: Order
        if self.order == "pairs":
            order = self._pairs(rows[:], self.batches_per_epoch, pair)
        elif isinstance(self._store, Mixture):
            order = self._mixed(rows)
        else:
            order = ShuffledOrder(
                rows, self._montage(rows), self.batch_size, self.batches_per_epoch, self.seed, world_size
            )
        return self._loader(order, is_training=True, pair=pair)

    def val_dataloader(self) -> BatchLoader:
        """Validation batches in a fixed order, with the random numbers of epoch 0; none if ``val_ratio`` is 0."""
        rows = self._some_rows("val") if self.split.val_ratio else self.rows("val")
        if not len(rows):
            return self._loader(self._fixed(rows), is_training=False)
        if self.order == "pairs":
            n_most = max(1, self.max_eval_windows // self.batch_size) if self.max_eval_windows else 0
            if isinstance(self._store, Mixture):
                n_most = n_most or max(1, len(rows) // self.batch_size)
                order = self._mixed_pairs(rows[:], [], n_most, self._table.pair)
                return self._loader(order, is_training=False)
            return self._loader(self._pairs(rows[:], n_most, self._table.pair), is_training=False)
        return self._loader(self._fixed(evenly_spaced(rows, self.max_eval_windows)), is_training=False)

    def test_dataloader(self) -> BatchLoader:
        """Test batches: every window once, in the order of the table."""
        return self._loader(self._fixed(self._some_rows("test")), is_training=False)

    def predict_dataloader(self) -> BatchLoader:
        """Every window of the table once, whatever its side."""
        runs = self.table.recording.runs
        return self._loader(self._fixed(Column(runs, runs.first, step=1)), is_training=False)

    @property
    def has_fixed_windows(self) -> bool:
        """Whether a window is cut at the same place at every visit; False for random crops."""
        return not self.table.jitter

    @property
    def n_training_windows(self) -> int:
        """Windows of the training participants."""
        return len(self.rows("train"))

    def evaluation_loader(self, stage: Stage, n_most: int = 0) -> BatchLoader:
        """At most ``n_most`` windows of a side, evenly spaced, in the order of the table; 0 = all: for probes."""
        return self._loader(self._fixed(evenly_spaced(self._some_rows(stage), n_most)), is_training=False)

    def participant_values(self, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Values (P,) by row of the participants table, for those of ``names`` that are its columns.

        NaN where a value is missing, or hidden by ``max_labelled_participants``. Names that the windows themselves
        bear are left out, as ``targets`` would take those of the windows.
        """
        people = self.store.participants
        found = [name for name in names if name in people.columns and name not in self._table.targets]
        return {
            name: np.where(self._may_use, participant_values(people, name), np.float32(np.nan)).astype(np.float32)
            for name in found
        }

    def window_spans(self, sample: Ints) -> npt.NDArray[np.float64]:
        """First and last second (N, 2) of its recording that a window may cover, wherever its crop falls."""
        start = self.table.start[sample].astype(np.float64)
        end = start + self.table.jitter + self.table.n_times
        return np.stack([start, end], axis=1) / self.store.sfreq

    def film_dataloader(self, side: Literal["train", "val"] = "val") -> BatchLoader:
        """Windows of films in a fixed order, whole recordings of at most 50 people; no batch where there are none."""
        rows = self.rows(side)
        return self._loader(self._fixed(rows if not len(rows) else self._film_rows(rows)), is_training=False)

    def film_places(self, sample: Ints) -> tuple[list[str], Ints, Ints]:
        """Film that each window (N,) of `film_dataloader` shows, milliseconds from its start, number of the person."""
        names = self.store.recordings["task"].astype(str).iloc[self._table.recording[sample]].tolist()
        return names, np.asarray(self._table.film_ms[sample], np.int64), self._person(sample)

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        """Copy int16 to the device: half the bytes of float32."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> EEGBatch:
        """Scale and transpose on the device."""
        return batch.to_microvolts()

    def _rows_of(self, side: Stage) -> Column[np.int64]:
        people = np.asarray(self._store.participants.index.astype(str).isin(getattr(self._sides, side)), bool)
        recording = self._table.recording
        runs = recording.runs
        chosen = people[self._store.index["participant"]][recording.first] & (runs.sizes > 0)
        if side != "test" and isinstance(self._store, Mixture):
            unused = [number for number, name in enumerate(self._shares) if name in self._only_tested]
            chosen &= ~np.isin(self._store.member[recording.first], unused)
        return Column(Runs(runs.sizes[chosen]), runs.first[chosen], step=1)

    def _film_rows(self, rows: Column[np.int64]) -> Ints:
        """Those of ``rows`` that are of films, of people evenly spaced among all."""
        if not len(self._table.film_ms):
            return np.empty(0, np.int64)
        people = evenly_spaced(np.unique(self._participant(rows.first)), MOST_FILM_PEOPLE)
        return rows.only(np.isin(self._participant(rows.first), people))[:]

    def _people_of(self, stage: Stage) -> Ints:
        """Rows of the participants table with a window on a side, ascending."""
        return np.unique(self._participant(self._rows[stage].first))

    def _some_rows(self, stage: Stage) -> Column[np.int64]:
        rows = self.rows(stage)
        if not len(rows):
            raise DataError(
                f"no window of {self.store_path} is on the side {stage!r} ({self.split_counts()}); change data.split "
                "(val_ratio, test_ratio, test_releases) or data.windows."
            )
        return rows

    def _participant(self, rows: Ints) -> Ints:
        return np.asarray(self._store.index["participant"][self._table.recording[rows]], np.int64)

    def _person(self, rows: Ints) -> Ints:
        """Number of the person of each row: someone with two names is never paired with themselves."""
        person = person_numbers(self._store.participants, self._store.recordings)
        return np.asarray(person[self._participant(rows)])

    def _of_recording(self, numbers: npt.NDArray[np.integer], rows: Rows) -> Codes:
        """A number of each recording (R,) for each of ``rows``, in their form."""
        if isinstance(rows, Column):
            return Column(rows.runs, numbers[self._table.recording[rows.first]])
        return np.asarray(numbers[self._table.recording[rows]])

    def _montage(self, rows: Rows) -> Codes:
        return self._of_recording(self._store.index["montage"], rows)

    def _fixed(self, rows: Rows) -> FixedOrder:
        return FixedOrder(rows, self._montage(rows), self.batch_size)

    def _shares_of(self, store: Store) -> dict[str, float]:
        """Share of the training batches by member of a mixture; empty for one store."""
        if isinstance(store, Mixture):
            return normalised(
                self.weights or {member.name: member.weight for member in store.members},
                [member.name for member in store.members],
            )
        if self.weights:
            raise ConfigError(f"data.weights is for mixtures, and {self.store_path} is one store; remove data.weights.")
        return {}

    @property
    def _only_tested(self) -> tuple[str, ...]:
        """Members of a mixture whose share is 0."""
        return tuple(name for name, share in self._shares.items() if not share)

    def _check_channels(self) -> None:
        """Refuse to map channels of windows that hold one channel each, or in a way that loses their deviation."""
        if len(self._table.channel) and isinstance(self.channels, MapChannels):
            raise ConfigError(
                f"{type(self.windows).__name__} gives windows of one channel, which cannot be mapped to a montage; set "
                "data.channels to AsRecorded."
            )
        if not self._table.columns or all(one is KEEP_CHANNELS for one in self._plan.maps):
            return
        name = type(self.windows).__name__
        if any(one.weights.numel() for one in self._plan.maps):
            raise ConfigError(
                f"{name} carries the standard deviation of each channel, which is not known of interpolated ones; set "
                "data.channels.init_args.method to select or pad."
            )
        sizes = [len(montage.channels) for montage in self._store.montages]
        if [len(columns) for columns in self._table.columns] != sizes:
            raise ConfigError(
                f"channels are chosen twice, by data.windows ({name}) and by data.channels; leave channels of "
                "data.windows out, and name them in data.channels.init_args.electrodes."
            )

    def _mixed(self, rows: Rows) -> MixtureOrder:
        return mixed_windows(
            rows,
            self._member(rows),
            self._montage(rows),
            list(self._shares),
            list(self._shares.values()),
            self.batch_size,
            self.batches_per_epoch,
            self.seed,
        )

    def _mixed_pairs(
        self, rows: Ints, weights: Sequence[float], batches_per_epoch: int, pair: Ints | Column[np.int64]
    ) -> MixtureOrder:
        return mixed_pairs(
            rows,
            self._member(rows)[:],
            self._montage(rows)[:],
            pair[rows],
            self._person(rows),
            list(self._shares),
            weights,
            self.batch_size,
            batches_per_epoch,
            self.seed,
            self.windows.has_few_pairs,
        )

    def _member(self, rows: Rows) -> Codes:
        assert isinstance(self._store, Mixture)
        return self._of_recording(self._store.member, rows)

    def _pairs(self, rows: Ints, batches_per_epoch: int, pair: Ints | Column[np.int64]) -> Order:
        if isinstance(self._store, Mixture):
            return self._mixed_pairs(rows, list(self._shares.values()), batches_per_epoch, pair)
        return PairedOrder(
            rows,
            pair[rows],
            self._person(rows),
            self.batch_size,
            batches_per_epoch,
            self.seed,
            self._montage(rows)[:],
            self.windows.has_few_pairs,
        )

    def _loader(self, order: Order, is_training: bool, pair: Codes | None = None) -> BatchLoader:
        for line in order.left_out:
            _log(logging.WARNING, f"data {self.store_path.name}: {line}")
        if len(self._table.channel) and not all(one is KEEP_CHANNELS for one in self._plan.maps):
            raise ConfigError("sequences of one channel take channels as they were recorded; leave data.channels out.")
        reader = reader_of(self._store, self._table, pin_memory=torch.cuda.is_available())
        on_cpu = self._is_on_cpu or (self.trainer is not None and self.trainer.strategy.root_device.type == "cpu")
        maker = BatchMaker(reader, self._labels, self._plan.rows, self.seed, self._plan.maps, on_cpu, pair)
        rank, world_size = self._world(is_training)
        return BatchLoader(maker, order, is_training, rank, world_size, self.prefetch_threads)

    def _world(self, is_training: bool = True) -> tuple[int, int]:
        """This process and their number; of the processes of ``cerebro fit`` one alone evaluates."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if is_training and dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return 0, 1


@rank_zero_only
def _log(level: int, line: str) -> None:
    """Log under our own name: Lightning's loggers are turned down for its tips."""
    logging.getLogger(__name__).log(level, line)
