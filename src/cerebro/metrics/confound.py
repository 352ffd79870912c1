"""What age and sex alone say of a person: the baseline that a score on people's traits is read beside.

A model of the EEG that scores no better may have learned to read age and sex, which the EEG shows plainly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.errors import DataError
from cerebro.metrics.probe import fit_logistic, fit_ridge

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confound:
    """Predictions from covariates.

    Parameters
    ----------
    prediction : array (P,) or (P, K)
        Value of every participant, or probabilities of the classes.
    covariates : tuple of str
        What it was made of.
    n_fitted : int
        Training participants with a label.
    n_missing : dict of int
        Those of them without a value, by covariate, where there are any: their mean and a mark stand for it.
    """

    prediction: Array
    covariates: tuple[str, ...]
    n_fitted: int
    n_missing: dict[str, int]


def predict_from_covariates(
    covariates: Mapping[str, npt.ArrayLike],
    label: npt.ArrayLike,
    is_train: npt.NDArray[np.bool_],
    is_class: bool,
    seed: int = 0,
) -> Confound:
    """Fit a ridge, or with classes a logistic regression, to the training participants; predict everyone.

    Parameters
    ----------
    covariates : mapping of array (P,)
        Values by name, such as age in years and sex as 0 and 1; NaN where missing.
    label : array (P,)
        What is predicted; NaN where missing.
    is_train : bool (P,)
        Whom it may be fitted to.
    is_class : bool
        Whether labels are classes, whole numbers from 0 on.
    seed : int
        Seed of the groups of participants that choose the penalty.

    Raises
    ------
    DataError
        If no covariate is known of the training participants, or too few of them have a label.
    """
    truth = np.asarray(label, np.float64)
    fitted = is_train & np.isfinite(truth)
    values = {name: np.asarray(column, np.float64) for name, column in covariates.items()}
    values = {name: column for name, column in values.items() if np.isfinite(column[fitted]).any()}
    if not covariates:
        raise DataError("the participants table has no other covariate")
    if not values:
        raise DataError(f"of no training participant with a label is {' nor '.join(covariates)} known")
    design = np.concatenate([_columns(column, fitted) for column in values.values()], axis=1)
    people = [str(row) for row in np.flatnonzero(fitted)]
    fit = fit_logistic if is_class else fit_ridge
    found = fit(design[fitted], truth[fitted], people, seed=seed).predict(design)
    missing = {name: int(np.isnan(column[fitted]).sum()) for name, column in values.items()}
    return Confound(found, tuple(values), int(fitted.sum()), {name: n for name, n in missing.items() if n})


def _columns(values: Array, fitted: npt.NDArray[np.bool_]) -> Array:
    """The values with the mean of the fitted for a missing one, and a mark where one of them misses it: (P, 1 or 2)."""
    is_missing = ~np.isfinite(values)
    filled = np.where(is_missing, values[fitted & ~is_missing].mean(), values)
    marks = [is_missing.astype(np.float64)] if is_missing[fitted].any() else []
    return np.stack([filled, *marks], axis=1)
