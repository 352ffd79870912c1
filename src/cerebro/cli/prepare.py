"""``cerebro prepare``: recordings -> store, with a counted report. ``cerebro check``: what is wrong with a data set."""

import difflib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cerebro.cli.data_config import is_mixture, read_config, split_overrides
from cerebro.cli.parser import VerbParser
from cerebro.data.build import build
from cerebro.data.exports import is_export
from cerebro.data.interchange import verify_export
from cerebro.data.mixture import open_store
from cerebro.data.names import with_plain_names
from cerebro.data.readers.base import Finding, Reader, Scan
from cerebro.data.report import count_rules
from cerebro.data.source_checksums import freeze, with_checksums
from cerebro.data.spread import Cluster
from cerebro.data.spread_dask import Dask
from cerebro.data.spread_slurm import Slurm
from cerebro.data.store import Store
from cerebro.errors import ConfigError
from cerebro.files import write_json

OVERRIDES = """Every key of the config can be given here too, and wins: --preprocessing.notch_hz 60. Relative paths on
the command line are relative to the current folder; those in a config to its own."""
SLURM_KEYS = ", ".join(f"{field.name}={field.default}" for field in fields(Slurm))
FARTHEST_ELECTRODE_M = 0.3  # from the middle of the head; farther means centimetres or millimetres
_TASK = re.compile(r"task-([A-Za-z0-9]+)")


def prepare(argv: list[str]) -> int:
    """Build a store, or with ``--plan`` say what would be built; 1 if too many recordings failed."""
    parser = VerbParser(
        prog="cerebro prepare",
        description="Turn recordings into a store that trains fast. Running it again does only what is missing.",
        epilog=f"{OVERRIDES}\n\nexamples: cerebro prepare configs/data/hbn.yaml --out stores/hbn --jobs 8\n"
        "          cerebro prepare configs/data/hbn.yaml --out stores/hbn --reader.init_args.root /data/hbn\n"
        "          cerebro prepare configs/data/hbn.yaml --out stores/hbn --jobs 100 --slurm "
        "partition=cpu,time=04:00:00",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="reader, preprocessing, lsb_uV; or sources")
    parser.add_argument("--out", type=Path, metavar="STORE", help="folder of the store")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that read and filter, or Slurm tasks (1)")
    parser.add_argument("--dask", nargs="?", const="", metavar="ADDRESS", help="let a Dask cluster do the work")
    parser.add_argument(
        "--slurm", nargs="?", const="", metavar="KEY=VALUE,...", help=f"let --jobs Slurm tasks do it: {SLURM_KEYS}"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be used, repaired and skipped; no signal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --plan: write the plan there as well")
    own, overrides = split_overrides(argv, parser.options())
    options = parser.parse_args(own)
    if is_mixture(options.config):
        from cerebro.cli.mixture import prepare_mixture  # here, because it takes torch and seconds

        return prepare_mixture(options.config, options.out, own, overrides, parser.options(), prepare)
    config = read_config(options.config, overrides, parser.options())
    if options.json is not None and not options.plan:
        raise ConfigError("--json belongs to --plan; a build writes STORE/build_report.json by itself.")
    if options.plan:
        _print_plan(_listed(config.reader), options.json)
        return 0
    if options.out is None:
        raise ConfigError("--out is missing; type --out STORE (a new folder), or --plan to see what would be built.")
    jobs, cluster = how_to_spread(options.jobs, options.dask, options.slurm)
    report = build(config.reader, config.preprocessing, options.out, config.lsb_uV, jobs, cluster)
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
        description="Verify every byte of a store or an export, or list what a config's reader would repair and skip.",
        epilog=f"{OVERRIDES}\n\nexample: cerebro check stores/hbn",
    )
    parser.add_argument("target", type=Path, metavar="CONFIG.yaml|STORE|EXPORT")
    parser.add_argument("--freeze", action="store_true", help="verify and write SHA256SUMS of a config's files")
    own, overrides = split_overrides(argv, parser.options())
    options = parser.parse_args(own)
    target = options.target
    if target.is_file() and not is_export(target):
        reader = read_config(target, overrides, parser.options()).reader
        if options.freeze:
            file, n_files = freeze(reader)
            print(f"{file}: {n_files:,} files; `cerebro prepare` verifies them from now on")
            return 0
        return 1 if _print_plan(_listed(reader), None) else 0
    if overrides:
        raise ConfigError(f"{overrides[0]} belongs to a config, and {target} is none; leave it out.")
    if options.freeze:
        raise ConfigError(f"--freeze belongs to a config; {target} is none (a store is checksummed by itself).")
    if is_export(target):
        problems = verify_export(target)
        for line in problems:
            print(f"error    {line}")
        print(f"{target}: {len(problems)} errors")
        return 1 if problems else 0
    errors, notes = store_problems(open_store(target))
    for line in notes:
        print(f"note     {line}")
    for line in errors:
        print(f"error    {line}")
    print(f"{target}: {len(errors)} errors, {len(notes)} notes")
    return 1 if errors else 0


def how_to_spread(jobs: int | None, dask: str | None, slurm: str | None) -> tuple[int, Cluster | None]:
    """Jobs and cluster of a build, from ``--jobs``, ``--dask`` and ``--slurm``; ``None`` where one was not typed.

    Raises
    ------
    ConfigError
        In one line: two clusters, a key that Slurm's tasks have not, a number that is none.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs} must be 1 or more.")
    if dask is not None and slurm is not None:
        raise ConfigError("--dask and --slurm exclude each other; choose one.")
    if dask is not None:
        if jobs is not None:
            raise ConfigError("--jobs does not go with --dask: the cluster's workers are as many as they are.")
        return 1, Dask(dask)
    if slurm is None:
        return jobs or 1, None
    if jobs is None:
        raise ConfigError("--slurm needs the number of its tasks; type --jobs N as well.")
    values: dict[str, Any] = {}
    for pair in filter(None, slurm.split(",")):
        key, _, value = pair.partition("=")
        known = {field.name: field for field in fields(Slurm)}
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(f"--slurm has no key {key}; {f'did you mean {close[0]}?' if close else SLURM_KEYS}")
        if known[key].type in ("int", int):
            if not value.isdecimal():
                raise ConfigError(f"--slurm {key}={value} must be a whole number; type --slurm {key}=4, say.")
            values[key] = int(value)
        else:
            values[key] = value
    if values.get("on", "slurm") not in ("slurm", "local"):
        raise ConfigError(f"--slurm on={values['on']} is unknown; set on to slurm or local.")
    return jobs, Slurm(**values)


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


def _listed(reader: Reader) -> Scan:
    """What a reader lists without opening a signal."""
    return with_checksums(reader, with_plain_names(reader.scan(require_signals=False)))


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
