import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.plausible import FEWEST_RAILED, NARROWEST_RANGE_UV, RAILED_SHARE
from cerebro.data.preprocess import FEWEST_FOR_AVERAGE, Preprocessed, Preprocessing, keep_as_is, preprocess, quantise
from cerebro.data.readers.base import Recording, Segment
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
    [
        (1e-6, "volts or millivolts"),
        (1e-3, "volts or millivolts"),
        (500.0, "microvolts that are called mV"),  # 4 microvolts in the band, called millivolts
        (1e4, "unscaled counts"),
        (1e6, "unscaled counts"),
    ],
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


def test_a_value_beyond_all_microvolts_names_its_channel():
    for value in (1e22, 3e38):
        eeg = brain()
        eeg[1, 7] = value
        with (
            np.errstate(over="ignore", invalid="ignore"),
            pytest.raises(DataError, match="channel E2 holds values beyond"),
        ):
            preprocess(recording(eeg), Preprocessing())


def clipped(limit_uV, n_times=10000):
    """A channel whose slow swings leave the range of its converter now and then."""
    time_s = np.arange(n_times) / 500
    return np.clip(brain(1, n_times)[0] + 1.2 * limit_uV * np.sin(2 * np.pi * 0.5 * time_s), -limit_uV, limit_uV)


def test_a_railed_channel_is_counted_and_kept():
    eeg = brain()
    eeg[2] = clipped(1000.0)
    done = preprocess(recording(eeg), Preprocessing())
    ((name, share),) = done.railed
    assert (name, share) == ("E3", np.mean(abs(eeg[2]) == 1000))
    assert share > RAILED_SHARE
    assert done.eeg[2].std() > 100
    (finding,) = done.findings("sub-1")
    assert (finding.rule, finding.severity, finding.where) == ("railed-channel", "repaired", "sub-1")
    assert finding.detail.startswith("1 of 4 channels sit at their own extremes and are kept")
    assert finding.detail.endswith(f"E3 {share:.1%}")


@pytest.mark.parametrize("rail_uV", [-1000.0, 999.5])
def test_one_rail_is_enough(rail_uV):
    eeg = brain()
    eeg[0, 4000:4200] = rail_uV
    assert preprocess(recording(eeg), Preprocessing()).railed == (("E1", (200 + 1) / 10000),)
    eeg[0, 4050:] = brain()[0, 4050:]
    assert preprocess(recording(eeg), Preprocessing()).railed == ()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([0.05, 0.48828125, 1.0, 5.0, 20.0, 60.0]),
    st.floats(5, 60),
    st.integers(1, 5000),
    st.integers(0, 2**31),
)
def test_coarse_steps_are_no_rails(step_uV, size_uV, n_times, seed):
    rng = np.random.default_rng(seed)
    eeg = rng.normal(0, size_uV, (3, n_times)) + 300 * np.exp(-(((np.arange(n_times) - 0.3 * n_times) / 40) ** 2))
    eeg[2] = 0
    done = preprocess(recording(np.rint(eeg / step_uV) * step_uV), Preprocessing())
    assert done.railed == ()


def test_a_few_samples_in_a_short_recording_are_no_rail():
    eeg = brain(n_times=500)
    eeg[1, 100 : 100 + FEWEST_RAILED - 2] = 2 * NARROWEST_RANGE_UV
    assert preprocess(recording(eeg), Preprocessing()).railed == ()
    eeg[1, 100 : 100 + FEWEST_RAILED] = 2 * NARROWEST_RANGE_UV
    assert len(preprocess(recording(eeg), Preprocessing()).railed) == 1


AVERAGE = Preprocessing(reference="average")


def test_the_average_over_all_electrodes_becomes_zero():
    raw = recording(brain(12))
    done, as_is = preprocess(raw, AVERAGE), preprocess(raw, Preprocessing())
    assert (done.reference, as_is.reference) == ("average", "Cz")
    assert abs(done.eeg.mean(0)).max() < 1e-4
    np.testing.assert_allclose(done.eeg, as_is.eeg - as_is.eeg.mean(0), atol=1e-4)
    np.testing.assert_array_equal(done.offset, as_is.offset)


def test_the_old_reference_is_an_electrode_and_comes_back_as_minus_the_mean():
    eeg = brain(12)
    eeg[-1] = 0
    raw = recording(eeg)
    done, as_is = preprocess(raw, AVERAGE), preprocess(raw, Preprocessing())
    assert done.flat == ()
    np.testing.assert_allclose(done.eeg[-1], -as_is.eeg[:-1].sum(0) / 12, atol=1e-4)


@pytest.mark.parametrize("broken", [np.full(10000, 55.0), clipped(1000.0)], ids=["flat", "railed"])
def test_a_broken_channel_is_no_part_of_the_average(broken):
    eeg = brain(12)
    eeg[3] = broken
    done = preprocess(recording(eeg), AVERAGE)
    others = np.delete(np.arange(12), 3)
    as_is = preprocess(recording(eeg), Preprocessing()).eeg
    mean = as_is[others].mean(0)
    np.testing.assert_allclose(done.eeg[others], as_is[others] - mean, atol=1e-4)
    expected = np.zeros_like(mean) if done.flat else as_is[3] - mean
    np.testing.assert_allclose(done.eeg[3], expected, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(9)), st.integers(0, 2**31))
def test_the_order_of_channels_changes_nothing(order, seed):
    raw = recording(brain(9, 3000, seed))
    mixed = Recording(raw.eeg[list(order)], tuple(raw.channels[row] for row in order), raw.sfreq, raw.reference)
    made, expected = preprocess(mixed, AVERAGE), preprocess(raw, AVERAGE)
    np.testing.assert_allclose(made.eeg, expected.eeg[list(order)], atol=1e-3)
    np.testing.assert_array_equal(made.offset, expected.offset[list(order)])


def test_too_few_electrodes_have_no_average():
    eeg = brain(FEWEST_FOR_AVERAGE)
    preprocess(recording(eeg), AVERAGE)
    eeg[0] = 1.0
    with pytest.raises(DataError, match=r"7 usable electrodes are too few .* set preprocessing.reference to as_is"):
        preprocess(recording(eeg), AVERAGE)


def ready(eeg, sfreq=100.0, segments=()):
    raw = recording(eeg, sfreq)
    return Recording(raw.eeg, raw.channels, sfreq, "Cz", is_ready=True, segments=segments)


def test_what_is_ready_loses_its_offset_and_nothing_else():
    eeg = brain() + np.array([[3.0], [-4e4], [0.0], [7.0]])
    raw = ready(eeg)
    before = raw.eeg.copy()
    done = keep_as_is(raw, Preprocessing())
    np.testing.assert_allclose(done.eeg, eeg - eeg.mean(1, keepdims=True), atol=0.005)
    np.testing.assert_allclose(done.offset, eeg.mean(1), atol=0.005)
    np.testing.assert_array_equal(raw.eeg, before)
    assert (done.flat, done.railed, done.reference) == ((), (), "Cz")


def test_what_is_ready_is_judged_and_re_referenced_as_all_else():
    eeg = brain(12)
    eeg[3], eeg[4] = 7.0, clipped(1000.0)
    done = keep_as_is(ready(eeg), AVERAGE)
    assert (done.flat, [name for name, _ in done.railed], done.reference) == (("E4",), ["E5"], "average")
    assert not done.eeg[3].any()
    assert abs(np.delete(done.eeg, [3, 4], 0).mean(0)).max() < 1e-4
    for spoiled, message in ((brain() * 1e-6, "volts"), (brain() * np.nan, "NaN"), (brain()[:, :0], "no samples")):
        with pytest.raises(DataError, match=message):
            keep_as_is(ready(spoiled), Preprocessing())


def test_what_is_ready_at_another_rate_is_refused():
    with pytest.raises(DataError, match=r"at 128 Hz, and the store has 100 Hz; set preprocessing.sfreq to 128"):
        keep_as_is(ready(brain(), 128.0), Preprocessing())


def test_padding_of_windows_stays_zero_and_out_of_the_offset():
    eeg = brain(4, 1000) + 50
    eeg[:, 360:400] = eeg[:, 900:] = 0
    segments = tuple(Segment(0, number, 0.0, 4.0, n_valid) for number, n_valid in enumerate((400, 360, 300)))
    eeg = np.concatenate([brain(4, 400) + 50, eeg[:, :400], brain(4, 300) + 50, np.zeros((4, 100))], axis=1)
    done = keep_as_is(ready(eeg, segments=segments), Preprocessing())
    is_padding = np.r_[np.zeros(760, bool), np.ones(40, bool), np.zeros(300, bool), np.ones(100, bool)]
    np.testing.assert_allclose(done.offset, eeg[:, ~is_padding].mean(1), rtol=1e-5)
    assert not done.eeg[:, is_padding].any()
    assert abs(done.eeg[:, ~is_padding].mean(1)).max() < 1e-3


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


def test_counts_of_a_channel_may_lie_side_by_side():
    eeg = np.random.default_rng(0).normal(0, 900, (3, 70_000)).astype(np.float32)
    counts, n_clipped = quantise(eeg, LSB_UV)
    by_channel, n_clipped_there = quantise(eeg, LSB_UV, is_by_channel=True)
    np.testing.assert_array_equal(by_channel, counts)
    assert n_clipped_there == n_clipped > 0
    assert counts.flags.c_contiguous
    assert by_channel.T.flags.c_contiguous
