from fractions import Fraction

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp import decimate, filters, resample
from cerebro.dsp.resample import Ratio, filter_and_resample
from cerebro.dsp.spectrum import time_shift_s

PAIRS = [(500.0, 100.0), (256.0, 100.0), (250.0, 100.0), (1000.0, 100.0), (160.0, 100.0), (100.0, 100.0)]
UPWARDS = [(100.0, 256.0), (125.0, 128.0)]


def kernels_for(old_sfreq, new_sfreq, notch_hz=0.0, highpass_hz=0.5, lowpass_hz=45.0):
    nyquist_hz = min(old_sfreq, new_sfreq) / 2
    kernels = [filters.bandpass_kernel(old_sfreq, highpass_hz, lowpass_hz, nyquist_hz)]
    return [*kernels, filters.notch_kernel(old_sfreq, notch_hz)] if notch_hz else kernels


def noise(n_channels, n_times, seed=0):
    return (50 * np.random.default_rng(seed).standard_normal((n_channels, n_times))).astype(np.float32)


def no_offset(eeg):
    return np.zeros(len(eeg), np.float32)


def run(eeg, kernels, old_sfreq, new_sfreq):
    return filter_and_resample(eeg, no_offset(eeg), kernels, old_sfreq, new_sfreq)


def in_band(error, sfreq, low_hz=1.0, high_hz=45.0):
    spectrum = np.fft.rfft(error)
    hz = np.fft.rfftfreq(error.shape[-1], 1 / sfreq)
    spectrum[..., (hz < low_hz) | (hz > high_hz)] = 0
    return np.fft.irfft(spectrum, error.shape[-1])


def whole_pass(eeg, kernels, old_sfreq, new_sfreq):
    """The same mathematics in float64 with one transform over everything: pad, multiply, cut the spectrum."""
    ratio = Ratio.between(old_sfreq, new_sfreq)
    n_times = eeg.shape[1]
    reach = -(-filters.half_length(kernels) // ratio.down) * ratio.down
    n_fft = -(-(n_times + 2 * reach) // ratio.down) * ratio.down
    n_reflected = min(reach, n_times - 1)
    eeg = eeg.astype(np.float64)
    padded = np.zeros((len(eeg), n_fft))
    padded[:, reach : reach + n_times] = eeg
    padded[:, reach - n_reflected : reach] = 2 * eeg[:, :1] - eeg[:, n_reflected:0:-1]
    end = reach + n_times
    padded[:, end : end + n_reflected] = 2 * eeg[:, -1:] - eeg[:, ::-1][:, 1 : n_reflected + 1]
    n_new = n_fft * ratio.up // ratio.down
    spectrum = np.fft.rfft(padded) * filters.zero_phase_response(kernels, n_fft)
    kept = np.zeros((len(eeg), n_new // 2 + 1), complex)
    n_kept = min(kept.shape[1], spectrum.shape[1])
    kept[:, :n_kept] = spectrum[:, :n_kept]
    rebuilt = np.fft.irfft(kept, n_new) * n_new / n_fft
    start = reach * ratio.up // ratio.down
    return rebuilt[:, start : start + ratio.n_out(n_times)]


@pytest.mark.parametrize(("old_sfreq", "new_sfreq"), PAIRS)
@pytest.mark.parametrize("notch_hz", [0.0, 30.0])
def test_result_is_that_of_mnes_filters_and_resampling(old_sfreq, new_sfreq, notch_hz):
    eeg = noise(3, int(60 * old_sfreq))
    ours = run(eeg, kernels_for(old_sfreq, new_sfreq, notch_hz), old_sfreq, new_sfreq)
    theirs = mne.filter.filter_data(
        eeg.astype(np.float64), old_sfreq, 0.5, 45.0, h_trans_bandwidth=5.0, verbose="error"
    )
    if notch_hz:
        theirs = mne.filter.notch_filter(theirs, old_sfreq, notch_hz, verbose="error")
    if old_sfreq != new_sfreq:
        theirs = mne.filter.resample(theirs, new_sfreq, old_sfreq, npad=0, verbose="error")
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    inner = slice(int(10 * new_sfreq), -int(10 * new_sfreq))
    assert abs(in_band((ours - theirs)[:, inner], new_sfreq)).max() < 0.05  # microvolts


@pytest.mark.parametrize("n_times", [1, 2, 3, 50, 329, 330, 331, 661, 3000, 9001])
def test_filter_without_resampling_is_mnes_from_edge_to_edge(n_times):
    eeg = noise(2, n_times) + 3
    ours = run(eeg, kernels_for(100.0, 100.0), 100.0, 100.0)
    kernel = mne.filter.create_filter(None, 100.0, 0.5, 45.0, verbose="error")
    theirs = mne.filter._overlap_add_filter(eeg.astype(np.float64), kernel)
    np.testing.assert_allclose(ours, theirs, atol=5e-4)


@pytest.mark.parametrize(("old_sfreq", "new_sfreq"), PAIRS + UPWARDS)
@pytest.mark.parametrize("n_times", [1, 2, 7, 333, 5000, 70001])
def test_blocks_equal_one_pass_over_everything(old_sfreq, new_sfreq, n_times):
    eeg = noise(9, n_times)
    kernels = kernels_for(old_sfreq, new_sfreq)
    ours = run(eeg, kernels, old_sfreq, new_sfreq)
    expected = whole_pass(eeg, kernels, old_sfreq, new_sfreq)
    assert ours.shape == expected.shape == (9, -(-n_times * int(new_sfreq) // int(old_sfreq)))
    np.testing.assert_allclose(ours, expected, atol=0.05)  # of 50 microvolts


@pytest.mark.parametrize(("old_sfreq", "new_sfreq"), PAIRS + UPWARDS)
def test_a_sum_of_sines_keeps_its_values_at_every_time(old_sfreq, new_sfreq):
    rng = np.random.default_rng(1)
    hz, phase = rng.uniform(3, 40, (20, 1)), rng.uniform(0, 6.28, (20, 1))

    def sines(time_s):
        return np.sin(2 * np.pi * hz * time_s + phase).sum(0, keepdims=True).astype(np.float32)

    ours = run(sines(np.arange(90 * old_sfreq) / old_sfreq), kernels_for(old_sfreq, new_sfreq), old_sfreq, new_sfreq)
    expected = sines(np.arange(ours.shape[1]) / new_sfreq)
    inner = slice(int(10 * new_sfreq), -int(10 * new_sfreq))
    ripple = 0.003 * 20  # of a Hamming window, per sine
    np.testing.assert_allclose(ours[:, inner], expected[:, inner], atol=ripple)
    assert abs(time_shift_s(expected[:, inner], ours[:, inner], new_sfreq)) < 2e-6
    shifted = np.roll(ours, 1, axis=1)
    assert time_shift_s(expected[:, inner], shifted[:, inner], new_sfreq) == pytest.approx(1 / new_sfreq, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(60, 700), st.integers(60, 300), st.integers(1, 3000), st.integers(1, 10))
def test_any_ratio_and_length_equals_one_pass(old_sfreq, new_sfreq, n_times, n_channels):
    old_sfreq, new_sfreq = float(old_sfreq), float(new_sfreq)
    eeg = noise(n_channels, n_times, seed=n_times)
    kernels = kernels_for(old_sfreq, new_sfreq, highpass_hz=2.0, lowpass_hz=0.6 * min(old_sfreq, new_sfreq) / 2)
    ours = run(eeg, kernels, old_sfreq, new_sfreq)
    assert ours.shape == (n_channels, Ratio.between(old_sfreq, new_sfreq).n_out(n_times))
    np.testing.assert_allclose(ours, whole_pass(eeg, kernels, old_sfreq, new_sfreq), atol=0.1)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5000), st.sampled_from(PAIRS + UPWARDS))
def test_every_output_sample_lies_within_the_recording(n_times, pair):
    n_out = Ratio.between(*pair).n_out(n_times)
    assert (n_out - 1) / pair[1] < n_times / pair[0] <= n_out / pair[1] + 1e-12


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 8), st.integers(1, 4000))
def test_a_channel_does_not_depend_on_those_beside_it(position, n_times):
    eeg = noise(9, n_times, seed=3)
    kernels = kernels_for(250.0, 100.0)
    together = run(eeg, kernels, 250.0, 100.0)
    alone = run(eeg[position : position + 1], kernels, 250.0, 100.0)
    np.testing.assert_allclose(together[position : position + 1], alone, atol=1e-4)


def test_a_large_offset_costs_no_precision():
    eeg = noise(2, 20000)
    offset = np.array([1e5, -3e4], np.float32)
    kernels = kernels_for(500.0, 100.0)
    with_offset = filter_and_resample(eeg + offset[:, None], offset, kernels, 500.0, 100.0)
    rounding = np.spacing(np.float32(1e5))
    np.testing.assert_allclose(with_offset, run(eeg, kernels, 500.0, 100.0), atol=rounding)


def test_line_noise_above_the_new_nyquist_does_not_come_back():
    time_s = np.arange(60 * 500) / 500
    eeg = (1000 * np.sin(2 * np.pi * 60 * time_s))[None].astype(np.float32)
    ours = run(eeg, kernels_for(500.0, 100.0), 500.0, 100.0)
    assert abs(ours[:, 1000:-1000]).max() < 0.05  # microvolts of 1,000


@pytest.mark.parametrize("pair", PAIRS + UPWARDS)
@pytest.mark.parametrize("n_times", [1, 1000, 10**6])
def test_blocks_are_whole_samples_at_both_rates_and_fit_the_signal(pair, n_times):
    ratio = Ratio.between(*pair)
    reach = filters.half_length(kernels_for(*pair))
    factor = decimate.decimation_factor(*pair)
    blocks = resample.cut(n_times, reach, factor, ratio)
    assert blocks.hits_every_instant
    assert blocks.factor == factor
    assert Fraction(blocks.ratio.up, blocks.ratio.down) == Fraction(ratio.up, ratio.down) * factor
    assert blocks.n_fft % blocks.ratio.down == blocks.dropped % blocks.ratio.down == 0
    assert blocks.dropped * factor >= reach
    assert 0 < blocks.step * (-(-n_times // (blocks.step * factor))) < n_times / factor + blocks.n_fft
    assert blocks.n_fft < resample.LONGEST_BLOCK + 20 * blocks.dropped


@pytest.mark.parametrize(
    ("rates", "fraction"), [((256.0, 100.0), (25, 64)), ((500.0, 100.0), (1, 5)), ((99.99999999, 100.0), (1, 1))]
)
def test_ratio_is_in_lowest_terms(rates, fraction):
    ratio = Ratio.between(*rates)
    assert (ratio.up, ratio.down) == fraction
