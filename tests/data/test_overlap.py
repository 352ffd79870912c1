"""Windows that overlap in time are remarked on, as a leak; gaps and rounded times are none."""

import numpy as np
import pandas as pd
import pytest

from cerebro.data import ChannelSequences
from cerebro.data.arrays import write_store
from cerebro.data.overlap import _largest_share
from cerebro.data.readers.base import Segment
from cerebro.montage import Montage

LENGTH, SFREQ = 64, 32.0  # windows of 2 s
SHORT_S = {0.75: 0.25}  # start -> duration of a window that is shorter
CAP = Montage("cap", ("Fz",), np.array([[0.0, 0.08, 0.05]]))


def remarks(path, starts, **arguments):
    """What `ChannelSequences` says of recordings whose windows start at ``starts``."""
    eeg = {
        key: np.random.default_rng(0).normal(0, 20, (1, LENGTH * len(of))).astype(np.float32)
        for key, of in starts.items()
    }
    segments = {
        key: tuple(
            Segment(i, 0, float(start), float(start) + SHORT_S.get(float(start), 2.0), LENGTH)
            for i, start in enumerate(of)
        )
        for key, of in starts.items()
    }
    people = pd.DataFrame(index=pd.Index(sorted(starts), name="participant_id"))
    store = write_store(
        path, eeg, CAP, SFREQ, dict.fromkeys(eeg, "rest"), {key: key for key in eeg}, people, segments=segments
    )
    return [str(omission) for omission in ChannelSequences(**arguments).table(store)[1]]


def test_windows_side_by_side_gaps_and_one_window_alone_are_no_leak(tmp_path):
    rounded = np.round(np.arange(6) * 2.0 - 0.004 * np.arange(6), 3)  # each begins 4 ms early: less than a sample
    starts = {"a": [0.0, 2.0, 4.0], "b": [0.0, 60.0, 2000.0], "c": [5.0], "d": rounded}
    assert remarks(tmp_path / "s", starts) == []


def test_recordings_whose_windows_overlap_are_counted_with_the_largest_share(tmp_path):
    starts = {"a": [0.0, 1.0, 2.0], "b": [0.0, 2.0, 3.5], "c": [0.0, 2.0, 4.0]}
    (line,) = remarks(tmp_path / "s", starts)
    assert line.startswith("windows of 2 recordings overlap their neighbours by up to 50%: hidden windows can be read")
    assert "(leak); write windows without overlap" in line


@pytest.mark.parametrize(
    ("starts", "share"),
    [
        ([4.0, 0.5, 0.0], "75%"),  # the order of the ids is not that of time
        ([0.0, 0.0, 4.0], "100%"),
        ([0.0, 0.1], "95%"),
        ([0.0, 0.75], "100%"),
    ],
)
def test_overlap_is_found_in_time_whatever_the_order_of_the_ids(tmp_path, starts, share):
    (line,) = remarks(tmp_path / "s", {"a": starts})
    assert f"1 recordings overlap their neighbours by up to {share}" in line


def test_a_short_window_inside_a_long_one_hides_no_overlap_behind_it(tmp_path):
    first, second = np.array([0.0, 0.5, 1.0]), np.array([2.0, 0.5, 3.0])  # the second is empty
    assert _largest_share(first, second, 0.01) == pytest.approx(0.5)


def test_windows_that_are_not_used_do_not_count(tmp_path):
    lines = remarks(tmp_path / "s", {"a": [0.0, 2.0, 3.0], "b": [0.0, 2.0]}, max_windows=2)
    assert lines == ["1 windows left out: behind the first 2"]
