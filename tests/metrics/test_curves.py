import numpy as np
import pytest
import sklearn.metrics

from cerebro.metrics.curves import precision_recall, roc_at, roc_curve
from cerebro.metrics.participants import weighted_auc


@pytest.fixture
def data():
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 30)
    return truth, np.round(random.normal(truth, 1.0), 1)  # rounded: ties occur


def test_the_roc_curve_is_that_of_scikit_learn_and_encloses_the_auc(data):
    truth, score = data
    weights = np.random.default_rng(2).integers(0, 3, (4, 30)).astype(float)
    false, true = roc_curve(truth, score, weights)
    assert np.trapezoid(true, false, axis=1) == pytest.approx(weighted_auc(truth, score, weights))
    expected_false, expected_true, _ = sklearn.metrics.roc_curve(truth, score, drop_intermediate=False)
    false, true = roc_curve(truth, score, np.ones((1, 30)))
    assert false[0] == pytest.approx(expected_false)
    assert true[0] == pytest.approx(expected_true)


def test_rates_between_steps_lie_on_straight_lines():
    truth, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1])
    found = roc_at(np.array([0.0, 0.25, 0.5, 1.0]), truth, score, np.ones((1, 4)))
    assert found[0].tolist() == [0.5, 0.75, 1.0, 1.0]


def test_a_resample_of_one_class_has_no_curve(data):
    truth, score = data
    weights = np.stack([(truth == 1).astype(float), np.ones(30)])
    found = roc_at(np.linspace(0, 1, 5), truth, score, weights)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_precision_and_recall_are_those_of_scikit_learn(data):
    truth, score = data
    recall, precision = precision_recall(truth, score)
    expected, recalled, _ = sklearn.metrics.precision_recall_curve(truth, score, drop_intermediate=False)
    assert precision == pytest.approx(expected[:-1][::-1])
    assert recall == pytest.approx(recalled[:-1][::-1])
