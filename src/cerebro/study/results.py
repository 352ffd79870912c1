"""Runs -> results: scores with intervals over participants, gains between variants, cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cerebro.errors import DataError
from cerebro.files import read_arrays, read_json, write_json
from cerebro.metrics.challenge import competition_score
from cerebro.study.baselines import baseline_path, baseline_runs
from cerebro.study.classes import class_entry, common_unit, has_probabilities
from cerebro.study.convergence import convergence
from cerebro.study.ensembles import ensemble_name, ensemble_predictions
from cerebro.study.probes import probe_baseline_predictions, probe_predictions
from cerebro.study.scores import Predictions, Table, estimate_entry, gain_entry, pool, pool_constants, read_predictions
from cerebro.study.validation import validation

SCORE_PHASES = ("challenge1", "challenge2")  # the competition score is made of the targets of these two phases


def target_names(study: Mapping[str, Any], folder: Path) -> dict[tuple[str, str], str]:
    """(Phase, target) -> name in the results: the target, or ``phase.target`` where two final phases predict it.

    Phases that predict nothing are not in it.
    """
    targets: dict[str, set[str]] = {}
    for chain in study["chains"]:
        for phase, run in chain["runs"].items():
            if phase in study["final_phases"]:
                targets.setdefault(phase, set()).update(read_predictions(folder / run / "predictions_test.npz"))
    every = [target for found in targets.values() for target in found]
    return {
        (phase, target): target if every.count(target) == 1 else f"{phase}.{target}"
        for phase in study["final_phases"]
        for target in sorted(targets.get(phase, ()))
    }


def model_predictions(study: Mapping[str, Any], folder: Path) -> dict[str, dict[str, list[Predictions]]]:
    """Variant -> target -> predictions per seed, folds pooled."""
    names = target_names(study, folder)
    parts: dict[tuple[str, str, int], list[Predictions]] = {}
    for chain in study["chains"]:
        for phase, run in chain["runs"].items():
            if phase in study["final_phases"]:
                for target, found in read_predictions(folder / run / "predictions_test.npz").items():
                    parts.setdefault((chain["variant"], names[phase, target], chain["seed"]), []).append(found)
    models: dict[str, dict[str, list[Predictions]]] = {name: {} for name in study["variants"]}
    for (variant, name, _), found_parts in parts.items():
        models[variant].setdefault(name, []).append(pool(found_parts))
    return models


def baseline_predictions(study: Mapping[str, Any], folder: Path) -> dict[str, dict[str, list[Predictions]]]:
    """Baseline -> target -> predictions, folds pooled (one entry: baselines have no seed)."""
    names = target_names(study, folder)
    models: dict[str, dict[str, list[Predictions]]] = {}
    for baseline in ("constant", *study["baselines"]):
        parts: dict[str, list[Predictions]] = {}
        for phase, run in baseline_runs(study):
            if not any(predicting == phase for predicting, _ in names):
                continue
            for target, found in read_predictions(baseline_path(folder, baseline, run)).items():
                parts.setdefault(names[phase, target], []).append(found)
        join = pool_constants if baseline == "constant" else pool
        models[baseline] = {target: [join(found)] for target, found in parts.items()}
    return models


def read_study(folder: Path) -> dict[str, Any]:
    """``study.json`` of a folder; raises DataError if there is none."""
    record = folder / "study.json"
    if not record.is_file():
        raise DataError(f"{folder} holds no study (no study.json); make one with `cerebro run RECIPE --out {folder}`.")
    return dict(read_json(record))


def make_results(folder: Path, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Read the runs of a finished study and write ``results.json`` beside them.

    Parameters
    ----------
    folder : Path
        Folder of ``cerebro run``.
    n_resamples : int
        Draws of the participant bootstrap.
    seed : int
        Seed of the draws.

    Raises
    ------
    DataError
        If the study is not finished, or variants were not tested on the same participants.
    """
    study = read_study(folder)
    names = target_names(study, folder)
    models = model_predictions(study, folder)
    ensembles = ensemble_predictions(study, models)
    variants = _merged(models, probe_predictions(study, folder))
    baselines = _merged(baseline_predictions(study, folder), probe_baseline_predictions(study, folder))
    has_scores = any(variants.values())
    table = Table(
        {**variants, **ensembles, **baselines}, n_resamples, seed, [] if has_scores else _tested(study, folder)
    )
    classes = [target for target, kind in table.kinds.items() if kind == "classification"]
    references = read_references(study["ground_truth"], list(table.kinds), table.bootstrap.participants, classes)
    pair = score_targets(names)
    results: dict[str, Any] = {
        "name": study["name"],
        "recipe": study["recipe"],
        "n_resamples": n_resamples,
        "measures": {
            target: "nrmse" if kind == "regression" else "balanced_accuracy" for target, kind in table.kinds.items()
        },
        "score_targets": list(pair),
        "n_folds": study["n_folds"],
        "references": references,
        "variants": {
            name: {
                **_model_entry(table, name, pair),
                **variant_cost(study, folder, name),
                "convergence": convergence(study, folder, name),
            }
            for name in variants
        },
        "ensembles": {name: _model_entry(table, name, pair) for name in ensembles},
        "baselines": {name: _model_entry(table, name, pair) for name in baselines},
        "gains": {
            f"{better} over {worse}": _pair_entry(table, better, worse, references, pair)
            for better, worse in (_pairs(study, list(ensembles), list(baselines)) if has_scores else [])
        },
        "probes": study.get("probes", {}),
        "validation": validation(study, folder, set(study["final_phases"]) - {phase for phase, _ in names}),
        "participants": list(table.bootstrap.participants),
        "phases": phase_entries(study, folder),
    }
    write_json(folder / "results.json", results)
    return results


def _merged(
    first: dict[str, dict[str, list[Predictions]]], second: dict[str, dict[str, list[Predictions]]]
) -> dict[str, dict[str, list[Predictions]]]:
    """Both sets of targets of each model."""
    return {name: {**first[name], **second[name]} for name in first}


def _tested(study: Mapping[str, Any], folder: Path) -> list[str]:
    """Test participants of final phases, whether or not these predict something."""
    runs = {run for chain in study["chains"] for phase, run in chain["runs"].items() if phase in study["final_phases"]}
    return [name for run in runs for name in read_arrays(folder / run / "predictions_test.npz")["participant"].tolist()]


def _model_entry(table: Table, name: str, pair: tuple[str, ...]) -> dict[str, Any]:
    entry: dict[str, Any] = {target: table.target_entry(name, target) for target in table.models[name]}
    for target, parts in table.models[name].items():
        if has_probabilities(parts):
            entry[target] |= class_entry(parts, common_unit(table.models, target), table.bootstrap)
    score = table.competition(name, (pair[0], pair[1])) if pair else None
    if score is not None:
        entry["score"] = estimate_entry(score.mean, score.resampled, score.per_seed)
    return entry


def _pair_entry(
    table: Table, better: str, worse: str, references: Mapping[str, Mapping[str, float]], pair: tuple[str, ...]
) -> dict[str, Any]:
    entry = {
        target: gain_entry(
            table.scores[better, target], table.scores[worse, target], references.get(target, {}).get("oracle", np.nan)
        )
        for target in table.models[better]
        if target in table.models[worse]
    }
    scores = [table.competition(name, (pair[0], pair[1])) for name in (better, worse)] if pair else []
    if len(scores) == 2 and scores[0] is not None and scores[1] is not None:
        oracles = [references.get(target, {}).get("oracle", np.nan) for target in pair]
        entry["score"] = gain_entry(scores[0], scores[1], competition_score(oracles[0], oracles[1]))
    return entry


def _pairs(study: Mapping[str, Any], ensembles: Sequence[str], baselines: Sequence[str]) -> list[tuple[str, str]]:
    """The first variant over all others, its ensemble over it and over all others, and what the recipe asks for."""
    variants = study["variants"]
    first = "full" if "full" in variants else variants[0]
    n_seeds = len({chain["seed"] for chain in study["chains"] if chain["variant"] == first})
    joined = [name for name in ensembles if name == ensemble_name(first, n_seeds)]
    pairs = [(first, other) for other in (*variants, *baselines) if other != first]
    pairs += [(name, other) for name in joined for other in (first, *ensembles, *baselines) if other != name]
    extra = [(better, worse) for better, worse in study["pairs"] if {better, worse} <= set(variants)]
    return list(dict.fromkeys([*pairs, *extra]))


def score_targets(names: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Targets of the phases ``challenge1`` and ``challenge2``; empty unless both predict one target each."""
    targets = tuple(name for wanted in SCORE_PHASES for (phase, _), name in names.items() if phase == wanted)
    phases = {phase for phase, _ in names}
    return targets if len(targets) == 2 and set(SCORE_PHASES) <= phases else ()


def read_references(
    path: str, targets: Sequence[str], participants: Sequence[str], classes: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Target -> ``oracle`` and ``reference`` NRMSE of a simulated cohort; {} for real data.

    Of those targets that are ``classes`` it is ``oracle_auc`` and ``reference_auc``. Where all held-out
    ``participants`` (``corpus:id``) belong to the cohort's hold-out release, its scores are taken.
    """
    if not path:
        return {}
    if not Path(path).is_file():
        raise DataError(
            f"ground truth {path} not found; correct ground_truth in the recipe or simulate the cohort again."
        )
    truth = read_json(Path(path))
    holdout = truth.get("holdout", {})
    released = {name: entry.get("release", "") for name, entry in truth.get("participants", {}).items()}
    releases = {released.get(key.partition(":")[2], "") for key in participants}
    scores = holdout if releases == {holdout.get("release")} else truth
    names = {"oracle": "oracle_nrmse", "reference": "reference_nrmse"}
    of_classes = {"oracle_auc": "oracle_auc", "reference_auc": "reference_auc"}
    found = {
        target: {
            short: float(scores[key][target])
            for short, key in (of_classes if target in classes else names).items()
            if target in scores.get(key, {})
        }
        for target in targets
    }
    return {target: entry for target, entry in found.items() if entry}


def variant_cost(study: Mapping[str, Any], folder: Path, variant: str) -> dict[str, Any]:
    """Training time of a variant (all its phases and folds, shared ones counted; mean over seeds) and peak memory."""
    seconds: dict[int, float] = {}
    memory = 0.0
    for chain in study["chains"]:
        if chain["variant"] == variant:
            for run in chain["runs"].values():
                report = read_json(folder / run / "run.json")
                seconds[chain["seed"]] = seconds.get(chain["seed"], 0.0) + float(report["seconds"])
                memory = max(memory, float(report["peak_memory_mb"]))
    return {"train_seconds": round(float(np.mean(list(seconds.values()))), 2), "peak_memory_mb": round(memory, 1)}


def phase_entries(study: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Each run with who used it and what it cost."""
    entries = []
    for run in study["runs"]:
        report = read_json(folder / run["folder"] / "run.json")
        entries.append({**run, "seconds": report["seconds"], "peak_memory_mb": report["peak_memory_mb"]})
    return entries
