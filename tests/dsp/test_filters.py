import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp import filters
from cerebro.errors import ConfigError

RATES = [100.0, 128.0, 160.0, 200.0, 250.0, 256.0, 500.0, 512.0, 1000.0]


def mne_bandpass(sfreq, highpass_hz, lowpass_hz, transition_hz="auto"):
    return mne.filter.create_filter(
        None, sfreq, highpass_hz or None, lowpass_hz, h_trans_bandwidth=transition_hz, verbose="error"
    )


def mne_notch(sfreq, notch_hz):
    """Kernel that mne.filter.notch_filter applies, read off its answer to an impulse."""
    impulse = np.zeros(int(40 * sfreq) + 1)
    impulse[len(impulse) // 2] = 1
    answer = mne.filter.notch_filter(impulse, sfreq, notch_hz, verbose="error")
    half = len(filters.notch_kernel(sfreq, notch_hz)) // 2
    return answer, half


@pytest.mark.parametrize("sfreq", RATES)
@pytest.mark.parametrize(
    ("highpass_hz", "lowpass_hz"), [(0.5, 45.0), (0.1, 40.0), (1.0, 30.0), (0.0, 45.0), (12.0, 20.0)]
)
def test_bandpass_kernel_is_mnes_default_kernel(sfreq, highpass_hz, lowpass_hz):
    ours = filters.bandpass_kernel(sfreq, highpass_hz, lowpass_hz, nyquist_hz=sfreq / 2)
    theirs = mne_bandpass(sfreq, highpass_hz, lowpass_hz)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(st.floats(60, 1000), st.floats(0.1, 0.8), st.floats(0.05, 0.9), st.floats(0.3, 1))
def test_bandpass_kernel_is_mnes_at_any_rate_and_band(sfreq, top, low, nyquist):
    nyquist_hz = nyquist * sfreq / 2
    lowpass_hz = top * nyquist_hz
    highpass_hz = low * lowpass_hz
    ours = filters.bandpass_kernel(sfreq, highpass_hz, lowpass_hz, nyquist_hz)
    width = filters.lowpass_transition_hz(lowpass_hz, nyquist_hz)
    theirs = mne_bandpass(sfreq, highpass_hz, lowpass_hz, width)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sfreq", [160.0, 250.0, 256.0, 500.0])
@pytest.mark.parametrize("notch_hz", [50.0, 60.0])
def test_notch_kernel_is_mnes_default_kernel(sfreq, notch_hz):
    answer, half = mne_notch(sfreq, notch_hz)
    middle = len(answer) // 2
    np.testing.assert_allclose(
        answer[middle - half : middle + half + 1], filters.notch_kernel(sfreq, notch_hz), rtol=0, atol=1e-14
    )
    assert abs(answer[: middle - half - 1]).max() < 1e-14


@pytest.mark.parametrize("sfreq", [250.0, 500.0])
def test_response_is_one_in_the_pass_band_and_small_in_the_stop_band(sfreq):
    kernels = [filters.bandpass_kernel(sfreq, 0.5, 45.0, nyquist_hz=50.0), filters.notch_kernel(sfreq, 30.0)]
    n_fft = int(100 * sfreq)
    gain = filters.zero_phase_response(kernels, n_fft)
    hz = np.arange(len(gain)) / 100
    assert abs(gain[(hz >= 0.5) & (hz <= 45) & (abs(hz - 30) > 0.6)] - 1).max() < 0.01
    assert abs(gain[(hz == 0) | (hz >= 50)]).max() < 0.003  # 50 dB
    assert abs(gain[hz == 30]).max() < 0.01


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(81, 200), st.integers(0, 2**31))
def test_response_is_that_of_circular_convolution_without_delay(half, n_fft, seed):
    rng = np.random.default_rng(seed)
    side = rng.standard_normal(half)
    kernel = np.r_[side, 1.0, side[::-1]]
    signal = rng.standard_normal(n_fft)
    direct = sum(tap * np.roll(signal, lag) for tap, lag in zip(kernel, range(-half, half + 1), strict=True))
    by_fft = np.fft.irfft(np.fft.rfft(signal) * filters.zero_phase_response([kernel], n_fft), n_fft)
    np.testing.assert_allclose(by_fft, direct, atol=1e-10)


def test_half_length_of_a_cascade_adds_up():
    assert filters.half_length([np.ones(5), np.ones(3)]) == 3


@pytest.mark.parametrize("band", [(0.5, 50.0), (-1.0, 40.0), (45.0, 45.0), (46.0, 45.0)])
def test_a_band_that_does_not_fit_is_refused(band):
    with pytest.raises(ConfigError, match="does not fit a signal of 500 Hz whose stop band starts by 50 Hz"):
        filters.bandpass_kernel(500.0, *band, nyquist_hz=50.0)


@pytest.mark.parametrize("notch_hz", [0.4, 50.0, 60.0])
def test_a_notch_that_does_not_fit_is_refused(notch_hz):
    with pytest.raises(ConfigError, match="set notch_hz between 1 and 48"):
        filters.notch_kernel(100.0, notch_hz)
