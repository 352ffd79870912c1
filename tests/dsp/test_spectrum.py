import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from cerebro.dsp import spectrum
from cerebro.errors import ConfigError


@pytest.mark.parametrize("n_times", [200, 201])
def test_density_is_scipys_periodogram(n_times):
    eeg = np.random.default_rng(0).standard_normal((2, 3, n_times))
    frequencies, density = spectrum.power_spectrum(eeg, 100.0)
    expected_frequencies, expected = signal.periodogram(eeg, 100.0, window="hann", detrend="constant")
    np.testing.assert_allclose(frequencies, expected_frequencies)
    np.testing.assert_allclose(density, expected, atol=1e-12)


def test_white_noise_has_the_same_power_in_every_band():
    eeg = np.random.default_rng(0).standard_normal((300, 2, 400))
    powers = spectrum.band_power(eeg, 100.0)
    assert powers.shape == (300, 2, 4)
    np.testing.assert_allclose(powers.mean((0, 1)), 2 / 100, rtol=0.05)


@pytest.mark.parametrize("band", spectrum.BANDS, ids=lambda band: band.name)
def test_a_sine_has_its_power_in_its_own_band(band):
    hz = (band.low_hz + band.high_hz) / 2
    eeg = np.sin(2 * np.pi * hz * np.arange(800) / 100)[None]
    powers = spectrum.band_power(eeg, 100.0)[0]
    assert spectrum.BANDS[powers.argmax()] is band
    assert powers.max() > 100 * np.sort(powers)[-2]


def test_an_offset_does_not_enter_a_band():
    eeg = np.random.default_rng(0).standard_normal((1, 400))
    np.testing.assert_allclose(spectrum.band_power(eeg + 1e4, 100.0), spectrum.band_power(eeg, 100.0), rtol=1e-8)


@pytest.mark.parametrize(("n_times", "sfreq"), [(20, 100.0), (400, 50.0)])
def test_a_band_that_cannot_be_measured_is_refused(n_times, sfreq):
    with pytest.raises(ConfigError, match="cannot be measured"):
        spectrum.band_power(np.zeros((1, n_times)), sfreq)


@settings(deadline=None, max_examples=20)
@given(st.floats(-0.01, 0.01), st.integers(0, 2**31))
def test_a_planted_shift_is_found(shift_s, seed):
    rng = np.random.default_rng(seed)
    hz, phase = rng.uniform(3, 35, (30, 1)), rng.uniform(0, 6.28, (30, 1))
    time_s = np.arange(3000) / 100
    first = np.sin(2 * np.pi * hz * time_s + phase).sum(0, keepdims=True)
    second = np.sin(2 * np.pi * hz * (time_s - shift_s) + phase).sum(0, keepdims=True)
    assert spectrum.time_shift_s(first, second, 100.0) == pytest.approx(shift_s, abs=1e-6)
