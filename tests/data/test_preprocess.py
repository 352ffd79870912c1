import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.preprocess import Preprocessed, Preprocessing, preprocess, quantise
from cerebro.data.readers.base import Recording
from cerebro.dsp.spectrum import time_shift_s
from cerebro.errors import ConfigError, DataError

LSB_UV = 0.05


def recording(eeg, sfreq=500.0, reference="Cz"):
    names = (*(f"E{number}" for number in range(1, len(eeg))), "Cz")
    return Recording(np.asarray(eeg, np.float32), names, sfreq, reference)


def brain(n_channels=4, n_times=10000, seed=0):
    return 20 * np.random.default_rng(seed).standard_normal((n_channels, n_times))


@pytest.mark.parametrize("sfreq", [100.0, 250.0, 256.0, 500.0, 1000.0])
def test_result_is_float32_microvolts_at_the_rate_of_the_plan(sfreq):
    done = preprocess(recording(brain(n_times=int(20 * sfreq)), sfreq), Preprocessing())
    assert done.eeg.dtype == np.float32
    assert done.eeg.shape == (4, 2000)
    assert done.offset.shape == (4,)
    assert done.flat == ()
    assert done.findings("a") == []


def test_offset_is_removed_and_kept():
    offset = np.array([4e4, -3e3, 0, 12.5])
    eeg = brain() - brain().mean(1, keepdims=True)
    shifted = preprocess(recording(eeg + offset[:, None]), Preprocessing())
    np.testing.assert_allclose(shifted.offset, offset, atol=0.01)
    np.testing.assert_allclose(shifted.eeg, preprocess(recording(eeg), Preprocessing()).eeg, atol=0.01)
    assert abs(shifted.eeg.mean(1)).max() < 3


def test_offset_is_removed_even_without_a_highpass():
    done = preprocess(recording(brain() + 1000), Preprocessing(highpass_hz=0.0))
    assert abs(done.eeg.mean(1)).max() < 0.5


def test_the_recording_is_not_changed():
    raw = recording(brain())
    before = raw.eeg.copy()
    preprocess(raw, Preprocessing())
    np.testing.assert_array_equal(raw.eeg, before)


def test_same_input_gives_the_same_bytes():
    first, second = (quantise(preprocess(recording(brain()), Preprocessing()).eeg, LSB_UV)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_pass_band_is_kept_and_the_rest_is_gone():
    time_s = np.arange(30000) / 500
    hz = np.array([0.05, 10.0, 44.0, 49.8, 60.0])
    eeg = 100 * np.sin(2 * np.pi * hz[:, None] * time_s)
    kept = preprocess(recording(eeg), Preprocessing()).eeg[:, 1000:-1000].std(1) / (100 / np.sqrt(2))
    np.testing.assert_allclose(kept, [0, 1, 1, 0, 0], atol=0.02)


def test_notch_removes_the_line_and_nothing_beside_it():
    time_s = np.arange(30000) / 500
    eeg = 100 * np.sin(2 * np.pi * np.array([48.0, 50.0, 52.0])[:, None] * time_s)
    plan = Preprocessing(sfreq=200.0, lowpass_hz=70.0, notch_hz=50.0)
    kept = preprocess(recording(eeg), plan).eeg[:, 2000:-2000].std(1) / (100 / np.sqrt(2))
    np.testing.assert_allclose(kept, [1, 0, 1], atol=0.01)


def test_time_is_not_shifted():
    raw = recording(brain(n_times=60000))
    plain = preprocess(raw, Preprocessing(sfreq=500.0, lowpass_hz=45.0)).eeg[:, ::5]
    done = preprocess(raw, Preprocessing()).eeg
    assert abs(time_shift_s(plain, done, 100.0)) < 2e-5
    assert time_shift_s(plain[:, 1:], done[:, :-1], 100.0) == pytest.approx(0.01, rel=0.01)


def test_a_constant_channel_is_flat_zero_and_reported():
    eeg = brain()
    eeg[1] = 123.456
    done = preprocess(recording(eeg), Preprocessing())
    assert done.flat == ("E2",)
    assert not done.eeg[1].any()
    (finding,) = done.findings("R1/sub-1/rest")
    assert (finding.rule, finding.severity, finding.where) == ("flat-channel", "repaired", "R1/sub-1/rest")
    assert "1 of 4 channels" in finding.detail
    assert finding.detail.endswith("E2")


def test_the_reference_itself_may_be_flat():
    eeg = brain()
    eeg[-1] = 0
    assert preprocess(recording(eeg, reference="Cz"), Preprocessing()).flat == ()
    assert preprocess(recording(eeg, reference="average"), Preprocessing()).flat == ("Cz",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_names_its_channel_and_time(value):
    eeg = brain()
    eeg[2, 1500] = value
    with pytest.raises(DataError, match=r"channel E3 holds 1 values that are NaN or infinite, the first at 3.000 s"):
        preprocess(recording(eeg), Preprocessing())


def test_infinities_that_cancel_are_found():
    eeg = brain()
    eeg[0, 10], eeg[0, 20] = np.inf, -np.inf
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="channel E1 holds 2 values"):
        preprocess(recording(eeg), Preprocessing())


@pytest.mark.parametrize(
    ("scale", "likely"),
    [(1e-6, "volts or millivolts"), (1e-3, "volts or millivolts"), (1e4, "unscaled counts"), (1e6, "unscaled counts")],
)
def test_another_unit_than_microvolts_is_refused(scale, likely):
    with pytest.raises(DataError, match=likely):
        preprocess(recording(brain() * scale), Preprocessing())


@pytest.mark.parametrize("scale", [0.05, 1, 10])
def test_quiet_and_loud_recordings_pass(scale):
    preprocess(recording(brain() * scale), Preprocessing())


def test_some_broken_channels_do_not_make_the_unit_doubtful():
    eeg = brain(n_channels=9)
    eeg[:4] *= 1e5
    preprocess(recording(eeg), Preprocessing())


def test_a_recording_without_signal_is_refused():
    with pytest.raises(DataError, match="all 4 channels never change"):
        preprocess(recording(np.full((4, 5000), 7)), Preprocessing())
    with pytest.raises(DataError, match="no samples"):
        preprocess(recording(np.zeros((4, 0))), Preprocessing())


@pytest.mark.parametrize("n_times", [1, 4, 22, 499])
def test_recordings_shorter_than_the_filter_give_finite_numbers(n_times):
    done = preprocess(recording(brain(n_times=n_times)), Preprocessing())
    assert done.eeg.shape == (4, -(-n_times // 5))
    assert np.isfinite(done.eeg).all()


def test_a_rate_too_low_for_the_band_is_refused():
    with pytest.raises(DataError, match=r"at 80 Hz cannot hold the band up to lowpass_hz=45; set lowpass_hz to 39.5"):
        preprocess(recording(brain(), 80.0), Preprocessing())


def test_a_notch_beyond_the_recordings_rate_is_refused():
    with pytest.raises(ConfigError, match="or 0 for no notch"):
        preprocess(recording(brain(), 100.0), Preprocessing(notch_hz=60.0))


@pytest.mark.parametrize(
    ("band", "message"),
    [
        ({"sfreq": 0.0}, "sfreq"),
        ({"lowpass_hz": 50.0}, "lowpass_hz <= 49.5"),
        ({"highpass_hz": 45.0}, "does not fit"),
        ({"highpass_hz": -1.0}, "does not fit"),
        ({"notch_hz": 0.5}, "set notch_hz to 50 or 60"),
        ({"notch_hz": -50.0}, "set notch_hz to 50 or 60"),
    ],
)
def test_a_plan_that_cannot_be_done_is_refused(band, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**band)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(0, 9000), st.sampled_from([0.05, 0.1, 0.48828125]), st.integers(0, 2**31))
def test_counts_are_within_half_a_step_of_the_microvolts(n_channels, n_times, lsb_uV, seed):
    eeg = (200 * np.random.default_rng(seed).standard_normal((n_channels, n_times))).astype(np.float32)
    counts, n_clipped = quantise(eeg, lsb_uV)
    assert counts.dtype == np.int16
    assert counts.shape == (n_times, n_channels)
    assert counts.flags.c_contiguous
    assert n_clipped == 0
    assert (abs(counts.T * lsb_uV - eeg) <= lsb_uV / 2 + 1e-3).all()


def test_clipped_values_are_counted_and_keep_their_sign():
    eeg = np.array([[1638.35, 1700, -1e9], [-1638.35, -1638.4, 0]], np.float32)
    counts, n_clipped = quantise(eeg, LSB_UV)
    np.testing.assert_array_equal(counts, [[32767, -32767], [32767, -32767], [-32767, 0]])
    assert n_clipped == 3


def test_a_step_must_be_positive():
    with pytest.raises(ConfigError, match="lsb_uV"):
        quantise(np.zeros((1, 1), np.float32), 0.0)


def test_alpha_share_of_real_recordings_survives(shared_data):
    import mne

    from cerebro.dsp.spectrum import ALPHA, DELTA, band_power

    shares = []
    for run in ("R01", "R02"):  # eyes open, eyes closed
        raw = mne.io.read_raw_edf(shared_data / "eegmmidb" / f"S001{run}.edf", verbose="error")
        eeg = np.asarray(raw.get_data(["Oz..", "O1..", "O2.."]) * 1e6, np.float32)
        done = preprocess(Recording(eeg, ("Oz", "O1", "O2"), raw.info["sfreq"], "unknown"), Preprocessing())
        assert isinstance(done, Preprocessed)
        power = band_power(done.eeg, 100.0, (DELTA, ALPHA)).mean(0)
        shares.append(power[1] / power[0])
    assert shares[1] > 3 * shares[0]
