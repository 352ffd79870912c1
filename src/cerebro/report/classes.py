"""Section about classifications by participant: scores with intervals, curves, everyone's probability, training."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from cerebro.metrics.bootstrap import ParticipantBootstrap
from cerebro.metrics.curves import precision_recall, roc_at, roc_curve
from cerebro.metrics.participants import Unit, Units, gather_units
from cerebro.report import class_figures, figures
from cerebro.report.evidence import Evidence, RunEvidence
from cerebro.report.html import estimate, figure, table, tag

SCORES = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}
SHOWN_IN_TRAINING = ("auc", "f1", "macro_f1", "balanced_accuracy")
N_RESAMPLES = 1000  # draws of participants behind the band
RATES = np.linspace(0, 1, 101)


def classes(evidence: Evidence) -> str:
    """Every classification whose probabilities were tested; "" leaves the section out."""
    made = ""
    for name in evidence.measures:
        entry = evidence.results["variants"][evidence.first_variant].get(name, {})
        if entry.get("n_units"):
            made += tag("h3", escape(name)) + _table(evidence, name) + _figures(evidence, name)
    return made


def _table(evidence: Evidence, name: str) -> str:
    """A row for each model and unit."""
    results = evidence.results
    baselines = sorted(results["baselines"], key=lambda model: model != "constant")
    models = {model: results["baselines"][model] for model in baselines}
    models |= {model: results["variants"][model] for model in evidence.study["variants"]}
    models |= results.get("ensembles", {})
    first = results["variants"][evidence.first_variant][name]
    units = list(first["n_units"])
    scores = [score for score in SCORES if score in first[units[0]]]
    rows: list[tuple[str, list[str]]] = []
    for key, label in (("oracle_auc", "oracle"), ("reference_auc", "reference")):
        value = results["references"].get(name, {}).get(key)
        if value is not None and "auc" in scores:
            rows.append(("bound", [label, units[0], *(f"{value:.2f}" if score == "auc" else "" for score in scores)]))
    for unit in units:
        for model, found in models.items():
            entry = found.get(name, {}).get(unit)
            if entry:
                kind = "best" if model == evidence.first_variant else ""
                cells = [estimate(entry[score], digits=2) for score in scores]
                rows.append((kind, [escape(model.replace("_", " ")), unit, *cells]))
    counts = "; ".join(
        f"{', '.join(f'{n:,} of class {label}' for label, n in enumerate(first['n_units'][unit]))} by {unit}"
        for unit in units
    )
    note = (
        f"{counts}. The probability of a {units[0]} is the mean over its rows; in brackets the 95 % interval over "
        "draws of participants."
    )
    if evidence.study["n_folds"] > 1:
        note += (
            " Probabilities of all folds are pooled: knowing only the shares of the classes then scores below chance."
        )
    return table(["", "by", *(SCORES[score] for score in scores)], rows) + tag("p", note, class_="note")


def _figures(evidence: Evidence, name: str) -> str:
    runs = _runs(evidence, name)
    made = ""
    if runs:
        unit: Unit = next(iter(evidence.results["variants"][evidence.first_variant][name]["n_units"]))
        units, spread = _units(runs, _target(name), unit)
        if units.probability.shape[1] == 2 and 0 < units.n_of_class(1) < len(units):
            made += _curves(units, name)
            caption = (
                f"Probability of class 1 of each tested {unit}, variant {evidence.first_variant}; lines are one "
                f"standard deviation over its {'windows' if spread is not units.sd else 'rows'}, the dashed line is "
                "where the class changes."
            )
            chance = units.probability[:, 1]
            made += figure(class_figures.people(chance, units.truth, spread, unit, name), caption)
    made += _training(evidence, name)
    return tag("div", made, class_="figures") if made else ""


def _curves(units: Units, name: str) -> str:
    truth, score = units.truth, units.probability[:, 1]
    bootstrap = ParticipantBootstrap(units.participant.tolist(), N_RESAMPLES)
    place = {person: at for at, person in enumerate(bootstrap.participants)}
    weights = bootstrap.weights[:, [place[person] for person in units.participant]]
    resampled = roc_at(RATES, truth, score, weights)
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    false, true = roc_curve(truth, score, np.ones((1, len(truth))))
    recall, precision = precision_recall(truth, score)
    share = units.n_of_class(1) / len(units)
    return figure(
        class_figures.roc(false[0], true[0], RATES, (low, high), name),
        f"ROC curve by {units.unit}; the band holds 95 % of the draws of participants at each false positive rate.",
    ) + figure(
        class_figures.precision_recall(recall, precision, share, name),
        f"Precision against recall by {units.unit}; the dashed line, the share of class 1, is what guessing reaches.",
    )


def _training(evidence: Evidence, name: str) -> str:
    """Scores of validation per epoch, a panel each, of the first seed and fold."""
    panels: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {}
    for run in evidence.runs:
        is_first = (run.seed, run.fold) == (evidence.runs[0].seed, evidence.runs[0].fold)
        if not is_first or not _predicts(evidence, run, name):
            continue
        for score in SHOWN_IN_TRAINING:
            for unit in ("participant", "recording", "row"):
                values = [row.get(f"val/{unit}_{score}_{_target(name)}") for row in run.history]
                if any(value is not None for value in values):
                    known = [float("nan") if value is None else float(value) for value in values]
                    panels.setdefault(f"{SCORES[score]} by {unit}", {})[run.variants[0].replace("_", " ")] = ([], known)
    if not panels:
        return ""
    names = [variant.replace("_", " ") for variant in evidence.study["variants"]]
    caption = "Scores of validation participants per epoch; gaps are epochs in which a score was undefined."
    return figure(figures.learning_curves(panels, names, f"{name}, validation"), caption)


def _target(name: str) -> str:
    """Target of a name in the results, which may be ``phase.target``."""
    return name.rpartition(".")[2]


def _predicts(evidence: Evidence, run: RunEvidence, name: str) -> bool:
    phase = name.rpartition(".")[0]
    return (not phase or phase == run.phase) and f"prediction/{_target(name)}" in run.predictions


def _runs(evidence: Evidence, name: str) -> list[RunEvidence]:
    """Runs of the first variant and seed, of all folds."""
    return [
        run
        for run in evidence.runs
        if evidence.first_variant in run.variants
        and run.seed == evidence.runs[0].seed
        and _predicts(evidence, run, name)
    ]


def _units(runs: Sequence[RunEvidence], target: str, unit: Unit) -> tuple[Units, Any]:
    """What is scored, folds pooled, and the spread of each over its windows where predicted, else over its rows."""
    whole = _gathered(runs, "", target, unit)
    if not all(f"window/prediction/{target}" in run.predictions for run in runs):
        return whole, whole.sd
    windows = _gathered(runs, "window/", target, unit)
    spread = dict(zip(zip(windows.participant, windows.recording, strict=True), windows.sd, strict=True))
    keys = zip(whole.participant, whole.recording, strict=True)
    return whole, np.array([spread.get(key, np.nan) for key in keys])


def _gathered(runs: Sequence[RunEvidence], of: str, target: str, unit: Unit) -> Units:
    end = f"/{target}" if of else ""
    names = (f"participant{end}", f"recording{end}", f"target/{target}", f"prediction/{target}")
    parts = []
    for run in runs:
        known = run.predictions[f"{of}known/{target}"].astype(bool)
        parts.append([run.predictions[f"{of}{name}"][known] for name in names])
    participant, recording, truth, prediction = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return gather_units(participant, recording, truth, prediction, unit)
