import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp.levels import AT_ONCE, levels, mean_square


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3 * AT_ONCE), st.integers(1, 50), st.integers(0, 2**31))
def test_levels_are_those_of_numpy(n_channels, n_times, n_values, seed):
    eeg = np.random.default_rng(seed).integers(0, n_values, (n_channels, n_times)).astype(np.float32)
    found = levels(eeg)
    np.testing.assert_allclose(found.mean, eeg.mean(1, dtype=np.float64), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.lowest, eeg.min(1))
    np.testing.assert_array_equal(found.highest, eeg.max(1))
    np.testing.assert_array_equal(found.n_lowest, (eeg.min(1) == eeg.T).sum(0))
    np.testing.assert_array_equal(found.n_highest, (eeg.max(1) == eeg.T).sum(0))
    np.testing.assert_allclose(mean_square(eeg), (eeg.astype(np.float64) ** 2).mean(1), rtol=1e-5)


def test_an_extreme_found_late_is_counted_from_there():
    eeg = np.repeat(np.arange(12, dtype=np.float32), AT_ONCE // 2)[None]
    for signal in (eeg, -eeg):
        found = levels(signal)
        assert (found.n_lowest.item(), found.n_highest.item()) == (AT_ONCE // 2, AT_ONCE // 2)


def test_a_large_offset_costs_the_mean_no_digits():
    eeg = (4e5 + np.random.default_rng(0).standard_normal((2, 100_000))).astype(np.float32)
    np.testing.assert_allclose(levels(eeg).mean, eeg.mean(1, dtype=np.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 100, AT_ONCE - 1, AT_ONCE + 5000])
def test_a_value_that_is_no_number_spoils_the_mean_of_its_channel_alone(value, place):
    eeg = np.ones((2, AT_ONCE + 5001), np.float32)
    eeg[1, place] = value
    assert np.isfinite(levels(eeg).mean).tolist() == [True, False]


def test_rows_need_not_be_contiguous():
    eeg = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    np.testing.assert_array_equal(levels(eeg.T).highest, eeg.max(0))
