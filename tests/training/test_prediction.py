"""Several models say one thing of a recording."""

import numpy as np
import pytest

from cerebro.data.new_recordings import NewRecording
from cerebro.training.explain import Explained
from cerebro.training.prediction import RecordingResult, mean_of_models
from cerebro.training.profile import Unlike


def said(probability: float, unlike: dict[str, float], warnings: list[str]) -> RecordingResult:
    """A recording of two windows, of which the first was not used."""
    both = np.array([1 - probability, probability])
    explained = Explained(both, np.stack([both * np.nan, both]), {3: both - 1}, [(0, 2, both / 2)])
    remarks = [Unlike(likeness, score, 1.0, f"{score}") for likeness, score in unlike.items()]
    return RecordingResult(NewRecording.__new__(NewRecording), explained, remarks, warnings)


def test_one_model_says_what_it_says() -> None:
    one = said(0.7, {"amplitude": 2.0, "spectrum": 3.0}, ["b", "a"])
    both = mean_of_models([one])
    assert both.unlike == one.unlike
    assert both.warnings == one.warnings
    assert np.array_equal(both.explained.probability, one.explained.probability)


def test_several_models_say_the_mean_and_every_remark_once_in_the_order_and_words_of_the_first() -> None:
    first = said(0.7, {"spectrum": 3.0}, ["b"])
    second = said(0.2, {"amplitude": 2.0, "spectrum": 5.0}, ["a", "b"])
    both = mean_of_models([first, second])
    assert both.recording is first.recording
    assert [(remark.likeness, remark.score) for remark in both.unlike] == [("spectrum", 3.0), ("amplitude", 2.0)]
    assert both.warnings == ["b", "a"]
    assert both.explained.probability == pytest.approx([0.55, 0.45])
    assert both.explained.windows[1] == pytest.approx([0.55, 0.45])
    assert np.isnan(both.explained.windows[0]).all()
    assert both.explained.channels[3] == pytest.approx([-0.45, -0.55])
    ((begin, stop, change),) = both.explained.moments
    assert (begin, stop) == (0, 2)
    assert change == pytest.approx([0.275, 0.225])
