"""Numbers of millions of windows from a few numbers per recording: what a window table and an order are made of.

Windows come in runs: those of one recording lie one behind the other, a stride apart. A column holds the first number
of each run and the step, and works out any row when it is asked for, so that 48 million windows of 30,000 recordings
cost what 30,000 recordings cost.
"""

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


class Runs:
    """Rows 0 .. n-1 cut into runs, one behind the other.

    Parameters
    ----------
    sizes : int64 (Q,)
        Rows of each run; 0 is allowed.
    """

    def __init__(self, sizes: npt.NDArray[np.integer]) -> None:
        self.sizes = np.asarray(sizes, np.int64)
        self.end = np.cumsum(self.sizes)  # behind the last row of each run
        self.first = self.end - self.sizes
        self.is_single = bool((self.sizes == 1).all())
        self._n = int(self.end[-1]) if len(self.end) else 0

    def __len__(self) -> int:
        return self._n

    def locate(self, rows: Ints) -> tuple[Ints, Ints]:
        """Run of each row, and its place in it.

        Raises
        ------
        IndexError
            If a row is outside 0 .. n-1.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < self._n:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are not among {self._n:,}")
        if self.is_single:
            return rows, np.zeros_like(rows)
        run = np.searchsorted(self.end, rows, side="right")
        return run, rows - self.first[run]


class Column(Generic[Number]):
    """One number per row: the k-th of run q is ``first[q] + round(k * step)``.

    ``column[rows]`` gives an array (rows, or a mask of all rows), ``column[:]`` all of them, ``column[3]`` one.

    Parameters
    ----------
    runs : Runs
        How the rows are cut.
    first : (Q,)
        Number of the first row of each run.
    step : float
        From each row of a run to the next.
    """

    __hash__ = object.__hash__

    def __init__(self, runs: Runs, first: npt.NDArray[Number], step: float | int = 0) -> None:
        assert len(first) == len(runs.sizes)
        self.runs = runs
        self.first = first
        self.step = step

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, rows: Ints | npt.NDArray[np.bool_] | slice | int) -> npt.NDArray[Number]:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)), dtype=np.int64)
        wanted = np.asarray(rows)
        if wanted.dtype == bool:
            assert len(wanted) == len(self)
            wanted = np.flatnonzero(wanted)
        wanted = wanted.astype(np.int64, copy=False)
        if self.runs.is_single and not self.step:
            return np.asarray(self.first[wanted])
        return self.at(*self.runs.locate(wanted.reshape(-1))).reshape(wanted.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All numbers, for NumPy's functions."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def __eq__(self, other: object) -> bool:
        """Refused: it would say False of the whole column where NumPy compares number by number."""
        raise TypeError("compare column[:] with it")

    def at(self, run: Ints, place: Ints) -> npt.NDArray[Number]:
        """Numbers of rows that `Runs.locate` found."""
        found = self.first[run]
        return np.asarray(found + np.rint(place * self.step).astype(found.dtype) if self.step else found)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Column[Number]":
        """The runs that are ``chosen`` (Q,), as a column of their own."""
        return Column(Runs(self.runs.sizes[chosen]), self.first[chosen], self.step)


Rows = Ints | Column[np.int64]  # rows of a window table: as they are, or in runs


def column_of(numbers: "npt.NDArray[Any] | Column[Any]") -> "Column[Any]":
    """An array as a column whose runs have one row each; a column as it is."""
    return numbers if isinstance(numbers, Column) else Column(Runs(np.ones(len(numbers), np.int64)), numbers)


def grouped(rows: Rows, *codes: "npt.NDArray[Any] | Column[Any]") -> dict[tuple[int, ...], Rows]:
    """Rows by their codes (montage, source), ascending; a column of rows needs columns of codes with the same runs."""
    numbers = [code.first if isinstance(code, Column) else code for code in codes]
    if isinstance(rows, Column):
        assert all(isinstance(code, Column) and len(code.first) == len(rows.first) for code in codes)
        rows = rows.only(is_used := rows.runs.sizes > 0)
        numbers = [code[is_used] for code in numbers]
    found = {}
    for kind in np.unique(np.stack(numbers), axis=1).T if len(rows) else ():
        is_of_kind = np.logical_and.reduce([code == one for code, one in zip(numbers, kind, strict=True)])
        found[tuple(kind.tolist())] = rows.only(is_of_kind) if isinstance(rows, Column) else rows[is_of_kind]
    return found
