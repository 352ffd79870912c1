"""Recordings cut into windows: the samples of the filtered recording, without those windows that hold a railed one."""

import numpy as np
import pytest

from cerebro.data.build import build
from cerebro.data.cut_windows import cut_windows
from cerebro.data.pieces import Recipe
from cerebro.data.plausible import FEWEST_RAILED, SHORTEST_RAIL, railed_samples
from cerebro.data.preprocess import Preprocessing, preprocess, quantise
from cerebro.data.readers import Folder
from cerebro.data.readers.base import Recording, Segment, Skip
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.sequences import ChannelSequences, SequenceReader
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.errors import ConfigError, DataError

SFREQ, RAIL_UV, STEP_UV = 128.0, 1000.0, 0.5
PLAN = Preprocessing(sfreq=64.0, highpass_hz=1.0, lowpass_hz=20.0, window_s=4.0, railed_windows="leave_out")
KEEP = Preprocessing(sfreq=64.0, highpass_hz=1.0, lowpass_hz=20.0, window_s=4.0)


def raw(duration_s=30.0, channels=("AF7", "TP9"), seed=0):
    """Pink-like noise in steps of a 12-bit converter that rails at 1,000 microvolts."""
    rng = np.random.default_rng(seed)
    eeg = rng.normal(0, 40, (len(channels), round(duration_s * SFREQ))).cumsum(axis=1) * 0.05
    return Recording((np.rint(eeg / STEP_UV) * STEP_UV).astype(np.float32), channels, SFREQ, "unknown")


def with_rails(*places, value=RAIL_UV, n=SHORTEST_RAIL):
    """Channel and second of each place at which ``n`` samples stand at the rail."""
    recording = raw()
    for channel, second in places:
        start = round(second * SFREQ)
        recording.eeg[channel, start : start + n] = value
    return recording


def cut(recording, plan=PLAN):
    return cut_windows("r", recording, preprocess(recording, plan), plan)


def test_windows_are_the_filtered_recording_side_by_side_without_the_rest_at_its_end():
    recording = raw()
    done = preprocess(recording, PLAN)
    found = cut(recording)
    assert found.findings == ()
    assert [(s.parent_window_id, s.sub_window_id, s.start_s, s.stop_s, s.n_valid) for s in found.segments] == [
        (k, 0, 4.0 * k, 4.0 * k + 4.0, 256) for k in range(7)
    ]
    np.testing.assert_array_equal(found.eeg, done.eeg[:, : 7 * 256])


def test_without_a_window_length_a_recording_stays_as_it_is():
    plan = Preprocessing(sfreq=64.0, lowpass_hz=20.0)
    done = preprocess(raw(), plan)
    found = cut_windows("r", raw(), done, plan)
    assert found.eeg is done.eeg
    assert (found.segments, found.findings) == ((), ())


def test_a_window_in_which_a_channel_is_railed_is_left_out_for_all_channels_and_counted():
    recording = with_rails((0, 9.0), (1, 9.5), (1, 21.0))
    done = preprocess(recording, PLAN)
    found = cut(recording)
    kept = [0, 1, 3, 4, 6]
    assert [segment.parent_window_id for segment in found.segments] == kept
    assert [segment.start_s for segment in found.segments] == [4.0 * k for k in kept]
    np.testing.assert_array_equal(found.eeg, np.concatenate([done.eeg[:, k * 256 : k * 256 + 256] for k in kept], 1))
    (finding,) = found.findings
    assert (finding.rule, finding.severity, finding.where) == ("railed-window", "repaired", "r")
    assert finding.detail == "2 of 7 windows are railed and left out; windows by channel: AF7 1, TP9 2"
    assert len(cut(recording, KEEP).segments) == 7


@pytest.mark.parametrize(("first", "out"), [(511, [0, 1]), (512, [1]), (1020, [1]), (1024, [2])])
def test_a_rail_across_a_border_takes_both_windows_and_one_before_it_only_its_own(first, out):
    recording = with_rails((0, first / SFREQ))
    assert [s.parent_window_id for s in cut(recording).segments] == [k for k in range(7) if k not in out]


def test_rails_in_the_rest_at_the_end_leave_nothing_out():
    assert len(cut(with_rails((0, 29.0))).segments) == 7


def test_a_recording_of_which_no_window_is_left_is_skipped_by_rule():
    with pytest.raises(Skip) as skip:
        cut(with_rails(*((k % 2, 4.0 * k + 1) for k in range(7))))
    assert (skip.value.finding.rule, skip.value.finding.severity) == ("no-window-left", "skipped")
    assert skip.value.finding.detail == "all 7 windows are railed"
    with pytest.raises(Skip) as skip:
        cut(raw(duration_s=3.9))
    assert skip.value.finding.detail == "3.90625 s, shorter than a window of 4 s"


def test_a_rail_is_held_or_met_often_and_an_extreme_that_is_met_by_chance_is_none():
    n = raw().eeg.shape[1]
    peaks = raw().eeg
    for at in range(SHORTEST_RAIL - 1):
        peaks[0, 100 + at] = peaks[0].max() + 250  # held for less than a rail is
    peaks[1, [5, 500, 900]] = -700.0  # met three times
    assert not railed_samples(peaks).any()
    held = with_rails((0, 5.0), value=-RAIL_UV).eeg
    assert np.flatnonzero(railed_samples(held)[0]).tolist() == list(range(640, 640 + SHORTEST_RAIL))
    often = raw().eeg
    often[0, np.linspace(7, n - 1, FEWEST_RAILED).astype(int)] = RAIL_UV
    assert railed_samples(often)[0].sum() == FEWEST_RAILED
    assert not railed_samples(often)[1].any()


def test_channels_of_one_converter_share_its_rails_so_that_a_single_touch_counts():
    touched = with_rails((0, 5.0)).eeg
    touched[1, 77] = RAIL_UV
    assert np.flatnonzero(railed_samples(touched)[1]).tolist() == [77]
    touched[1, 77] = RAIL_UV - STEP_UV
    assert not railed_samples(touched)[1].any()
    touched[1] = np.linspace(RAIL_UV - 150, RAIL_UV, touched.shape[1])  # an amplifier's range is never so narrow
    assert not railed_samples(touched)[1].any()


def test_coarse_narrow_and_constant_channels_have_no_rails():
    rng = np.random.default_rng(0)
    coarse = np.clip(rng.normal(0, 400, (1, 4000)).round(-1), -300, 300)  # 61 different values
    narrow = np.clip(rng.normal(0, 60, (1, 4000)), -90, 90)
    eeg = np.concatenate([coarse, narrow, np.full((1, 4000), 500.0)]).astype(np.float32)
    assert not railed_samples(eeg).any()


def test_windows_that_were_cut_before_and_filtered_recordings_are_refused():
    windows = raw(duration_s=4.0)
    windows.segments, windows.is_ready = (Segment(0, 0, 0.0, 4.0, 512),), True
    done = preprocess(raw(duration_s=4.0), PLAN)
    with pytest.raises(DataError, match=r"holds windows already; set preprocessing\.window_s to 0"):
        cut_windows("r", windows, done, PLAN)
    ready = Recording(done.eeg, ("AF7", "TP9"), 64.0, "unknown", is_ready=True)
    with pytest.raises(DataError, match=r"filtered before, so that rails do not show; set .*railed_windows to keep"):
        cut_windows("r", ready, done, PLAN)
    assert len(cut_windows("r", ready, done, KEEP).segments) == 1


@pytest.mark.parametrize("window_s", [-1.0, 0.001, 1.01, float("inf"), float("nan")])
def test_a_window_that_is_no_whole_number_of_samples_is_one_line(window_s):
    with pytest.raises(ConfigError, match=r"window_s=.* samples at sfreq=64; set window_s to a whole") as error:
        Preprocessing(sfreq=64.0, lowpass_hz=20.0, window_s=window_s)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="railed_windows=leave_out needs windows; set window_s"):
        Preprocessing(railed_windows="leave_out")


def test_a_build_keeps_the_windows_that_are_left_and_other_windows_are_other_pieces(tmp_path):
    (tmp_path / "in").mkdir()
    recordings = {"p1": with_rails((0, 9.0)), "p2": raw(seed=3), "p3": with_rails(*((0, 4.0 * k) for k in range(8)))}
    for name, recording in recordings.items():
        text = "AF7,TP9\n" + "\n".join(f"{one},{two}" for one, two in recording.eeg.T.tolist())
        (tmp_path / "in" / f"sub-{name}.csv").write_text(text)
    reader = Folder(tmp_path / "in", "mine", pattern="*.csv", table=TableFormat(SFREQ))
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.failed) == (2, 0)
    rules = {rule.rule: (rule.severity, rule.count) for rule in report.rules}
    assert rules["railed-window"] == ("repaired", 1)
    assert rules["no-window-left"] == ("skipped", 1)
    store = Store.open(tmp_path / "store")
    assert store.verify() == []
    assert set(store.index["layout"]) == {CHANNEL_MAJOR}
    assert store.segments.groupby("recording").size().tolist() == [6, 7]
    table, left_out = ChannelSequences().table(store)
    assert left_out == []
    sequences = SequenceReader(store, table)
    for row in range(len(table)):
        name = "p2" if table.recording[row] else "p1"
        counts = quantise(cut(recordings[name]).eeg, 0.05)[0]
        got = sequences.read(np.array([row]), np.array([row]))[0, :, 0].numpy()
        np.testing.assert_array_equal(got, counts[:, table.channel[row]])
    keys = {Recipe(reader, plan, 0.05, "code").piece_key("sub-p1", "a", "b") for plan in (PLAN, KEEP)}
    assert len(keys) == 2
    kept = build(reader, KEEP, tmp_path / "store")
    assert kept.read == 3
    assert Store.open(tmp_path / "store").segments.groupby("recording").size().tolist() == [7, 7, 7]
