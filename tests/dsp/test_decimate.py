import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp import decimate

RATES = [160.0, 240.0, 250.0, 256.0, 300.0, 400.0, 500.0, 512.0, 600.0, 1000.0, 1024.0]
GOALS = [100.0, 128.0, 200.0, 256.0]


def response(half_kernel, sfreq, hz):
    return decimate.decimation_response(half_kernel, hz / sfreq)


def continued(row, places):
    """The signal continued by odd reflection by at most its length, then by zeros; one sample at a time."""
    last, values = len(row) - 1, []
    for place in places:
        if 0 <= place <= last:
            values.append(row[place])
        elif -last <= place < 0:
            values.append(2 * row[0] - row[-place])
        elif last < place <= 2 * last:
            values.append(2 * row[last] - row[2 * last - place])
        else:
            values.append(0.0)
    return np.array(values)


@pytest.mark.parametrize("old_sfreq", RATES)
@pytest.mark.parametrize("new_sfreq", GOALS)
def test_what_would_fold_into_the_new_band_is_85_decibels_down(old_sfreq, new_sfreq):
    factor = decimate.decimation_factor(old_sfreq, new_sfreq)
    assert factor == 1 or old_sfreq / factor > new_sfreq
    half_kernel = decimate.decimation_kernel(old_sfreq, factor, new_sfreq / 2)
    if factor == 1:
        assert half_kernel.tolist() == [1.0]
        return
    folds = response(half_kernel, old_sfreq, np.linspace(old_sfreq / factor - new_sfreq / 2, old_sfreq / 2, 2000))
    keeps = response(half_kernel, old_sfreq, np.linspace(0, min(old_sfreq, new_sfreq) / 2, 2000))
    assert 20 * np.log10(abs(folds).max()) < -85
    assert keeps.min() > 0.5  # what the transform divides by


@pytest.mark.parametrize(
    ("old_sfreq", "new_sfreq", "factor"),
    [(500.0, 100.0, 3), (1000.0, 100.0, 4), (128.0, 100.0, 1), (100.0, 100.0, 1), (100.0, 256.0, 1)],
)
def test_a_first_step_is_taken_only_where_it_saves(old_sfreq, new_sfreq, factor):
    assert decimate.decimation_factor(old_sfreq, new_sfreq) == factor


def test_response_is_that_of_the_kernel():
    half_kernel = decimate.decimation_kernel(500.0, 3, 50.0)
    kernel = np.r_[half_kernel[:0:-1], half_kernel]
    cycles = np.array([0.0, 0.013, 0.1, 0.2])
    lags = np.arange(len(kernel)) - len(half_kernel) + 1
    direct = (kernel * np.exp(2j * np.pi * cycles[:, None] * lags)).sum(1)
    np.testing.assert_allclose(decimate.decimation_response(half_kernel, cycles), direct, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(500.0, 1), (500.0, 2), (500.0, 3), (600.0, 4)]),
    st.integers(1, 3000),
    st.integers(-4000, 4000),
    st.integers(1, 1300),
    st.integers(0, 2**31),
)
def test_samples_are_those_of_a_plain_convolution(step, n_times, start, n_out, seed):
    sfreq, factor = step
    eeg = np.random.default_rng(seed).standard_normal((2, n_times)).astype(np.float32)
    offset = np.array([3.0, -1.0], np.float32)
    half_kernel = decimate.decimation_kernel(sfreq, factor, 50.0)
    half = len(half_kernel) - 1
    out = np.full((2, n_out), np.nan, np.float32)
    decimate.decimate(eeg, offset, half_kernel.astype(np.float32), factor, start, out)
    kernel = np.r_[half_kernel[:0:-1], half_kernel]
    places = range(start - half, start + (n_out - 1) * factor + half + 1)
    for row, constant, made in zip(eeg.astype(np.float64), offset, out, strict=True):
        plain = np.convolve(continued(row - constant, places), kernel, "valid")[::factor]
        np.testing.assert_allclose(made, plain, atol=1e-5)
