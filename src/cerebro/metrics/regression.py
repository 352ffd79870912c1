"""Scores of predicted values: NRMSE, MAE, R2 and Pearson correlation.

One rule for what is undefined: a score that would divide by zero, or that has fewer than two values, is NaN. A NaN
among the values is a mistake of the caller (missing labels are masked before) and raises ConfigError.
"""

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError


def nrmse(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Root mean squared error over the standard deviation of the truth: 1.0 is the constant predictor.

    The score of the 2025 EEG Foundation Challenge, with the population standard deviation, so that predicting the mean
    of ``y`` scores exactly 1.

    Parameters
    ----------
    y, p : array (N,)
        Truth and prediction, in the unit of the target.

    Raises
    ------
    ConfigError
        If the two differ in length or hold a NaN.
    """
    truth, prediction = _checked(y, p)
    if len(truth) < 2 or _is_constant(truth):
        return float("nan")
    return float(np.sqrt(np.mean((truth - prediction) ** 2)) / truth.std())


def mae(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Mean absolute error, in the unit of the target; NaN without values."""
    truth, prediction = _checked(y, p)
    return float(np.abs(truth - prediction).mean()) if len(truth) else float("nan")


def r2(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Share of the variance that is explained, ``1 - NRMSE**2``; may be negative."""
    return 1.0 - nrmse(y, p) ** 2


def pearson(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Linear correlation in [-1, 1]; NaN where truth or prediction is constant."""
    truth, prediction = _checked(y, p)
    if len(truth) < 2 or _is_constant(truth) or _is_constant(prediction):
        return float("nan")
    return float(np.corrcoef(truth, prediction)[0, 1])


def _is_constant(value: npt.NDArray[np.float64]) -> bool:
    return bool(value.max() == value.min())  # a standard deviation of equal floats may be 1e-17 instead of 0


def _checked(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    truth, prediction = np.asarray(y, np.float64).reshape(-1), np.asarray(p, np.float64).reshape(-1)
    if len(truth) != len(prediction):
        raise ConfigError(f"{len(truth)} true values came with {len(prediction)} predictions; give one per window.")
    if np.isnan(truth).any() or np.isnan(prediction).any():
        raise ConfigError("a true value or a prediction is NaN; mask missing labels before scoring.")
    return truth, prediction
