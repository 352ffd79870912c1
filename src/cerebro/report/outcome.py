"""Sections about the outcome: scores, gains, predictions. An empty text leaves a section out."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from cerebro.report import figures
from cerebro.report.evidence import Evidence, RunEvidence
from cerebro.report.html import estimate, figure, percent, table, tag

MEASURES = {"nrmse": "NRMSE", "balanced_accuracy": "balanced accuracy"}
DIRECTIONS = {
    "nrmse": " NRMSE: lower is better, 1 is a constant.",
    "balanced_accuracy": " Balanced accuracy: higher is better, 1 / classes is a constant.",
}
LOSSES = {"nrmse": "NRMSE", "balanced_accuracy": "1 - balanced accuracy"}


def summary(evidence: Evidence) -> str:
    """The study in two sentences and a few numbers."""
    results = evidence.results
    first = evidence.first_variant
    parts = []
    for target, measure in evidence.measures.items():
        found = results["variants"][first].get(target, {}).get(measure)
        constant = results["baselines"]["constant"].get(target, {}).get(measure)
        if found and found["mean"] is not None and constant and constant["mean"] is not None:
            low, high = found["ci95"]
            verdict = _verdict(results["gains"].get(f"{first} over constant", {}).get(target, {}).get("gain"))
            parts.append(
                f"{MEASURES[measure]} {found['mean']:.3f} [{low:.3f}, {high:.3f}] on {target}, {verdict} "
                f"({constant['mean']:.3f})"
            )
    lead = tag("p", f"On held-out participants, {escape(first)} reaches {escape('; '.join(parts))}.", class_="lead")
    if not evidence.measures:
        lead = tag("p", "No phase predicts a target; what validation found stands below.", class_="lead")
    train, val, test = evidence.overlap()
    where = "phase" if evidence.study["n_folds"] == 1 else "phase of their fold"
    unseen = f"seen in no {where}" if evidence.leaks() == 0 else "some of them seen in training"
    n_shared = sum(len(run.variants) > 1 for run in evidence.runs)
    seconds = sum(float(run.record["seconds"]) for run in evidence.runs)
    memory = max(float(run.record["peak_memory_mb"]) for run in evidence.runs)
    numbers = [
        (f"{len(test)}", f"participants tested, {unseen}"),
        (f"{len(set(train) | set(val))}", "participants trained or selected on"),
        (f"{len(evidence.runs)}", f"phase runs, {n_shared} of them shared between variants"),
        (f"{seconds / 60:.1f} min", "training time of all phases"),
        (f"{memory / 1024:.1f} GiB", "peak memory"),
    ]
    return lead + tag(
        "div", "".join(tag("div", tag("b", b) + tag("span", text)) for b, text in numbers), class_="facts"
    )


def _verdict(gain: Mapping[str, Any] | None) -> str:
    """What the paired gain over the constant says; intervals of single scores overlap where people differ alike."""
    low, high = (gain or {}).get("ci95") or (None, None)
    if low is None or high is None:
        return "not compared with the constant predictor"
    if low > 0:
        return "better than the constant predictor"
    return "worse than the constant predictor" if high < 0 else "not distinguishable from the constant"


def scores(evidence: Evidence) -> str:
    """The table: bounds, baselines, variants; and bars from the constant."""
    results = evidence.results
    measures = evidence.measures
    if not measures:
        return ""
    names = [*measures, *(["score"] if results["score_targets"] else [])]
    head = ["", *(f"{escape(target)}<br>{MEASURES[measure]}" for target, measure in measures.items())]
    head += ["score<br>0.3 C1 + 0.7 C2"] if results["score_targets"] else []
    rows: list[tuple[str, list[str]]] = []
    for key, label in (("oracle", "oracle, trait known"), ("reference", "reference, planted feature measured")):
        known = [results["references"].get(target, {}).get(key) for target in measures]
        if any(value is not None for value in known):
            cells = ["" if value is None else f"{value:.3f}" for value in known]
            rows.append(("bound", [label, *cells, *([""] if results["score_targets"] else []), "", ""]))
    for name, model in _models(evidence):
        kind = "best" if name == evidence.first_variant else ""
        kind = "first" if name == evidence.study["variants"][0] else kind
        cells = [estimate(_entry(model, target, measures)) for target in names]
        cost = ["", ""]
        if "train_seconds" in model:
            cost = [f"{model['train_seconds']:,.0f} s", f"{model['peak_memory_mb']:,.0f} MB"]
        rows.append((kind, [escape(name.replace("_", " ")), *cells, *cost]))
    note = (
        f"{_seeds(evidence)}; in brackets the 95 % interval from "
        f"{results['n_resamples']:,} draws of participants."
        + (" An ensemble is the mean over seeds of the predictions." if results.get("ensembles") else "")
        + "".join(note for measure, note in DIRECTIONS.items() if measure in measures.values())
    )
    note += "".join(
        f" probe/...: ridge or logistic regression on frozen embeddings of {escape(phase)}, one row per {entry['by']}, "
        "fitted to training participants"
        + (
            "; of the participant, who it is among the held-out people of a fold, by the nearest recording of theirs."
            if "participant" in entry["targets"]
            else "."
        )
        for phase, entry in results.get("probes", {}).items()
    )
    made = table([*head, "training", "peak memory"], rows) + tag("p", note, class_="note")
    bars = "".join(figure(svg, caption) for svg, caption in _bars(evidence, names))
    return made + tag("div", bars, class_="figures")


def _seeds(evidence: Evidence) -> str:
    """Over how many seeds scores are averaged, and the variants of fewer."""
    pairs = {(chain["variant"], chain["seed"]) for chain in evidence.study["chains"]}
    count = {name: sum(variant == name for variant, _ in pairs) for name in evidence.study["variants"]}
    most = max(count.values())
    fewer = ", ".join(f"{escape(name.replace('_', ' '))} {n}" for name, n in count.items() if n < most)
    return ("One seed" if most == 1 else f"Mean over {most} seeds") + (f" (fewer: {fewer})" if fewer else "")


def validation(evidence: Evidence) -> str:
    """Figures of the best epoch of final phases that predict nothing, by variant."""
    made = ""
    for phase, found in evidence.results["validation"].items():
        names = list(dict.fromkeys(name for figures in found.values() for name in figures))
        rows = [
            ("", [escape(variant), *(f"{figures[name]:.4f}" if name in figures else "" for name in names)])
            for variant, figures in found.items()
        ]
        made += tag("p", f"{escape(phase)} at its best epoch; means over seeds and folds.", class_="note")
        made += table(["", *map(escape, names)], rows)
    return made


def convergence(evidence: Evidence) -> str:
    """Steps and time until each variant was nearly as good as it gets, by final phase."""
    found = {name: model.get("convergence", {}) for name, model in evidence.results["variants"].items()}
    phases = list(dict.fromkeys(phase for entry in found.values() for phase in entry))
    if not phases:
        return ""
    rows = []
    for name in evidence.study["variants"]:
        entry = found.get(name, {})
        cells = [
            f"{entry[p]['steps']:,.0f} <small>{entry[p]['seconds']:,.0f} s</small>" if p in entry else ""
            for p in phases
        ]
        rows.append(("", [escape(name.replace("_", " ")), *cells]))
    note = (
        "Steps of training until validation first came within 1 % of the best of its run, mean over seeds. A run that "
        "never gets better than it began is soon there: read it beside the scores."
    )
    numbers = tuple(range(1, 1 + len(phases)))
    return table(["", *(escape(phase) for phase in phases)], rows, numbers) + tag("p", note, class_="note")


def _bars(evidence: Evidence, names: list[str]) -> list[tuple[str, str]]:
    results, made = evidence.results, []
    n_baselines = len(results["baselines"]) - 1  # the constant is the line where bars start
    for target in names:
        entries = []
        for name, model in _models(evidence):
            found = _entry(model, target, results["measures"])
            if name != "constant" and found and found["mean"] is not None:
                entries.append((name.replace("_", " "), found["mean"], tuple(found["ci95"])))
        constant = _entry(results["baselines"]["constant"], target, results["measures"])
        if not entries or not constant or constant["mean"] is None:
            continue
        measure = MEASURES[results["measures"][target]] if target in results["measures"] else "lower is better"
        known = results["references"].get(target, {})
        bounds = {key: known[key] for key in ("oracle", "reference") if key in known}  # in this measure
        svg = figures.score_bars(entries, constant["mean"], bounds, f"{target}, {measure}", n_baselines)
        made.append((svg, f"Bars start at the constant predictor; black lines are 95 % intervals ({target})."))
    return made


def gains(evidence: Evidence) -> str:
    """What each phase brought, paired over participants."""
    results = evidence.results
    names = [*evidence.measures, *(["score"] if results["score_targets"] else [])]
    if not results["gains"]:
        return ""
    rows = []
    has_oracle = bool(results["references"])
    order = sorted(results["gains"], key=lambda pair: (not pair.startswith(evidence.first_variant), pair))
    for pair in order:
        for target in names:
            entry = results["gains"][pair].get(target)
            if entry:
                cells = [escape(pair.replace("_", " ")), escape(target), percent(entry["gain"])]
                rows.append(("", [*cells, *([percent(entry.get("reachable_share"))] if has_oracle else [])]))
    losses = " or ".join(loss for measure, loss in LOSSES.items() if measure in evidence.measures.values())
    text = (
        f"The gain of A over B is (S_B - S_A) / S_B with S = {losses}, over the same participants and seeds. An "
        "interval that covers zero says that the study cannot tell the two apart."
    )
    if has_oracle:
        text += " The last column is the share of the gap to the oracle that the gain closes."
    drawn = []
    for target in names:
        entries = [
            (pair.replace("_", " "), entry["gain"]["mean"], tuple(entry["gain"]["ci95"]))
            for pair in order
            if (entry := results["gains"][pair].get(target)) and entry["gain"]["ci95"][0] is not None
        ]
        if entries:
            svg = figures.gain_intervals(entries, f"gain on {target} (%)")
            drawn.append(figure(svg, f"Gains on {target}; coloured where the interval leaves zero out."))
    head = ["A over B", "target", "gain", *(["share of the reachable gap"] if has_oracle else [])]
    return tag("p", escape(text)) + tag("div", "".join(drawn), class_="figures") + table(head, rows)


def predictions(evidence: Evidence) -> str:
    """Prediction against truth of the first variant, or its confusion matrix."""
    made = ""
    for run in evidence.runs:
        if evidence.first_variant not in run.variants or run.seed != evidence.runs[0].seed:
            continue
        for key in run.predictions:
            if key.startswith("prediction/") and run.predictions[key].ndim == 1:
                made += _scatter(run, key.removeprefix("prediction/"))
            elif key.startswith("prediction/") and run.fold == 0:
                made += _confusion(evidence, key.removeprefix("prediction/"))
    return tag("div", made, class_="figures") if made else ""


def _scatter(run: RunEvidence, target: str) -> str:
    known = run.predictions[f"known/{target}"].astype(bool)
    truth = run.predictions[f"target/{target}"][known].astype(np.float64)
    value = run.predictions[f"prediction/{target}"][known].astype(np.float64)
    people, row = np.unique(run.predictions["participant"][known], return_inverse=True)
    unit = "windows"
    if all(np.ptp(truth[row == number]) < 1e-6 for number in range(len(people))):  # one value per person
        n = np.bincount(row)
        truth, value, unit = np.bincount(row, truth) / n, np.bincount(row, value) / n, "participants (mean of windows)"
    if len(truth) < 2:
        return ""
    svg = figures.prediction_scatter(truth, value, float(truth.mean()), target)
    return figure(svg, f"{len(truth):,} held-out {unit}; the dashed line is their mean.")


def _confusion(evidence: Evidence, target: str) -> str:
    seed = evidence.runs[0].seed
    runs = [run for run in evidence.runs if evidence.first_variant in run.variants and run.seed == seed]
    found = [run.predictions for run in runs if f"prediction/{target}" in run.predictions]
    known = [part[f"known/{target}"].astype(bool) for part in found]
    truth = np.concatenate(
        [part[f"target/{target}"][mask].astype(int) for part, mask in zip(found, known, strict=True)]
    )
    guess = np.concatenate([part[f"prediction/{target}"][mask] for part, mask in zip(found, known, strict=True)])
    n_classes = guess.shape[1]
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (truth.astype(int), guess.argmax(axis=1)), 1)
    rows = [("", [f"true {row}", *(f"{count:,}" for count in counts[row])]) for row in range(n_classes)]
    head = [escape(target), *(f"predicted {column}" for column in range(n_classes))]
    note = tag("p", "Held-out windows of all folds.", class_="note")
    return tag("div", table(head, rows, numbers=range(1, n_classes + 1)) + note)


def _models(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    """Baselines, the constant first, then variants in the recipe's order, then ensembles."""
    results = evidence.results
    baselines = ["constant", *(name for name in results["baselines"] if name != "constant")]
    return [
        *((name, results["baselines"][name]) for name in baselines),
        *((name, results["variants"][name]) for name in evidence.study["variants"]),
        *results.get("ensembles", {}).items(),
    ]


def _entry(model: Mapping[str, Any], target: str, measures: Mapping[str, str]) -> dict[str, Any] | None:
    found = model.get("score") if target == "score" else model.get(target, {}).get(measures[target])
    entry: dict[str, Any] | None = found
    return entry
