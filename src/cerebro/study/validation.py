"""What validation found of final phases that predict no target, such as a sweep over a pretraining phase."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cerebro.files import read_json

SHOWN = ("val/", "probe/")


def validation(study: Mapping[str, Any], folder: Path, phases: set[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Phase -> variant -> figures of the best epoch by name; means over seeds and folds.

    Parameters
    ----------
    study : mapping
        Content of ``study.json``.
    folder : Path
        Folder of the study.
    phases : set of str
        Phases to look at.
    """
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for chain in study["chains"]:
        for phase, run in chain["runs"].items():
            if phase in phases:
                rows.setdefault((phase, chain["variant"]), []).append(best_row(folder / run))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (phase, variant), ours in rows.items():
        names = [name for name in ours[0] if all(name in row for row in ours)]
        found.setdefault(phase, {})[variant] = {
            name: round(float(np.mean([row[name] for row in ours])), 6) for name in names
        }
    return found


def best_row(run: Path) -> dict[str, float]:
    """Figures of validation and of probes in the best epoch of a run, or in its last one if none was the best."""
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = read_json(run / "run.json")["best"]["epoch"]
    row = history[-1] if best is None else next(row for row in history if row["epoch"] == best)
    return {key: value for key, value in row.items() if key.startswith(SHOWN) and value is not None}
