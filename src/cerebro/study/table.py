"""Results as a table for the terminal: the constant beside every score, intervals, gains, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

NOTES = {
    "nrmse": "NRMSE: lower is better, 1 is a constant",
    "balanced_accuracy": "balanced accuracy: higher is better",
}
ORACLE, REFERENCE = "oracle (trait known)", "reference (planted feature)"
CLASS_SCORES = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
}


def results_table(results: Mapping[str, Any]) -> str:
    """Text of a study's results, lines of at most about 140 characters."""
    targets = list(results["measures"])
    columns = [
        f"{target} {results['measures'][target].replace('_', ' ').replace('nrmse', 'NRMSE')}" for target in targets
    ]
    if results["score_targets"]:
        columns.append("score 0.3 C1 + 0.7 C2")
    if not targets:
        return "\n".join([_title_without_scores(results), "", *_validation_lines(results, with_cost=True)])
    rows = [["", *columns, "train", "peak"]]
    rows += _reference_rows(results, targets)
    for name, model in {**results["baselines"], **results["variants"], **results.get("ensembles", {})}.items():
        cells = [estimate_text(model.get(target, {}).get(results["measures"][target])) for target in targets]
        if results["score_targets"]:
            cells.append(estimate_text(model.get("score")))
        cost = (
            [f"{model['train_seconds']:.0f} s", f"{model['peak_memory_mb']:,.0f} MB"]
            if "train_seconds" in model
            else []
        )
        rows.append([name, *cells, *cost])
    n_people = len(results["participants"])
    n_shared = sum(len(run["variants"]) > 1 for run in results["phases"])
    notes = "; ".join(note for measure, note in NOTES.items() if measure in results["measures"].values())
    title = (
        f"{results['name']}: {n_people} held-out participants, 95 % intervals over participants "
        f"({results['n_resamples']} draws); {notes}"
    )
    shared = f"{len(results['phases'])} phase runs, {n_shared} of them shared between variants"
    return "\n".join(
        [
            *(title, "", *aligned(rows), "", *_gain_lines(results, targets), ""),
            *class_lines(results, targets),
            *_convergence_lines(results),
            *_validation_lines(results),
            *_probe_lines(results),
            *_seed_lines(results, targets),
            shared,
        ]
    )


def class_lines(results: Mapping[str, Any], targets: Sequence[str]) -> list[str]:
    """A table for each classification and unit: participants (or recordings, rows), and windows if predicted."""
    lines: list[str] = []
    models = {**results["baselines"], **results["variants"], **results.get("ensembles", {})}
    for target in targets:
        units = dict.fromkeys(unit for model in models.values() for unit in model.get(target, {}).get("n_units", {}))
        for unit in units:
            there = {name: model[target] for name, model in models.items() if unit in model.get(target, {})}
            first = next(iter(there.values()))
            names = [name for name in CLASS_SCORES if name in first[unit]]
            rows = [["", *(CLASS_SCORES[name] for name in names)]]
            for key, label in (("oracle_auc", ORACLE), ("reference_auc", REFERENCE)):
                if "auc" in names and key in results["references"].get(target, {}) and unit != "window":
                    rows.append([label, f"{results['references'][target][key]:.4f}"])
            rows += [[name, *(estimate_text(entry[unit][score]) for score in names)] for name, entry in there.items()]
            counts = ", ".join(f"{n} of class {label}" for label, n in enumerate(first["n_units"][unit]))
            lines += [f"{target} by {unit} ({counts}):", *aligned(rows), ""]
    if lines and results.get("n_folds", 1) > 1:
        lines += [
            "probabilities of all folds are pooled: knowing only the shares of the classes then scores below chance",
            "",
        ]
    return lines


def _title_without_scores(results: Mapping[str, Any]) -> str:
    return f"{results['name']}: no phase predicts a target, so that there are no scores of held-out participants"


def _validation_lines(results: Mapping[str, Any], with_cost: bool = False) -> list[str]:
    """Validation of final phases that predict nothing, a table for each."""
    lines: list[str] = []
    for phase, found in results.get("validation", {}).items():
        names = list(dict.fromkeys(name for figures in found.values() for name in figures))
        rows = [["", *names, *(["train", "peak"] if with_cost else [])]]
        for variant, figures in found.items():
            cells = [f"{figures[name]:.4f}" if name in figures else "" for name in names]
            model = results["variants"][variant]
            cost = [f"{model['train_seconds']:.0f} s", f"{model['peak_memory_mb']:,.0f} MB"] if with_cost else []
            rows.append([variant, *cells, *cost])
        lines += [f"validation of {phase} at its best epoch:", *aligned(rows), ""]
    return lines


def _probe_lines(results: Mapping[str, Any]) -> list[str]:
    """What the columns of probes are."""
    return [
        f"probe/...: ridge or logistic regression on frozen embeddings of {phase}, one row per {entry['by']}, "
        "fitted to training participants"
        for phase, entry in results.get("probes", {}).items()
    ]


def _seed_lines(results: Mapping[str, Any], targets: Sequence[str]) -> list[str]:
    """What an ensemble is, and how many seeds each variant has."""
    if not results.get("ensembles"):
        return []
    count = {
        name: max(len(model[target][results["measures"][target]]["per_seed"]) for target in targets if target in model)
        for name, model in results["variants"].items()
        if set(targets) & set(model)
    }
    seeds = ", ".join(f"{name} {n}" for name, n in count.items())
    return [f"scores are means over seeds ({seeds}); an ensemble is the mean over seeds of the predictions", ""]


def _reference_rows(results: Mapping[str, Any], targets: Sequence[str]) -> list[list[str]]:
    rows = []
    for key, label in (("oracle", ORACLE), ("reference", REFERENCE)):
        known = [results["references"].get(target, {}).get(key) for target in targets]
        if any(value is not None for value in known):
            rows.append([label, *("" if value is None else f"{value:.4f}" for value in known)])
    return rows


def _gain_lines(results: Mapping[str, Any], targets: Sequence[str]) -> list[str]:
    rows = []
    for pair, entry in results["gains"].items():
        for target in (*targets, "score"):
            if target in entry:
                share = entry[target].get("reachable_share")
                of_gap = f"{_percent(share['mean'])} of the reachable gap" if share else ""
                rows.append([f"{pair}, {target}", _percent_interval(entry[target]["gain"]), of_gap])
    note = "gain (S_B - S_A) / S_B of A over B, paired over participants (balanced error for classes):"
    return [note, *aligned(rows)] if rows else []


def _convergence_lines(results: Mapping[str, Any]) -> list[str]:
    found = {name: model.get("convergence", {}) for name, model in results["variants"].items()}
    phases = list(dict.fromkeys(phase for entry in found.values() for phase in entry))
    if not phases:
        return []
    rows = [["", *phases]]
    for name, entry in found.items():
        cells = [f"{entry[p]['steps']:,.0f} ({entry[p]['seconds']:,.0f} s)" if p in entry else "" for p in phases]
        rows.append([name, *cells])
    return ["steps until validation came within 1 % of the best of its run:", *aligned(rows), ""]


def estimate_text(entry: Mapping[str, Any] | None) -> str:
    """``0.9123 [0.880, 0.950]``; empty where there is none."""
    if entry is None:
        return ""
    if entry["mean"] is None:
        return "undefined"
    low, high = entry["ci95"]
    return f"{entry['mean']:.4f} [{low:.3f}, {high:.3f}]" if low is not None else f"{entry['mean']:.4f}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:+.1f} %"


def _percent_interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    if entry["mean"] is None or low is None:
        return "undefined"
    return f"{100 * entry['mean']:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, cells filled up to the widest of their column."""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    return ["  ".join(cell.ljust(widths[column]) for column, cell in enumerate(row)).rstrip() for row in rows]
