"""The confound baseline of a phase: what age and sex alone score on the very windows that the model is scored on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cerebro.errors import DataError
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.confound import Confound, predict_from_covariates
from cerebro.metrics.regression import nrmse
from cerebro.training.evaluate import Evaluation
from cerebro.training.stamp import PhaseData

COVARIATES = ("age", "sex")
Metric = Literal["nrmse", "balanced_accuracy"]


@dataclass(frozen=True)
class ConfoundScore:
    """Score of age and sex alone; NaN, with the reason, where there is none.

    Parameters
    ----------
    target, metric : str
        As of the score that it stands beside.
    value : float
        The score.
    note : str
        What it was fitted to, or why there is none.
    """

    target: str
    metric: Metric
    value: float
    note: str

    def line(self) -> str:
        """One line for the user."""
        if np.isnan(self.value):
            return f"{self.target}: no confound baseline: {self.note}"
        return f"{self.target}: {self.metric} {self.value:.4f} on the same windows {self.note}"


def fit_confound(target: str, is_class: bool, data: PhaseData) -> Confound | None:
    """Age and sex (without the target itself) fitted to the training participants; None for labels of windows.

    Raises
    ------
    DataError
        If that cannot be fitted.
    """
    values = data.participant_values((target, *COVARIATES))
    if target not in values:
        return None
    train = set(data.participants("train"))
    is_train = np.array([key in train for key in data.participant_keys()])
    covariates = {name: values[name] for name in COVARIATES if name in values and name != target}
    return predict_from_covariates(covariates, values[target], is_train, is_class)


def describe_confound(found: Confound) -> str:
    """What a baseline was made of, as the end of a line."""
    missing = "".join(f", {name} missing for {n}" for name, n in found.n_missing.items())
    return f"from {' and '.join(found.covariates)} alone (fitted to {found.n_fitted} participants{missing})"


def score_confounds(found: Evaluation, data: PhaseData) -> list[ConfoundScore]:
    """Baselines of every target of people that was predicted and is known for some window."""
    return [
        score
        for scored in found.scores()
        if scored.n_windows and (score := _score(scored.target, scored.metric == "balanced_accuracy", found, data))
    ]


def _score(target: str, is_class: bool, found: Evaluation, data: PhaseData) -> ConfoundScore | None:
    metric: Metric = "balanced_accuracy" if is_class else "nrmse"
    try:
        confound = fit_confound(target, is_class, data)
    except DataError as error:
        return ConfoundScore(target, metric, float("nan"), str(error).rstrip("."))
    if confound is None:
        return None
    known = found.arrays[f"known/{target}"]
    truth = found.arrays[f"target/{target}"][known]
    predicted = confound.prediction[found.arrays["participant"][known]]
    value = (balanced_accuracy if is_class else nrmse)(truth, predicted)
    note = describe_confound(confound) if not np.isnan(value) else "its score is undefined on these windows"
    return ConfoundScore(target, metric, float(value), note)


def confound_rows(scores: Sequence[ConfoundScore]) -> dict[str, float]:
    """By name, such as ``confound/nrmse_p_factor``; those that could be made."""
    return {f"confound/{one.metric}_{one.target}": one.value for one in scores if not np.isnan(one.value)}
