"""Run a plan in this process: one command after another, finished ones reused, interrupted ones continued."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cerebro.errors import ConfigError
from cerebro.files import lock_folder, read_json, remove_orphans, sha256_file, write_json
from cerebro.study.plan import UNPREPARED, Plan, Run
from cerebro.study.recipe import Recipe

Command = Callable[[list[str]], int]  # arguments after ``cerebro`` -> exit code
Say = Callable[[str], None]
INTERRUPTED = (130, 143)  # exit codes after SIGINT and SIGTERM


def check_executor(name: str) -> None:
    """Refuse an executor that is not there."""
    if name == "slurm":
        raise ConfigError(
            "--executor slurm is not there yet; run without it, or submit the lines of --dry-run as jobs yourself."
        )
    if name != "local":
        raise ConfigError(f"--executor {name} is unknown; use local.")


def store_hash(store: Path) -> str:
    """Hash of the data of a prepared store or mixture, or ``UNPREPARED``."""
    manifest = next((store / name for name in ("mixture.json", "manifest.json") if (store / name).is_file()), None)
    if manifest is None:
        return UNPREPARED
    return str(read_json(manifest).get("data_hash", UNPREPARED))


def people_in(store: Path) -> int:
    """People with a recording in a prepared store (names of one person count once), or 0 where there is none.

    Raises
    ------
    ConfigError
        If it is a mixture, which is split member by member.
    """
    if (store / "mixture.json").is_file():
        raise ConfigError(
            f"folds: leave_one_out counts the people of one store, and {store} is a mixture of several; give the "
            "number of folds."
        )
    if store_hash(store) == UNPREPARED:
        return 0
    from cerebro.data.splits import people_of  # brings pandas, which a plan can do without
    from cerebro.data.store import Store

    opened = Store.open(store)
    return len(people_of(opened.participants, opened.recordings))


def weights_hash(path: Path) -> str:
    """SHA-256 of weights from outside the study, a file or a folder of files, or ``UNPREPARED`` where none are."""
    if not path.exists():
        return UNPREPARED
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return " ".join(sha256_file(file) for file in files)


def make_data(recipe: Recipe, command: Command, say: Say) -> int:
    """Run the recipe's commands that make cohort and stores; they skip what is there. Gives the first failing code."""
    for line in recipe.commands:
        say(f"data: {' '.join(line)}")
        code = command(list(line[1:]))
        if code != 0:
            return code
    return 0


def refuse_narrower(plan: Plan) -> None:
    """Refuse a part of a study in a folder that holds more of it: its results would hold that part alone.

    Raises
    ------
    ConfigError
        If variants or seeds of the study that is there are not in the plan.
    """
    record = plan.out / "study.json"
    if not record.is_file():
        return
    there = {(chain["variant"], chain["seed"]) for chain in read_json(record)["chains"]}
    lost = sorted(there - {(chain.variant, chain.seed) for chain in plan.chains})
    if lost:
        raise ConfigError(
            f"{plan.out} holds {lost[0][0]!r} with seed {lost[0][1]} too, which its results would lose; leave "
            "--variant and --seeds away (what is finished is reused) or choose another --out."
        )


@contextlib.contextmanager
def hold_study(folder: Path, purpose: str) -> Iterator[None]:
    """Be the only writer of a study's folder, without what a killed one left half-written; phases hold their own.

    Raises
    ------
    CerebroError
        If another process holds it.
    """
    with lock_folder(folder, purpose):
        for pattern in (".*.part", "*/.*.part"):
            remove_orphans(folder, pattern)
        yield


def run_plan(plan: Plan, command: Command, say: Say, fit_flags: Callable[[Run], list[str]] = lambda run: []) -> int:
    """Run every command of the plan that is not finished; call it within `hold_study`.

    Parameters
    ----------
    plan : Plan
        What to run.
    command : callable
        Runs one command in this process; gives its exit code.
    say : callable
        Takes each line about the overall progress.
    fit_flags : callable
        Gives what to add to the ``cerebro fit`` of a run, such as its parent in MLflow; asked only if it has to run.

    Returns
    -------
    int
        0, or the exit code of the command that failed or was interrupted (130, 143): nothing runs after it.
    """
    write_json(plan.out / "study.json", describe(plan))
    for number, run in enumerate(plan.runs, start=1):
        place = f"phase {number} of {len(plan.runs)}: {run.phase} ({run.used_by}), seed {run.seed}"
        if plan.recipe.n_folds > 1:
            place += f", fold {run.fold + 1} of {plan.recipe.n_folds}"
        if is_finished(run):
            say(f"{place}: finished before, reused from {run.folder}")
            continue
        say(f"{place} ...")
        code = _run_phase(run, command, fit_flags)
        if code != 0:
            how = "interrupted" if code in INTERRUPTED else "stopped"
            say(f"{how} in {place} (exit code {code}); the same command continues from here.")
            return code
        gc.collect()  # a finished trainer holds cycles; the next phase needs the memory
    return 0


def is_finished(run: Run) -> bool:
    """Whether fit, and test and probe where there are any, have written what they write last."""
    return is_fitted(run) and _is_tested(run) and _is_probed(run)


def is_fitted(run: Run) -> bool:
    """Whether its training has come to its end."""
    report = run.folder / "run.json"
    return report.is_file() and read_json(report).get("state") == "finished"


def _is_tested(run: Run) -> bool:
    return not run.test or (run.folder / "predictions_test.npz").is_file()


def _is_probed(run: Run) -> bool:
    """Whether the run was probed for what the recipe asks now: other probes are no other run."""
    report = run.folder / "probe_test.json"
    if run.probes is None or not report.is_file():
        return run.probes is None
    found = read_json(report)
    return (found.get("asked"), found.get("by")) == (list(run.probes.targets), run.probes.by)


def fit_run(run: Run, command: Command, flags: Callable[[Run], list[str]] = lambda run: []) -> int:
    """Train a run that is not trained yet; gives the exit code.

    Tokens of a frozen encoder, which its folder keeps so that an interrupted training can go on, go when it has ended:
    a study has dozens of such runs, and nothing of it reads them again.
    """
    if not is_fitted(run):
        code = command([*run.fit[1:], *flags(run)])
        if code != 0:
            return code
    from cerebro.training.encode_once import FILE  # brings torch, which a plan can do without

    (run.folder / FILE).unlink(missing_ok=True)
    return 0


def _run_phase(run: Run, command: Command, fit_flags: Callable[[Run], list[str]]) -> int:
    code = fit_run(run, command, fit_flags)
    if code != 0:
        return code
    code = command(list(run.test[1:])) if run.test and not _is_tested(run) else 0
    if code == 0 and run.probe and not _is_probed(run):
        code = command(list(run.probe[1:]))
    return code


def describe(plan: Plan) -> dict[str, Any]:
    """The plan in plain types, as ``study.json`` keeps it beside the runs."""
    folder = {run.identity: run.folder.relative_to(plan.out).as_posix() for run in plan.runs}
    return {
        "name": plan.recipe.name,
        "recipe": plan.recipe.path.as_posix(),
        "final_phases": list(plan.recipe.final_phases()),
        "phases": list(plan.recipe.phases),
        "n_folds": plan.recipe.n_folds,
        "ground_truth": "" if plan.recipe.ground_truth == Path() else plan.recipe.ground_truth.as_posix(),
        "baselines": list(plan.recipe.baselines),
        "features": "" if plan.recipe.features == Path() else plan.recipe.features.as_posix(),
        "probes": {
            phase: {"targets": list(entry.targets), "by": entry.by} for phase, entry in plan.recipe.probes.items()
        },
        "pairs": [list(pair) for pair in plan.recipe.pairs],
        "ensemble": plan.recipe.makes_ensembles,
        "variants": list(dict.fromkeys(chain.variant for chain in plan.chains)),
        "runs": [
            {
                "phase": run.phase,
                "identity": run.identity,
                "folder": folder[run.identity],
                "seed": run.seed,
                "fold": run.fold,
                "variants": list(run.variants),
            }
            for run in plan.runs
        ],
        "chains": [
            {
                "variant": chain.variant,
                "seed": chain.seed,
                "fold": chain.fold,
                "runs": {phase: folder[identity] for phase, identity in chain.runs.items()},
            }
            for chain in plan.chains
        ],
        "commands": plan.commands(),
    }
