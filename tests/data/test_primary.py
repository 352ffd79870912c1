"""A recording as windows: the plain chain upsample, filter, downsample; cut, without offset, artefacts counted."""

from dataclasses import replace

import mne
import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal.windows import tukey

from cerebro.data.primary import Windowed, windowed
from cerebro.data.processing import Processing
from cerebro.data.readers.base import Finding, Recording, Skip
from cerebro.errors import DataError

CHANNELS = ("AF7", "AF8", "Cz")
PLAN = Processing(railed="keep")


def noise(duration_s: float, sfreq: float, n_channels: int = 3, seed: int = 0) -> npt.NDArray[np.float32]:
    """White noise of 30 microvolts on a large offset of each channel."""
    draw = np.random.default_rng(seed).normal(0, 30, (n_channels, round(duration_s * sfreq)))
    return (draw + 1000 * np.arange(n_channels)[:, None]).astype(np.float32)


def recording(eeg: npt.NDArray[np.float32], sfreq: float = 256.0) -> Recording:
    return Recording(eeg, CHANNELS[: len(eeg)], sfreq, "unknown")


def rules(done: Windowed) -> dict[str, str]:
    return {finding.rule: finding.detail for finding in done.findings}


@pytest.mark.parametrize(("sfreq", "upsample_hz"), [(128.0, 512.0), (250.0, 512.0), (500.0, 512.0), (250.0, 1000.0)])
def test_one_pass_is_the_plain_chain_of_upsampling_filtering_and_downsampling(sfreq: float, upsample_hz: float) -> None:
    eeg = noise(120.0, sfreq) * tukey(round(120 * sfreq), 0.1).astype(np.float32)  # the chain takes end for beginning
    plan = Processing(upsample_hz=upsample_hz, notch_hz=50.0, parent_window_s=120.0, window_s=120.0, railed="keep")
    [ours] = windowed(recording(eeg, sfreq), plan, "x").eeg  # (C, T)
    centred = eeg.astype(np.float64) - eeg.mean(axis=1, keepdims=True, dtype=np.float64)
    up = mne.filter.resample(centred, upsample_hz, sfreq, npad=0, verbose="error")
    band = mne.filter.filter_data(up, upsample_hz, 0.5, 45.0, verbose="error")
    filtered = mne.filter.notch_filter(band, upsample_hz, 50.0, verbose="error")
    plain = mne.filter.resample(filtered, 256.0, upsample_hz, npad=0, verbose="error")
    difference = np.fft.rfft(plain - ours)
    hz = np.fft.rfftfreq(plain.shape[1], 1 / 256)
    difference[:, (hz < 1) | (hz > 45)] = 0
    inner = np.fft.irfft(difference, plain.shape[1])[:, 2560:-2560]
    assert np.abs(inner).max() < 0.15  # of 100 at most: the pass band's ripple, whose taps are rounded at another rate
    assert ours[:, 2560:-2560].std() > 10


def test_windows_lie_side_by_side_in_parents_and_the_last_parent_may_be_short() -> None:
    done = windowed(recording(noise(85.0, 256.0)), PLAN, "x")
    assert done.eeg.shape == (10, 3, 2048)
    assert done.eeg.dtype == np.float32
    assert done.parent.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert done.sub.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    np.testing.assert_array_equal(done.start_s, 8.0 * np.arange(10))
    np.testing.assert_array_equal(done.end_s, done.start_s + 8)
    assert done.n_cut == 10


def test_overlapping_windows_stay_in_their_parent() -> None:
    plan = replace(PLAN, parent_window_s=20.0, overlap=0.5)
    done = windowed(recording(noise(40.0, 256.0)), plan, "x")
    assert done.start_s.tolist() == [0, 4, 8, 12, 20, 24, 28, 32]
    assert done.sub.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    first, second = done.eeg[0], done.eeg[1]
    shared = first[:, 1024:] - first[:, 1024:].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(shared, second[:, :1024] - second[:, :1024].mean(axis=1, keepdims=True), atol=1e-3)


def test_every_window_of_every_channel_has_no_offset() -> None:
    drift = noise(64.0, 256.0) + 300 * np.sin(np.linspace(0, 3, 64 * 256, dtype=np.float32))
    done = windowed(recording(drift), replace(PLAN, highpass_hz=0.0), "x")
    assert np.abs(done.eeg.mean(axis=2)).max() < 1e-3


def test_channels_come_in_the_order_asked_for_whatever_their_case() -> None:
    eeg = noise(16.0, 256.0)
    whole = windowed(recording(eeg), PLAN, "x")
    few = windowed(recording(eeg), replace(PLAN, channels=("CZ", "af7")), "x")
    assert whole.channels == ("AF7", "AF8", "CZ")
    assert few.channels == ("CZ", "AF7")
    np.testing.assert_array_equal(few.eeg, whole.eeg[:, [2, 0]])
    with pytest.raises(DataError, match="no channel Pz \\(found AF7, AF8, Cz\\)"):
        windowed(recording(eeg), replace(PLAN, channels=("Pz",)), "x")


def test_the_average_is_that_of_all_electrodes_also_where_few_are_kept() -> None:
    names = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2")
    eeg = noise(16.0, 256.0, 8)
    whole = Recording(eeg, names, 256.0, "unknown")
    done = windowed(whole, replace(PLAN, reference="average", channels=("O2",)), "x")
    plain = windowed(whole, PLAN, "x").eeg
    np.testing.assert_allclose(done.eeg[:, 0], plain[:, 7] - plain.mean(axis=1), atol=1e-3)


def test_a_recording_shorter_than_a_window_is_skipped_by_rule() -> None:
    with pytest.raises(Skip) as skip:
        windowed(recording(noise(7.9, 256.0)), PLAN, "x")
    assert skip.value.finding == Finding("no-window-left", "skipped", "x", "7.89844 s, shorter than a window of 8 s")


def test_windows_beyond_the_peak_are_left_out_counted_and_keep_their_numbers() -> None:
    eeg = noise(64.0, 256.0)
    eeg[1, 2048 * 2 + 1000 : 2048 * 2 + 1020] += 4000
    done = windowed(recording(eeg), replace(PLAN, peak_uV=500.0), "x")
    assert done.start_s.tolist() == [0, 8, 24, 32, 40, 48, 56]
    assert done.sub.tolist() == [0, 1, 3, 0, 1, 2, 3]
    assert rules(done) == {"loud-window": "1 of 8 windows left out; windows by channel: AF8 1"}
    assert done.n_cut == 8


def test_windows_in_which_a_channel_is_flat_are_left_out_and_a_dead_channel_is_kept_and_counted() -> None:
    eeg = noise(64.0, 256.0)
    eeg[0, 2048 * 3 - 5 : 2048 * 4 + 5] = 7.0
    eeg[2] = 5.0
    done = windowed(recording(eeg), PLAN, "x")
    assert done.start_s.tolist() == [0, 8, 16, 32, 40, 48, 56]
    assert rules(done)["flat-window"] == "1 of 8 windows left out; windows by channel: AF7 1"
    assert "Cz" in rules(done)["flat-channel"]
    assert (done.eeg[:, 2] == 0).all()
    assert len(windowed(recording(eeg), replace(PLAN, flat="keep"), "x").eeg) == 8


def test_windows_at_a_rail_of_the_converter_are_left_out() -> None:
    eeg = noise(64.0, 256.0)
    eeg[1, 2048 * 5 + 100 : 2048 * 5 + 140] = eeg[1].max() + 900
    done = windowed(recording(eeg), replace(PLAN, railed="leave_out"), "x")
    assert done.start_s.tolist() == [0, 8, 16, 24, 32, 48, 56]
    assert rules(done)["railed-window"] == "1 of 8 windows left out; windows by channel: AF8 1"


def test_artefacts_of_a_channel_that_is_not_kept_leave_nothing_out() -> None:
    eeg = noise(64.0, 256.0)
    eeg[1, 2048 * 3 - 5 : 2048 * 4 + 5] = 7.0
    done = windowed(recording(eeg), replace(PLAN, channels=("AF7", "Cz"), railed="leave_out"), "x")
    assert len(done.eeg) == 8


def test_a_recording_without_a_good_window_is_skipped_and_says_why() -> None:
    with pytest.raises(Skip, match="all 2 windows were left out \\(loud-window: 2 of 2"):
        windowed(recording(noise(16.0, 256.0)), replace(PLAN, peak_uV=1.0), "x")


def test_windows_are_not_cut_twice() -> None:
    ready = replace(recording(noise(16.0, 256.0)), is_ready=True)
    with pytest.raises(DataError, match="filtered or cut before"):
        windowed(ready, PLAN, "x")
