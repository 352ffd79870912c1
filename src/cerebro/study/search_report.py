"""What a search leaves: the table of its trials, the best setting to paste, and the scores of that one setting."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from cerebro.files import write_atomically, write_json
from cerebro.study.classes import class_entry, common_unit, has_probabilities
from cerebro.study.plan import Plan, written
from cerebro.study.scores import Predictions, Table, read_predictions
from cerebro.study.search import Searcher, Trial
from cerebro.study.table import aligned, class_lines, estimate_text


def write_trials(searcher: Searcher) -> Path:
    """Write ``trials.tsv``: number, value ("" where there is none), the keys searched, why a trial came to nothing."""
    search = searcher.search
    head = ("trial", search.monitor, *search.parameters, "why")
    rows = [
        (
            *(str(trial.number), "" if math.isnan(trial.value) else f"{trial.value:.6f}"),
            *(written(trial.setting[key]) for key in search.parameters),
            trial.why,
        )
        for trial in searcher.trials()
    ]
    path = searcher.folder / "trials.tsv"
    _write(path, "".join("\t".join(row) + "\n" for row in (head, *rows)))
    return path


def write_best(searcher: Searcher, best: Trial) -> Path:
    """Write ``best.yaml``: the best setting as lines of a recipe and as flags of ``cerebro fit``."""
    search = searcher.search
    flags = " ".join(f"--{key} {written(value)}" for key, value in best.setting.items())
    part = {"phases": {search.phase: {"set": dict(best.setting)}}}
    text = (
        f"# The best of {len(searcher.trials())} trials of search {search.name} ({searcher.recipe.path}): "
        f"{search.monitor} {best.value:.4f}, trial {best.number}.\n"
        f"# To paste into the recipe, or as flags of cerebro fit: {flags}\n"
    )
    path = searcher.folder / "best.yaml"
    _write(path, text + yaml.safe_dump(part, sort_keys=False))
    return path


def search_results(searcher: Searcher, best: Trial, plan: Plan, n_tested: int) -> dict[str, Any]:
    """Write ``search.json``: the search, its trials, the best of them and its scores on test participants; gives it."""
    search = searcher.search
    seeds: dict[str, list[Predictions]] = {}
    for run in plan.runs:
        if run.test:
            for target, found in read_predictions(run.folder / "predictions_test.npz").items():
                seeds.setdefault(target, []).append(found)
    scores: dict[str, Any] = {}
    measures: dict[str, str] = {}
    if seeds:
        table = Table({"best": seeds}, n_resamples=2000, seed=0)
        for target, parts in seeds.items():
            scores[target] = table.target_entry("best", target)
            measures[target] = "nrmse" if table.kinds[target] == "regression" else "balanced_accuracy"
            if has_probabilities(parts):
                scores[target] |= class_entry(parts, common_unit(table.models, target), table.bootstrap)
    results: dict[str, Any] = {
        "search": search.content(),
        "name": search.name,
        "recipe": searcher.recipe.path.as_posix(),
        "trials": [_plain(trial) for trial in searcher.trials()],
        "best": _plain(best),
        "measures": measures,
        "test": scores,
        "n_settings_tested": n_tested,
    }
    write_json(searcher.folder / "search.json", results)
    return results


def search_table(results: dict[str, Any]) -> str:
    """Text of the trials, the best first, and of the scores of the best."""
    search, sign = results["search"], 1 if results["search"]["direction"] == "max" else -1
    trials: Sequence[dict[str, Any]] = sorted(
        results["trials"],
        key=lambda trial: math.inf if trial["value"] is None else -sign * trial["value"],
    )
    keys = list(search["parameters"])
    rows = [["trial", search["monitor"], *(key.rpartition(".")[2] for key in keys), ""]]
    for trial in trials:
        value = "none" if trial["value"] is None else f"{trial['value']:.4f}"
        rows.append([str(trial["number"]), value, *(written(trial["setting"][key]) for key in keys), trial["why"]])
    lines = [f"{results['name']}: {len(trials)} trials, chosen by validation alone", "", *aligned(rows), ""]
    flags = " ".join(f"--{key} {written(value)}" for key, value in results["best"]["setting"].items())
    lines += [f"best: trial {results['best']['number']}, {flags}"]
    for target, entry in results["test"].items():
        measure = results["measures"][target]
        lines += [
            f"test of the best: {target} {measure.replace('_', ' ')} {estimate_text(entry[measure])}, "
            f"{entry['n_participants']} participants"
        ]
    variants = {"best": results["test"]}
    lines += ["", *class_lines({"variants": variants, "baselines": {}, "references": {}}, list(results["test"]))]
    if results["n_settings_tested"] > 1:
        lines += [
            f"{results['n_settings_tested']} settings of this search were tested by now: the test participants are no "
            "longer untouched by the choice, so report that number"
        ]
    return "\n".join(lines).rstrip()


def _plain(trial: Trial) -> dict[str, Any]:
    value = None if math.isnan(trial.value) else round(trial.value, 6)
    return {"number": trial.number, "setting": dict(trial.setting), "value": value, "why": trial.why}


def _write(path: Path, text: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)
