"""Ensembles: the mean over seeds of what a variant predicts, beside the scores of its single seeds.

Networks that differ in their random numbers only err in different places, so that their mean errs less (Hansen and
Salamon 1990, doi:10.1109/34.58871; deep ensembles: Lakshminarayanan, Pritzel and Blundell 2017, arXiv:1612.01474).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cerebro.errors import DataError
from cerebro.study.scores import Predictions, WindowPredictions

Models = Mapping[str, Mapping[str, Sequence[Predictions]]]


def ensemble_name(variant: str, n_seeds: int) -> str:
    """What the ensemble of a variant is called in tables."""
    return f"{variant} (ensemble of {n_seeds})"


def ensemble_predictions(study: Mapping[str, Any], models: Models) -> dict[str, dict[str, list[Predictions]]]:
    """Ensemble -> target -> predictions (one entry), of every variant with several seeds.

    Parameters
    ----------
    study : mapping
        ``study.json``; without ``ensemble`` in it there are none.
    models : mapping
        Variant -> target -> predictions per seed, folds pooled.
    """
    made: dict[str, dict[str, list[Predictions]]] = {}
    for variant, targets in models.items() if study.get("ensemble") else ():
        for target, seeds in targets.items():
            if len(seeds) > 1:
                averaged = mean_of_seeds(seeds, f"{variant}, {target}")
                made.setdefault(ensemble_name(variant, len(seeds)), {})[target] = [averaged]
    return made


def mean_of_seeds(seeds: Sequence[Predictions], what: str) -> Predictions:
    """Mean of values or probabilities, row by row.

    Parameters
    ----------
    seeds : sequence of Predictions
        Of one variant, in any number; the rows must be the same ones in the same order.
    what : str
        What is predicted, for messages.

    Raises
    ------
    DataError
        If they predict numbers of classes, which have no mean, or if rows differ.
    """
    first = seeds[0]
    if any(part.prediction.dtype.kind == "i" for part in seeds):
        raise DataError(f"{what}: numbers of classes have no mean over seeds; set ensemble: false in the recipe.")
    if any(not _same_rows(first, part) for part in seeds[1:]):
        raise DataError(
            f"{what}: seeds were tested on different rows, which cannot be averaged; set ensemble: false in the recipe."
        )
    windows = [part.windows for part in seeds if part.windows is not None]
    return replace(
        first,
        prediction=np.mean([part.prediction for part in seeds], axis=0),
        windows=_mean_of_windows(windows) if len(windows) == len(seeds) else None,
    )


def _same_rows(one: Predictions, other: Predictions) -> bool:
    windows = one.windows, other.windows
    return (
        one.participant == other.participant
        and one.recording == other.recording
        and np.array_equal(one.target, other.target)
        and (windows[0] is None) == (windows[1] is None)
        and (windows[0] is None or windows[1] is None or _same_windows(windows[0], windows[1]))
    )


def _same_windows(one: WindowPredictions, other: WindowPredictions) -> bool:
    return one.participant == other.participant and np.array_equal(one.target, other.target)


def _mean_of_windows(parts: Sequence[WindowPredictions]) -> WindowPredictions:
    return replace(parts[0], prediction=np.mean([part.prediction for part in parts], axis=0))
