"""Batches of a mixture: each from one source and one montage, in exact proportions, from numbers alone.

Which source a batch comes from is a closed form of its number: with weight w and a phase u drawn from the seed, n
batches hold floor(n w + u) of the source. So every step has the right expectation, every stretch of an epoch the right
share, and any step can be asked for without a look at those before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Ints, Rows, grouped
from cerebro.data.sampling import Codes, Order, PairedOrder, Permutation
from cerebro.errors import ConfigError, DataError
from cerebro.randomness import sample_keys

_ONE = 1 << 32  # weights and phases are whole numbers of 2^-32: every process counts the same, at any step
_PHASES = 1 << 62  # epoch that never comes: the keys of its samples are nobody else's random numbers


class Shares:
    """Whose turn it is, in given shares: the same shares in every stretch of turns.

    The first takes its share of all turns, the second its share of what is left, and so on; turns taken are a floor of
    a line, so that between any two turns the first of two is off by less than one turn, and each of more by less than
    two. Over the phases that the seed draws, each turn falls to each with exactly its share.

    Parameters
    ----------
    weights : sequence of float
        Shares, at least one above 0; they need not sum to 1.
    seed, stream : int
        Key of the phases.
    """

    def __init__(self, weights: Sequence[float | int], seed: int, stream: int = 0) -> None:
        left = np.cumsum(np.asarray(weights, np.float64)[::-1])[::-1]  # weight of this one and all behind it
        parts = np.divide(weights, left, out=np.zeros(len(weights)), where=left > 0)
        self._parts = [round(float(part) * _ONE) for part in parts]
        phases = sample_keys(seed, _PHASES + stream, np.arange(len(weights), dtype=np.int64)).view(
            np.uint64
        ) >> np.uint64(32)
        self._phases = [int(phase) for phase in phases]

    def at(self, turn: int) -> tuple[int, int]:
        """Whose turn ``turn`` (from 0) is, and how many turns they had before."""
        for number, (part, phase) in enumerate(zip(self._parts, self._phases, strict=True)):
            before, after = (turn * part + phase) // _ONE, ((turn + 1) * part + phase) // _ONE
            if after > before:
                return number, before
            turn -= before
        raise AssertionError("the last of some weights takes whatever is left")


@dataclass(frozen=True)
class Bucket:
    """Windows of one source and one montage, or their couples.

    Parameters
    ----------
    n_windows : int
        Windows in it: its share among the buckets of its source.
    batch : callable
        ``batch(n)`` gives the rows of the bucket's n-th batch, n >= 0.
    """

    n_windows: int
    batch: Callable[[int], Ints]


class MixtureOrder(Order):
    """Full batches, each of one source and one montage, in exact proportions over any stretch of training.

    All batches have ``batch_size`` rows, so that shares of batches are shares of windows. The windows of a bucket
    (source and montage) are passed over again and again, shuffled anew for each pass: none comes back before all of the
    bucket were seen, also across epochs. Buckets of a source take turns by their numbers of windows. A bucket of
    fewer windows than a batch gives a window more than once in a batch.

    Parameters
    ----------
    buckets : sequence of sequence of `Bucket`
        Buckets of each source.
    weights : sequence of float
        Share of each source.
    batch_size : int
        Rows of a global batch.
    batches_per_epoch : int
        Batches of an epoch, over all processes, > 0.
    seed : int
        Seed of the order.
    """

    def __init__(
        self,
        buckets: Sequence[Sequence[Bucket]],
        weights: Sequence[float | int],
        batch_size: int,
        batches_per_epoch: int,
        seed: int,
        left_out: tuple[str, ...] = (),
    ) -> None:
        if batches_per_epoch < 1:
            raise ConfigError(
                "a mixture has no natural epoch, because its sources differ in size; set data.batches_per_epoch to "
                "the batches of an epoch, over all processes together."
            )
        self.batch_size = batch_size
        self.left_out = left_out
        self._per_epoch = batches_per_epoch
        self._buckets = [list(of_source) for of_source in buckets]
        self._sources = Shares(weights, seed)
        self._turns = [
            Shares([bucket.n_windows for bucket in of_source] or [1], seed, stream=1 + number)
            for number, of_source in enumerate(self._buckets)
        ]

    def __len__(self) -> int:
        return self._per_epoch

    def batch(self, epoch: int, step: int) -> tuple[Ints, int]:
        """Rows of batch ``step`` of ``epoch``; the number of the batch keys its random numbers."""
        number = epoch * self._per_epoch + step
        source, bucket, n = self.locate(number)
        return self._buckets[source][bucket].batch(n), number

    def locate(self, number: int) -> tuple[int, int, int]:
        """Source and bucket of global batch ``number``, and how many batches that bucket gave before."""
        source, n = self._sources.at(number)
        bucket, n = self._turns[source].at(n)
        return source, bucket, n


def mixed_windows(
    rows: Rows,
    source: Codes,
    montage: Codes,
    names: Sequence[str],
    weights: Sequence[float | int],
    batch_size: int,
    batches_per_epoch: int,
    seed: int,
) -> MixtureOrder:
    """Shuffled order over the windows of a mixture.

    Parameters
    ----------
    rows : int64 (N,)
        Rows of the window table.
    source, montage : int (N,)
        Number of the source, and montage, of each row; columns where the rows are a column.
    names : sequence of str
        Names of the sources.
    weights, batch_size, batches_per_epoch, seed
        As in `MixtureOrder`.

    Raises
    ------
    DataError
        If a source with a weight above 0 has no window.
    """
    buckets = []
    parts = grouped(rows, source, montage)
    for number in range(len(names)):
        cut = [part for (one, _), part in parts.items() if one == number]
        keys = sample_keys(seed, _PHASES - 1 - number, np.arange(len(cut), dtype=np.int64)).tolist()
        buckets.append([_shuffled(part, key, batch_size) for part, key in zip(cut, keys, strict=True)])
    _refuse_empty(names, weights, buckets, "no training window")
    return MixtureOrder(buckets, weights, batch_size, batches_per_epoch, seed)


def mixed_pairs(
    rows: Ints,
    source: npt.NDArray[np.integer],
    montage: npt.NDArray[np.integer],
    pair: npt.NDArray[np.int64],
    participant: npt.NDArray[np.integer],
    names: Sequence[str],
    weights: Sequence[float | int],
    batch_size: int,
    batches_per_epoch: int,
    seed: int,
    has_few_pairs: bool = False,
) -> MixtureOrder:
    """Order of couples over a mixture: the two of a couple are of one source and one montage.

    Parameters as in `mixed_windows`, with ``pair``, ``participant`` and ``has_few_pairs`` as in `PairedOrder`; without
    ``weights`` (validation) sources count by their windows, and one without couples is left out.

    Raises
    ------
    DataError
        If a source with a weight above 0, or without weights every source, has no couples for a batch.
    """
    buckets: list[list[Bucket]] = []
    left_out: list[str] = []
    for number, name in enumerate(names):
        mine = np.flatnonzero(source == number)
        try:
            order = PairedOrder(
                rows[mine],
                pair[mine],
                participant[mine],
                batch_size,
                1,
                seed + number,
                montage[mine],
                has_few_pairs,
            )
        except DataError as error:
            if weights and weights[number]:
                raise DataError(
                    f"source {name} has no couples: {error} Or set its weight in data.weights to 0."
                ) from None
            left_out.append(f"{len(mine):,} windows of {name} left out: too few couples")
            buckets.append([])
            continue
        buckets.append([Bucket(len(mine), _couples(order))])
        left_out += [f"{name}: {line}" for line in order.left_out]
    if not any(buckets):
        raise DataError(f"no source has couples ({'; '.join(left_out)}); choose a smaller data.batch_size.")
    shares = weights or [sum(bucket.n_windows for bucket in of_source) for of_source in buckets]
    mixed = MixtureOrder(buckets, shares, batch_size, batches_per_epoch, seed, tuple(left_out))
    mixed.rows_together = PairedOrder.rows_together
    return mixed


def _shuffled(rows: Rows, seed: int, batch_size: int) -> Bucket:
    def batch(n: int) -> Ints:
        place = np.arange(n * batch_size, (n + 1) * batch_size, dtype=np.int64)
        number, position = np.divmod(place, len(rows))  # the pass over the bucket, and the place in it
        found = np.empty(batch_size, np.int64)
        for one in np.unique(number).tolist():
            of_pass = number == one
            found[of_pass] = rows[Permutation(len(rows), seed, one)(position[of_pass])]
        return found

    return Bucket(len(rows), batch)


def _couples(order: PairedOrder) -> Callable[[int], Ints]:
    return lambda n: order.batch(0, n)[0]


def _refuse_empty(
    names: Sequence[str], weights: Sequence[float | int], buckets: Sequence[Sequence[Bucket]], why: str
) -> None:
    for name, weight, of_source in zip(names, weights, buckets, strict=True):
        if weight and not of_source:
            others = ", ".join(f"{other}: {0 if other == name else 1}" for other in names)
            raise DataError(
                f"source {name} has {why} and a weight of {weight:g}; set data.weights to {{{others}}}, or choose "
                "windows that it has."
            )
