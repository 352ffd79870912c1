"""Windows of one recording or person as one row."""

import numpy as np
import pytest
import toy

from cerebro.errors import DataError
from cerebro.training.embedding import Embedded, pooled
from cerebro.training.probe_report import prediction_arrays
from cerebro.training.prober import Prober

NAN = float("nan")


def windows(label: tuple[float, ...] = (1.0, NAN, 1.0, 2.0, NAN)) -> Embedded:
    """Recordings 7 (of person 3, its windows apart in the table) and 2 (of person 5), then 4 without a label."""
    feature = np.array([[1.0, 10.0], [3.0, 30.0], [8.0, NAN], [5.0, 50.0], [6.0, NAN]], np.float32)
    recording, participant = np.array([7, 7, 7, 2, 4]), np.array([3, 3, 3, 5, 3])
    return Embedded(feature, np.array([20, 21, 30, 22, 40]), recording, participant, {"y": np.array(label)})


def test_a_recording_is_the_mean_of_its_windows_with_their_label_and_person() -> None:
    found = pooled(windows(), "recording")
    np.testing.assert_array_equal(found.recording, [2, 4, 7])
    np.testing.assert_array_equal(found.participant, [5, 3, 3])
    np.testing.assert_array_equal(found.sample, [22, 40, 20])
    np.testing.assert_array_equal(found.targets["y"], [2.0, NAN, 1.0])
    np.testing.assert_array_equal(found.feature, np.array([[5, 50], [6, NAN], [4, 20]], np.float32))  # NaN: no value


def test_a_participant_is_the_mean_of_all_their_windows_without_labels_of_windows() -> None:
    found = pooled(windows(), "participant")
    np.testing.assert_array_equal(found.participant, [3, 5])
    np.testing.assert_array_equal(found.feature[:, 0], np.array([4.5, 5.0], np.float32))
    assert found.targets == {}


def test_windows_of_a_recording_with_different_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"windows of recording 7 have different labels 'y', .* \(--by window\)"):
        pooled(windows((1.0, NAN, 0.0, 2.0, NAN)), "recording")


def recordings(seed: int = 0) -> tuple[toy.ToyData, Prober]:
    """Two recordings of each person, whose embeddings hold person, label ``y`` and class ``late``, and noise."""
    data, draw = toy.ToyData(), np.random.default_rng(seed)
    sides = []
    for people in (np.array([0, 1, 3, 4, 5]), np.array([6, 7, 8, 9])):
        who = np.repeat(people, 2)
        late, y = np.tile([0.0, 1.0], len(people)), draw.normal(size=len(who))
        feature = draw.normal(0, 0.1, (len(who), 4))
        feature += np.stack([np.cos(who), np.sin(who), 3 * y, 3 * late], axis=1)
        number = np.arange(len(who)) + 100 * len(sides)
        y[0] = NAN
        sides.append(Embedded(feature.astype("f4"), number, number, who, {"y": y, "late": late}))
    return data, Prober(data, *sides, level="recording")


def test_recordings_are_probed_for_numbers_classes_and_people() -> None:
    _, prober = recordings()
    number, group, person = (prober.by_row(target) for target in ("y", "late", "participant"))
    assert {one.level for one in (number, group, person)} == {"recording"}
    assert (number.metric, number.n_scored, number.n_participants) == ("nrmse", 7, 4)
    assert number.value < 0.4 < number.constant
    assert (group.metric, group.value, group.constant) == ("balanced_accuracy", 1.0, 0.5)
    assert (person.n_fitted, person.n_scored, person.constant) == (4, 4, 0.25)
    assert "recordings apart in time" in person.note


def test_predictions_stand_in_the_rows_of_all_that_is_held_out() -> None:
    data, prober = recordings()
    predicted = {target: prober.predict(target) for target in ("y", "late", "participant")}
    found, constant = (prediction_arrays(predicted, prober.held_out, data, which) for which in ("probe", "constant"))
    keys = np.array(data.participant_keys())
    np.testing.assert_array_equal(found["participant"], np.repeat(keys[[6, 7, 8, 9]], 2))
    np.testing.assert_array_equal(found["known/y"], [False] + [True] * 7)
    np.testing.assert_array_equal(found["target/y"][1:], prober.held_out.targets["y"][1:])
    assert found["prediction/late"].dtype == found["prediction/participant"].dtype == np.int64
    np.testing.assert_array_equal(found["known/participant"], np.tile([False, True], 4))  # the second is named
    np.testing.assert_array_equal(found["target/participant"][1::2], [6, 7, 8, 9])
    assert set(found["prediction/participant"][1::2].tolist()) <= {6, 7, 8, 9}
    assert np.ptp(found["prediction/y"][1:]) > 0
    for target in ("y", "late", "participant"):
        values = constant[f"prediction/{target}"][constant[f"known/{target}"]]
        assert np.ptp(values) == 0
    assert constant["prediction/y"][1] == pytest.approx(np.nanmean(prober.train.targets["y"]))
