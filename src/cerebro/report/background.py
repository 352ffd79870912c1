"""Sections about how it came about: participants, learning, data, commands. Empty = left out."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

import cerebro
from cerebro.report import figures
from cerebro.report.evidence import Evidence
from cerebro.report.html import figure, table, tag


def participants(evidence: Evidence) -> str:
    """Who was trained, validated and tested on, and that no one is on two sides."""
    train, val, test = evidence.overlap()
    n_leaks = evidence.leaks()
    verdict = (
        tag("span", "None", class_="good")
        + " of the tested participants was trained or selected on in any phase of the "
        "same chain"
        if n_leaks == 0
        else tag("span", f"{n_leaks} tested participants", class_="bad") + " were trained or selected on in their chain"
    )
    text = f"{verdict} (compared by id over {len(evidence.runs)} phase runs when this page was made)."
    rows = []
    seen: set[str] = set()
    for run in evidence.runs:
        split = run.config["data"].get("split", {})
        if run.phase in seen:
            continue
        seen.add(run.phase)
        releases = ", ".join(split.get("test_releases") or []) or "none"
        windows = run.config["data"].get("windows", {})
        source = windows.get("class_path", "").rpartition(".")[2] if isinstance(windows, dict) else ""
        sides = run.record["participants"]
        tested = len(np.unique(run.predictions["participant"])) if "participant" in run.predictions else 0
        cells = [run.phase, source, ", ".join(_labels(run.config)) or "none", releases]
        counts = [str(len(sides["train"])), str(len(sides["val"])), str(tested) if tested else ""]
        rows.append(("", [*(escape(cell) for cell in cells), *counts]))
    head = ["phase", "windows", "labels", "releases held out", "trained on", "selected on", "tested on"]
    lists = "".join(
        tag("p", f"<b>{side}</b>: {escape(', '.join(names))}", class_="note")
        for side, names in (("trained on", train), ("selected on", val), ("tested on", test))
    )
    names = tag("details", tag("summary", "all participants by side") + lists)
    return tag("p", text) + table(head, rows, numbers=(4, 5, 6)) + names


def _labels(config: Mapping[str, Any]) -> list[str]:
    """What a phase learns from, in the order of its targets: one that only terms of weight 0 name is read, not used."""
    keys = config["model"].get("objective", {}).get("init_args", {})
    idle: set[str | None] = set()
    busy: set[str | None] = set()
    for name, term in keys.get("terms", {}).items():
        used = busy if keys.get("weights", {}).get(name, 1) else idle
        used.add(term.get("init_args", {}).get("target"))
    return [target for target in config["data"].get("targets") or [] if target in busy or target not in idle]


def curves(evidence: Evidence) -> str:
    """Learning curves of every phase."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for run in evidence.runs:
        if run.history and run.seed == evidence.runs[0].seed and run.fold == evidence.runs[0].fold:
            train, val = (
                [row[key] for row in run.history if row.get(key) is not None] for key in ("train/loss", "val/loss")
            )
            panels.setdefault(run.phase, {})[run.variants[0].replace("_", " ")] = (train, val)
    if not panels:
        return ""
    names = [name.replace("_", " ") for name in evidence.study["variants"]]
    caption = "Loss per epoch: training dashed, validation with dots. A shared run is drawn under its first variant."
    return figure(figures.learning_curves(panels, names, "loss"), caption)


def data(evidence: Evidence) -> str:
    """What was read, repaired, skipped and left without a label; a row is a window, or a recording that was probed."""
    made = ""
    for store, report in evidence.stores.items():
        tasks = ", ".join(f"{task} {count}" for task, count in report.get("tasks", {}).items())
        counted = "made from arrays in memory, nothing counted."
        if "read" in report:
            counted = (
                f"{report['read']:,} recordings read, {report['repaired']:,} repaired, {report['skipped']:,} skipped "
                f"by rule, {report['failed']:,} failed. {escape(tasks)}."
            )
        made += tag("p", f"<b>{escape(store)}</b>: {counted}")
        rows = []
        for rule in report.get("rules", []):
            example = tag("small", escape("; ".join(rule["examples"][:1])))
            rows.append(("", [escape(rule["rule"]), escape(rule["severity"]), f"{rule['count']:,}", example]))
        if rows:
            made += table(["rule", "what happened", "count", "for example"], rows, numbers=(2,))
    rows = []
    for target in evidence.measures:
        entry = evidence.results["variants"][evidence.first_variant].get(target)
        if entry:
            counts = [f"{entry[key]:,}" for key in ("n_participants", "n_windows", "n_windows_without_label")]
            rows.append(("", [escape(target), *counts]))
    head = ["target", "tested participants", "tested rows", "rows without a label, left out"]
    return made + table(head, rows, numbers=(1, 2, 3))


def reproduce(evidence: Evidence) -> str:
    """Commands, versions and hashes."""
    record = evidence.runs[0].record
    facts = [
        ("cerebro", cerebro.__version__),
        ("git commit", str(record.get("git_commit", ""))),
        ("data", ", ".join(sorted({str(run.record.get("data_hash", ""))[:16] for run in evidence.runs}))),
        ("recipe", str(evidence.study["recipe"])),
        ("seeds", ", ".join(str(seed) for seed in sorted({run.seed for run in evidence.runs}))),
    ]
    rows = [("", [escape(key), tag("code", escape(value))]) for key, value in facts]
    runs = []
    for run in evidence.runs:
        cells = [escape(run.phase), str(run.seed), escape(", ".join(run.variants).replace("_", " "))]
        cells += [f"{float(run.record['seconds']):,.0f} s", f"{run.record.get('parameters', 0):,}"]
        runs.append(("", [*cells, tag("code", str(run.record.get("weights_sha256", ""))[:12])]))
    head = ["phase", "seed", "used by", "time", "parameters", "weights"]
    commands = tag("pre", escape("\n".join(evidence.study["commands"])))
    short = f"cerebro run {evidence.study['recipe']}"
    return (
        tag("pre", escape(short))
        + table(["", ""], rows)
        + table(head, runs, numbers=(3, 4))
        + tag("details", tag("summary", "every command, one by one") + commands)
    )
