"""What a page is made of: the files of a study, read once."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from cerebro.errors import DataError
from cerebro.files import read_arrays, read_json

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RunEvidence:
    """One phase run: what it was, how it went, what it shows.

    Parameters
    ----------
    phase, folder : str
        Its phase and its folder within the study.
    variants : tuple of str
        Who uses it.
    seed, fold : int
        Its seed and fold.
    config : mapping
        Resolved config.
    record : mapping
        ``run.json``.
    history : list of mapping
        One row per epoch.
    showcase, predictions : mapping of arrays
        ``showcase.npz`` and ``predictions_test.npz``; empty where absent.
    synchrony : mapping
        ``isc.json``; empty where absent.
    """

    phase: str
    folder: str
    variants: tuple[str, ...]
    seed: int
    fold: int
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    history: list[dict[str, Any]]
    showcase: Arrays
    predictions: Arrays
    synchrony: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """Everything that a page shows.

    Parameters
    ----------
    study, results : mapping
        ``study.json`` and ``results.json``.
    runs : tuple of RunEvidence
        In planned order.
    stores : mapping
        Store folder -> ``build_report.json``, for the stores that are still there.
    """

    study: Mapping[str, Any]
    results: Mapping[str, Any]
    runs: tuple[RunEvidence, ...]
    stores: Mapping[str, Mapping[str, Any]]

    @property
    def first_variant(self) -> str:
        """The variant that single examples are taken from: the first one, ``full`` as a rule."""
        return str(self.study["variants"][0])

    @property
    def measures(self) -> dict[str, str]:
        """Target -> measure, those of the competition score first."""
        measures = self.results["measures"]
        order = [
            *self.results["score_targets"],
            *(name for name in measures if name not in self.results["score_targets"]),
        ]
        return {target: measures[target] for target in order}

    def example(self, array: str) -> RunEvidence | None:
        """First run of the first variant whose showcase holds ``array``; None if there is none."""
        for run in self.runs:
            if self.first_variant in run.variants and array in run.showcase:
                return run
        return None

    def example_of_term(self, array: str) -> tuple[RunEvidence, str] | None:
        """The same for ``array`` or, of a term of a sum, ``term/array``; gives its full name as well."""
        for run in self.runs:
            names = [name for name in run.showcase if name.rpartition("/")[2] == array]
            if self.first_variant in run.variants and names:
                return run, names[0]
        return None

    def overlap(self) -> tuple[list[str], list[str], list[str]]:
        """Participants trained on, selected on and tested on in any run with one fold; sorted."""
        train = {name for run in self.runs for name in run.record["participants"]["train"]}
        val = {name for run in self.runs for name in run.record["participants"]["val"]}
        return sorted(train), sorted(val), list(self.results["participants"])

    def leaks(self) -> int:
        """Pairs of (chain of runs, participant) in which a tested participant was trained or selected on."""
        by_folder = {run.folder: run for run in self.runs}
        count = 0
        for chain in self.study["chains"]:
            runs = [by_folder[folder] for folder in chain["runs"].values()]
            seen = {name for run in runs for side in ("train", "val") for name in run.record["participants"][side]}
            tested = {str(name) for run in runs for name in np.unique(run.predictions.get("participant", []))}
            count += len(seen & tested)
        return count


def gather(folder: Path) -> Evidence:
    """Read a finished study.

    Raises
    ------
    DataError
        If ``study.json``, ``results.json`` or a run is missing.
    """
    for name in ("study.json", "results.json"):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} not found; run `cerebro run RECIPE --out {folder}` to its end first.")
    study = read_json(folder / "study.json")
    runs = tuple(_read_run(folder, entry) for entry in study["runs"])
    stores: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for store in _member_stores(Path(run.config["data"]["store"])):
            report = store / "build_report.json"
            if str(store) not in stores and report.is_file():
                stores[str(store)] = read_json(report)
    return Evidence(study, read_json(folder / "results.json"), runs, stores)


def _member_stores(path: Path) -> list[Path]:
    """A store, or the stores of a mixture."""
    if not (path / "mixture.json").is_file():
        return [path]
    return [Path(os.path.normpath(path / entry["path"])) for entry in read_json(path / "mixture.json")["members"]]


def _read_run(folder: Path, entry: Mapping[str, Any]) -> RunEvidence:
    run = folder / entry["folder"]
    if not (run / "run.json").is_file():
        raise DataError(f"{run} is not finished; run the recipe again, it continues there.")
    history = run / "history.jsonl"
    return RunEvidence(
        phase=entry["phase"],
        folder=entry["folder"],
        variants=tuple(entry["variants"]),
        seed=entry["seed"],
        fold=entry["fold"],
        config=_config(run / "config.yaml"),
        record=read_json(run / "run.json"),
        history=[json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else [],
        showcase=_arrays(run / "showcase.npz"),
        predictions=_arrays(run / "predictions_test.npz"),
        synchrony=read_json(run / "isc.json") if (run / "isc.json").is_file() else {},
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise DataError(
            f"{path} is damaged or missing; remove {path.parent} and run the recipe again, it trains that run."
        )
    return content


def _arrays(path: Path) -> Arrays:
    if not path.is_file():
        return {}
    return read_arrays(path)
