"""The MLflow run of a study: parent of its phase runs, holder of its scores."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cerebro.study.plan import Plan, Run
from cerebro.study.recipe import PhaseEntry, load_config
from cerebro.training.tracking import MLflowKeys, Tracker

FIELDS = ("enabled", "uri", "experiment", "parent_run_id")


class StudyTracker:
    """Parent of the phase runs; opened when the first phase has to run, and gone on with by a rerun.

    Where to track is said by the phases' configs (``mlflow:``); the first phase that is tracked decides, and a phase
    that tracks elsewhere, or names a parent itself, gets none. Neither the printed plan nor any hash knows of it. The
    id is kept in ``mlflow.json`` in the study's folder.

    Parameters
    ----------
    plan : Plan
        The study.
    say : callable
        Takes a line for the user.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.phases = {name: mlflow_keys(phase) for name, phase in plan.recipe.phases.items()}
        tracked = [keys for keys in self.phases.values() if keys.enabled and not keys.parent_run_id]
        self.keys = tracked[0] if tracked else MLflowKeys(enabled=False)
        self.tracker = Tracker(self.keys, plan.out, say)

    def flags(self, run: Run) -> list[str]:
        """What to add to the ``cerebro fit`` of a run.

        Raises
        ------
        ConfigError
            If MLflow does not answer, before anything is trained.
        """
        if not self.keys.enabled or self.phases[run.phase] != self.keys:
            return []
        self._open()
        return ["--mlflow.parent_run_id", self.tracker.run_id]

    def stop(self, exit_code: int) -> None:
        """Close the run of a study that did not reach its end."""
        self.tracker.finish("KILLED" if exit_code in (130, 143) else "FAILED", [], None)

    def finish(self, results: Mapping[str, Any], files: list[Path]) -> None:
        """Log the scores and the files, and close the run; a study that was never tracked stays so."""
        if not self.keys.enabled or not (self.tracker.run_id or self.tracker.path.exists()):
            return
        self._open()
        self.tracker.log({"epoch": 0, **score_metrics(results)})
        self.tracker.finish("FINISHED", files, None)

    def _open(self) -> None:
        if self.tracker.run_id:
            return
        recipe = self.plan.recipe
        parameters = {
            "recipe": recipe.path.as_posix(),
            "variants": ", ".join(dict.fromkeys(chain.variant for chain in self.plan.chains)),
            "seeds": ", ".join(map(str, sorted({chain.seed for chain in self.plan.chains}))),
            "folds": recipe.n_folds,
        }
        self.tracker.start(recipe.name, parameters, {"study": recipe.name}, [])


def mlflow_keys(phase: PhaseEntry) -> MLflowKeys:
    """``mlflow`` of a phase's config, as the recipe sets it."""
    found = dict(load_config(phase.config).get("mlflow") or {})
    found |= {key.removeprefix("mlflow."): value for key, value in phase.overrides.items() if key.startswith("mlflow.")}
    return MLflowKeys(**{name: found[name] for name in FIELDS if name in found})  # fit itself refuses other keys


def score_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Scores by ``variant/target/measure``, and the competition score by ``variant/score``."""
    metrics: dict[str, float] = {}
    for name, model in {**results["variants"], **results.get("ensembles", {}), **results["baselines"]}.items():
        named = _allowed(name)
        for target, measure in results["measures"].items():
            value = model.get(target, {}).get(measure, {}).get("mean")
            if value is not None and math.isfinite(value):
                metrics[f"{named}/{target}/{measure}"] = value
        score = model.get("score", {}).get("mean")
        if score is not None and math.isfinite(score):
            metrics[f"{named}/score"] = score
    for phase, found in results.get("validation", {}).items():
        for name, figures in found.items():
            metrics |= {f"{_allowed(name)}/{phase}/{key}": value for key, value in figures.items()}
    return metrics


def _allowed(name: str) -> str:
    """What MLflow allows: mask_ratio=0.5 becomes mask_ratio_0.5."""
    return re.sub(r"[^\w .:/-]", "_", name)
