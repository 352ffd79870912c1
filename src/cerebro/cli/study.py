"""``cerebro run`` and ``cerebro report``: a study from its recipe to the page that shows it."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from cerebro.cli.main import main
from cerebro.cli.parser import VerbParser
from cerebro.errors import ConfigError
from cerebro.study.execute import (
    check_executor,
    hold_study,
    is_finished,
    make_data,
    people_in,
    refuse_narrower,
    run_plan,
    store_hash,
    weights_hash,
)
from cerebro.study.plan import UNPREPARED, Plan, installed_code_version, plan_study
from cerebro.study.recipe import Recipe, read_recipe

RUN_EXAMPLE = """\
examples:
  cerebro run recipes/demo.yaml --dry-run          the plain commands, nothing is done
  cerebro run recipes/demo.yaml --out runs/demo    all of them; what is finished is reused
  cerebro run recipes/demo.yaml --variant full supervised --seeds 0,1,2 --out runs/seeds
  cerebro run recipes/mamba_search.yaml --search finetuning    try settings, chosen by validation; test the best

Killed or stopped at any moment, the same command continues where it was.
"""
REPORT_EXAMPLE = """\
example:
  cerebro report runs/demo --out demo.html
"""


def run(argv: list[str]) -> int:
    """Run ``cerebro run``; gives the exit code, that of the first command that failed."""
    parser = VerbParser(
        prog="cerebro run",
        description="Run a recipe: data, phases, ablations, results.json, a table and a page.",
        epilog=RUN_EXAMPLE,
    )
    parser.add_argument("recipe", type=Path, help="recipe YAML")
    parser.add_argument("--out", type=Path, help="folder of the study (default runs/<name of the recipe>)")
    parser.add_argument("--variant", nargs="+", action="extend", default=[], metavar="NAME", help="these variants only")
    parser.add_argument("--seeds", default="", metavar="0,1,2", help="seeds in place of the recipe's")
    parser.add_argument("--search", default="", metavar="NAME", help="run this searched sweep of the recipe instead")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument("--executor", default="local", help="where phases run: local")
    asked = parser.parse_args(argv)
    check_executor(asked.executor)
    recipe = read_recipe(asked.recipe)
    out = asked.out or Path("runs") / recipe.name
    seeds = _seeds(asked.seeds)
    if asked.search:
        return _search(recipe, asked.search, out, asked.variant, seeds, asked.dry_run)
    if asked.dry_run:
        _print_plan(_plan(recipe, out, asked.variant, seeds))
        return 0
    plan = _plan(recipe, out, asked.variant, seeds)  # a mistake in the recipe shows before the data are made
    if asked.variant or seeds:
        refuse_narrower(plan)
    _check_keys(plan)
    code = make_data(recipe, main, _say)
    if code != 0:
        return code
    # Imported here, so that a plan is printed within a second: they bring Lightning, the encoders and pandas.
    from cerebro.report.page import write_report
    from cerebro.study.baselines import make_baselines
    from cerebro.study.feature_file import check_features
    from cerebro.study.probes import make_probe_baselines
    from cerebro.study.results import make_results, read_study
    from cerebro.study.table import results_table
    from cerebro.study.tracking import StudyTracker

    if recipe.features != Path():
        check_features(recipe.features)
    plan = _plan(recipe, out, asked.variant, seeds)
    if plan.uncounted:
        raise ConfigError(
            f"{_uncounted(plan)}; make it with `cerebro prepare`, or name it in data.prepare of the recipe."
        )
    if recipe.makes_ensembles and len(seeds or recipe.seeds) == 1:
        _say("one seed is run, so that there are no ensembles")
    with hold_study(out, f"cerebro run {recipe.path}"):
        tracker = StudyTracker(plan, _say)
        try:
            code = run_plan(plan, main, _say, tracker.flags)
            if code == 0:
                make_baselines(read_study(out), out, _say)
                make_probe_baselines(read_study(out), out, _say)
                results = make_results(out)
                page = write_report(out, out / "report.html")
        except BaseException as error:
            tracker.stop(1 if isinstance(error, Exception) else 130)
            raise
        if code != 0:
            tracker.stop(code)
            return code
        tracker.finish(results, [out / "results.json", page])
    print(results_table(results))
    print(f"\n{out / 'results.json'} and {page} are written")
    return 0


def _search(recipe: Recipe, name: str, out: Path, variants: list[str], seeds: list[int], is_dry: bool) -> int:
    """Run a searched sweep: trials by validation, then one test of the best."""
    from cerebro.study.search import Searcher, check_installed, describe_search

    if name not in recipe.searches:
        known = f"choose from {', '.join(recipe.searches)}" if recipe.searches else "it has no searches: add them"
        raise ConfigError(f"--search {name} is not in {recipe.path}; {known}.")
    if variants:
        raise ConfigError("--search tries settings of the full study, and takes no --variant; leave one of them away.")
    recipe = replace(recipe, seeds=tuple(seeds) or recipe.seeds)
    searcher = Searcher(recipe, recipe.searches[name], lambda trial: _plan(trial, out, [], []), main, out, _say)
    if is_dry:
        for line in describe_search(searcher):
            print(line)
        return 0
    check_installed()
    _check_keys(searcher.plan_of(searcher.first_setting()))
    code = make_data(recipe, main, _say)
    if code != 0:
        return code
    from cerebro.study.search_report import search_results, search_table, write_best, write_trials

    with hold_study(out, f"cerebro run {recipe.path} --search {name}"):
        code = searcher.run()
        table = write_trials(searcher)
        if code != 0:
            return code
        best = searcher.best()
        setting = write_best(searcher, best)
        code, plan, n_tested = searcher.test(best)
        if code != 0:
            return code
        results = search_results(searcher, best, plan, n_tested)
    print(search_table(results))
    print(f"\n{searcher.folder / 'search.json'}, {table} and {setting} are written")
    return 0


def report(argv: list[str]) -> int:
    """Run ``cerebro report``; gives the exit code."""
    parser = VerbParser(
        prog="cerebro report",
        description="Write one self-contained HTML page about a finished study.",
        epilog=REPORT_EXAMPLE,
    )
    parser.add_argument("folder", type=Path, help="folder of `cerebro run`")
    parser.add_argument("--out", type=Path, help="page to write (default FOLDER/report.html)")
    asked = parser.parse_args(argv)
    from cerebro.report.page import write_report
    from cerebro.study.results import make_results, read_study

    read_study(asked.folder)  # a folder that is none is not made
    with hold_study(asked.folder, "cerebro report"):
        make_results(asked.folder)
        page = write_report(asked.folder, asked.out or asked.folder / "report.html")
    print(f"{page} is written")
    return 0


def _plan(recipe: Recipe, out: Path, variants: list[str], seeds: list[int]) -> Plan:
    return plan_study(recipe, out, variants, seeds, store_hash, installed_code_version(), weights_hash, people_in)


def _check_keys(plan: Plan) -> None:
    """Refuse what a phase's own command would refuse hours later: unknown keys, wrong types, no ground truth."""
    from cerebro.cli.fit import check_fit
    from cerebro.study.feature_file import check_features

    if plan.recipe.features != Path() and not any(command[1] == "process" for command in plan.recipe.commands):
        check_features(plan.recipe.features)
    truth = plan.recipe.ground_truth
    is_made = any(command[1] == "simulate" for command in plan.recipe.commands)
    if truth != Path() and not is_made and not truth.is_file():
        raise ConfigError(f"ground truth {truth} not found; correct ground_truth in {plan.recipe.path}.")
    absent = next((path for path in plan.weights if not path.exists()), None)
    if absent is not None:
        raise ConfigError(
            f"{absent}, which a phase of {plan.recipe.path} starts from, is not there; put the file there, or correct "
            "source in model.init of the phase's config."
        )
    for run in (run for run in plan.runs if not is_finished(run)):
        try:
            check_fit(list(run.fit[2:]))
        except ConfigError as error:
            raise ConfigError(f"phase {run.phase!r} of {plan.recipe.path} ({run.used_by}): {error}") from None


def _uncounted(plan: Plan) -> str:
    stores = " and ".join(store.as_posix() for store in plan.uncounted)
    return f"folds: leave_one_out has as many folds as there are people in {stores}, which is not prepared"


def _print_plan(plan: Plan) -> None:
    if plan.uncounted:
        for command in plan.recipe.commands:
            print(shlex.join(command))
        print(f"# {_uncounted(plan)} yet: their number is not known")
        return
    for line in plan.commands():
        print(line)
    if any(store_hash(store) == UNPREPARED for store in plan.stores):
        print("# the data are not prepared yet: names of folders will change with their hash")


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ConfigError(f"--seeds {text} is no list of whole numbers; write it as 0,1,2.") from None
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise ConfigError(f"--seeds {text} repeats a seed or has a negative one; write it as 0,1,2.")
    return seeds


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
