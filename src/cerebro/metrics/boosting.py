"""Gradient-boosted trees on features, split by participant; the number of trees is chosen on left-out participants.

Small trees (three leaves, five rows in each at least), learning rate 0.1, and five numbers of trees to choose from: as
many choices as a logistic probe has penalties. Friedman 2001, doi:10.1214/aos/1013203451; scikit-learn's histograms.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cerebro.errors import DataError
from cerebro.metrics.probe import participant_folds

Array = npt.NDArray[np.float64]

TREES = (5, 10, 20, 40, 80)
LEAVES, LEAST_ROWS, LEARNING_RATE = 3, 5, 0.1
LEAST_PROBABILITY = 1e-3  # of a class in the logarithmic loss


@dataclass(frozen=True)
class BoostedClasses:
    """Fitted trees: ``predict`` gives probabilities."""

    n_trees: int
    model: HistGradientBoostingClassifier

    def predict(self, features: npt.ArrayLike) -> Array:
        """Probabilities (N, K) of features (N, F), K - 1 the highest class of the fit; 0 for one that it lacks."""
        with threadpool_limits(1):
            return _spread(self.model, self.model.predict_proba(np.asarray(features, np.float64)))


@dataclass(frozen=True)
class BoostedValues:
    """Fitted trees: ``predict`` gives ``mean + shrink * (trees - mean)``."""

    n_trees: int
    mean: float
    shrink: float
    model: HistGradientBoostingRegressor

    def predict(self, features: npt.ArrayLike) -> Array:
        """Values (N,) of features (N, F)."""
        with threadpool_limits(1):
            found = self.model.predict(np.asarray(features, np.float64))
        return np.asarray(self.mean + self.shrink * (found - self.mean), np.float64)


def fit_boosted_classes(
    features: npt.ArrayLike, y: npt.ArrayLike, participants: Sequence[str], n_folds: int = 5, seed: int = 0
) -> BoostedClasses:
    """Fit class-balanced trees; their number is the one with the least balanced logarithmic loss on left-out people.

    Parameters
    ----------
    features : array (N, F)
        One row per window, recording or person.
    y : array (N,)
        Classes, whole numbers from 0 on.
    participants : sequence of str (N,)
        Whose row it is.
    n_folds : int
        Groups of participants; fewer where there are fewer participants.
    seed : int
        Seed of the grouping.

    Raises
    ------
    DataError
        With fewer than two participants or classes.
    """
    x, truth = np.asarray(features, np.float64), np.asarray(y, np.float64).astype(np.int64)
    fold = participant_folds(participants, n_folds, seed)
    size = np.bincount(truth)
    if np.count_nonzero(size) < 2:
        raise DataError("all rows to fit have the same class; a classifier needs two or more.")
    left_out = np.zeros((len(TREES), len(truth)))  # probability of the true class, by a fit without the participant
    with threadpool_limits(1):  # more threads take longer on so few rows
        for number in range(fold.max() + 1):
            inside = fold != number
            if len(np.unique(truth[inside])) < 2:
                left_out[:, ~inside] = truth[~inside] == truth[inside][0]
                continue
            model = _classifier(TREES[-1]).fit(x[inside], truth[inside])
            for row, found in enumerate(_stages(model.staged_predict_proba(x[~inside]))):
                every = _spread(model, found, len(size))
                left_out[row, ~inside] = every[np.arange(len(every)), truth[~inside]]
        loss = -(np.log(np.maximum(left_out, LEAST_PROBABILITY)) / size[truth]).sum(axis=1)
        n_trees = TREES[int(loss.argmin())]
        return BoostedClasses(n_trees, _classifier(n_trees).fit(x, truth))


def fit_boosted_values(
    features: npt.ArrayLike, y: npt.ArrayLike, participants: Sequence[str], n_folds: int = 5, seed: int = 0
) -> BoostedValues:
    """Fit trees to values; their number has the least squared error on left-out people, by whom they are shrunk too.

    Arguments as in `fit_boosted_classes`, with values ``y``; shrinkage as in `cerebro.metrics.probe.fit_ridge`.
    """
    x, truth = np.asarray(features, np.float64), np.asarray(y, np.float64)
    fold = participant_folds(participants, n_folds, seed)
    left_out = np.zeros((len(TREES), len(truth)))
    with threadpool_limits(1):
        for number in range(fold.max() + 1):
            inside = fold != number
            model = _regressor(TREES[-1]).fit(x[inside], truth[inside])
            left_out[:, ~inside] = _stages(model.staged_predict(x[~inside]))
        best = int(((left_out - truth) ** 2).sum(axis=1).argmin())
        mean = float(truth.mean())
        deviation = left_out[best] - mean
        power = float((deviation**2).sum())
        shrink = float(np.clip((deviation * (truth - mean)).sum() / power, 0, 1)) if power > 0 else 0.0
        return BoostedValues(TREES[best], mean, shrink, _regressor(TREES[best]).fit(x, truth))


def _stages(staged: Iterable[Array]) -> list[Array]:
    """Predictions after each number of trees that can be chosen."""
    return [found for number, found in enumerate(staged, start=1) if number in TREES]


def _spread(model: HistGradientBoostingClassifier, found: Array, n_classes: int = 0) -> Array:
    """Probabilities of the classes of a model in columns of their numbers."""
    spread = np.zeros((len(found), max(n_classes, int(model.classes_.max()) + 1)))
    spread[:, model.classes_] = found
    return spread


def _classifier(n_trees: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=LEARNING_RATE,
        max_iter=n_trees,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAST_ROWS,
        early_stopping=False,
        class_weight="balanced",
        random_state=0,
    )


def _regressor(n_trees: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        learning_rate=LEARNING_RATE,
        max_iter=n_trees,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAST_ROWS,
        early_stopping=False,
        random_state=0,
    )
