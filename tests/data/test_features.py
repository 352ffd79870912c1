import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.feature_list import FEATURE_BANDS, FEATURES, feature_columns, feature_of
from cerebro.data.features import BLOCK, feature_table
from cerebro.data.features_shape import sample_entropy
from cerebro.errors import ConfigError, DataError
from cerebro.hemispheres import homologous

SFREQ, N_TIMES = 256.0, 2048
TIME = np.arange(N_TIMES) / SFREQ


def sine(frequency, amplitude=20.0, phase=0.0):
    return amplitude * np.sin(2 * np.pi * frequency * TIME + phase)


def windows(*channels):
    """One window (1, C, L) of the channels."""
    return np.stack(channels)[None].astype(np.float32)


def noise(n_windows, n_channels, seed=0, n_times=N_TIMES):
    return np.random.default_rng(seed).normal(0, 10, (n_windows, n_channels, n_times)).astype(np.float32)


@pytest.fixture(scope="module")
def of_sine():
    """Features of 10 Hz with an amplitude of 20 microvolts."""
    return {name: value[0] for name, value in feature_table(windows(sine(10.0)), SFREQ, ["AF7"]).items()}


@pytest.fixture(scope="module")
def of_noise():
    """Means over 40 windows of white noise with a deviation of 10 microvolts, in two channels."""
    table = feature_table(noise(40, 2), SFREQ, ["AF7", "AF8"])
    return {name: value.mean() for name, value in table.items()}


def test_a_sine_of_alpha_has_all_its_power_there(of_sine):
    assert of_sine["AF7_alpha_power"] == pytest.approx(20**2 / 2, rel=1e-3)
    assert of_sine["AF7_alpha_relative"] == pytest.approx(1, abs=1e-3)
    assert max(of_sine[f"AF7_{band.name}_power"] for band in FEATURE_BANDS if band.name != "alpha") < 0.01


def test_edge_and_median_of_a_sine_are_at_its_frequency(of_sine):
    assert of_sine["AF7_spectral_edge"] == pytest.approx(10, abs=0.75)
    assert of_sine["AF7_median_frequency"] == pytest.approx(10, abs=0.01)
    assert of_sine["AF7_spectral_entropy"] < 0.3


def test_hjorth_parameters_of_a_sine_are_those_of_the_formula(of_sine):
    assert of_sine["AF7_hjorth_activity"] == pytest.approx(200, rel=1e-3)
    step = 2 * SFREQ * np.sin(np.pi * 10 / SFREQ)  # 2 pi f, of differences of samples
    assert of_sine["AF7_hjorth_mobility"] == pytest.approx(step, rel=1e-3)
    assert of_sine["AF7_hjorth_complexity"] == pytest.approx(1, abs=2e-3)


def test_statistics_of_a_sine_are_those_of_the_formula(of_sine):
    assert of_sine["AF7_sd"] == pytest.approx(20 / np.sqrt(2), rel=1e-3)
    assert of_sine["AF7_skewness"] == pytest.approx(0, abs=1e-3)
    assert of_sine["AF7_kurtosis"] == pytest.approx(-1.5, abs=1e-3)
    assert of_sine["AF7_peak_to_peak"] == pytest.approx(40, rel=1e-2)
    assert of_sine["AF7_line_length"] == pytest.approx(4 * 20 * 10, rel=1e-2)
    assert of_sine["AF7_zero_crossings"] == pytest.approx(20, abs=0.26)


def test_a_sine_is_regular_by_every_measure_of_complexity(of_sine, of_noise):
    for name in ("permutation_entropy", "sample_entropy", "lempel_ziv", "higuchi_dimension", "petrosian_dimension"):
        assert of_sine[f"AF7_{name}"] < of_noise[f"AF7_{name}"]
    assert of_sine["AF7_higuchi_dimension"] < 1.2


def test_power_of_white_noise_is_its_density_times_the_width_of_the_band(of_noise):
    density = 2 * 10**2 / SFREQ
    for band in FEATURE_BANDS:
        width = band.high_hz - band.low_hz
        assert of_noise[f"AF7_{band.name}_power"] == pytest.approx(density * width, rel=0.1)
        assert of_noise[f"AF7_{band.name}_relative"] == pytest.approx(width / 44, rel=0.1)


def test_power_is_the_mean_over_seven_segments_of_two_seconds():
    eeg = noise(1, 1, seed=8)
    taper = np.sin(np.pi * np.arange(512) / 512) ** 2
    pieces = [eeg[0, 0, first : first + 512].astype(np.float64) for first in range(0, 1537, 256)]
    spectra = [np.abs(np.fft.rfft((piece - piece.mean()) * taper)) ** 2 for piece in pieces]
    density = 2 * np.mean(spectra, axis=0) / (SFREQ * (taper**2).sum())  # microvolt^2 / Hz, 0.5 Hz apart
    table = feature_table(eeg, SFREQ, ["CZ"])
    assert len(pieces) == 7
    assert table["CZ_theta_power"][0] == pytest.approx(density[8:16].sum() / 2, rel=1e-6)
    assert table["CZ_theta_relative"][0] == pytest.approx(density[8:16].sum() / density[2:90].sum(), rel=1e-6)


def test_white_noise_has_the_values_of_theory(of_noise):
    assert of_noise["AF7_spectral_edge"] == pytest.approx(1 + 0.95 * 44, abs=0.6)
    assert of_noise["AF7_median_frequency"] == pytest.approx(23, abs=0.6)
    assert of_noise["AF7_spectral_entropy"] == pytest.approx(1, abs=0.03)
    assert of_noise["AF7_spectral_slope"] == pytest.approx(0, abs=0.05)
    assert of_noise["AF7_hjorth_mobility"] == pytest.approx(np.sqrt(2) * SFREQ, rel=0.01)
    assert of_noise["AF7_hjorth_complexity"] == pytest.approx(np.sqrt(3) / np.sqrt(2), rel=0.01)
    assert of_noise["AF7_kurtosis"] == pytest.approx(0, abs=0.05)
    assert of_noise["AF7_zero_crossings"] == pytest.approx(SFREQ / 2, rel=0.02)
    assert of_noise["AF7_permutation_entropy"] == pytest.approx(1, abs=0.01)
    assert of_noise["AF7_sample_entropy"] == pytest.approx(2.18, abs=0.05)  # -ln erf(0.1)
    assert of_noise["AF7_higuchi_dimension"] == pytest.approx(2, abs=0.02)
    assert of_noise["AF7_lempel_ziv"] == pytest.approx(1, abs=0.1)


def test_independent_channels_have_no_asymmetry_and_the_coherence_of_seven_segments(of_noise):
    assert of_noise["AF7-AF8_alpha_asymmetry"] == pytest.approx(0, abs=0.1)
    assert of_noise["AF7-AF8_beta_coherence"] == pytest.approx(1 / 7, abs=0.03)


def test_the_slope_is_that_of_the_background_beside_a_peak_of_alpha():
    spectrum = np.fft.rfft(noise(20, 1, n_times=N_TIMES)[:, 0])
    frequencies = np.fft.rfftfreq(N_TIMES, 1 / SFREQ)
    pink = np.fft.irfft(spectrum / np.maximum(frequencies, 0.5) ** 0.5, n=N_TIMES)
    eeg = (pink + sine(10.0))[:, None].astype(np.float32)
    assert feature_table(eeg, SFREQ, ["PZ"])["PZ_spectral_slope"].mean() == pytest.approx(-1, abs=0.1)


def test_power_that_is_larger_on_the_right_is_a_positive_asymmetry():
    eeg = windows(sine(10.0, 10.0), sine(10.0, 20.0, phase=1.0))
    table = feature_table(eeg, SFREQ, ["AF7", "AF8"])
    assert table["AF7-AF8_alpha_asymmetry"][0] == pytest.approx(np.log(4), abs=1e-3)
    table = feature_table(eeg[:, ::-1].copy(), SFREQ, ["AF8", "AF7"])  # order of the channels means nothing
    assert table["AF7-AF8_alpha_asymmetry"][0] == pytest.approx(np.log(4), abs=1e-3)


def test_one_signal_in_two_channels_is_coherent_whatever_their_sizes():
    eeg = noise(3, 1)
    table = feature_table(np.concatenate([eeg, -3 * eeg], axis=1), SFREQ, ["TP9", "TP10"])
    for band in FEATURE_BANDS:
        assert table[f"TP9-TP10_{band.name}_coherence"] == pytest.approx(1, abs=1e-6)


def test_coherence_is_that_of_the_band_in_which_signals_agree():
    shared = sine(10.0) + 5 * np.sin(2 * np.pi * 10.5 * TIME)
    eeg = noise(10, 2, seed=3) + shared.astype(np.float32)
    table = feature_table(eeg, SFREQ, ["O1", "O2"])
    assert table["O1-O2_alpha_coherence"].mean() > table["O1-O2_beta_coherence"].mean() + 0.1


def test_sample_entropy_is_that_of_antropy():
    import antropy

    eeg = noise(4, 1, n_times=400)[:, 0].astype(np.float64)
    eeg = np.cumsum(eeg, axis=1)
    assert sample_entropy(eeg) == pytest.approx([antropy.sample_entropy(window) for window in eeg], abs=1e-4)


def test_an_offset_changes_nothing():
    eeg = noise(2, 2)
    plain, raised = (feature_table(part, SFREQ, ["F3", "F4"]) for part in (eeg, eeg + np.float32(500)))
    for name, value in plain.items():
        assert raised[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


def test_scale_changes_what_grows_with_the_signal_and_nothing_else():
    eeg = noise(2, 2, seed=5)
    small, large = (feature_table(part, SFREQ, ["F3", "F4"]) for part in (eeg, 4 * eeg))
    for name, value in small.items():
        feature = feature_of(name)
        factor = {"microvolt^2": 16, "microvolt": 4, "microvolt/s": 4}.get(feature.unit, 1)
        assert feature.is_scale == (factor > 1), name
        assert large[name] == pytest.approx(factor * value, rel=1e-4, abs=1e-6), name


def test_flat_and_broken_channels_give_nothing_and_spoil_nobody():
    eeg = noise(4, 3)
    eeg[1, 0] = 7.0
    eeg[2, 0, 100] = np.nan
    eeg[3, 0, 100] = np.inf
    table = feature_table(eeg, SFREQ, ["AF7", "AF8", "CZ"])
    alone = feature_table(eeg[:, 1:], SFREQ, ["AF8", "CZ"])
    for name, value in table.items():
        assert not np.isinf(value).any()
        if name.startswith("AF7"):
            assert np.isnan(value).tolist() == [False, True, True, True], name
        else:
            assert np.array_equal(value, alone[name]), name


def test_a_window_is_the_same_alone_and_among_others():
    eeg = noise(BLOCK + 2, 1, n_times=512)
    many = feature_table(eeg, SFREQ, ["CZ"])
    one = feature_table(eeg[-1:], SFREQ, ["CZ"])
    assert all(value[-1] == pytest.approx(one[name][0], rel=1e-9) for name, value in many.items())
    assert all(len(value) == BLOCK + 2 and np.isfinite(value).all() for value in many.values())


def test_no_window_gives_empty_columns():
    table = feature_table(np.zeros((0, 1, N_TIMES), np.float32), SFREQ, ["CZ"])
    assert list(table) == feature_columns(["CZ"])
    assert {value.shape for value in table.values()} == {(0,)}


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["noise", "steps", "ramp", "spike", "zeros", "tiny", "sine", "half"]),
    size=st.floats(1e-6, 1e6),
    seed=st.integers(0, 1000),
    n_times=st.integers(512, 700),
)
def test_values_are_numbers_or_missing_and_never_a_warning(kind, size, seed, n_times):
    draw = np.random.default_rng(seed)
    shapes = {
        "noise": draw.normal(size=n_times),
        "steps": np.repeat(draw.integers(0, 2, n_times // 50 + 1), 50)[:n_times].astype(float),
        "ramp": np.linspace(0, 1, n_times),
        "spike": np.eye(1, n_times, n_times // 2)[0],
        "zeros": np.zeros(n_times),
        "tiny": 1e-5 * draw.normal(size=n_times),
        "sine": np.sin(np.arange(n_times) * draw.uniform(0.01, 1)),
        "half": np.where(np.arange(n_times) < n_times // 2, draw.normal(size=n_times), 0),
    }
    eeg = (size * np.stack([shapes[kind], draw.normal(size=n_times)]))[None].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = feature_table(eeg, SFREQ, ["AF7", "AF8"])
    for name, value in table.items():
        assert not np.isinf(value).any(), name
        if name.endswith(("_relative", "_coherence", "_spectral_entropy", "_permutation_entropy")):
            assert not ((value < -1e-9) | (value > 1 + 1e-9)).any(), name
        if name.endswith(("_edge", "_median_frequency")) and np.isfinite(value[0]):
            assert 0.5 <= value[0] <= 45.5, name


def test_every_column_is_described_with_a_unit_and_none_more_are():
    channels = ["AF7", "AF8", "TP9", "TP10", "CZ"]
    table = feature_table(noise(1, 5, n_times=512), SFREQ, channels)
    assert list(table) == feature_columns(channels)
    described = {feature_of(column) for column in table}
    assert None not in described
    assert described == set(FEATURES)
    assert all(feature.unit and feature.meaning for feature in FEATURES)
    for column in table:
        assert sum(column in feature.columns(channels, homologous(channels)) for feature in FEATURES) == 1
    assert len(set(table)) == len(table) == 28 * 5 + 10 * 2


@pytest.mark.parametrize("column", ["Participant", "Remission", "run", "parent_window_id", "window_start", "AF7"])
def test_columns_of_others_are_no_features(column):
    assert feature_of(column) is None


@pytest.mark.parametrize(
    ("n_times", "sfreq", "channels", "error", "words"),
    [
        (400, 256.0, ["CZ"], ConfigError, "windows of 2 s or more and these have 1.5625 s; set a longer window_s"),
        (2048, 64.0, ["CZ"], ConfigError, "power up to 45 Hz and the windows have 64 Hz; set downsample_hz to 90"),
        (2048, 256.0, ["CZ", "PZ"], DataError, "1 channels are called CZ, PZ"),
    ],
)
def test_what_has_no_features_is_refused_in_one_line(n_times, sfreq, channels, error, words):
    with pytest.raises(error, match=words) as refusal:
        feature_table(noise(1, 1, n_times=n_times), sfreq, channels)
    assert "\n" not in str(refusal.value)


def test_two_channels_of_one_name_are_refused():
    with pytest.raises(DataError, match="CZ, CZ; give each channel one name of its own"):
        feature_table(noise(1, 2), SFREQ, ["CZ", "CZ"])
