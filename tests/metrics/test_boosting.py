import numpy as np
import pytest

from cerebro.errors import DataError
from cerebro.metrics.boosting import TREES, fit_boosted_classes, fit_boosted_values

N = 60
PEOPLE = [f"P{number // 2}" for number in range(N)]  # two rows each


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_classes_that_a_feature_tells_are_found_in_new_rows(random):
    x, new = random.normal(size=(N, 5)), random.normal(size=(200, 5))
    fitted = fit_boosted_classes(x, x[:, 2] > 0, PEOPLE)
    found = fitted.predict(new)
    assert found.shape == (200, 2)
    assert found.sum(axis=1) == pytest.approx(1)
    assert ((found[:, 1] > 0.5) == (new[:, 2] > 0)).mean() > 0.85
    assert fitted.n_trees in TREES


def test_few_trees_are_chosen_where_there_is_nothing_to_find(random):
    x, y = random.normal(size=(N, 5)), random.permutation(np.arange(N) % 2)
    assert fit_boosted_classes(x, y, PEOPLE).n_trees == TREES[0]


def test_the_number_of_trees_is_chosen_on_people_left_out(random):
    """What tells people apart is learned by heart and of no use for others: more trees only make it worse."""
    person = np.repeat(np.arange(N // 2), 2)
    label = random.permutation(np.arange(N // 2) % 2)[person]
    x = np.eye(N // 2)[person] + random.normal(0, 0.01, (N, N // 2))
    trait = random.normal(size=(N // 2, 4))[person] + random.normal(0, 0.01, (N, 4))
    grouped = fit_boosted_classes(np.concatenate([x, trait], axis=1), label, [str(one) for one in person])
    alone = fit_boosted_classes(np.concatenate([x, trait], axis=1), label, [str(row) for row in range(N)])
    assert grouped.n_trees < alone.n_trees


def test_a_class_that_is_absent_has_probability_zero_in_its_column(random):
    x = random.normal(size=(N, 3))
    found = fit_boosted_classes(x, 2 * (x[:, 0] > 0), PEOPLE).predict(x)
    assert found.shape == (N, 3)
    assert (found[:, 1] == 0).all()


def test_rare_classes_weigh_as_much_as_frequent_ones(random):
    y = np.arange(N) % 6 == 0
    fitted = fit_boosted_classes(np.zeros((N, 1)), y, PEOPLE)
    assert fitted.predict(np.zeros((1, 1)))[0] == pytest.approx([0.5, 0.5], abs=0.02)


def test_values_are_found_and_shrunk_to_the_mean_where_there_are_none(random):
    x, new = random.normal(size=(N, 5)), random.normal(size=(200, 5))
    fitted = fit_boosted_values(x, 3 + x[:, 1], PEOPLE)
    assert np.corrcoef(fitted.predict(new), new[:, 1])[0, 1] > 0.8
    nothing = fit_boosted_values(x, random.normal(size=N), PEOPLE)
    assert np.var(nothing.predict(new)) < 0.1


def test_the_same_rows_give_the_same_trees(random):
    x, y = random.normal(size=(N, 5)), np.arange(N) % 2
    first, second = (fit_boosted_classes(x, y, PEOPLE).predict(x) for _ in range(2))
    assert np.array_equal(first, second)


def test_one_class_and_one_person_are_refused(random):
    x = random.normal(size=(N, 2))
    with pytest.raises(DataError, match="same class"):
        fit_boosted_classes(x, np.ones(N), PEOPLE)
    with pytest.raises(DataError, match="1 participant"):
        fit_boosted_classes(x, np.arange(N) % 2, ["P1"] * N)


def test_a_fold_of_one_class_is_no_fault():
    x = np.arange(4.0)[:, None]
    assert fit_boosted_classes(x, [0, 0, 1, 1], ["a", "a", "b", "b"]).predict(x).shape == (4, 2)
