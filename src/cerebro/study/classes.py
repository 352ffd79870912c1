"""Scores of a classification by participant, and by window where windows are predicted, from a study's predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cerebro.metrics.bootstrap import ParticipantBootstrap
from cerebro.metrics.participants import Unit, Units, class_scores, gather_units, labelled_unit, resampled_scores
from cerebro.study.scores import Predictions, estimate_entry

ORDER: tuple[Unit, ...] = ("participant", "recording", "row")  # from the largest unit on


def has_probabilities(parts: Sequence[Predictions]) -> bool:
    """Whether these are probabilities of classes, not class numbers or values."""
    return all(part.prediction.ndim == 2 for part in parts)


def common_unit(models: Mapping[str, Mapping[str, Sequence[Predictions]]], target: str) -> Unit:
    """Largest unit with one label each in the predictions of every model of a target."""
    found = {
        labelled_unit(part.participant, part.recording, part.target)
        for model in models.values()
        for part in model.get(target, ())
    }
    return max(found, key=ORDER.index)


def class_entry(parts: Sequence[Predictions], unit: Unit, bootstrap: ParticipantBootstrap) -> dict[str, Any]:
    """What ``results.json`` holds of a classification besides its balanced accuracy.

    Parameters
    ----------
    parts : sequence of Predictions
        Probabilities, one entry per seed.
    unit : str
        What is scored: ``participant``, or ``recording`` or ``row`` where participants have no label of their own.
    bootstrap : ParticipantBootstrap
        Draws of the study.

    Returns
    -------
    dict
        Under the name of the unit, and under ``window`` where single windows were predicted, score -> ``mean``,
        ``ci95``, ``per_seed``; under ``n_units`` how many of each class were scored, by unit.
    """
    levels = [[gather_units(p.participant, p.recording, p.target, p.prediction, unit) for p in parts]]
    windows = [part.windows for part in parts if part.windows is not None]
    if len(windows) == len(parts):
        levels.append([gather_units(w.participant, None, w.target, w.prediction, "window") for w in windows])
    entry: dict[str, Any] = {"n_units": {}}
    for units in levels:
        first = units[0]
        entry[first.unit] = _scores(units, bootstrap)
        entry["n_units"][first.unit] = [first.n_of_class(label) for label in range(first.probability.shape[1])]
    return entry


def _scores(seeds: Sequence[Units], bootstrap: ParticipantBootstrap) -> dict[str, Any]:
    values = [class_scores(units) for units in seeds]
    resampled = [resampled_scores(units, bootstrap) for units in seeds]
    return {
        name: estimate_entry(
            float(np.mean([found[name] for found in values])),
            np.mean([found[name] for found in resampled], axis=0),
            [found[name] for found in values],
        )
        for name in seeds[0].names
    }
