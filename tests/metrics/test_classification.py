import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from cerebro.errors import ConfigError
from cerebro.metrics.classification import accuracy, auc, balanced_accuracy, confusion_matrix, f1, precision, recall


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, 40)
    score = np.round(random.normal(y, 1.5), 1)  # rounded: ties occur
    p = (score > 0.5).astype(int)
    assert balanced_accuracy(y, p) == pytest.approx(balanced_accuracy_score(y, p))
    assert f1(y, p) == pytest.approx(f1_score(y, p))
    assert precision(y, p) == pytest.approx(precision_score(y, p))
    assert recall(y, p) == pytest.approx(recall_score(y, p))
    assert auc(y, score) == pytest.approx(roc_auc_score(y, score))
    assert accuracy(y, p) == pytest.approx((y == p).mean())


def test_auc_with_one_class_is_missing_and_not_one_half():
    assert math.isnan(auc([1, 1, 1], [0.1, 0.2, 0.3]))
    assert math.isnan(auc([0, 0], [0.1, 0.2]))


def test_a_constant_class_scores_one_over_the_number_of_classes():
    assert balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0]) == 0.5


def test_probabilities_count_as_their_likeliest_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert balanced_accuracy([0, 1], probabilities) == 1.0
    assert auc([0, 1], probabilities) == 1.0


def test_f1_of_an_absent_class_is_missing():
    assert math.isnan(f1([0, 0], [0, 0]))
    assert f1([0, 0], [0, 1]) == 0.0


def test_precision_without_a_prediction_and_recall_without_a_case_are_missing():
    assert math.isnan(precision([0, 1], [0, 0]))
    assert recall([0, 1], [0, 0]) == 0.0
    assert math.isnan(recall([0, 0], [0, 1]))
    assert precision([0, 0], [0, 1]) == 0.0


def test_fractions_in_place_of_classes_are_refused():
    with pytest.raises(ConfigError, match="fractions"):
        accuracy([0, 1], [0.2, 0.7])


def test_confusion_counts_truth_in_rows():
    assert confusion_matrix([0, 0, 1], [1, 0, 1]).tolist() == [[1, 1], [0, 1]]
