"""Scores of predicted classes: accuracy, balanced accuracy, precision, recall, F1 and the area under the ROC curve.

One rule for what is undefined: a score that would divide by zero is NaN, so AUC with one class is missing and not 0.5.
Balanced accuracy averages over the classes that occur in the truth.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from cerebro.errors import ConfigError


def predicted_classes(p: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Class numbers (N,) of ``p``: probabilities (N, K) give the likeliest, class numbers (N,) themselves.

    Raises
    ------
    ConfigError
        If a prediction is NaN, or (N,) holds a number that is no class.
    """
    values = np.asarray(p, np.float64)
    if np.isnan(values).any():
        raise ConfigError("a predicted class is NaN; look at the model that gave it.")
    if values.ndim == 2:
        return np.asarray(values.argmax(axis=1), np.int64)
    if (values != np.floor(values)).any():
        raise ConfigError("predictions are fractions where class numbers belong; give probabilities as (windows, K).")
    return values.astype(np.int64).reshape(-1)


def accuracy(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Share of right classes; NaN without windows. ``y`` (N,) classes, ``p`` (N,) classes or (N, K) probabilities."""
    truth, prediction = _checked(y, p)
    return float((truth == prediction).mean()) if len(truth) else float("nan")


def balanced_accuracy(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Mean over the true classes of the share that is found; a constant scores 1 / classes. NaN without windows.

    Parameters
    ----------
    y : array (N,)
        True class numbers.
    p : array (N,) or (N, K)
        Predicted class numbers, or probabilities of K classes.
    """
    truth, prediction = _checked(y, p)
    if not len(truth):
        return float("nan")
    return float(np.mean([(prediction[truth == label] == label).mean() for label in np.unique(truth)]))


def precision(y: npt.ArrayLike, p: npt.ArrayLike, positive: int = 1) -> float:
    """Share of those predicted to be of class ``positive`` who are; NaN if it is predicted nowhere."""
    truth, prediction = _checked(y, p)
    predicted = prediction == positive
    return float((truth[predicted] == positive).mean()) if predicted.any() else float("nan")


def recall(y: npt.ArrayLike, p: npt.ArrayLike, positive: int = 1) -> float:
    """Share of those of class ``positive`` who are found (sensitivity); NaN if nobody is of it."""
    truth, prediction = _checked(y, p)
    belongs = truth == positive
    return float((prediction[belongs] == positive).mean()) if belongs.any() else float("nan")


def f1(y: npt.ArrayLike, p: npt.ArrayLike, positive: int = 1) -> float:
    """Harmonic mean of precision and recall of class ``positive``; NaN if it is neither true nor predicted anywhere."""
    truth, prediction = _checked(y, p)
    found = int(((truth == positive) & (prediction == positive)).sum())
    mentioned = int((truth == positive).sum() + (prediction == positive).sum())
    return 2 * found / mentioned if mentioned else float("nan")


def auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve of class 1 against 0 (ties count half); NaN where one of them is missing.

    ``score`` is (N,), larger for class 1, or probabilities (N, 2).
    """
    truth, values = np.asarray(y, np.float64).reshape(-1), np.asarray(score, np.float64)
    values = values[:, 1] if values.ndim == 2 else values
    if len(truth) != len(values):
        raise ConfigError(f"{len(truth)} true classes came with {len(values)} scores; give one per window.")
    if np.isnan(truth).any() or np.isnan(values).any():
        raise ConfigError("a true class or its score is NaN; mask missing labels before scoring.")
    n_positive = int((truth == 1).sum())
    n_negative = len(truth) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    ranks = rankdata(values)[truth == 1].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def confusion_matrix(y: npt.ArrayLike, p: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Counts (K, K): row = true class, column = predicted class."""
    truth, prediction = _checked(y, p)
    n_classes = int(max(truth.max(initial=0), prediction.max(initial=0))) + 1
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (truth, prediction), 1)
    return counts


def _checked(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    truth, prediction = predicted_classes(y), predicted_classes(p)
    if len(truth) != len(prediction):
        raise ConfigError(f"{len(truth)} true classes came with {len(prediction)} predictions; give one per window.")
    return truth, prediction
