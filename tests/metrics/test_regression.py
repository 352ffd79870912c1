import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError
from cerebro.metrics.regression import mae, nrmse, pearson, r2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_predicting_the_mean_scores_one(seed, n):
    y = np.random.default_rng(seed).normal(3, 2, n)
    assert nrmse(y, np.full(n, y.mean())) == pytest.approx(1.0)
    assert r2(y, np.full(n, y.mean())) == pytest.approx(0.0, abs=1e-12)


def test_nrmse_is_rmse_over_the_population_standard_deviation():
    assert nrmse([0.0, 2.0], [1.0, 3.0]) == pytest.approx(1.0)
    assert nrmse([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0.0
    assert mae([0.0, 2.0], [1.0, 3.0]) == 1.0


def test_scores_of_a_constant_truth_are_missing():
    assert math.isnan(nrmse([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]))
    assert math.isnan(nrmse([1.0], [1.0]))
    assert math.isnan(nrmse([], []))
    assert math.isnan(mae([], []))
    assert math.isnan(pearson([1.0, 2.0], [3.0, 3.0]))


def test_pearson_knows_direction_and_not_scale():
    y = np.arange(5.0)
    assert pearson(y, -3 * y + 1) == pytest.approx(-1)


def test_missing_values_and_unequal_lengths_are_refused():
    with pytest.raises(ConfigError, match="NaN"):
        nrmse([1.0, float("nan")], [1.0, 2.0])
    with pytest.raises(ConfigError, match="2 true values came with 3"):
        nrmse([1.0, 2.0], [1.0, 2.0, 3.0])
