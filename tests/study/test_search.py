import json
import math
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cerebro.errors import ConfigError, DataError
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe
from cerebro.study.search import Searcher, describe_search, kept_figure
from cerebro.study.search_report import search_results, search_table, write_best, write_trials

OUT = Path("runs/tiny")
MONITOR = "val/participant_f1_p_factor"
SEARCH = {
    "phase": "challenge2",
    "scored_phase": "challenge2",
    "parameters": {
        "model.optim.lr": {"low": 1.0e-5, "high": 1.0e-1, "log": True},
        "trainer.max_epochs": {"low": 2, "high": 8, "step": 2},
        "model.objective.init_args.loss": {"choices": ["mse", None]},
    },
    "trials": 8,
    "seed": 3,
    "monitor": MONITOR,
    "direction": "max",
}


@pytest.fixture
def tuned(fake_cerebro):
    """A command line whose validation is best at lr 1e-3, and better with more epochs."""

    class Tuned(fake_cerebro):
        fails_below_lr = 0.0
        undefined_below_lr = 0.0

        def fit(self, argv):
            flags = dict(zip(argv[1::2], argv[2::2], strict=True))
            lr = float(flags.get("--model.optim.lr", 1e-3))
            super().fit(argv)
            path = Path(flags["--out"]) / "history.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            score = 0.9 - 0.1 * abs(math.log10(lr) + 3) + 0.01 * int(flags.get("--trainer.max_epochs", 2))
            if flags.get("--seed") == "1":
                score -= 0.2
            for row in rows:
                row[MONITOR] = score - 0.001 * (7 - row["epoch"]) if lr >= self.undefined_below_lr else None
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

        def __call__(self, argv):
            flags = dict(zip(argv[1::2], argv[2::2], strict=True))
            if argv[0] == "fit" and float(flags.get("--model.optim.lr", 1)) < self.fails_below_lr:
                self.calls.append(argv)
                return 1
            return super().__call__(argv)

    return Tuned


@pytest.fixture
def searcher(write_recipe):
    def make(command, version="test", lines=None, **changes):
        recipe = read_recipe(write_recipe(searches={"tuning": {**SEARCH, **changes}}, ablations=None, gains=None))
        say = (lines if lines is not None else []).append

        def plan(trial):
            return plan_study(trial, OUT, code_version=version)

        return Searcher(recipe, recipe.searches["tuning"], plan, command, OUT, say)

    return make


def kinds(calls):
    return [call[0] for call in calls]


def test_a_search_finds_a_setting_near_the_best_by_validation_and_tests_it_alone(searcher, tuned):
    command = tuned()
    made = searcher(command)
    assert made.run() == 0
    trials = made.trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert all(1e-5 <= trial.setting["model.optim.lr"] <= 1e-1 for trial in trials)
    assert {trial.setting["trainer.max_epochs"] for trial in trials} <= {2, 4, 6, 8}
    assert {trial.setting["model.objective.init_args.loss"] for trial in trials} == {"mse", None}
    assert kinds(command.calls).count("test") == 0, "validation alone chooses"
    assert kinds(command.calls).count("fit") == 3 + len({json.dumps(trial.setting) for trial in trials})
    best = made.best()
    assert best.value == max(trial.value for trial in trials)
    assert abs(math.log10(best.setting["model.optim.lr"]) + 3) < 1
    code, plan, n_tested = made.test(best)
    assert (code, n_tested) == (0, 1)
    assert kinds(command.calls).count("test") == 1
    assert f"--model.optim.lr {best.setting['model.optim.lr']}" in shlex.join(plan.runs[-1].fit)
    assert made.test(best)[2] == 1
    assert kinds(command.calls).count("test") == 1, "once"


def test_trials_leave_no_tokens_of_a_frozen_encoder(searcher, tuned):
    assert searcher(tuned(), trials=2).run() == 0
    assert list(OUT.rglob("run.json"))
    assert not list(OUT.rglob("frozen_tokens.safetensors"))


def test_an_interrupted_search_goes_on_to_the_same_trials(searcher, tuned):
    whole = searcher(tuned(), version="whole", trials=5)
    whole.run()
    expected = whole.trials()
    for path in sorted(OUT.glob("searches/tuning/*")):
        path.unlink()
    stopped = tuned(fail_at=8, code=143)
    made = searcher(stopped, version="whole2", trials=5)
    assert made.run() == 143
    assert len(made.trials()) == 4  # three phases before the first trial's own
    lines = []
    going_on = tuned()
    again = searcher(going_on, version="whole2", lines=lines, trials=5)
    assert again.run() == 0
    assert lines[0].startswith("trial 4 of search tuning (lr ")
    assert again.trials() == expected
    assert kinds(going_on.calls).count("fit") == len({json.dumps(trial.setting) for trial in expected[4:]})


def test_more_trials_go_on_with_those_that_are_there(searcher, tuned):
    searcher(tuned(), trials=3).run()
    first = searcher(tuned(), trials=3).trials()
    made = searcher(tuned(), trials=5)
    made.run()
    assert made.trials()[:3] == first
    assert len(made.trials()) == 5


def test_settings_differ_from_trial_to_trial_after_every_restart(searcher, tuned):
    for n_trials in (1, 2, 3):
        made = searcher(tuned(), trials=n_trials)
        made.run()
    rates = [trial.setting["model.optim.lr"] for trial in made.trials()]
    assert len(set(rates)) == 3, "a sampler that starts anew would draw the same setting again"


def test_the_value_of_a_trial_is_the_mean_over_seeds_at_the_epoch_that_is_kept(searcher, tuned, write_recipe):
    write_recipe()
    made = searcher(tuned(), trials=1)
    made.recipe = read_recipe(write_recipe(searches={"tuning": SEARCH}, ablations=None, gains=None, seeds=[0, 1]))
    made.run()
    (trial,) = made.trials()
    lr, epochs = trial.setting["model.optim.lr"], trial.setting["trainer.max_epochs"]
    assert trial.value == pytest.approx(0.9 - 0.1 * abs(math.log10(lr) + 3) + 0.01 * epochs - 0.1, abs=1e-6)


def test_a_figure_is_that_of_the_epoch_that_the_run_keeps(tmp_path):
    rows = [{"epoch": 0, "val/f1": 0.4}, {"epoch": 1, "val/f1": 0.9}, {"epoch": 2, "val/f1": None}]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for epoch, expected in ((0, 0.4), (1, 0.9)):
        (tmp_path / "run.json").write_text(json.dumps({"best": {"epoch": epoch}}))
        assert kept_figure(tmp_path, "val/f1") == expected
    (tmp_path / "run.json").write_text(json.dumps({"best": {"epoch": None}}))
    assert math.isnan(kept_figure(tmp_path, "val/f1"))
    with pytest.raises(ConfigError, match=r"val/auc of the search is not measured in .*; set it to one of val/f1"):
        kept_figure(tmp_path, "val/auc")


def test_runs_that_come_to_nothing_are_failed_trials_and_never_the_best(searcher, tuned):
    command, lines = tuned(), []
    command.fails_below_lr, command.undefined_below_lr = 3e-5, 1e-2
    made = searcher(command, lines=lines, trials=5)
    assert made.run() == 0
    trials = made.trials()
    failed = [trial for trial in trials if trial.why]
    assert len(trials) == 5
    assert {trial.why for trial in failed} == {
        "challenge2 ended with exit code 1",
        f"{MONITOR} is undefined at the epoch that was kept",
    }
    assert all(math.isnan(trial.value) for trial in failed)
    assert made.best().setting["model.optim.lr"] >= 1e-2
    assert any("none has a value so far" in line or "best so far" in line for line in lines)


def test_a_search_in_which_every_trial_failed_has_no_best(searcher, tuned):
    command = tuned()
    command.fails_below_lr = 1.0
    made = searcher(command, trials=2)
    assert made.run() == 0
    with pytest.raises(DataError, match="no trial of search tuning came to a value"):
        made.best()


def test_a_mistake_stops_the_search_at_its_trial(searcher, tuned):
    lines = []
    assert searcher(tuned(fail_at=4, code=2), lines=lines).run() == 2
    assert lines[-1].startswith("stopped in trial 0 of search tuning (lr ")
    assert lines[-1].endswith("(exit code 2); the same command goes on from here.")


@pytest.mark.parametrize(
    ("changes", "version", "what"),
    [
        ({"seed": 4}, "test", "seed"),
        ({"direction": "min"}, "test", "direction"),
        ({"parameters": {"model.optim.lr": {"low": 1.0e-4, "high": 1.0e-1}}}, "test", "parameters"),
        ({}, "other", "recipe, configs, data or code"),
    ],
)
def test_trials_of_another_search_are_not_mixed_in(searcher, tuned, changes, version, what):
    searcher(tuned(), trials=1).run()
    with pytest.raises(ConfigError, match=rf"holds trials of a search with another .*{what}"):
        searcher(tuned(), version=version, trials=1, **changes).run()


def test_a_monitor_that_was_not_there_can_be_corrected(searcher, tuned):
    with pytest.raises(ConfigError, match="is not measured"):
        searcher(tuned(), trials=1, monitor="val/participant_auc").run()
    made = searcher(tuned(), trials=1)
    assert made.run() == 0
    assert len(made.trials()) == 1


def test_a_lower_figure_can_be_the_better_one(searcher, tuned):
    made = searcher(tuned(), direction="min", trials=4)
    made.run()
    assert made.best().value == min(trial.value for trial in made.trials())


def test_a_search_over_folds_is_refused(write_recipe):
    for folds in (3, "leave_one_out"):
        recipe = read_recipe(write_recipe(searches={"tuning": SEARCH}, folds=folds, ablations=None, gains=None))
        with pytest.raises(ConfigError, match="people who choose the setting of one fold are tested in another"):
            Searcher(recipe, recipe.searches["tuning"], lambda trial: None, lambda argv: 0, OUT, print)


def test_a_phase_that_does_not_lead_to_the_scored_one_is_refused(searcher, tuned):
    with pytest.raises(ConfigError, match="changes 'challenge1', from which 'challenge2' does not start"):
        searcher(tuned(), phase="challenge1").run()


def test_a_search_leaves_a_table_a_setting_to_paste_and_the_scores_of_the_best(searcher, tuned, write_recipe):
    made = searcher(tuned(is_classification=True), trials=4)
    made.run()
    best = made.best()
    rows = [line.split("\t") for line in write_trials(made).read_text().splitlines()]
    assert rows[0] == ["trial", MONITOR, *SEARCH["parameters"], "why"]
    assert [row[0] for row in rows[1:]] == ["0", "1", "2", "3"]
    text = write_best(made, best).read_text()
    assert f"--model.optim.lr {best.setting['model.optim.lr']}" in text
    pasted = yaml.safe_load(text)["phases"]["challenge2"]["set"]
    assert pasted == best.setting
    _, plan, n_tested = made.test(best)
    results = search_results(made, best, plan, n_tested)
    assert json.loads((made.folder / "search.json").read_text())["best"]["number"] == best.number
    assert 0 <= results["test"]["p_factor"]["participant"]["auc"]["mean"] <= 1
    shown = search_table(results)
    assert shown.splitlines()[3].split()[0] == str(best.number), "the best comes first"
    assert "p_factor by participant (" in shown
    assert "settings of this search were tested" not in shown
    assert "3 settings of this search were tested" in search_table({**results, "n_settings_tested": 3})


def test_a_description_shows_what_is_searched_and_the_commands_of_a_trial(searcher, tuned):
    lines = describe_search(searcher(tuned()))
    text = "\n".join(lines)
    assert "# search tuning: 8 trials (TPE, seed 3), each with seeds 0" in text
    assert "# challenge2: model.optim.lr from 1e-05 to 0.1, logarithmic" in text
    assert "# challenge2: trainer.max_epochs whole numbers from 2 to 8 in steps of 2" in text
    assert '# challenge2: model.objective.init_args.loss one of "mse", null' in text
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == 4, "phases that lead to the scored one"
    assert all(line.startswith("cerebro fit ") for line in commands)
    assert not OUT.exists()


def test_without_optuna_a_search_says_what_to_install(searcher, tuned, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs Optuna, .*pip install 'cerebro-eeg\[search\]'"):
        searcher(tuned()).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase": "finetune"}, "unknown phase 'finetune'"),
        (
            {"scored_phase": "pretrain"},
            "the final phases are challenge1, challenge2, and scored_phase='pretrain' is none",
        ),
        ({"scored_phase": None}, "set scored_phase to one"),
        ({"trials": 0}, "searches.tuning: trials=0; give a whole number from 1 on"),
        ({"seed": -1}, "seed=-1"),
        ({"monitor": "test/auc"}, "test participants choose nothing"),
        ({"direction": "maximize"}, "direction='maximize'; give max"),
        ({"parameters": {}}, "parameters is empty"),
        (
            {"parameters": {"a.b": {"low": "1e-5", "high": 1.0}}},
            "parameters.a.b: low='1e-5'; YAML takes it for a text; write 1.0e-5",
        ),
        ({"parameters": {"a.b": {"low": "small", "high": 1.0}}}, "low='small'; give a number"),
        ({"parameters": {"a.b": {"low": 2, "high": 1}}}, "low=2 is not below high=1"),
        ({"parameters": {"a.b": {"low": 0.0, "high": 1.0, "log": True}}}, "log: true needs low above 0"),
        ({"parameters": {"a.b": {"low": 0.0, "high": 1.0, "step": 0.3}}}, "step=0.3 does not lead from low=0.0"),
        ({"parameters": {"a.b": {"low": 0.0}}}, "write {low: ..., high: ...}"),
        ({"parameters": {"a.b": {"choices": [1]}}}, "two or more different values"),
        ({"parameters": {"a.b": {"choices": 1}}}, "give a list of values"),
        ({"parameters": {"a.b": 3}}, "found 3; write"),
        ({"values": [1]}, "unknown key 'values'"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(write_recipe, changes, message):
    search = {key: value for key, value in {**SEARCH, **changes}.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        read_recipe(write_recipe(searches={"tuning": search}, ablations=None, gains=None))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_steps_of_a_tenth_reach_the_end_and_are_written_plainly(searcher, tuned):
    steps = {"model.dropout": {"low": 0.0, "high": 0.7, "step": 0.1}}
    made = searcher(tuned(), parameters=steps, trials=5)
    made.run()
    values = {trial.setting["model.dropout"] for trial in made.trials()}
    assert values <= set(np.round(np.arange(8) / 10, 1).tolist())
