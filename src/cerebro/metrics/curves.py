"""Curves of a classification over all thresholds: ROC, and precision against recall, under weights of the units."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def roc_curve(truth: npt.NDArray[np.int64], score: Array, weights: Array) -> tuple[Array, Array]:
    """False and true positive rates from the highest threshold to the lowest, ties in one step.

    Parameters
    ----------
    truth : int64 (U,)
        Classes 0 and 1.
    score : float64 (U,)
        Larger for class 1.
    weights : float64 (R, U)
        How often each counts, in each of R cases.

    Returns
    -------
    float64 (R, D + 1) twice
        Rates at each of D distinct scores, after (0, 0); NaN where a class has no weight.
    """
    positive, negative = _cumulated(truth, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return negative / negative[:, -1:], positive / positive[:, -1:]


def roc_at(rates: Array, truth: npt.NDArray[np.int64], score: Array, weights: Array) -> Array:
    """True positive rate (R, G) at the false positive rates ``rates`` (G,), straight lines between the steps."""
    false, true = roc_curve(truth, score, weights)
    found = np.full((len(weights), len(rates)), np.nan)
    for row in np.flatnonzero(np.isfinite(false[:, -1]) & np.isfinite(true[:, -1])):
        found[row] = np.interp(rates, false[row], true[row])
    return found


def precision_recall(truth: npt.NDArray[np.int64], score: Array) -> tuple[Array, Array]:
    """Recall and precision (D,) at each distinct score, from the highest threshold to the lowest."""
    positive, negative = (curve[0, 1:] for curve in _cumulated(truth, score, np.ones((1, len(truth)))))
    with np.errstate(divide="ignore", invalid="ignore"):
        return positive / positive[-1], positive / (positive + negative)


def _cumulated(truth: npt.NDArray[np.int64], score: Array, weights: Array) -> tuple[Array, Array]:
    """Weight of class 1, and of class 0, with a score of at least each distinct one, (R, D + 1) from 0 on."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    sums = [
        np.cumsum(np.add.reduceat(weights[:, order] * belongs[order], starts, axis=1), axis=1)
        for belongs in (truth == 1, truth != 1)
    ]
    positive, negative = (np.pad(total, ((0, 0), (1, 0))) for total in sums)
    return positive, negative
