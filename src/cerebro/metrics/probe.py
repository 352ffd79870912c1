"""Linear probes on features, split by participant: ridge regression in closed form, and logistic regression.

The strength of the penalty is chosen on participants left out of the fit, and a ridge is shrunk towards the training
mean by as much as those participants ask for, so that on them it is never worse than the constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cerebro.errors import DataError
from cerebro.metrics.classification import balanced_accuracy

Array = npt.NDArray[np.float64]

PENALTIES = tuple(float(10.0**power) for power in range(-3, 5))  # relative to the number of windows


@dataclass(frozen=True)
class RidgeProbe:
    """A fitted ridge: ``predict`` gives ``mean + shrink * (ridge - mean)``."""

    mean: float
    shrink: float
    penalty: float
    centre: Array
    scale: Array
    weight: Array

    def predict(self, features: npt.ArrayLike) -> Array:
        """Values (N,) of features (N, F)."""
        standard = (np.asarray(features, np.float64) - self.centre) / self.scale
        return np.asarray(self.mean + self.shrink * (standard @ self.weight))


def fit_ridge(
    features: npt.ArrayLike, y: npt.ArrayLike, participants: Sequence[str], n_folds: int = 5, seed: int = 0
) -> RidgeProbe:
    """Fit a ridge whose penalty and shrinkage are chosen on left-out participants.

    Each fold's Gram matrix is taken from the whole one, so that every fold and penalty costs one small eigenproblem and
    no pass over the windows.

    Parameters
    ----------
    features : array (N, F)
        One row per window.
    y : array (N,)
        Truth, no NaN.
    participants : sequence of str (N,)
        Whose window it is.
    n_folds : int
        Groups of participants; fewer where there are fewer participants.
    seed : int
        Seed of the grouping.

    Raises
    ------
    DataError
        With fewer than two participants.
    """
    x, truth = np.asarray(features, np.float64), np.asarray(y, np.float64)
    fold = participant_folds(participants, n_folds, seed)
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard, mean = (x - centre) / scale, float(truth.mean())
    left_out = np.zeros((len(PENALTIES), len(truth)))  # prediction of each window by a fit without its participant
    for number in range(fold.max() + 1):
        inside = fold != number
        left_out[:, ~inside] = _left_out_predictions(standard[inside], truth[inside], standard[~inside])
    error = ((left_out - truth) ** 2).mean(axis=1)
    best = int(error.argmin())
    deviation = left_out[best] - mean
    power = float((deviation**2).sum())
    shrink = float(np.clip((deviation * (truth - mean)).sum() / power, 0, 1)) if power > 0 else 0.0
    (weight,) = _ridge_weights(
        standard.T @ standard, standard.T @ (truth - mean), len(truth), PENALTIES[best : best + 1]
    )
    return RidgeProbe(mean, shrink, PENALTIES[best], centre, scale, weight)


def _left_out_predictions(x: Array, y: Array, x_left_out: Array) -> Array:
    """Predictions (penalties, left-out windows) of fits to ``x`` (N, F), which is recentred on its own mean."""
    centre, mean = x.mean(axis=0), float(y.mean())
    centred = x - centre
    weights = _ridge_weights(centred.T @ centred, centred.T @ (y - mean), len(y), PENALTIES)
    return np.asarray(mean + weights @ (x_left_out - centre).T)


def _ridge_weights(gram: Array, moment: Array, n: int, penalties: Sequence[float]) -> Array:
    """Weights (penalties, F) of ``(gram + n penalty I) w = moment`` from one eigendecomposition."""
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ moment
    shrunk = rotated[None, :] / (np.maximum(values, 0)[None, :] + n * np.asarray(penalties)[:, None])
    return np.asarray(shrunk @ vectors.T)


@dataclass(frozen=True)
class LogisticProbe:
    """A fitted logistic regression on standardised features."""

    inverse_penalty: float
    centre: Array
    scale: Array
    model: LogisticRegression

    def predict(self, features: npt.ArrayLike) -> Array:
        """Probabilities (N, K) of features (N, F), K - 1 the highest class of the fit; 0 for one that it lacks."""
        standard = (np.asarray(features, np.float64) - self.centre) / self.scale
        found = np.zeros((len(standard), int(self.model.classes_.max()) + 1))
        found[:, self.model.classes_] = self.model.predict_proba(standard)
        return found


def fit_logistic(
    features: npt.ArrayLike, y: npt.ArrayLike, participants: Sequence[str], n_folds: int = 5, seed: int = 0
) -> LogisticProbe:
    """Fit a class-balanced logistic regression whose penalty is chosen on left-out participants by balanced accuracy.

    Arguments as in ``fit_ridge``; ``y`` holds classes, whole numbers from 0 on.
    """
    x, truth = np.asarray(features, np.float64), np.asarray(y, np.float64).astype(np.int64)
    fold = participant_folds(participants, n_folds, seed)
    if len(np.unique(truth)) < 2:
        raise DataError("all windows to fit have the same class; a classifier needs two or more.")
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (x - centre) / scale
    choices = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    found = []
    for choice in choices:
        left_out = np.zeros(len(truth), np.int64)
        for number in range(fold.max() + 1):
            inside = fold != number
            if len(np.unique(truth[inside])) < 2:
                left_out[~inside] = truth[inside][0]
                continue
            left_out[~inside] = _logistic(choice).fit(standard[inside], truth[inside]).predict(standard[~inside])
        found.append(balanced_accuracy(truth, left_out))
    best = choices[int(np.argmax(found))]
    return LogisticProbe(best, centre, scale, _logistic(best).fit(standard, truth))


def _logistic(inverse_penalty: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=2000)


def participant_folds(participants: Sequence[str], n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold number (N,) of each window: whole participants, groups of nearly equal size, seeded.

    Raises
    ------
    DataError
        With fewer than two participants.
    """
    names, row = np.unique(np.asarray(participants, str), return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{len(names)} participant(s) to fit a probe; leaving one out needs two or more.")
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = np.empty(len(names), np.int64)
    fold_of[order] = np.arange(len(names)) % min(n_folds, len(names))
    return np.asarray(fold_of[row], np.int64)
