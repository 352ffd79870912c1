import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import DataError
from cerebro.metrics.bootstrap import (
    ParticipantBootstrap,
    balanced_error_sums,
    estimate,
    gain,
    interval,
    nrmse_sums,
    pearson_sums,
    reachable_share,
)
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.regression import nrmse, pearson


def windows(seed, n_participants=8, n_windows=60):
    random = np.random.default_rng(seed)
    who = [f"HBN:P{number}" for number in random.integers(0, n_participants, n_windows)]
    y = random.normal(1000, 2, n_windows)
    return who, y, y + random.normal(0, 1, n_windows)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_sums_give_the_scores_of_the_plain_functions(seed):
    who, y, p = windows(seed)
    assert nrmse_sums(who, y, p).value() == pytest.approx(nrmse(y, p), rel=1e-9)
    assert pearson_sums(who, y, p).value() == pytest.approx(pearson(y, p), rel=1e-9)
    labels, guesses = (y > 1000).astype(int), (p > 1000).astype(int)
    assert 1 - balanced_error_sums(who, labels, guesses).value() == pytest.approx(balanced_accuracy(labels, guesses))


def test_a_resample_equals_the_score_of_the_windows_of_the_drawn_participants():
    who, y, p = windows(1)
    bootstrap = ParticipantBootstrap(who, n_resamples=20, seed=3)
    resampled = bootstrap.resampled(nrmse_sums(who, y, p))
    labels, guesses = (y > 1000).astype(int), (p > 1000).astype(int)
    resampled_error = bootstrap.resampled(balanced_error_sums(who, labels, guesses))
    for row, weights in enumerate(bootstrap.weights):
        drawn = [
            np.flatnonzero(np.array(who) == name)
            for name, n in zip(bootstrap.participants, weights, strict=True)
            for _ in range(int(n))
        ]
        rows = np.concatenate(drawn)
        assert resampled[row] == pytest.approx(nrmse(y[rows], p[rows]), rel=1e-9)
        assert 1 - resampled_error[row] == pytest.approx(balanced_accuracy(labels[rows], guesses[rows]))


def test_draws_are_seeded_and_take_as_many_participants_as_there_are():
    first, again = ParticipantBootstrap("abcdef", 50, seed=1), ParticipantBootstrap("fedcba", 50, seed=1)
    assert (first.weights == again.weights).all()
    assert (first.weights.sum(axis=1) == 6).all()
    assert (ParticipantBootstrap("abcdef", 50, seed=2).weights != first.weights).any()


def test_intervals_over_participants_are_wider_than_over_windows():
    random = np.random.default_rng(0)
    who = [f"p{n}" for n in range(20) for _ in range(50)]
    y = np.repeat(random.normal(size=20), 50)
    p = y + np.repeat(random.normal(size=20), 50)  # the error belongs to the person
    resampled = ParticipantBootstrap(who, 500).resampled(nrmse_sums(who, y, p))
    alone = [f"{name}-{n}" for n, name in enumerate(who)]
    by_window = ParticipantBootstrap(alone, 500).resampled(nrmse_sums(alone, y, p))
    assert resampled.std() > 3 * by_window.std()


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered, truth = 0, math.sqrt(0.5)  # prediction = truth + noise of half the variance
    for seed in range(100):
        random = np.random.default_rng(seed)
        who = [f"p{n}" for n in range(60) for _ in range(3)]
        y = np.repeat(random.normal(size=60), 3)
        p = y + np.repeat(random.normal(0, truth, 60), 3)
        (low, high), _ = interval(ParticipantBootstrap(who, 400, seed).resampled(nrmse_sums(who, y, p)))
        covered += low <= truth <= high
    assert covered >= 85


def test_a_gain_between_equal_models_is_exactly_zero_in_every_resample():
    who, y, p = windows(2)
    resampled = ParticipantBootstrap(who, 100).resampled(nrmse_sums(who, y, p))
    assert (gain(resampled, resampled) == 0).all()


def test_gain_and_reachable_share_follow_their_formulas():
    assert gain(0.9, 1.0) == pytest.approx(0.1)
    assert reachable_share(0.9, 1.0, oracle=0.5) == pytest.approx(0.2)
    assert np.isnan(reachable_share(0.4, 0.5, oracle=0.5))
    assert np.isnan(gain(0.0, 0.0))


def test_undefined_resamples_are_left_out_and_counted():
    found = estimate(0.5, np.array([np.nan, 1.0, 3.0]))
    assert found.n_undefined == 1
    assert found.ci95[0] == pytest.approx(1.05)
    assert math.isnan(estimate(0.5, np.array([np.nan])).ci95[0])


def test_a_resample_of_one_person_with_one_value_is_undefined_and_not_infinite():
    who, y = list("aaaaabbbbb"), np.repeat([1.0, 2.0], 5)
    resampled = ParticipantBootstrap(["a", "b"], 200).resampled(nrmse_sums(who, y, y + 1))
    assert np.isnan(resampled).sum() > 50
    assert not np.isinf(resampled).any()


def test_participants_outside_the_bootstrap_are_refused():
    with pytest.raises(DataError, match="participant c"):
        ParticipantBootstrap("ab").resampled(nrmse_sums(["a", "c"], [1.0, 2.0], [1.0, 2.0]))
    with pytest.raises(DataError, match="no window"):
        nrmse_sums([], [], [])
