import numpy as np
import pytest

from cerebro.errors import DataError
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.confound import predict_from_covariates
from cerebro.metrics.regression import nrmse


def people(n=200, seed=0):
    draw = np.random.default_rng(seed)
    age, sex = draw.uniform(5, 21, n), draw.integers(0, 2, n).astype(float)
    trait = 0.3 * age - sex + 0.2 * draw.normal(size=n)
    return age, sex, trait, np.arange(n) < n // 2


def test_a_trait_made_of_age_and_sex_is_predicted_on_new_people():
    age, sex, trait, train = people()
    found = predict_from_covariates({"age": age, "sex": sex}, trait, train, is_class=False)
    assert nrmse(trait[~train], found.prediction[~train]) < 0.3
    assert found.covariates == ("age", "sex")
    assert found.n_fitted == 100
    assert found.n_missing == {}


def test_a_trait_of_its_own_is_not_predicted():
    age, sex, _, train = people()
    trait = np.random.default_rng(5).normal(size=200)
    found = predict_from_covariates({"age": age, "sex": sex}, trait, train, is_class=False)
    assert nrmse(trait[~train], found.prediction[~train]) > 0.95


def test_labels_and_ages_of_others_do_not_enter_the_fit():
    age, sex, trait, train = people()
    first = predict_from_covariates({"age": age, "sex": sex}, trait, train, is_class=False)
    hidden = np.where(train, trait, np.nan)
    age = age.copy()
    age[-1] = 1000.0
    again = predict_from_covariates({"age": age, "sex": sex}, hidden, train, is_class=False)
    assert np.array_equal(first.prediction[:-1], again.prediction[:-1])


def test_missing_values_take_the_training_mean_and_a_mark_and_are_counted():
    age, sex, trait, train = people()
    age = age.copy()
    age[:10] = np.nan  # of training participants
    age[-1] = np.nan
    trait = np.where(np.isnan(age), 50.0, trait)  # whoever has no age differs: only the mark can say so
    found = predict_from_covariates({"age": age, "sex": sex}, trait, train, is_class=False)
    assert found.n_missing == {"age": 10}
    assert found.prediction[-1] > 40
    assert np.isfinite(found.prediction).all()


def test_sex_is_predicted_from_age_as_probabilities():
    age, _, _, train = people()
    sex = (age > 13).astype(float)
    found = predict_from_covariates({"age": age}, sex, train, is_class=True)
    assert found.prediction.shape == (200, 2)
    assert balanced_accuracy(sex[~train], found.prediction[~train]) > 0.9


def test_a_covariate_that_no_training_participant_has_is_left_out():
    age, sex, trait, train = people()
    found = predict_from_covariates({"age": np.where(train, np.nan, age), "sex": sex}, trait, train, is_class=False)
    assert found.covariates == ("sex",)
    nothing = np.full(200, np.nan)
    with pytest.raises(DataError, match="age nor sex"):
        predict_from_covariates({"age": nothing, "sex": nothing}, trait, train, is_class=False)
