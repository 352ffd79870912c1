"""How soon a variant is as good as it gets, from the histories of its runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WITHIN = 0.01  # of the best validation score


def convergence(study: Mapping[str, Any], folder: Path, variant: str) -> dict[str, dict[str, float]]:
    """Phase -> ``steps`` and ``seconds`` of training until validation came within 1 % of the run's best.

    Means over seeds and folds, of final phases that validate on a score; the score is what chooses the best epoch.

    Parameters
    ----------
    study : mapping
        Content of ``study.json``.
    folder : Path
        Folder of the study.
    variant : str
        Name of a variant.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for chain in study["chains"]:
        for phase, run in chain["runs"].items():
            if chain["variant"] == variant and phase in study["final_phases"]:
                reached = _reached(folder / run)
                if reached is not None:
                    found.setdefault(phase, []).append(reached)
    means = {phase: np.mean(entries, axis=0) for phase, entries in found.items()}
    return {
        phase: {"steps": round(float(steps), 2), "seconds": round(float(seconds), 2)}
        for phase, (steps, seconds) in means.items()
    }


def _reached(run: Path) -> tuple[float, float] | None:
    """Steps and seconds of one run; None without a history of its monitored score."""
    history, record = run / "history.jsonl", run / "run.json"
    if not history.is_file() or not record.is_file():
        return None
    best = json.loads(record.read_text())["best"]
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    values = [row.get(best["metric"]) for row in rows]
    if best.get("value") is None or all(value is None for value in values):
        return None
    slack = WITHIN * abs(best["value"])
    at = next(i for i, value in enumerate(values) if value is not None and abs(value - best["value"]) <= slack)
    return float(rows[at]["step"]), float(sum(row["seconds"] for row in rows[: at + 1]))
