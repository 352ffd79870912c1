"""A searched sweep: settings are proposed by Optuna's TPE sampler, and each is tried by plain ``cerebro fit`` commands.

Runs lie with those of the study and are reused by content hash like all others. Validation alone chooses; the test
participants are asked once, about the best setting. Trials are kept in SQLite, so that an interrupted search goes on:
the sampler of trial n is seeded with ``seed + n`` and sees the trials before it, whenever these were made
(Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"; Akiba et al. 2019, "Optuna").
"""

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cerebro.errors import ConfigError, DataError
from cerebro.files import read_json, remove_orphans
from cerebro.study.execute import INTERRUPTED, Command, Say, fit_run
from cerebro.study.plan import Plan
from cerebro.study.recipe import Ablation, Recipe
from cerebro.study.search_space import Search, Span

if TYPE_CHECKING:
    from optuna import Study

Planner = Callable[[Recipe], Plan]
INSTALL = "pip install 'cerebro-eeg[search]'"


@dataclass(frozen=True)
class Trial:
    """One setting that was tried; ``value`` is NaN, and ``why`` says something, where that came to nothing."""

    number: int
    setting: Mapping[str, Any]
    value: float
    why: str = ""


class Searcher:
    """Runs a search in ``out/searches/<name>``; call it within `hold_study`.

    Parameters
    ----------
    recipe : Recipe
        Of which the search is.
    search : Search
        What to search.
    plan : callable
        Plans a recipe as ``cerebro run`` would, in the same folder.
    command : callable
        Runs one command in this process; gives its exit code.
    out : Path
        Folder of the study.
    say : callable
        Takes each line about the progress.
    """

    def __init__(self, recipe: Recipe, search: Search, plan: Planner, command: Command, out: Path, say: Say) -> None:
        self.recipe, self.search, self.command, self.say = recipe, search, command, say
        self.plan, self.folder = plan, out / "searches" / search.name
        self._plans: dict[str, Plan] = {}  # by setting
        self._opened: Study | None = None
        if recipe.n_folds > 1 or recipe.leaves_one_out:
            raise ConfigError(
                f"recipe {recipe.path} leaves people out in folds, and people who choose the setting of one fold are "
                "tested in another; take folds away for a search (data.split.test_ratio holds people out of all of it)."
            )

    def run(self) -> int:
        """Try settings until there are ``n_trials``; 0, or the exit code of the command that stopped it.

        A run that ends with code 1 (its loss was not finite, it collapsed) makes a trial that failed, and the search
        goes on; any other failure stops it, and the same command tries that trial again.
        """
        optuna = _optuna()
        study = self._open(optuna)
        remove_orphans(self.folder)
        unfinished = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
        while len(self._trials(study)) < self.search.n_trials:
            number, drawn = self._next(optuna, study, unfinished)
            if drawn is None:  # killed while it was being drawn
                study.tell(number, state=optuna.trial.TrialState.FAIL)
                continue
            setting = self._written(drawn)
            said = f"trial {number} of search {self.search.name} ({_words(setting)})"
            self.say(f"{said} ...")
            code, why = self._fit(self.plan_of(setting))
            if code not in (0, 1):
                how = "interrupted" if code in INTERRUPTED else "stopped"
                self.say(f"{how} in {said} (exit code {code}); the same command goes on from here.")
                return code
            value, why = (math.nan, why) if code else self._value(setting)
            if why:
                study.set_user_attr(f"why of {number}", why)
                study.tell(number, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(number, value)
            self.say(f"trial {number}: {why or f'{self.search.monitor} {value:.4f}'}; {self._so_far(study)}")
        return 0

    def trials(self) -> list[Trial]:
        """All trials that came to an end, in the order in which they were drawn."""
        return self._trials(self._open(_optuna()))

    def best(self) -> Trial:
        """The trial with the best validation, the first of equal ones.

        Raises
        ------
        DataError
            If none has a value.
        """
        done = [trial for trial in self.trials() if not trial.why]
        if not done:
            raise DataError(f"no trial of search {self.search.name} came to a value; narrow the ranges of parameters.")
        sign = 1 if self.search.direction == "max" else -1
        return max(done, key=lambda trial: (sign * trial.value, -trial.number))

    def plan_of(self, setting: Mapping[str, Any]) -> Plan:
        """Plan of one setting: the phases that lead to the scored one, under every seed of the recipe."""
        key = json.dumps(setting, sort_keys=True)
        if key not in self._plans:
            variants = {self.search.name: Ablation(self._kept(), {self.search.phase: dict(setting)})}
            self._plans[key] = self.plan(replace(self.recipe, variants=variants, pairs=(), probes={}))
        return self._plans[key]

    def test(self, best: Trial) -> tuple[int, Plan, int]:
        """Test the best setting, if that was not done before.

        Returns
        -------
        int
            Exit code of the command.
        Plan
            Its runs.
        int
            Settings of this search that were ever tested, with this one.
        """
        plan = self.plan_of(best.setting)
        for run in plan.runs:
            if run.test and not (run.folder / "predictions_test.npz").is_file():
                self.say(f"test of trial {best.number}, the best by validation ...")
                code = self.command(list(run.test[1:]))
                if code != 0:
                    return code, plan, 0
        n_tested = 0
        for setting in {json.dumps(trial.setting, sort_keys=True): trial.setting for trial in self.trials()}.values():
            tested = [run for run in self.plan_of(setting).runs if run.test]
            n_tested += any((run.folder / "predictions_test.npz").is_file() for run in tested)
        return 0, plan, n_tested

    def first_setting(self) -> dict[str, Any]:
        """A setting to check the keys with, before anything is run."""
        return {key: parameter.first() for key, parameter in self.search.parameters.items()}

    def _kept(self) -> tuple[str, ...]:
        kept, waiting = set(), [self.search.scored_phase]
        while waiting:
            name = waiting.pop()
            kept.add(name)
            phase = self.recipe.phases[name]
            waiting += [other for other in (phase.init, phase.tokenizer) if other]
        if self.search.phase not in kept:
            raise ConfigError(
                f"search {self.search.name} of {self.recipe.path} changes {self.search.phase!r}, from which "
                f"{self.search.scored_phase!r} does not start; correct phase or scored_phase."
            )
        return tuple(name for name in self.recipe.phases if name in kept)

    def _open(self, optuna: Any) -> "Study":
        """The study of Optuna, new or gone on with; ConfigError where the folder holds another search."""
        if self._opened is not None:
            return self._opened
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = self._created(optuna)
        identities = [run.identity for run in self.plan_of(self.first_setting()).runs]
        content = {**self.search.content(), "runs": identities}
        kept = study.user_attrs.get("search", content)
        if kept != content and not self._trials(
            study
        ):  # nothing came of it yet, such as of a monitor that is not there
            optuna.delete_study(study_name=self.search.name, storage=self._storage)
            study, kept = self._created(optuna), content
        if kept != content:
            what = " and ".join(
                {"runs": "recipe, configs, data or code"}.get(key, key)
                for key in content
                if kept.get(key) != content[key]
            )
            raise ConfigError(
                f"{self.folder} holds trials of a search with another {what}; give the search another name in "
                f"{self.recipe.path}, choose another --out, or remove that folder."
            )
        study.set_user_attr("search", content)
        self._opened = study
        return study

    @property
    def _storage(self) -> str:
        return f"sqlite:///{(self.folder / 'trials.sqlite3').absolute()}"

    def _created(self, optuna: Any) -> "Study":
        """The study of Optuna as it lies in the folder, or a new one."""
        direction = "maximize" if self.search.direction == "max" else "minimize"
        study: Study = optuna.create_study(
            storage=self._storage, study_name=self.search.name, direction=direction, load_if_exists=True
        )
        return study

    def _next(self, optuna: Any, study: "Study", unfinished: list[Any]) -> tuple[int, dict[str, Any] | None]:
        """Number and drawn values of a trial: one that was interrupted, or a new one."""
        if unfinished:
            trial = unfinished.pop(0)
            return trial.number, trial.params if set(trial.params) == set(self.search.parameters) else None
        study.sampler = optuna.samplers.TPESampler(seed=self.search.seed + len(study.trials))
        asked = study.ask({key: _distribution(optuna, entry) for key, entry in self.search.parameters.items()})
        return asked.number, asked.params

    def _written(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        return {key: parameter.written(drawn[key]) for key, parameter in self.search.parameters.items()}

    def _trials(self, study: "Study") -> list[Trial]:
        found = []
        for trial in study.trials:
            why = str(study.user_attrs.get(f"why of {trial.number}", ""))
            if why or trial.value is not None:
                value = math.nan if trial.value is None else trial.value
                found.append(Trial(trial.number, self._written(trial.params), value, why))
        return found

    def _so_far(self, study: "Study") -> str:
        values = [trial.value for trial in self._trials(study) if not trial.why]
        if not values:
            return "none has a value so far"
        best = max(values) if self.search.direction == "max" else min(values)
        return f"best so far {best:.4f}"

    def _fit(self, plan: Plan) -> tuple[int, str]:
        for run in plan.runs:
            code = fit_run(run, self.command)
            if code != 0:
                return code, f"{run.phase} ended with exit code {code}" if code == 1 else ""
        return 0, ""

    def _value(self, setting: Mapping[str, Any]) -> tuple[float, str]:
        """Mean over seeds of the monitored figure at the epoch that each run keeps; or why there is none."""
        runs = [run for run in self.plan_of(setting).runs if run.phase == self.search.scored_phase]
        values = [kept_figure(run.folder, self.search.monitor) for run in runs]
        if not all(map(math.isfinite, values)):
            return math.nan, f"{self.search.monitor} is undefined at the epoch that was kept"
        return float(np.mean(values)), ""


def kept_figure(run: Path, name: str) -> float:
    """Figure of the history of a run at the epoch that it keeps (the last one if none was the best); NaN if undefined.

    Raises
    ------
    ConfigError
        If it is not measured.
    """
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = read_json(run / "run.json")["best"]["epoch"]
    row = history[-1] if best is None else next(row for row in history if row["epoch"] == best)
    if name not in row:
        known = ", ".join(key for key in row if key.startswith("val/"))
        raise ConfigError(f"monitor={name} of the search is not measured in {run}; set it to one of {known}.")
    return math.nan if row[name] is None else float(row[name])


def describe_search(searcher: Searcher) -> list[str]:
    """What a search would do, as comments around the commands of one trial."""
    search, recipe = searcher.search, searcher.recipe
    which = "highest" if search.direction == "max" else "lowest"
    seeds = ", ".join(map(str, recipe.seeds))
    lines = [
        f"# search {search.name}: {search.n_trials} trials (TPE, seed {search.seed}), each with seeds {seeds}",
        f"# the {which} {search.monitor} of {search.scored_phase}, at the epoch that it keeps, is the best",
    ]
    lines += [f"# {search.phase}: {key} {entry.words()}" for key, entry in search.parameters.items()]
    lines += ["# commands of a trial, here with the first value of each key:"]
    lines += [shlex.join(command) for command in recipe.commands]
    lines += [shlex.join(run.fit) for run in searcher.plan_of(searcher.first_setting()).runs]
    return [*lines, "# the best trial alone is tested, once"]


def check_installed() -> None:
    """Raise ConfigError with what to type where Optuna is not installed."""
    _optuna()


def _distribution(optuna: Any, parameter: Any) -> Any:
    made = optuna.distributions
    if not isinstance(parameter, Span):
        return made.CategoricalDistribution(parameter.values)
    if parameter.is_whole:
        return made.IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1)
    step = float(parameter.step) or None
    return made.FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.log, step=step)


def _words(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting.items())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(f"a search needs Optuna, which is not installed; type {INSTALL}") from None
    return optuna
