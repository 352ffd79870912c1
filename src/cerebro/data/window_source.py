"""What a way of cutting windows promises, and the arithmetic that several ways share."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from cerebro.data.columns import Ints, Runs
from cerebro.data.store import Store
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, DataError


class WindowSource(ABC):
    """Lists the windows of a store; the order is by recording, then time, and depends on the store alone.

    Attributes
    ----------
    has_few_pairs : bool
        Whether pair ids are a handful of classes (states, tasks, films), so that a batch of couples holds several of
        each, and not moments, of which it holds one each.
    """

    has_few_pairs: bool = False

    @abstractmethod
    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows, and what was left out and why.

        Raises
        ------
        DataError
            If no window is left.
        """


def of_tasks(store: Store, tasks: Sequence[str]) -> tuple[Ints, list[Omission]]:
    """Rows of the recordings of ``tasks``; a task that no recording has is named."""
    task = store.recordings["task"].astype(str)
    absent = [name for name in tasks if name not in set(task)]
    chosen = np.flatnonzero(task.isin(tasks)) if tasks else np.arange(len(task))
    if not len(chosen):
        raise DataError(
            f"no recording of {store.path} has task {', '.join(tasks)}; it holds "
            f"{', '.join(sorted(set(task))) or 'none'}: choose among these or prepare more tasks."
        )
    return chosen.astype(np.int64), [Omission(0, "recordings", f"task {name} is not in the store") for name in absent]


def in_samples(store: Store, duration_s: float, stride_s: float) -> tuple[int, int]:
    """Samples of a window and of its stride; ConfigError if one is none."""
    n_times, stride = round(duration_s * store.sfreq), round(stride_s * store.sfreq)
    if n_times < 1 or stride < 1:
        raise ConfigError(
            f"a window of {duration_s} s every {stride_s} s is less than one sample at {store.sfreq:g} Hz; set "
            "longer ones."
        )
    return n_times, stride


def slide(store: Store, chosen: Ints, n_times: int, stride: int, until: Ints | None = None) -> Runs:
    """Windows that fit each of the ``chosen`` recordings, from its first sample on: a run each.

    Windows end by sample ``until`` (R,) of their recording, where that is given.
    """
    length = (store.index["n_times"].astype(np.int64) if until is None else until)[chosen]
    return Runs(np.maximum((length - n_times) // stride + 1, 0))


def too_short(runs: Runs, duration_s: float) -> list[Omission]:
    """The recordings in which no window of ``duration_s`` fits."""
    return counted(int((runs.sizes == 0).sum()), "recordings", f"shorter than {duration_s:g} s")


def milliseconds(stride: int, sfreq: float) -> float:
    """``stride`` in samples as milliseconds: what pair ids of moments grow by."""
    return stride * (1000 / sfreq)


def pair_codes(names: Iterable[str]) -> dict[str, int]:
    """Number of each name, apart by 2^28 or more: room for milliseconds; the same in every store and process.

    Raises
    ------
    DataError
        If two names have the same number.
    """
    codes = {name: (zlib.crc32(name.encode()) >> 1) << 28 for name in names}
    if len(set(codes.values())) < len(codes):
        raise DataError(f"two of {', '.join(sorted(codes))} have the same pair number; rename a task.")
    return codes


def counted(n: int, what: str, why: str) -> list[Omission]:
    """One omission, or none where nothing was left out."""
    return [Omission(n, what, why)] if n else []


def not_empty(table: WindowTable, left_out: list[Omission], store: Store, source: WindowSource) -> WindowTable:
    """The table; DataError that says what was left out if it has no window."""
    if not len(table):
        reasons = "; ".join(map(str, left_out)) or "it holds no recordings"
        raise DataError(f"{type(source).__name__} finds no window in {store.path} ({reasons}); choose other windows.")
    return table
