import dataclasses

import numpy as np
import pandas as pd
import pytest

from cerebro.errors import ConfigError
from cerebro.simulate.presets import PRESETS, STRENGTHS, TRAIT_TARGETS, scaled, strength
from cerebro.simulate.reference import nrmse
from cerebro.simulate.traits import (
    draw_person,
    draw_trials,
    expected_response_time,
    expected_scores,
    expected_traits,
    to_value,
)

N = 3000


def _people(strength, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_person(rng, strength) for _ in range(N)]


@pytest.mark.parametrize("name", STRENGTHS)
def test_features_explain_the_planted_variance_and_the_oracle_scores_it(name):
    planted = strength(name)
    people = _people(planted)
    features = np.array([[p.features[t] for t in TRAIT_TARGETS] for p in people])
    scores = np.array([[p.scores[t] for t in TRAIT_TARGETS] for p in people])
    values = np.array([[p.values[t] for t in TRAIT_TARGETS] for p in people])
    guess = expected_traits(features, planted)
    left = expected_scores(features, planted)[1]  # less than 1 - R2 where a related trait's feature tells more
    for k, target in enumerate(TRAIT_TARGETS):
        r2 = getattr(planted, target)
        assert np.corrcoef(features[:, k], scores[:, k])[0, 1] ** 2 == pytest.approx(r2, abs=0.04)
        assert nrmse(values[:, k], guess[:, k]) == pytest.approx(np.sqrt(left[k]), abs=0.03)
        assert left[k] <= 1 - r2 + 1e-9


def test_effect_zero_plants_nothing():
    nothing = scaled(strength("strong"), 0.0)
    people = _people(nothing)
    for target in TRAIT_TARGETS:
        z, f = np.array([(p.scores[target], p.features[target]) for p in people]).T
        assert abs(np.corrcoef(z, f)[0, 1]) < 0.06
    by_sex = {sex: np.mean([p.features["sex"] for p in people if p.sex == sex]) for sex in "FM"}
    assert abs(by_sex["F"] - by_sex["M"]) < 0.12
    score, feature = draw_trials(np.random.default_rng(0), people[0], 4000, nothing)
    assert abs(np.corrcoef(score, feature)[0, 1]) < 0.06
    assert nothing.film_uV == 0
    assert nothing.alpha_closed == 1


def test_the_effect_scales_correlations():
    half = scaled(strength("strong"), 0.5)
    assert half.p_factor == pytest.approx(0.25 * strength("strong").p_factor)
    assert half.film_uV == pytest.approx(0.5 * strength("strong").film_uV)
    assert scaled(strength("realistic"), 1.0) == strength("realistic")


@pytest.mark.parametrize("effect", [-0.1, 1.3, float("inf"), float("nan")])
def test_an_effect_that_would_explain_everything_is_refused(effect):
    with pytest.raises(ConfigError, match="set --effect"):
        scaled(strength("strong"), effect)


def test_response_times_have_the_real_spread_and_their_feature_the_planted_share():
    planted = strength("strong")
    trials = [draw_trials(np.random.default_rng([1, k]), p, 10, planted) for k, p in enumerate(_people(planted))]
    score, feature = np.concatenate(trials, axis=1)
    seconds = to_value("response_time", score)
    assert np.quantile(seconds, [0.05, 0.5, 0.95]) == pytest.approx([0.92, 1.626, 2.21], abs=0.06)
    assert nrmse(seconds, expected_response_time(feature, planted)) == pytest.approx(np.sqrt(0.5), abs=0.05)
    mine = np.array([t[0].mean() for t in trials])
    assert mine.var() == pytest.approx(0.2 + 0.8 / 10, abs=0.03)  # people differ: intraclass correlation 0.2
    of_mine = np.array([t[1].mean() for t in trials])
    assert np.corrcoef(mine, of_mine)[0, 1] ** 2 == pytest.approx(0.5, abs=0.05)


def test_marginals_are_those_of_the_real_people(shared_data):
    real = pd.read_csv(next(shared_data.glob("hbn_metadata/sample_ds005505/participants.tsv")), sep="\t")
    people = _people(strength("realistic"))
    for target in TRAIT_TARGETS:
        simulated = np.array([p.values[target] for p in people])
        wanted = pd.to_numeric(real[target], errors="coerce").dropna()
        assert simulated.mean() == pytest.approx(wanted.mean(), abs=0.25 * wanted.std())
        assert simulated.std() == pytest.approx(wanted.std(), rel=0.2)


def test_presets_name_known_strengths_and_every_target():
    assert {p.strength for p in PRESETS.values()} <= set(STRENGTHS)
    for planted in STRENGTHS.values():
        assert all(0 < getattr(planted, t) < 1 for t in (*TRAIT_TARGETS, "response_time"))
    assert PRESETS["demo"].strength == "strong"
    assert dataclasses.asdict(STRENGTHS["realistic"])["response_time"] == pytest.approx(1 - 0.88668**2, abs=1e-3)
