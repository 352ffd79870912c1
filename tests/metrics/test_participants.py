import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cerebro.errors import ConfigError, DataError
from cerebro.metrics.bootstrap import ParticipantBootstrap, interval
from cerebro.metrics.participants import (
    class_scores,
    gather_units,
    labelled_unit,
    resampled_scores,
    weighted_auc,
)


def chances(values):
    """Probabilities (N, 2) from those of class 1."""
    return np.stack([1 - np.asarray(values), np.asarray(values)], axis=1)


def cohort(seed, n_people=12, n_rows=5, n_classes=2):
    """People with one label each and some rows; rounded, so that ties occur."""
    random = np.random.default_rng(seed)
    label = np.arange(n_people) % n_classes
    who = np.repeat([f"TUH:p{n:02}" for n in range(n_people)], n_rows)
    truth = np.repeat(label, n_rows).astype(float)
    logits = random.normal(size=(len(who), n_classes)) + 0.7 * np.eye(n_classes)[truth.astype(int)]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return who, truth, np.round(probability, 1)


def test_the_probability_of_a_participant_is_the_mean_over_the_rows():
    units = gather_units(["b", "a", "b"], ["r1", "r2", "r3"], [1.0, 0.0, 1.0], chances([0.9, 0.2, 0.4]))
    assert units.unit == "participant"
    assert units.participant.tolist() == ["a", "b"]
    assert units.truth.tolist() == [0, 1]
    assert units.probability[:, 1] == pytest.approx([0.2, 0.65])
    assert units.n_rows.tolist() == [1, 2]
    assert units.n_recordings.tolist() == [1, 2]
    assert math.isnan(units.sd[0])
    assert units.sd[1] == pytest.approx(np.std([0.9, 0.4], ddof=1))


def test_scores_of_participants_agree_with_scikit_learn():
    who, truth, probability = cohort(3)
    units = gather_units(who, None, truth, probability)
    scores, label, guess = class_scores(units), units.truth, units.probability.argmax(axis=1)
    assert len(units) == 12
    assert scores["auc"] == pytest.approx(roc_auc_score(label, units.probability[:, 1]))
    for name, function in (
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
    ):
        assert scores[name] == pytest.approx(function(label, guess)), name


def test_many_rows_give_a_participant_no_more_weight():
    label = [1.0] * 10 + [0.0, 1.0, 0.0]
    who = ["long"] * 10 + ["x", "y", "z"]
    chance = chances([0.1] * 10 + [0.2, 0.9, 0.4])
    assert class_scores(gather_units(who, None, label, chance))["accuracy"] == 0.75
    assert class_scores(gather_units(who, None, label, chance, unit="row"))["accuracy"] == pytest.approx(3 / 13)


def test_three_classes_have_a_macro_f1_and_no_auc():
    who, truth, probability = cohort(5, n_people=15, n_classes=3)
    units = gather_units(who, None, truth, probability)
    scores, guess = class_scores(units), units.probability.argmax(axis=1)
    assert set(scores) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert scores["macro_f1"] == pytest.approx(f1_score(units.truth, guess, average="macro"))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(units.truth, guess))


def test_people_with_both_labels_are_scored_by_recording():
    who, where = ["a", "a", "a", "b", "b"], ["1", "1", "2", "1", "2"]  # names of recordings may repeat between people
    units = gather_units(who, where, [0.0, 0.0, 1.0, 1.0, 0.0], chances([0.2, 0.4, 0.8, 0.7, 0.1]))
    assert units.unit == "recording"
    assert units.recording.tolist() == ["1", "2", "1", "2"]
    assert units.probability[:, 1] == pytest.approx([0.3, 0.8, 0.7, 0.1])
    assert class_scores(units)["auc"] == 1.0


def test_recordings_with_both_labels_are_scored_by_row():
    assert labelled_unit(["a", "a"], ["1", "1"], [0.0, 1.0]) == "row"
    assert labelled_unit(["a", "a"], None, [0.0, 1.0]) == "row"
    assert labelled_unit(["a", "a"], ["1", "2"], [1.0, 1.0]) == "participant"


def test_auc_of_participants_of_one_class_is_missing_and_not_one_half():
    scores = class_scores(gather_units(["a", "b"], None, [1.0, 1.0], chances([0.5, 0.5])))
    assert math.isnan(scores["auc"])
    assert math.isnan(scores["precision"]), "nobody was predicted to be of class 1"
    assert scores["recall"] == 0.0
    scores = class_scores(gather_units(["a", "b"], None, [0.0, 0.0], chances([0.1, 0.2])))
    assert all(math.isnan(scores[name]) for name in ("auc", "precision", "recall", "f1"))
    assert scores["accuracy"] == 1.0


def test_a_constant_has_an_auc_of_one_half_whatever_the_number_of_rows():
    who = ["a"] * 3 + ["b"] * 7 + ["c"] * 11 + ["d"]
    truth = [0.0] * 3 + [1.0] * 7 + [0.0] * 11 + [1.0]
    units = gather_units(who, None, truth, chances([0.1 + 0.2] * 22))
    assert class_scores(units)["auc"] == 0.5


def test_nobody_has_no_score():
    units = gather_units([], [], [], np.zeros((0, 2)))
    assert len(units) == 0
    assert all(math.isnan(value) for value in class_scores(units).values())
    assert all(np.isnan(value).all() for value in resampled_scores(units, ParticipantBootstrap(["a"], 5)).values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_weighted_auc_is_that_of_repeated_rows(seed):
    random = np.random.default_rng(seed)
    truth, score = random.integers(0, 2, 25), np.round(random.normal(size=25), 1)
    weights = random.integers(0, 4, (6, 25))
    found = weighted_auc(truth, score, weights.astype(float))
    for value, times in zip(found, weights, strict=True):
        label = np.repeat(truth, times)
        if len(set(label.tolist())) < 2:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(label, np.repeat(score, times)))


@pytest.mark.parametrize("unit", ["participant", "row"])
def test_a_resample_is_the_score_of_the_drawn_participants(unit):
    who, truth, probability = cohort(8)
    units = gather_units(who, None, truth, probability, unit=unit)
    bootstrap = ParticipantBootstrap(who.tolist(), n_resamples=30, seed=2)
    resampled = resampled_scores(units, bootstrap)
    for number, weights in enumerate(bootstrap.weights):
        place = {name: at for at, name in enumerate(bootstrap.participants)}
        rows = np.repeat(np.arange(len(units)), [int(weights[place[name]]) for name in units.participant])
        label, guess = units.truth[rows], units.probability[rows].argmax(axis=1)
        if len(set(label.tolist())) == 2:
            assert resampled["auc"][number] == pytest.approx(roc_auc_score(label, units.probability[rows, 1]))
        assert resampled["f1"][number] == pytest.approx(f1_score(label, guess, zero_division=np.nan), nan_ok=True)
        assert resampled["balanced_accuracy"][number] == pytest.approx(balanced_accuracy_score(label, guess))


def test_resamples_are_the_same_however_many_are_held_at_a_time(monkeypatch):
    who, truth, probability = cohort(1)
    units, bootstrap = gather_units(who, None, truth, probability), ParticipantBootstrap(who.tolist(), 40)
    assert len(units) <= 3 * 12, "few enough to be weighted directly"
    whole = resampled_scores(units, bootstrap)
    monkeypatch.setattr("cerebro.metrics.participants._AT_ONCE", 100)
    assert all((resampled_scores(units, bootstrap)[name] == whole[name]).all() for name in whole)


def test_comparing_participants_pairwise_gives_the_same_resamples(monkeypatch):
    who, truth, probability = cohort(6, n_people=9, n_rows=7)
    truth[::5] = 1 - truth[::5]  # both classes in some people, as of windows
    units = gather_units(who, None, truth, probability, unit="row")
    bootstrap = ParticipantBootstrap([*who.tolist(), "TUH:absent"], 60)
    pairwise = resampled_scores(units, bootstrap)["auc"]
    monkeypatch.setattr("cerebro.metrics.participants._FEW", 100)
    assert pairwise == pytest.approx(resampled_scores(units, bootstrap)["auc"], nan_ok=True)


def test_resamples_of_one_class_are_undefined_and_counted():
    units = gather_units(["a", "b", "c"], None, [0.0, 0.0, 1.0], chances([0.1, 0.2, 0.9]))
    resampled = resampled_scores(units, ParticipantBootstrap(["a", "b", "c"], 500))
    _, n_undefined = interval(resampled["auc"])
    assert n_undefined == pytest.approx(500 * ((2 / 3) ** 3 + (1 / 3) ** 3), abs=40)
    assert (resampled["auc"][np.isfinite(resampled["auc"])] == 1.0).all()


def test_intervals_of_windows_are_as_wide_as_those_of_their_people():
    random = np.random.default_rng(0)
    who = np.repeat([f"p{n}" for n in range(30)], 40)
    truth = np.repeat(np.arange(30) % 2, 40).astype(float)
    chance = np.repeat(random.uniform(0.1, 0.9, 30), 40)  # what is wrong about a window is wrong about the person
    (low, high), _ = interval(
        resampled_scores(
            gather_units(who, None, truth, chances(chance), unit="window"), ParticipantBootstrap(who.tolist())
        )["auc"]
    )
    (low_people, high_people), _ = interval(
        resampled_scores(gather_units(who, None, truth, chances(chance)), ParticipantBootstrap(who.tolist()))["auc"]
    )
    assert high - low == pytest.approx(high_people - low_people)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["a"], None, [2.0], chances([0.5])), DataError, "label 2 is no class of a model of 2"),
        ((["a"], None, [0.5], chances([0.5])), DataError, "label 0.5 is no class"),
        ((["a"], None, [1.0], chances([np.nan])), ConfigError, "probability is NaN"),
        ((["a", "b"], None, [1.0], chances([0.5])), ConfigError, "1 labels came with 2 participants"),
        ((["a", "a"], None, [1.0, 0.0], chances([0.5, 0.2]), "participant"), DataError, "several labels"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        gather_units(*arguments)


def test_participants_outside_the_bootstrap_are_refused():
    units = gather_units(["a", "c"], None, [1.0, 0.0], chances([0.5, 0.2]))
    with pytest.raises(DataError, match="participant c"):
        resampled_scores(units, ParticipantBootstrap(["a", "b"]))
