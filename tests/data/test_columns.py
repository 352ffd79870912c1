"""Columns of runs give what the same numbers written out one by one give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebro.data.columns import Column, Runs, column_of, grouped

SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=12)
BIG = (1 << 59) + 3  # pair ids are that large: no float64 holds one exactly


def written_out(sizes: list[int], first: list[int], step: float) -> list[int]:
    return [one + round(k * step) for n, one in zip(sizes, first, strict=True) for k in range(n)]


@given(SIZES, st.sampled_from([0, 1, 7, 2000.0]), st.randoms(use_true_random=False))
def test_a_column_gives_what_its_numbers_written_out_give(sizes, step, random):
    first = [random.randrange(BIG) for _ in sizes]
    column = Column(Runs(np.array(sizes)), np.array(first, np.int64), step)
    plain = np.array(written_out(sizes, first, step), np.int64)
    assert len(column) == len(plain)
    assert column[:].tolist() == plain.tolist()
    assert np.asarray(column).tolist() == plain.tolist()
    assert column[1:].tolist() == plain[1:].tolist()
    rows = np.array([random.randrange(len(plain)) for _ in range(9)] if len(plain) else [], np.int64)
    assert column[rows].tolist() == plain[rows].tolist()
    assert [int(column[int(row)]) for row in rows] == plain[rows].tolist()
    mask = np.array([random.random() < 0.5 for _ in plain], bool)
    assert column[mask].tolist() == plain[mask].tolist()
    chosen = np.array([random.random() < 0.5 for _ in sizes])
    assert column.only(chosen)[:].tolist() == plain[np.repeat(chosen, sizes)].tolist()


@given(SIZES, st.randoms(use_true_random=False))
def test_rows_in_runs_are_grouped_as_rows_written_out(sizes, random):
    runs = Runs(np.array(sizes))
    rows = Column(runs, runs.first, step=1)
    codes = [Column(runs, np.array([random.randrange(3) for _ in sizes])) for _ in range(2)]
    in_runs = grouped(rows, *codes)
    plain = grouped(rows[:], *(code[:] for code in codes))
    assert {kind: part[:].tolist() for kind, part in in_runs.items()} == {
        kind: part.tolist() for kind, part in plain.items()
    }
    assert list(in_runs) == sorted(in_runs)


def test_a_column_of_single_rows_is_its_array():
    values = np.array([5, -1, 9])
    column = column_of(values)
    assert column.runs.is_single
    assert column[np.array([2, 0])].tolist() == [9, 5]
    assert column_of(column) is column
    with pytest.raises(TypeError, match=r"column\[:\]"):
        _ = column == 5


@pytest.mark.parametrize("row", [-1, 6])
def test_a_row_that_is_none_is_an_error_and_no_other_row(row):
    column = Column(Runs(np.array([2, 0, 4])), np.array([0, 10, 20]), step=1)
    with pytest.raises(IndexError, match="not among 6"):
        column[np.array([row])]


def test_a_million_windows_a_recording_weigh_as_much_as_one():
    sizes = np.full(30_000, 1_000_000)
    runs = Runs(sizes)
    column = Column(runs, np.arange(30_000), step=200)
    assert len(column) == 30_000_000_000
    assert column[np.array([29_999_999_999])].tolist() == [29_999 + 999_999 * 200]
    assert runs.sizes.nbytes + runs.end.nbytes + runs.first.nbytes + column.first.nbytes < 1_000_000
