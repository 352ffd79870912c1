import json
from pathlib import Path

import pytest

from cerebro.errors import CerebroError, ConfigError
from cerebro.study.execute import check_executor, hold_study, make_data, run_plan, store_hash
from cerebro.study.plan import UNPREPARED, plan_study
from cerebro.study.recipe import read_recipe

OUT = Path("runs/tiny")
TOKENS = "frozen_tokens.safetensors"


@pytest.fixture
def plan(write_recipe):
    return plan_study(read_recipe(write_recipe()), OUT, code_version="test")


def test_every_phase_runs_once_and_final_ones_are_tested(plan, fake_cerebro):
    fake, lines = fake_cerebro(), []
    assert run_plan(plan, fake, lines.append) == 0
    assert [call[0] for call in fake.calls].count("fit") == 13
    assert [call[0] for call in fake.calls].count("test") == 8
    assert lines[0] == "phase 1 of 13: tokenizer (full and 2 more), seed 0 ..."


def test_tokens_of_a_frozen_encoder_go_when_a_training_has_ended_and_not_before(plan, fake_cerebro):
    run_plan(plan, fake_cerebro(), say=lambda line: None)
    assert not list(OUT.rglob(TOKENS))
    stopped = plan.runs[1].folder
    (stopped / "run.json").unlink()
    (stopped / TOKENS).touch()
    run_plan(plan, fake_cerebro(fail_at=1), say=lambda line: None)
    assert [path.parent for path in OUT.rglob(TOKENS)] == [stopped]


def test_a_second_run_does_nothing(plan, fake_cerebro):
    run_plan(plan, fake_cerebro(), say=lambda line: None)
    again, lines = fake_cerebro(), []
    assert run_plan(plan, again, lines.append) == 0
    assert again.calls == []
    assert all("reused" in line for line in lines)


def test_a_failed_phase_stops_the_study_and_the_next_run_continues_there(plan, fake_cerebro):
    failing, lines = fake_cerebro(fail_at=4), []
    assert run_plan(plan, failing, lines.append) == 2
    assert len(failing.calls) == 4
    assert "stopped in phase 4 of 13: challenge1" in lines[-1]
    continuing = fake_cerebro()
    assert run_plan(plan, continuing, lines.append) == 0
    assert [call[0] for call in continuing.calls].count("fit") == 10


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_phase_ends_the_study_with_its_exit_code(plan, fake_cerebro, code):
    interrupted, lines = fake_cerebro(fail_at=2, code=code), []
    assert run_plan(plan, interrupted, lines.append) == code
    assert len(interrupted.calls) == 2
    assert lines[-1].startswith("interrupted in phase 2 of 13")


def test_a_phase_killed_between_fit_and_test_is_only_tested(plan, fake_cerebro):
    run_plan(plan, fake_cerebro(), say=lambda line: None)
    run = next(run for run in plan.runs if run.test)
    (run.folder / "predictions_test.npz").unlink()
    again = fake_cerebro()
    run_plan(plan, again, say=lambda line: None)
    assert again.calls == [list(run.test[1:])]


def test_two_studies_never_write_one_folder():
    with hold_study(OUT, "another run"), pytest.raises(CerebroError, match="another run"), hold_study(OUT, "this run"):
        pass


def test_what_a_killed_study_left_half_written_goes_and_a_phase_at_work_keeps_its_own():
    left = [OUT / ".results.json.7.part", OUT / "baselines" / ".constant.npz.7.part"]
    of_a_phase = OUT / "phases" / "tokenizer-1" / ".last.ckpt.8.part"
    for path in (*left, of_a_phase):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with hold_study(OUT, "this run"):
        assert not any(path.exists() for path in left)
        assert of_a_phase.exists()


def test_data_commands_run_first_and_their_failure_is_passed_on(write_recipe, fake_cerebro):
    data = {"simulate": {"out": "cohorts/demo", "preset": "demo"}}
    recipe = read_recipe(write_recipe(data=data))
    fake = fake_cerebro()
    assert make_data(recipe, fake, say=lambda line: None) == 0
    assert fake.calls == [["simulate", "--out", "cohorts/demo", "--preset", "demo"]]
    assert make_data(recipe, fake_cerebro(fail_at=1), say=lambda line: None) == 2


def test_the_hash_of_a_store_is_read_from_its_manifest(tmp_path):
    assert store_hash(tmp_path) == UNPREPARED
    (tmp_path / "manifest.json").write_text(json.dumps({"data_hash": "abc"}))
    assert store_hash(tmp_path) == "abc"


def test_executors_that_are_not_there_are_refused():
    check_executor("local")
    with pytest.raises(ConfigError, match="not there yet"):
        check_executor("slurm")
    with pytest.raises(ConfigError, match="unknown"):
        check_executor("cloud")
