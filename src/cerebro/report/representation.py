"""Sections about what a representation holds: codes, pairs, films, labels and people. Empty = left out."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.report import figures
from cerebro.report.evidence import Evidence, RunEvidence
from cerebro.report.html import figure, table, tag

N_TRACES = 8
VECTORS = {
    "recording": "strongest correlated component of the EEG itself, found on training participants without a network",
    "embedding": "mean token, which the next phase builds on",
    "projection": "projection, which the loss compares",
}


def tokenizer(evidence: Evidence) -> str:
    """Original against reconstructed traces, a scalp map, and the use of the codebook."""
    run = evidence.example("code_counts")
    if run is None:
        return ""
    original, rebuilt = (np.asarray(run.showcase[name], np.float64) for name in ("original", "reconstructed"))
    electrode = np.asarray(run.showcase["channel"])
    original, rebuilt, electrode = original[electrode >= 0], rebuilt[electrode >= 0], electrode[electrode >= 0]
    names = [str(run.showcase["channel_names"][row]) for row in electrode]
    positions = np.asarray(run.showcase["positions"], np.float64)[electrode]
    correlation = row_correlation(original, rebuilt)
    picked = spread_channels(positions, N_TRACES)
    svg = figures.traces(original[picked], rebuilt[picked], [names[row] for row in picked], _sfreq(run))
    made = figure(
        svg,
        f"A validation window as recorded (thin) and as rebuilt from its codes (coloured), {len(picked)} of "
        f"{len(original)} channels. Median correlation over channels {np.nanmedian(correlation):.2f}.",
    )
    small = ""
    if np.isfinite(correlation).sum() >= 4:
        svg = figures.scalp_map(correlation, positions, "reconstruction")
        small += figure(svg, "Correlation of original and rebuilt signal by electrode, same window; nose up.")
    counts = np.asarray(run.showcase["code_counts"], np.float64)
    used = int((counts > 0).sum())
    caption = (
        f"{used} of {len(counts)} codes occur in one batch of {int(counts.sum()):,} patches; perplexity "
        f"{perplexity(counts):.0f}."
    )
    small += figure(figures.code_use(counts), caption)
    return made + tag("div", small, class_="figures")


MASKED = {
    "error_by_channel": "Mean absolute difference of hidden tokens as predicted and as the teacher has them (standard "
    "deviation 1), by electrode, in one validation batch; nose up.",
    "accuracy_by_channel": "Share of hidden patches whose code was found, by electrode, in one validation batch; nose "
    "up.",
}


def masked(evidence: Evidence) -> str:
    """Where on the head hidden tokens are hard to predict, and whether the teacher still tells windows apart."""
    maps, watch = "", ""
    for array, caption in MASKED.items():
        found = evidence.example_of_term(array)
        if found is None:
            continue
        run, name = found
        values = np.asarray(run.showcase[name], np.float64)
        positions = np.asarray(run.showcase["positions"], np.float64)
        if (np.isfinite(values) & np.isfinite(positions).all(axis=1)).sum() >= 4:
            label = array.removesuffix("_by_channel")
            maps += figure(figures.scalp_map(values, positions, label), f"{caption} Phase {run.phase}.")
        watch = watch or _watch(run)
    return tag("div", maps, class_="figures") + watch if maps else ""


def _watch(run: RunEvidence) -> str:
    """First and last epoch of what tells a collapse; empty where it was not measured."""
    keys = [
        key for key in (run.history[0] if run.history else {}) if key.endswith(("feature_variance", "effective_rank"))
    ]
    if not keys:
        return ""
    rows = [
        ("", [escape(key.replace("_", " ")), *(f"{row[key]:.3g}" for row in (run.history[0], run.history[-1]))])
        for key in keys
        if run.history[0].get(key) is not None and run.history[-1].get(key) is not None
    ]
    note = (
        "Variance of a target over windows (of 1, the rest is place and time) and effective rank of these variations: "
        "near 0 and 1 a run is dead."
    )
    return table(["teacher", "first epoch", f"epoch {run.history[-1]['epoch'] + 1}"], rows, numbers=(1, 2)) + tag(
        "p", note, class_="note"
    )


def pairs(evidence: Evidence) -> str:
    """Similarity of people who saw the same moment of a film."""
    run = evidence.example("similarity_positive")
    if run is None or not len(run.showcase["similarity_positive"]) or not len(run.showcase["similarity_negative"]):
        return ""
    positive, negative = (
        np.asarray(run.showcase[f"similarity_{kind}"], np.float64).ravel() for kind in ("positive", "negative")
    )
    caption = (
        f"{len(positive):,} pairs of validation participants at the same moment of the same film against "
        f"{len(negative):,} pairs at other moments, after the phase {run.phase}."
    )
    return figure(figures.similarity(positive, negative), caption)


def films(evidence: Evidence) -> str:
    """Inter-subject correlation per film of every phase that measured it, beside time courses turned at random."""
    measured = [run for run in _first_of_each(evidence) if run.synchrony]
    rows = [(run, row) for run in measured for row in run.synchrony["films"] if row["isc"] is not None]
    if not rows:
        return ""
    ends = [value for _, row in rows for value in (row["isc"], row["shuffled_mean"], row["shuffled_q95"])]
    people = max(row["n_people"] for _, row in rows)
    made = ""
    for kind, meaning in VECTORS.items():
        entries = {}
        for run, row in rows:
            if row["vectors"].rpartition("/")[2] == kind:  # of a term of a sum: term/kind
                name = row["film"] if kind == "recording" else f"{_used_by(run)}, {row['film']}"
                entries[name, row["isc"]] = (name, row["isc"], (row["shuffled_mean"], row["shuffled_q95"]))
        if entries:
            caption = (
                f"Inter-subject correlation of the {meaning}, up to {people} validation participants. Grey: from the "
                f"mean to the 95 % quantile of {measured[0].synchrony['n_shuffles']} shuffles within the film."
            )
            made += figure(figures.synchrony(list(entries.values()), kind, (min(ends), max(ends))), caption)
    return tag("div", made, class_="figures")


def probes(evidence: Evidence) -> str:
    """Last probes of every phase that was probed while it trained: labels, and whether it is a map of people."""
    rows = []
    for run in _first_of_each(evidence):
        probed = [row for row in run.history if any(key.startswith("probe/") for key in row)]
        if not probed:
            continue
        last = {key: value for key, value in probed[-1].items() if key.startswith("probe/")}
        for key, value in last.items():
            name = key.removeprefix("probe/")
            if name == "participant_chance":
                continue
            is_identity = name == "participant"
            label = "participant, share named correctly" if is_identity else name.replace("_", " ", 1)
            chance = last.get("probe/participant_chance") if is_identity else None
            confound = run.history[0].get(f"confound/{name}")
            cells = [escape(run.phase), escape(_used_by(run)), str(probed[-1]["epoch"] + 1), escape(label)]
            rows.append(("", [*cells, _shown(value), _shown(chance), _shown(confound)]))
    if not rows:
        return ""
    head = ["phase", "used by", "epoch", "probe", "score", "chance", "age and sex alone"]
    text = (
        "Ridge or logistic regression on the mean token, fitted to training and scored on validation participants. An "
        "encoder that names participants far above chance is first of all a map of people."
    )
    return tag("p", text) + table(head, rows, numbers=(2, 4, 5, 6))


def _first_of_each(evidence: Evidence) -> Iterable[RunEvidence]:
    """Runs of the first seed and fold: one of each phase and variant."""
    first = evidence.runs[0]
    return (run for run in evidence.runs if (run.seed, run.fold) == (first.seed, first.fold))


def _used_by(run: RunEvidence) -> str:
    return run.variants[0].replace("_", " ")


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _sfreq(run: RunEvidence) -> float:
    """Rate of the showcase: samples per window over its duration."""
    duration = run.config["data"].get("windows", {}).get("init_args", {}).get("duration_s")
    n_times = run.showcase["original"].shape[1]
    return n_times / float(duration) if duration else 100.0


def row_correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pearson correlation of each row (C, T) -> (C,); NaN where a row is constant."""
    a, b = (value - value.mean(axis=1, keepdims=True) for value in (first, second))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray(np.where(norm > 0, (a * b).sum(axis=1) / np.where(norm > 0, norm, 1), np.nan))


def perplexity(counts: npt.NDArray[np.float64]) -> float:
    """Number of codes that would be as even: ``exp`` of the entropy of their shares."""
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def spread_channels(positions: npt.NDArray[np.float64], n: int) -> list[int]:
    """Rows of ``n`` electrodes far from each other, from front to back; the first rows where positions are unknown."""
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(known) < n:
        return list(range(min(n, len(positions))))
    picked = [int(known[np.argmax(positions[known, 2])])]
    while len(picked) < n:
        distance = np.linalg.norm(positions[known][:, None] - positions[picked][None], axis=2).min(axis=1)
        picked.append(int(known[distance.argmax()]))
    return sorted(picked, key=lambda row: -positions[row, 1])
