import numpy as np
import pytest
from sklearn.linear_model import Ridge

from cerebro.errors import DataError
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.probe import PENALTIES, fit_logistic, fit_ridge, participant_folds
from cerebro.metrics.regression import nrmse


def cohort(seed, n_participants=30, noise=0.5, effect=1.0):
    random = np.random.default_rng(seed)
    who = [f"p{n:02}" for n in range(n_participants) for _ in range(6)]
    trait = np.repeat(random.normal(size=n_participants), 6)
    features = random.normal(size=(len(who), 10))
    features[:, 0] = effect * trait + noise * features[:, 0]
    return who, features, trait


def test_a_planted_trait_is_found_on_new_participants():
    who, features, trait = cohort(0)
    probe = fit_ridge(features, trait, who)
    _, new_features, new_trait = cohort(1)
    assert nrmse(new_trait, probe.predict(new_features)) < 0.6


def test_closed_form_equals_scikit_learn():
    who, features, trait = cohort(2)
    probe = fit_ridge(features, trait, who)
    standard = (features - features.mean(0)) / features.std(0)
    peer = Ridge(alpha=probe.penalty * len(trait)).fit(standard, trait)
    expected = trait.mean() + probe.shrink * (peer.predict(standard) - trait.mean())
    np.testing.assert_allclose(probe.predict(features), expected, atol=1e-9)
    assert probe.penalty in PENALTIES


@pytest.mark.parametrize("seed", range(5))
def test_without_an_effect_the_probe_falls_back_towards_the_mean(seed):
    who, features, trait = cohort(seed, effect=0.0)
    probe = fit_ridge(features, trait, who)
    _, new_features, new_trait = cohort(seed + 100, effect=0.0)
    assert nrmse(new_trait, probe.predict(new_features)) < nrmse(new_trait, np.full(len(trait), trait.mean())) + 0.1


def test_a_trait_that_marks_only_known_people_earns_no_trust():
    random = np.random.default_rng(0)
    who = [f"p{n}" for n in range(12) for _ in range(20)]
    fingerprint = np.repeat(np.eye(12), 20, axis=0)  # says who it is, and nothing of anyone else
    probe = fit_ridge(fingerprint, np.repeat(random.normal(size=12), 20), who)
    assert probe.shrink < 0.05


def test_logistic_probe_separates_planted_classes():
    who, features, trait = cohort(3)
    labels = (trait > 0).astype(int)
    probe = fit_logistic(features, labels, who)
    _, new_features, new_trait = cohort(4)
    assert balanced_accuracy(new_trait > 0, probe.predict(new_features)) > 0.75


def test_a_class_that_nobody_trained_on_has_keeps_its_column():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2], 40)
    x = rng.normal(size=(80, 3)) + y[:, None]
    found = fit_logistic(x, y, [f"p{i % 8}" for i in range(80)]).predict(x)
    assert found.shape == (80, 3)
    assert (found[:, 1] == 0).all()
    assert (found.argmax(axis=1) == y).mean() > 0.9


def test_folds_keep_participants_whole():
    who, *_ = cohort(0)
    fold = participant_folds(who, 5, seed=0)
    assert all(len(set(fold[np.array(who) == name])) == 1 for name in set(who))
    assert np.bincount(fold).tolist() == [36] * 5
    assert participant_folds(["a", "b", "a"], 5, seed=0).max() == 1


def test_one_participant_cannot_be_probed():
    with pytest.raises(DataError, match="two or more"):
        fit_ridge(np.ones((3, 2)), np.ones(3), ["a", "a", "a"])
    with pytest.raises(DataError, match="same class"):
        fit_logistic(np.ones((4, 2)), np.zeros(4), ["a", "a", "b", "b"])
