"""Runs of counts are copied and scaled as NumPy does it, to the bit, and every row ends in zeros."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.gather_runs import gather_count_runs, gather_microvolt_runs


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 70)),
    scale=st.floats(1e-3, 10.0),
    seed=st.integers(0, 1000),
)
def test_runs_are_those_of_numpy_and_zero_behind_their_end(
    shape: tuple[int, int, int], scale: float, seed: int
) -> None:
    n_rows, n_channels, n_times = shape
    draw = np.random.default_rng(seed)
    flat = draw.integers(-32768, 32768, 5000).astype(np.int16)
    first = draw.integers(0, len(flat) - n_times, (n_rows, n_channels))
    n_valid = draw.integers(0, n_times + 1, n_rows)
    scales = (scale * draw.uniform(0.5, 1, n_rows)).astype(np.float32)
    counts, microvolts = np.full(shape, 7, np.int16), np.full(shape, np.nan, np.float32)
    addresses = flat.ctypes.data + 2 * first
    gather_count_runs(addresses, n_valid, counts)
    gather_microvolt_runs(addresses, n_valid, scales, microvolts)
    expected = np.zeros(shape, np.int16)
    for row, column in np.ndindex(n_rows, n_channels):
        n = n_valid[row]
        expected[row, column, :n] = flat[first[row, column] : first[row, column] + n]
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(microvolts, expected.astype(np.float32) * scales[:, None, None])


def test_a_buffer_that_is_not_contiguous_is_refused() -> None:
    address, n = np.zeros((1, 2), np.int64), np.zeros(1, np.int64)
    with pytest.raises(AssertionError):
        gather_count_runs(address, n, np.zeros((1, 4, 2), np.int16).transpose(0, 2, 1))
