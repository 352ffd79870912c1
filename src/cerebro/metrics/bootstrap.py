"""Intervals over participants: participants are drawn with replacement, never their windows.

Windows of one person resemble each other, so that a bootstrap over windows gives intervals that are too narrow. Each
score here is a function of sums over windows; the sums are kept per participant, and a resample is one row of a matrix
product. All scores of a study share the same draws, which makes every difference between two models paired over the
same participants (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError, DataError
from cerebro.metrics.classification import predicted_classes

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParticipantSums:
    """What each participant adds to a score.

    Parameters
    ----------
    participants : tuple of str
        Sorted, each once.
    sums : array (participants, M)
        Sums over the participant's windows.
    score : callable
        Total sums (..., M) -> score (...); NaN where it is undefined.
    """

    participants: tuple[str, ...]
    sums: Array
    score: Callable[[Array], Array]

    def value(self) -> float:
        """Score over all participants."""
        return float(self.score(self.sums.sum(axis=0)))


def nrmse_sums(participants: Sequence[str], y: npt.ArrayLike, p: npt.ArrayLike) -> ParticipantSums:
    """Sums behind ``metrics.regression.nrmse``; ``participants``, ``y`` and ``p`` have one entry per window (N,)."""
    truth, prediction = np.asarray(y, np.float64), np.asarray(p, np.float64)
    centred = truth - truth.mean() if len(truth) else truth  # keeps the variance exact far from zero
    columns = np.stack([np.ones_like(truth), centred, centred**2, (truth - prediction) ** 2], axis=1)  # (N, 4)
    return _summed(participants, columns, _nrmse)


def pearson_sums(participants: Sequence[str], y: npt.ArrayLike, p: npt.ArrayLike) -> ParticipantSums:
    """Sums behind ``metrics.regression.pearson``; arguments as in ``nrmse_sums``."""
    truth, prediction = np.asarray(y, np.float64), np.asarray(p, np.float64)
    if len(truth):
        truth, prediction = truth - truth.mean(), prediction - prediction.mean()
    columns = [np.ones_like(truth), truth, prediction, truth**2, prediction**2, truth * prediction]
    return _summed(participants, np.stack(columns, axis=1), _pearson)


def balanced_error_sums(participants: Sequence[str], y: npt.ArrayLike, p: npt.ArrayLike) -> ParticipantSums:
    """Sums behind ``1 - balanced_accuracy``, which is lower-is-better like every score that gains compare.

    ``y`` (N,) classes; ``p`` (N,) classes or (N, K) probabilities.
    """
    truth, prediction = predicted_classes(y), predicted_classes(p)
    classes = np.unique(truth)
    is_class = truth[:, None] == classes[None, :]  # (N, K)
    is_wrong = is_class & (truth != prediction)[:, None]
    return _summed(participants, np.concatenate([is_class, is_wrong], axis=1).astype(np.float64), _balanced_error)


def _nrmse(total: Array) -> Array:
    n, first, second, error = np.moveaxis(total, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = second / n - (first / n) ** 2
        score = np.where(variance > 1e-12 * np.maximum(second / n, 1e-300), np.sqrt(error / n / variance), np.nan)
    return np.asarray(score)


def _pearson(total: Array) -> Array:
    n, first, second, first_squared, second_squared, product = np.moveaxis(total, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        first_variance = first_squared / n - (first / n) ** 2
        second_variance = second_squared / n - (second / n) ** 2
        is_defined = (first_variance > 1e-12 * first_squared / n) & (second_variance > 1e-12 * second_squared / n)
        covariance = product / n - first * second / n**2
        return np.asarray(np.where(is_defined, covariance / np.sqrt(first_variance * second_variance), np.nan))


def _balanced_error(total: Array) -> Array:
    n_classes = total.shape[-1] // 2
    count, wrong = total[..., :n_classes], total[..., n_classes:]
    occurs = count > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(occurs, wrong / np.maximum(count, 1), 0).sum(axis=-1) / occurs.sum(axis=-1)
    return np.asarray(score)


def _summed(participants: Sequence[str], columns: Array, score: Callable[[Array], Array]) -> ParticipantSums:
    if len(participants) != len(columns):
        raise ConfigError(f"{len(columns)} windows came with {len(participants)} participants; give one per window.")
    if not len(participants):
        raise DataError("no window has a known label, so that nothing can be scored; look at the target's labels.")
    names, row = np.unique(np.asarray(participants, str), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))  # (participants, M)
    np.add.at(sums, row, columns)
    return ParticipantSums(tuple(str(name) for name in names), sums, score)


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval; ``n_undefined`` resamples were left out because the score was undefined there."""

    mean: float
    ci95: tuple[float, float]
    n_undefined: int = 0


class ParticipantBootstrap:
    """The same draws of participants for every score of a study.

    Parameters
    ----------
    participants : sequence of str
        All held-out participants of the study, in any order.
    n_resamples : int
        Draws, at least 1.
    seed : int
        Seed of the draws.
    """

    def __init__(self, participants: Sequence[str], n_resamples: int = 2000, seed: int = 0) -> None:
        if n_resamples < 1:
            raise ConfigError(f"n_resamples={n_resamples} must be at least 1; 2000 is a good number.")
        self.participants = tuple(sorted(set(participants)))
        if not self.participants:
            raise DataError("no held-out participant to resample; give the split some test participants.")
        n = len(self.participants)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
        self.weights: Array = drawn.astype(np.float64)  # (resamples, participants): how often each was drawn

    def resampled(self, sums: ParticipantSums) -> Array:
        """Score of every resample, (resamples,)."""
        row = {name: number for number, name in enumerate(self.participants)}
        unknown = [name for name in sums.participants if name not in row]
        if unknown:
            raise DataError(
                f"participant {unknown[0]} was scored but is not held out; score the same split everywhere."
            )
        aligned = np.zeros((len(row), sums.sums.shape[1]))
        aligned[[row[name] for name in sums.participants]] = sums.sums
        return sums.score(self.weights @ aligned)


def interval(resampled: Array) -> tuple[tuple[float, float], int]:
    """95 % percentile interval of resampled scores (resamples,), and how many of them were undefined."""
    defined = resampled[np.isfinite(resampled)]
    if not len(defined):
        return (float("nan"), float("nan")), len(resampled)
    low, high = np.percentile(defined, [2.5, 97.5])
    return (float(low), float(high)), len(resampled) - len(defined)


def estimate(value: float, resampled: Array) -> Estimate:
    """Put a score and its resamples together."""
    ci95, n_undefined = interval(resampled)
    return Estimate(value, ci95, n_undefined)


def gain(better: float | Array, worse: float | Array) -> Array:
    """``gain(A over B) = (S_B - S_A) / S_B`` of lower-is-better scores; same shape; NaN where S_B is 0."""
    score_a, score_b = np.asarray(better, np.float64), np.asarray(worse, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(score_b > 0, (score_b - score_a) / score_b, np.nan))


def reachable_share(better: float | Array, worse: float | Array, oracle: float) -> Array:
    """``(S_B - S_A) / (S_B - S_oracle)``: share of what could be gained at all; NaN without a gap."""
    score_a, score_b = np.asarray(better, np.float64), np.asarray(worse, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(score_b > oracle, (score_b - score_a) / (score_b - oracle), np.nan))
