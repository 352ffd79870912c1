"""Scores of a classification by participant: the probabilities of a person's rows are averaged, and each counts once.

A row is whatever the model predicted for: a window, or a whole recording. Where the recordings of one participant have
different labels (rest and arithmetic), the participant has none; then recordings are scored, and where even those have
several labels, single rows. Intervals draw participants in every case, each with all that is theirs.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError, DataError
from cerebro.metrics.bootstrap import ParticipantBootstrap
from cerebro.metrics.classification import predicted_classes

Array = npt.NDArray[np.float64]
Texts = npt.NDArray[Any]  # of str; checkers of types cannot compare lengths of text
Unit = Literal["participant", "recording", "row", "window"]

TWO_CLASSES = ("auc", "balanced_accuracy", "f1", "precision", "recall", "accuracy")
MORE_CLASSES = ("balanced_accuracy", "macro_f1", "accuracy")
_AT_ONCE = 4_000_000  # weights of resamples that are held at a time: 32 MB
_FEW = 3  # units per participant; with more it is quicker to compare participants pairwise once


@dataclass(frozen=True)
class Units:
    """What counts once, U in number: participants, or recordings, rows or windows.

    Parameters
    ----------
    unit : str
        ``participant``, ``recording``, ``row`` or ``window``.
    participant : array of str (U,)
        Whose it is.
    recording : array of str (U,)
        Recording that it is or belongs to; "" of a participant.
    truth : int64 (U,)
        Class, from 0 on.
    probability : float64 (U, K)
        Mean over its rows of the probabilities of K classes.
    sd : float64 (U,)
        Standard deviation over its rows (n - 1) of the probability of the last class; NaN of a single row.
    n_recordings, n_rows : int64 (U,)
        What was averaged.
    """

    unit: Unit
    participant: Texts
    recording: Texts
    truth: npt.NDArray[np.int64]
    probability: Array
    sd: Array
    n_recordings: npt.NDArray[np.int64]
    n_rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def names(self) -> tuple[str, ...]:
        """Scores that there are: ``TWO_CLASSES`` or ``MORE_CLASSES``."""
        return TWO_CLASSES if self.probability.shape[1] == 2 else MORE_CLASSES

    def n_of_class(self, label: int) -> int:
        """How many are of a class."""
        return int((self.truth == label).sum())


def gather_units(
    participant: npt.ArrayLike,
    recording: npt.ArrayLike | None,
    truth: npt.ArrayLike,
    probability: npt.ArrayLike,
    unit: Unit | None = None,
) -> Units:
    """Average the rows of each participant, or of the largest unit that has one label.

    Parameters
    ----------
    participant : array (N,)
        Participant of each row.
    recording : array (N,), optional
        Recording of each row; left out where it is not known, so that rows stand alone if participants have no label.
    truth : array (N,)
        Class of each row, from 0 on; rows without a label are left out before.
    probability : array (N, K)
        Probabilities of the classes.
    unit : str, optional
        What to average to; left out, `labelled_unit` says it.

    Raises
    ------
    ConfigError
        If the arrays differ in length, or a probability is NaN.
    DataError
        If a label is no class of the model, or a unit that was asked for has several labels.
    """
    who, chance = np.asarray(participant).astype(np.str_), np.asarray(probability, np.float64)
    label = np.asarray(truth, np.float64)
    where = np.full(len(who), "", np.str_) if recording is None else np.asarray(recording).astype(np.str_)
    if not len(who) == len(where) == len(label) == len(chance):
        raise ConfigError(f"{len(label)} labels came with {len(who)} participants and {len(chance)} predictions.")
    if np.isnan(chance).any():
        raise ConfigError("a predicted probability is NaN; look at the model that gave it.")
    n_classes = chance.shape[1]
    wrong = label[~((label >= 0) & (label < n_classes) & (label == np.floor(label)))]
    if len(wrong):
        raise DataError(
            f"label {wrong[0]:g} is no class of a model of {n_classes} (0 to {n_classes - 1}); set n_classes."
        )
    if unit is None:
        unit = labelled_unit(who, recording, label)
    row, number = _places(who, where, unit)
    n = np.bincount(number, minlength=len(row))
    total = np.stack([np.bincount(number, column, len(row)) for column in chance.T], axis=1)
    mean = np.round(total / n[:, None], 12)  # (U, K); equal probabilities stay ties whatever the number of rows
    if (label != label[row][number]).any():
        raise DataError(f"a {unit} has several labels; score single rows.")
    last = chance[:, -1] - mean[number, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(np.bincount(number, last**2, len(row)) / np.where(n > 1, n - 1, np.nan))
    pairs = np.unique(np.stack([number.astype(np.str_), where], axis=1), axis=0)[:, 0].astype(np.int64)
    return Units(
        unit=unit,
        participant=who[row],
        recording=np.full(len(row), "", np.str_) if unit == "participant" else where[row],
        truth=label[row].astype(np.int64),
        probability=mean,
        sd=sd,
        n_recordings=np.bincount(pairs, minlength=len(row)).astype(np.int64),
        n_rows=n.astype(np.int64),
    )


def labelled_unit(participant: npt.ArrayLike, recording: npt.ArrayLike | None, truth: npt.ArrayLike) -> Unit:
    """Largest unit with one label each: participants, else recordings, else rows; arguments as of `gather_units`."""
    who, label = np.asarray(participant).astype(np.str_), np.asarray(truth)
    if _is_one_each(who, label):
        return "participant"
    if recording is not None and _is_one_each(np.char.add(np.char.add(who, "\n"), np.asarray(recording, str)), label):
        return "recording"
    return "row"


def _is_one_each(name: Texts, label: npt.NDArray[np.float64]) -> bool:
    _, row, number = np.unique(name, return_index=True, return_inverse=True)
    return bool((label == label[row][number]).all())


def _places(who: Texts, where: Texts, unit: Unit) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First row of each unit (U,), and number of the unit of each row (N,)."""
    if unit in ("row", "window"):
        return np.arange(len(who)), np.arange(len(who))
    name = who if unit == "participant" else np.char.add(np.char.add(who, "\n"), where)
    _, row, number = np.unique(name, return_index=True, return_inverse=True)
    return row, number


def class_scores(units: Units) -> dict[str, float]:
    """Scores by name, of class 1 where there are two; NaN where undefined, as in ``metrics.classification``."""
    if not len(units):
        return dict.fromkeys(units.names, float("nan"))
    counts = np.bincount(_cells(units), minlength=units.probability.shape[1] ** 2)[None].astype(np.float64)
    scores = _of_counts(counts)
    if "auc" in units.names:
        scores["auc"] = weighted_auc(units.truth, units.probability[:, 1], np.ones((1, len(units))))
    return {name: float(scores[name][0]) for name in units.names}


def resampled_scores(units: Units, bootstrap: ParticipantBootstrap) -> dict[str, Array]:
    """Each score in every resample of participants, (resamples,); NaN where it is undefined in one.

    Raises
    ------
    DataError
        If a participant is not among those of the bootstrap.
    """
    place = {name: number for number, name in enumerate(bootstrap.participants)}
    unknown = [name for name in units.participant if name not in place]
    if unknown:
        raise DataError(f"participant {unknown[0]} was scored but is not held out; score the same split everywhere.")
    if not len(units):
        return {name: np.full(len(bootstrap.weights), np.nan) for name in units.names}
    column = np.array([place[name] for name in units.participant])
    counts = np.zeros((len(place), units.probability.shape[1] ** 2))
    np.add.at(counts, (column, _cells(units)), 1)
    scores = _of_counts(bootstrap.weights @ counts)
    if "auc" in units.names:
        scores["auc"] = _resampled_auc(units, column, bootstrap.weights)
    return {name: scores[name] for name in units.names}


def _resampled_auc(units: Units, column: npt.NDArray[np.int64], weights: Array) -> Array:
    """AUC under weights (R, P) of participants; ``column`` (U,) says whose each unit is."""
    score, n_people = units.probability[:, 1], weights.shape[1]
    if len(units) <= _FEW * n_people:
        n_at_once = max(1, _AT_ONCE // len(units))
        starts = range(0, len(weights), n_at_once)
        parts = [weighted_auc(units.truth, score, weights[at : at + n_at_once, column]) for at in starts]
        return np.concatenate(parts)
    _, level = np.unique(score, return_inverse=True)  # (U,) number of each distinct score
    is_positive = units.truth == 1
    of_positive, level_of_positive = column[is_positive], level[is_positive]
    above = np.zeros((n_people, n_people))  # [p, q]: pairs in which class 1 of p lies above class 0 of q; ties half
    for person in np.unique(column[~is_positive]):
        negative = np.bincount(level[~is_positive & (column == person)], minlength=level.max() + 1)
        below = np.cumsum(negative) - negative / 2
        above[:, person] = np.bincount(of_positive, below[level_of_positive], n_people)
    n_positive, n_negative = (np.bincount(column[mine], minlength=n_people) for mine in (is_positive, ~is_positive))
    return _share(((weights @ above) * weights).sum(axis=1), (weights @ n_positive) * (weights @ n_negative))


def weighted_auc(truth: npt.NDArray[np.int64], score: Array, weights: Array) -> Array:
    """Area under the ROC curve of class 1 against 0 under weights; ties count half (Hanley & McNeil 1982, Radiology).

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
    float64 (R,)
        NaN where one of the classes has no weight.
    """
    order = np.argsort(score, kind="stable")
    is_new = np.diff(score[order], prepend=np.nan) != 0
    starts = np.flatnonzero(is_new)  # of each distinct score
    positive = np.add.reduceat(weights[:, order] * (truth[order] == 1), starts, axis=1)  # (R, distinct scores)
    negative = np.add.reduceat(weights[:, order] * (truth[order] != 1), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(pairs > 0, (positive * below).sum(axis=1) / pairs, np.nan))


def _cells(units: Units) -> npt.NDArray[np.int64]:
    """Cell of each unit (U,) in the table of true and predicted classes, row by row."""
    return np.asarray(units.truth * units.probability.shape[1] + predicted_classes(units.probability), np.int64)


def _of_counts(counts: Array) -> dict[str, Array]:
    """Scores (R,) of tables of true and predicted classes (R, K * K)."""
    n_classes = round(counts.shape[1] ** 0.5)
    table = counts.reshape(-1, n_classes, n_classes)  # (R, true, predicted)
    found, true, predicted = np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1)  # (R, K)
    recalls, f1s = _share(found, true), _share(2 * found, true + predicted)
    scores = {
        "accuracy": _share(found.sum(axis=1), true.sum(axis=1)),
        "balanced_accuracy": _mean_of_defined(recalls),
        "macro_f1": _mean_of_defined(f1s),
    }
    if n_classes == 2:
        scores |= {"precision": _share(found[:, 1], predicted[:, 1]), "recall": recalls[:, 1], "f1": f1s[:, 1]}
    return scores


def _share(part: Array, whole: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))


def _mean_of_defined(values: Array) -> Array:
    """Mean over the classes (R, K) whose value is defined; NaN where none is."""
    is_defined = np.isfinite(values)
    return _share(np.where(is_defined, values, 0).sum(axis=1), is_defined.sum(axis=1).astype(np.float64))
