import numpy as np
import pytest

from cerebro.errors import DataError
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.identity import identify, separate_in_time


def cohort(n_people=6, n_recordings=1, n_windows=20, stride_s=2.0, length_s=2.0):
    participant = np.repeat(np.arange(n_people), n_recordings * n_windows)
    recording = np.repeat(np.arange(n_people * n_recordings), n_windows)
    start = np.tile(np.arange(n_windows) * stride_s, n_people * n_recordings)
    return participant, recording, np.stack([start, start + length_s], axis=1)


def score(found):
    return balanced_accuracy(found.truth, found.prediction)


@pytest.mark.parametrize("stride_s", [0.25, 1.0, 2.0])
def test_windows_to_be_named_begin_a_whole_window_after_the_known_ones_of_their_recording(stride_s):
    participant, recording, span_s = cohort(n_windows=60, stride_s=stride_s)
    known, named = separate_in_time(participant, recording, span_s)
    for person in range(6):
        mine = participant == person
        gap = span_s[mine & named, 0].min() - span_s[mine & known, 1].max()
        assert gap >= 2.0
    assert not (known & named).any()


def test_of_several_recordings_none_is_on_both_sides():
    participant, recording, span_s = cohort(n_recordings=3, stride_s=0.5)
    known, named = separate_in_time(participant, recording, span_s)
    assert set(recording[known]) & set(recording[named]) == set()
    assert (known | named).all()
    assert len(set(recording[known])) == 6  # the first of three


def test_the_order_of_the_windows_does_not_matter():
    columns = cohort(n_recordings=1, stride_s=0.5)
    shuffled = np.random.default_rng(0).permutation(len(columns[0]))
    known, named = separate_in_time(*columns)
    again = separate_in_time(*(column[shuffled] for column in columns))
    assert np.array_equal(known[shuffled], again[0])
    assert np.array_equal(named[shuffled], again[1])


def test_a_planted_fingerprint_names_people_and_noise_does_not():
    participant, recording, span_s = cohort(n_people=8, n_recordings=2, n_windows=40)
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(len(participant), 12))
    print_of = draw.normal(size=(8, 12))[participant]
    assert score(identify(noise + 2 * print_of, participant, recording, span_s)) > 0.95
    found = identify(noise, participant, recording, span_s)
    assert found.n_people == 8
    assert abs(score(found) - 1 / 8) < 0.06


def test_a_direction_of_great_variance_within_people_does_not_hide_them():
    participant, recording, span_s = cohort(n_people=5, n_windows=60)
    draw = np.random.default_rng(2)
    features = draw.normal(size=(len(participant), 3))
    features[:, 0] = draw.normal(size=len(participant)) * 100
    features[:, 1] = features[:, 0] / 100 + 0.05 * draw.normal(size=len(participant)) + 0.3 * participant
    assert score(identify(features, participant, recording, span_s)) > 0.85


def test_the_cap_draws_the_same_people_for_the_same_seed():
    participant, recording, span_s = cohort(n_people=30)
    features = np.random.default_rng(0).normal(size=(len(participant), 4))
    first, again, other = (
        identify(features, participant, recording, span_s, max_people=5, seed=seed) for seed in (0, 0, 1)
    )
    assert first.n_people == 5
    assert first.n_left_out == 25
    assert np.array_equal(first.row, again.row)
    assert not np.array_equal(first.row, other.row)
    assert len(set(participant[first.row])) == 5


def test_one_known_window_each_is_enough():
    participant, recording, span_s = cohort(n_people=4, n_recordings=2, n_windows=1)
    features = 10.0 * np.eye(4)[participant]
    assert score(identify(features, participant, recording, span_s)) == 1


def test_a_single_person_cannot_be_told_from_others():
    participant, recording, span_s = cohort(n_people=1)
    with pytest.raises(DataError, match="far enough apart"):
        identify(np.ones((20, 2)), participant, recording, span_s)
