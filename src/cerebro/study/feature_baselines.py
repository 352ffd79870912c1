"""What a network must beat: logistic regression and boosted trees on features that a clinician can read.

Both are fitted by participant: a row is a person (of a label of people) or a recording (of a label of recordings), with
mean and standard deviation of each feature over its windows. They are fitted to the training participants of a run, and
every test row of the run gets the prediction of its person or recording. A target that is a number gets a ridge in
place of the logistic regression, and trees that predict numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cerebro.data.module import EEGData, Stage
from cerebro.errors import DataError
from cerebro.metrics.boosting import fit_boosted_classes, fit_boosted_values
from cerebro.metrics.probe import fit_logistic, fit_ridge
from cerebro.study.feature_file import MAKE, FeatureFile

Array = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]

SAME = 1e-9  # values this much apart, relatively, differ by rounding alone; to standardise them would blow that up


class Fitted(Protocol):
    """Predicts probabilities (N, K) or values (N,) of features (N, F)."""

    def predict(self, features: npt.ArrayLike) -> Array:
        """Predict."""


Fit = Callable[[npt.ArrayLike, npt.ArrayLike, Sequence[str]], Fitted]
FITS: dict[str, tuple[Fit, Fit]] = {
    "features_logistic": (fit_logistic, fit_ridge),  # of classes, of values
    "features_boosting": (fit_boosted_classes, fit_boosted_values),
}


@dataclass(frozen=True)
class Units:
    """Persons or recordings of a side whose label is known.

    Parameters
    ----------
    person : list of str (U,)
        Participant of each.
    truth : array (U,)
        Its label.
    rows : list of list of int (U,)
        Its recordings as rows of the file of features.
    unit : array (N,)
        Number of the unit of each window of the side; -1 without a label.
    absent : list of list of str (U,)
        Keys of its recordings that have no features.
    """

    person: list[str]
    truth: Array
    rows: list[list[int]]
    unit: npt.NDArray[np.int64]
    absent: list[list[str]]


def predict_from_features(
    baseline: str, features: FeatureFile, data: EEGData, target: str, n_classes: int, say: Callable[[str], None]
) -> Arrays:
    """Fit a baseline to the training side of a run and predict every window of its test side.

    Parameters
    ----------
    baseline : {"features_logistic", "features_boosting"}
        Which.
    features : FeatureFile
        Of the recordings of the run.
    data : EEGData
        Of the run.
    target : str
        What to predict.
    n_classes : int
        Classes that the run predicts; 0 = values.
    say : callable
        Takes each line.

    Returns
    -------
    dict of arrays
        ``target/NAME``, ``known/NAME`` and ``prediction/NAME`` of the windows of the test side, in their order.

    Raises
    ------
    DataError
        If a test participant has no features, the labels are those of single windows, or all training people have one
        class.
    """
    train, test = (units_of(data, features, target, stage) for stage in ("train", "test"))
    _refuse_absent(test, features, data)
    has_features = np.array([bool(rows) for rows in train.rows], bool)
    people = [name for name, is_there in zip(train.person, has_features, strict=True) if is_there]
    truth = train.truth[has_features]
    if len(set(people)) < 2:
        raise DataError(
            f"{baseline}: {len(set(people))} training participants of {data.store.path} have a {target} and features "
            f"in {features.path}, which takes two or more; make features of the same recordings."
        )
    if n_classes and len(np.unique(truth)) < 2:
        raise DataError(
            f"{baseline}: all {len(truth)} rows to train on have {target} {truth[0]:g}; a classifier needs two classes "
            "among the training participants: change data.split or add people."
        )
    x, x_test, note = _filled(features.summaries([rows for rows in train.rows if rows]), features.summaries(test.rows))
    fit_classes, fit_values = FITS[baseline]
    if not test.rows:  # nobody to test has a label
        found = np.zeros((0, n_classes) if n_classes else 0)
    elif n_classes:
        found = fit_classes(x, truth, people).predict(x_test)
        found = np.pad(found, ((0, 0), (0, n_classes - found.shape[1])))
    else:
        found = fit_values(x, truth, people).predict(x_test)
    n_lost, n_absent = int((~has_features).sum()), sum(len(keys) for side in (train, test) for keys in side.absent)
    say(
        f"{baseline} of {target}: {x.shape[1]} features of {len(people)} training rows ({len(set(people))} people)"
        + (f"; {n_absent} recordings have no features, {n_lost} training rows none at all" if n_absent else "")
        + note
    )
    return _of_windows(target, found, test)


def _refuse_absent(test: Units, features: FeatureFile, data: EEGData) -> None:
    """Name a person to test who has no features."""
    lost = [number for number, rows in enumerate(test.rows) if not rows]
    if lost:
        first = lost[0]
        raise DataError(
            f"{features.path} has no windows of {test.absent[first][0]} (test participant {test.person[first]}; "
            f"{len(lost)} of {len(test.rows)} rows to test lack features); make the features of all recordings of "
            f"{data.store.path} with {MAKE}."
        )


def units_of(data: EEGData, features: FeatureFile, target: str, stage: Stage) -> Units:
    """Persons (or recordings, where they bear the label) of a side with their labels and rows of features."""
    recording, labels = data.labels(stage)
    values = labels[target].astype(np.float64)
    store = data.store
    of_recording = target in data.table.targets
    numbers = recording if of_recording else np.asarray(store.index["participant"][recording], np.int64)
    keys = store.recordings["key"].astype(str).to_numpy()
    names = data.participant_keys()
    known = np.isfinite(values)
    unit = np.full(len(values), -1, np.int64)
    found, unit[known] = np.unique(numbers[known], return_inverse=True)
    truth = np.zeros(len(found))
    person, rows, absent = [], [], []
    for number in range(len(found)):
        mine = np.flatnonzero(unit == number)
        if np.ptp(values[mine]) > 0:
            raise DataError(
                f"{target} differs between windows of {keys[recording[mine[0]]]}, and baselines on features predict "
                "labels of people and recordings; take them out of the recipe's baselines."
            )
        truth[number] = values[mine[0]]
        own = [str(keys[one]) for one in np.unique(recording[mine])]
        rows.append([features.row[key] for key in own if key in features.row])
        absent.append([key for key in own if key not in features.row])
        person.append(names[store.index["participant"][recording[mine[0]]]])
    return Units(person, truth, rows, unit, absent)


def _filled(train: Array, test: Array) -> tuple[Array, Array, str]:
    """Both with the training median where a value is missing, without columns that do not vary; what was done.

    Nothing of the test rows enters.
    """
    low = np.where(np.isfinite(train), train, np.inf).min(axis=0)
    high = np.where(np.isfinite(train), train, -np.inf).max(axis=0)
    is_used = high - low > SAME * np.maximum(np.abs(low), np.abs(high))  # no value at all: -inf is not larger
    if not is_used.any():
        raise DataError("no feature differs between training rows; look at the columns of the file of features.")
    train, test = train[:, is_used], test[:, is_used]
    median = np.nanmedian(train, axis=0)
    missing = [int((~np.isfinite(side)).sum()) for side in (train, test)]
    note = ""
    if any(missing):
        note += f"; {missing[0]} missing values of training rows and {missing[1]} of test rows are training medians"
    if not is_used.all():
        note += f"; {int((~is_used).sum())} features are missing or the same in all training rows and left out"
    filled = [np.where(np.isfinite(side), side, median) for side in (train, test)]
    return filled[0], filled[1], note


def _of_windows(target: str, found: Array, test: Units) -> Arrays:
    """Predictions of units (U, ...) as those of the windows of the side."""
    known = test.unit >= 0
    prediction = np.zeros((len(known), *found.shape[1:]))
    prediction[known] = found[test.unit[known]]
    truth = np.full(len(known), np.nan)
    truth[known] = test.truth[test.unit[known]]
    return {f"target/{target}": truth, f"known/{target}": known, f"prediction/{target}": prediction}
