"""``cerebro prepare``: recordings -> store, with a counted report. ``cerebro check``: what is wrong with a data set."""

import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from cerebro.cli.messages import one_line
from cerebro.cli.mixture import is_mixture, prepare_mixture
from cerebro.cli.parser import VerbParser
from cerebro.data.build import build
from cerebro.data.mixture import open_store
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Finding, Reader, Scan
from cerebro.data.report import count_rules
from cerebro.data.store import Store
from cerebro.errors import ConfigError, check_between
from cerebro.files import write_json
from cerebro.yaml_safety import check_yaml

FARTHEST_ELECTRODE_M = 0.3  # from the middle of the head; farther means centimetres or millimetres
_TASK = re.compile(r"task-([A-Za-z0-9]+)")


@dataclass(frozen=True)
class PrepareConfig:
    """One YAML of ``cerebro prepare``.

    Parameters
    ----------
    reader : Reader
        Corpus to read.
    preprocessing : Preprocessing
        What is done to each recording.
    lsb_uV : float
        Microvolts per count of the store.
    max_failed_share : float
        Share of failed recordings above which `prepare` exits with 1.
    """

    reader: Reader
    preprocessing: Preprocessing
    lsb_uV: float
    max_failed_share: float


def prepare(argv: list[str]) -> int:
    """Build a store, or with ``--plan`` say what would be built; 1 if too many recordings failed."""
    parser = VerbParser(
        prog="cerebro prepare",
        description="Turn recordings into a store that trains fast. Running it again does only what is missing.",
        epilog="example: cerebro prepare configs/data/hbn.yaml --out stores/hbn --jobs 8",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="reader, preprocessing, lsb_uV; or sources")
    parser.add_argument("--out", type=Path, metavar="STORE", help="folder of the store")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that read and filter (default 1)")
    parser.add_argument(
        "--preprocessing.reference", dest="reference", choices=("as_is", "average"), help="in place of the config's"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be used, repaired and skipped; no signal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --plan: write the plan there as well")
    options = parser.parse_args(argv)
    if is_mixture(options.config):
        return prepare_mixture(options.config, options.out, argv, prepare)
    config = read_config(options.config)
    if options.reference is not None:
        config = replace(config, preprocessing=replace(config.preprocessing, reference=options.reference))
    if options.json is not None and not options.plan:
        raise ConfigError("--json belongs to --plan; a build writes STORE/build_report.json by itself.")
    if options.plan:
        _print_plan(config.reader.scan(require_signals=False), options.json)
        return 0
    if options.out is None:
        raise ConfigError("--out is missing; type --out STORE (a new folder), or --plan to see what would be built.")
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs} must be 1 or more.")
    report = build(config.reader, config.preprocessing, options.out, config.lsb_uV, options.jobs)
    print(report.table())
    if not report.read:
        print(f"no store was written: not one recording of {options.config} could be used.")
        return 1
    print(f"store {options.out} is ready: data hash {Store.open(options.out).data_hash[:12]}")
    if report.failed_share > config.max_failed_share:
        print(
            f"{report.failed_share:.1%} of the recordings failed, more than max_failed_share="
            f"{config.max_failed_share:g}; see {options.out / 'build_report.json'}."
        )
        return 1
    return 0


def check(argv: list[str]) -> int:
    """Say what is wrong with a data set; 1 if something must not be trained on."""
    parser = VerbParser(
        prog="cerebro check",
        description="Verify every byte of a store, or list what a config's reader would repair and skip.",
        epilog="example: cerebro check stores/hbn",
    )
    parser.add_argument("target", type=Path, metavar="CONFIG.yaml|STORE")
    target = parser.parse_args(argv).target
    if target.is_file():
        return 1 if _print_plan(read_config(target).reader.scan(require_signals=False), None) else 0
    errors, notes = store_problems(open_store(target))
    for line in notes:
        print(f"note     {line}")
    for line in errors:
        print(f"error    {line}")
    print(f"{target}: {len(errors)} errors, {len(notes)} notes")
    return 1 if errors else 0


def read_config(path: Path) -> PrepareConfig:
    """Read and check one YAML; relative paths in it are relative to its folder.

    Raises
    ------
    ConfigError
        In one line: unsafe YAML, an unknown key, a wrong type, a class outside cerebro.
    """
    check_yaml(path)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reader", type=Reader, required=True)
    parser.add_class_arguments(Preprocessing, "preprocessing")
    parser.add_argument("--lsb_uV", type=float, default=0.05)
    parser.add_argument("--max_failed_share", type=float, default=0.05)
    try:
        config = parser.parse_string(path.read_text(encoding="utf-8"))
        _resolve_paths(config.reader, path.resolve().parent)
        made = parser.instantiate(config)
    except (ArgumentError, TypeError, ValueError) as error:
        known = list(parser.get_defaults().keys())
        readers = [reader.__name__ for reader in Reader.__subclasses__()]
        raise ConfigError(f"config {path}: {one_line('prepare', str(error), known, readers)}") from None
    check_between("max_failed_share", made.max_failed_share, -1e-9, 1)
    return PrepareConfig(made.reader, made.preprocessing, made.lsb_uV, made.max_failed_share)


def store_problems(store: Store) -> tuple[list[str], list[str]]:
    """Errors and notes about a store: checksums, electrode positions, clipped samples."""
    errors = store.verify()
    notes = []
    for montage in store.montages:
        is_known = np.isfinite(montage.positions).all(axis=1)
        if not is_known.all():
            notes.append(f"montage {montage.name}: {np.sum(~is_known)} of {is_known.size} positions are unknown")
        if is_known.any() and np.abs(montage.positions[is_known]).max() > FARTHEST_ELECTRODE_M:
            errors.append(f"montage {montage.name}: positions beyond {FARTHEST_ELECTRODE_M} m; are they in metres?")
    clipped = store.recordings["clipped"].to_numpy()
    n_values = store.index["n_times"] * store.index["n_channels"]
    for row in np.flatnonzero(clipped > 0.001 * n_values):
        share = clipped[row] / n_values[row]
        notes.append(f"recording {store.recordings['key'].iloc[row]}: {share:.1%} of its samples are clipped")
    return errors, notes


def _resolve_paths(reader: Namespace, folder: Path) -> None:
    """Make paths among a reader's arguments absolute, as seen from the YAML that names them."""
    module, _, name = reader.class_path.rpartition(".")
    cls = getattr(__import__(module, fromlist=[name]), name)
    for parameter in inspect.signature(cls).parameters.values():
        value = reader.init_args.get(parameter.name)
        is_path = parameter.annotation in (Path, Path | None)
        is_electrode_file = parameter.name == "montage" and str(value).lower().endswith(".elc")
        if value is not None and (is_path or is_electrode_file):
            reader.init_args[parameter.name] = folder / value if is_path else str(folder / value)


def _print_plan(scan: Scan, file: Path | None) -> bool:
    """Print what a scan found, and write it to ``file`` if there is one; whether anything failed."""
    plan = _plan(scan)
    print(f"{'task':<28}{'use':>8}{'repair':>8}{'skip':>8}{'fail':>8}   recordings")
    for task, counts in plan["tasks"].items():
        print(f"{task:<28}{counts['use']:>8,}{counts['repaired']:>8,}{counts['skipped']:>8,}{counts['failed']:>8,}")
    print(f"{plan['participants']:,} participants\nrules")
    for rule in plan["rules"]:
        by_task = ", ".join(f"{task} {count:,}" for task, count in rule["tasks"].items())
        print(f"  {rule['severity']:<9} {rule['rule']:<32} {rule['count']:>6,}   {by_task}")
        for example in rule["examples"][:1]:
            print(f"            e.g. {example}")
    if file is not None:
        write_json(file, plan)
    return any(rule["severity"] == "failed" for rule in plan["rules"])


def _plan(scan: Scan) -> dict[str, Any]:
    """What a scan would use, repair, skip and fail: recordings by task, and rules by task."""
    task_of = {entry.key: entry.task for entry in scan.entries}
    names = sorted({*task_of.values(), *_named_tasks(scan.findings)})
    tasks = {
        task: {"use": sum(other == task for other in task_of.values()), "repaired": 0, "skipped": 0, "failed": 0}
        for task in [*names, "-"]
    }
    place = {finding.where: task_of.get(finding.where) or _task_in(finding.where, names) for finding in scan.findings}
    for severity in ("repaired", "skipped", "failed"):
        for where in {finding.where for finding in scan.findings if finding.severity == severity}:
            tasks[place[where]][severity] += 1
    rules = []
    for rule in count_rules(scan.findings):
        places = [place[f.where] for f in scan.findings if (f.rule, f.severity) == (rule.rule, rule.severity)]
        by_task = {task: places.count(task) for task in tasks if task in places}
        rules.append({**vars(rule), "examples": list(rule.examples), "tasks": by_task})
    if not any(tasks["-"].values()):
        del tasks["-"]  # findings about no one recording
    return {
        "recordings": len(scan.entries),
        "participants": len({entry.participant for entry in scan.entries}),
        "tasks": tasks,
        "rules": rules,
    }


def _named_tasks(findings: list[Finding]) -> set[str]:
    return {match[1] for finding in findings if (match := _TASK.search(finding.where))}


def _task_in(where: str, names: list[str]) -> str:
    """Task that a finding's place speaks of: ``..._task-RestingState_eeg`` or ``R5/sub-X/RestingState``; else "-"."""
    match = _TASK.search(where)
    if match:
        return match[1]
    last = where.rsplit("/", 1)[-1]
    found = [name for name in names if last == name or last.startswith(f"{name}_")]
    return found[0] if found else "-"
