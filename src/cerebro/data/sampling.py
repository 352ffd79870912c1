"""Which windows make up a batch: a function of (seed, pass, position) and of nothing else.

No order is ever stored. A batch can be asked for at any step, on any machine, with any number of ranks, and is the
same; a run that was resumed sees what it would have seen.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Column, Ints, Rows, grouped
from cerebro.errors import ConfigError, DataError
from cerebro.randomness import sample_keys, splitmix64

Codes = npt.NDArray[np.integer] | Column[Any]  # montage or source of each row, in the form of the rows

_ROUNDS = 10  # six leave the order of five windows visibly uneven
_HALF = np.uint64(32)  # of the bits of a random number are used: what is added to them cannot overflow


class Permutation:
    """Permutation of 0..n-1 that is computed where it is asked, without a table.

    A Feistel network on a rectangle of a x b numbers, a and b the square root of n rounded up (the generalised Feistel
    cipher of Black & Rogaway 2002, doi:10.1007/3-540-45760-7_9): the rectangle has hardly more numbers than n, and the
    few that fall on n or above walk on along their cycle until they are below.

    Parameters
    ----------
    n : int
        Size, at least 1.
    seed, epoch, stream : int
        Key of the permutation.
    """

    def __init__(self, n: int, seed: int, epoch: int, stream: int = 0) -> None:
        self.n = n
        rows = math.isqrt(n - 1) + 1
        self._rows, self._columns = np.uint64(rows), np.uint64(-(-n // rows))
        self._keys = sample_keys(seed, epoch, np.arange(_ROUNDS, dtype=np.int64) - (1 + stream) * _ROUNDS).view(
            np.uint64
        )

    def __call__(self, positions: Ints) -> Ints:
        """Values at ``positions`` (each in 0..n-1); same shape."""
        value = self._once(positions.astype(np.uint64))
        while (outside := value >= self.n).any():
            value[outside] = self._once(value[outside])
        return value.astype(np.int64)

    def _once(self, value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        row, column = np.divmod(value, self._columns)
        for first, second in self._keys.reshape(-1, 2):
            row = (row + (splitmix64(column ^ first) >> _HALF)) % self._rows
            column = (column + (splitmix64(row ^ second) >> _HALF)) % self._columns
        return np.asarray(row * self._columns + column, dtype=np.uint64)


class Order(ABC):
    """Batches of an epoch; ``len`` is their number, ``batch`` gives any of them in constant time."""

    batch_size: int
    left_out: tuple[str, ...] = ()
    rows_together: int = 1  # 2 where rows come as couples, which one process must hold whole

    @abstractmethod
    def __len__(self) -> int:
        """Batches per epoch."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> tuple[Ints, int]:
        """Rows of the global batch, and the pass over the table that keys its random numbers."""


class _Buckets:
    """Rows grouped by montage, cut into batches of one montage each."""

    def __init__(self, rows: Rows, montage: Codes, batch_size: int, n_least: int = 1) -> None:
        self.rows = list(grouped(rows, montage).values())
        self.batch_size = batch_size
        self.n_batches = np.array(
            [(len(bucket) + batch_size - n_least) // batch_size for bucket in self.rows], np.int64
        )
        self._end = np.cumsum(self.n_batches)

    def __len__(self) -> int:
        return int(self._end[-1]) if len(self._end) else 0

    def locate(self, slot: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Bucket of a slot, and the positions in it that the slot's batch holds."""
        bucket = int(np.searchsorted(self._end, slot, side="right"))
        first = (slot - int(self._end[bucket] - self.n_batches[bucket])) * self.batch_size
        return bucket, np.arange(first, min(first + self.batch_size, len(self.rows[bucket])), dtype=np.int64)


class FixedOrder(Order):
    """Every row once, in the order given, montage by montage; the last batch of a montage is smaller."""

    def __init__(self, rows: Rows, montage: Codes, batch_size: int) -> None:
        self.batch_size = batch_size
        self._buckets = _Buckets(rows, montage, batch_size)

    def __len__(self) -> int:
        return len(self._buckets)

    def batch(self, epoch: int, step: int) -> tuple[Ints, int]:
        """Rows of batch ``step``; random numbers are those of epoch 0, whatever the epoch."""
        bucket, positions = self._buckets.locate(step)
        return self._buckets.rows[bucket][positions], 0


class ShuffledOrder(Order):
    """Every row once per pass, shuffled anew for each pass.

    Parameters
    ----------
    rows : int64 (N,)
        Rows of the window table.
    montage : int (N,)
        Montage of each row: a batch holds one montage.
    batch_size : int
        Rows of a global batch.
    batches_per_epoch : int
        0 = an epoch is one pass. Otherwise epochs have this many batches and passes run on across them, so that no
        window comes back before all were seen.
    seed : int
        Seed of the order.
    world_size : int
        Processes that share a batch: a last batch with fewer rows is dropped.
    """

    def __init__(
        self,
        rows: Rows,
        montage: Codes,
        batch_size: int,
        batches_per_epoch: int,
        seed: int,
        world_size: int = 1,
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self._buckets = _Buckets(rows, montage, batch_size, n_least=world_size)
        if not len(self._buckets):
            raise DataError(f"{len(rows)} windows cannot be shared by {world_size} processes; use fewer processes.")
        self._per_epoch = batches_per_epoch or len(self._buckets)

    def __len__(self) -> int:
        return self._per_epoch

    def batch(self, epoch: int, step: int) -> tuple[Ints, int]:
        """Rows of batch ``step`` of ``epoch``, and the pass that they belong to."""
        number, slot = divmod(epoch * self._per_epoch + step, len(self._buckets))
        if len(self._buckets.rows) > 1:  # mix the montages; with one, the smaller batch stays the last
            slot = int(Permutation(len(self._buckets), self.seed, number)(np.array([slot]))[0])
        bucket, positions = self._buckets.locate(slot)
        rows = self._buckets.rows[bucket]
        return rows[Permutation(len(rows), self.seed, number, stream=1 + bucket)(positions)], number


class PairedOrder(Order):
    """Batches of couples, side by side: two windows of equal pair id and montage, of different people.

    Where pair ids are moments (a film at a time), a batch holds ``batch_size / 2`` different ones, so that negatives
    differ in film or time. A sweep visits every pair id at most once; from sweep to sweep the first row of a couple
    moves on by one, so that every window takes its turn; the second is drawn from the other people. Where pair ids are
    a few classes (``has_few_pairs``: states, tasks, films), a batch holds all of them, as evenly as it can, and windows
    take their turns in steps that lead from person to person.

    Every montage makes batches of its own; they come in turns, each montage as often as its share of the windows says.

    Parameters
    ----------
    rows : int64 (N,)
        Rows of the window table.
    pair : int64 (N,)
        Pair id of each row, -1 = none.
    participant : int (N,)
        Participant of each row.
    batch_size : int
        Rows of a global batch, even.
    batches_per_epoch : int
        0 = as many batches as hold the number of usable windows.
    seed : int
        Seed of the order.
    montage : int (N,), optional
        Montage of each row; all the same if left out.
    has_few_pairs : bool
        Whether pair ids are classes of which a batch holds several couples.

    Raises
    ------
    DataError
        If no montage has the pair ids that a batch needs, seen by two people: ``batch_size / 2`` moments, or two
        classes.
    """

    rows_together = 2

    def __init__(
        self,
        rows: Ints,
        pair: npt.NDArray[np.int64],
        participant: npt.NDArray[np.integer],
        batch_size: int,
        batches_per_epoch: int,
        seed: int,
        montage: npt.NDArray[np.integer] | None = None,
        has_few_pairs: bool = False,
    ) -> None:
        if batch_size < 2 or batch_size % 2:
            raise ConfigError(f"batch_size={batch_size} cannot hold couples; set data.batch_size to an even number.")
        self.batch_size = batch_size
        self.seed = seed
        montage = np.zeros(len(rows), np.int64) if montage is None else montage
        found = [
            _Couples(rows[here], pair[here], participant[here], batch_size // 2, seed, has_few_pairs)
            for here in (montage == code for code in _codes(montage))
        ]
        self._couples = [couples for couples in found if couples.batches_per_sweep]
        if not self._couples:
            raise DataError(_too_few_pairs(max((len(one) for one in found), default=0), batch_size, has_few_pairs))
        n_usable = np.array([couples.n_usable for couples in self._couples], np.int64)
        self._share = np.maximum(1, n_usable // batch_size)  # batches of each montage in a round
        self._end = np.cumsum(self._share)
        self._per_epoch = batches_per_epoch or int(self._end[-1])
        lonely = len(rows) - sum(couples.n_usable for couples in found)
        too_few = sum(couples.n_usable for couples in found) - int(n_usable.sum())
        why = ((lonely, "no other participant saw the same moment"), (too_few, "their montage has too few pairs"))
        self.left_out = tuple(f"{n:,} windows left out: {reason}" for n, reason in why if n)

    def __len__(self) -> int:
        return self._per_epoch

    def batch(self, epoch: int, step: int) -> tuple[Ints, int]:
        """Rows of batch ``step`` of ``epoch`` (couples side by side), and the sweep that they belong to."""
        number = epoch * self._per_epoch + step
        if len(self._couples) == 1:
            return self._couples[0].batch(number)
        turn, slot = divmod(number, int(self._end[-1]))
        slot = int(Permutation(int(self._end[-1]), self.seed, turn, stream=2)(np.array([slot]))[0])  # mix the montages
        bucket = int(np.searchsorted(self._end, slot, side="right"))
        share = int(self._share[bucket])
        return self._couples[bucket].batch(turn * share + slot - int(self._end[bucket]) + share)


class _Couples:
    """Couples of one montage: batch ``number`` of an endless row, as arithmetic on sorted rows."""

    def __init__(
        self,
        rows: Ints,
        pair: npt.NDArray[np.int64],
        participant: npt.NDArray[np.integer],
        n_couples: int,
        seed: int,
        has_few_pairs: bool,
    ) -> None:
        usable = np.flatnonzero(pair >= 0)
        # By pair, then participant, then row. What stays is 4 bytes per window, and 4 per person's run of windows.
        order = usable[np.lexsort((rows[usable], participant[usable], pair[usable]))]
        small = np.int32 if max(len(rows), int(rows.max(initial=0))) < 2**31 else np.int64
        self._rows = rows[order].astype(small)
        new_pair = _changes(pair[order])
        new_person = new_pair | _changes(participant[order])
        first, size = _runs(new_pair)
        n_people = np.add.reduceat(new_person.astype(np.int64), first) if len(first) else np.empty(0, np.int64)
        shared = n_people >= 2
        self.seed = seed
        self._person_first = np.append(np.flatnonzero(new_person), len(order)).astype(small)
        self._first, self._size = first[shared], size[shared]
        self.n_usable = int(self._size.sum())
        self.n_couples = n_couples
        self.has_few_pairs = has_few_pairs
        n_ids = len(self._first)
        self.batches_per_sweep = int(n_ids >= 2) if has_few_pairs else n_ids // n_couples
        self._stride = _coprime_strides(self._size) if has_few_pairs else np.ones(n_ids, np.int64)

    def __len__(self) -> int:
        """Pair ids that two people or more have."""
        return len(self._first)

    def batch(self, number: int) -> tuple[Ints, int]:
        couple = np.arange(self.n_couples, dtype=np.int64)
        if self.has_few_pairs:  # couples are dealt out to the ids one after the other, across batches
            sweep, count = number, number * self.n_couples + couple
            turn, ids = count // len(self._first), count % len(self._first)
        else:
            sweep, part = divmod(number, self.batches_per_sweep)
            turn, count = np.full_like(couple, sweep), part * self.n_couples + couple
            ids = Permutation(len(self._first), self.seed, sweep)(count)
        first, size = self._first[ids], self._size[ids]
        offset = sample_keys(self.seed, 0, ids).view(np.uint64) % size.astype(np.uint64)  # where the turns begin
        anchor = first + (offset.astype(np.int64) + turn % size * self._stride[ids]) % size
        run = np.searchsorted(self._person_first, anchor.astype(self._person_first.dtype), side="right")  # no copy
        mine = self._person_first[run - 1].astype(np.int64)
        n_mine = self._person_first[run].astype(np.int64) - mine
        keys = sample_keys(self.seed, sweep, count if self.has_few_pairs else ids)
        draw = splitmix64(keys.view(np.uint64)) % (size - n_mine).astype(np.uint64)
        positive = first + draw.astype(np.int64)
        positive += np.where(positive >= mine, n_mine, 0)  # step over the anchor's own windows
        return self._rows[np.stack([anchor, positive], axis=1).ravel()].astype(np.int64), sweep


def _coprime_strides(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Steps near the golden section of each size that visit every place before any comes back."""
    strides = np.asarray(np.maximum(1, np.rint(0.618 * sizes)), np.int64)
    while (shares_factor := np.gcd(strides, sizes) > 1).any():
        strides[shares_factor] += 1
    return strides


def _too_few_pairs(n_found: int, batch_size: int, has_few_pairs: bool) -> str:
    if has_few_pairs:
        return (
            f"{n_found} of the classes that windows are paired by (states, tasks, films) were seen by two people or "
            "more, but negatives need two; prepare more tasks or participants."
        )
    return (
        f"{n_found} moments were seen by two people or more, but a batch of {batch_size} needs {batch_size // 2} "
        f"different ones; set data.batch_size to at most {2 * n_found} or choose windows with pairs (FilmWindows) and "
        "more participants."
    )


def _codes(montage: npt.NDArray[np.integer]) -> Ints:
    """Montages that occur, ascending; without the sorted copy that `numpy.unique` makes."""
    return np.flatnonzero(np.bincount(montage)).astype(np.int64) if len(montage) else np.empty(0, np.int64)


def _changes(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Where a value differs from the one before it; True at the first."""
    changes = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _runs(is_first: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First position and length of each run, from flags that mark where runs begin."""
    first = np.flatnonzero(is_first).astype(np.int64)
    return first, np.diff(first, append=len(is_first)).astype(np.int64)


def rank_slice(rows: Ints, rank: int, world_size: int, is_training: bool, rows_together: int = 1) -> Ints:
    """Rows of one rank: a contiguous share of the global batch that never cuts a couple.

    In training all ranks get the same number, so that their mean is the mean of the batch: up to ``world_size - 1``
    windows (or couples) of an epoch's last batch are dropped. In evaluation none is dropped; a rank that would get none
    repeats the first, to be gathered by sample number.

    Parameters
    ----------
    rows : int64 (B,)
        Rows of the global batch.
    rank, world_size : int
        This process and their number.
    is_training : bool
        Whether all ranks must get the same number.
    rows_together : int
        Rows that must stay on one rank: `Order.rows_together`.
    """
    n = len(rows) // rows_together
    if is_training:
        first, end = rank * (n // world_size), (rank + 1) * (n // world_size)
    else:
        first, end = n * rank // world_size, n * (rank + 1) // world_size
        if first == end:
            first, end = 0, 1
    return rows[first * rows_together : end * rows_together]


def evenly_spaced(rows: Rows, n_most: int) -> Rows:
    """At most ``n_most`` rows, spread evenly over all; 0 = all of them."""
    if not n_most or len(rows) <= n_most:
        return rows
    return rows[np.arange(n_most) * len(rows) // n_most]
