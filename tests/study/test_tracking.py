"""A study in MLflow: one parent, phase runs as children, scores and files on the parent."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from cerebro.cli.main import main
from cerebro.files import read_json, write_json
from cerebro.study.execute import run_plan
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe
from cerebro.study.tracking import StudyTracker, score_metrics

OUT = Path("runs/tiny")


def tracked_plan(path, **phases):
    """The tiny recipe's plan, its phases' configs tracked as ``phases`` say, the others in ``mlflow.db``."""
    for config in set(Path("configs").glob("*.yaml")) - {Path("configs/encoder.yaml")}:
        content = yaml.safe_load(config.read_text())
        content["mlflow"] = phases.get(config.stem, {"uri": "sqlite:///mlflow.db"})
        config.write_text(yaml.safe_dump(content))
    return plan_study(read_recipe(path), OUT, code_version="test")


def rows(text: str) -> list[Any]:
    database = sqlite3.connect("mlflow.db")
    found = database.execute(text).fetchall()
    database.close()
    return found


def parents_of(calls):
    return [call[call.index("--mlflow.parent_run_id") + 1] for call in calls if "--mlflow.parent_run_id" in call]


def test_a_study_is_one_parent_that_a_rerun_goes_on_with(write_recipe, fake_cerebro):
    pytest.importorskip("mlflow")
    plan = tracked_plan(write_recipe(), contrastive={"enabled": False})
    assert not any("mlflow" in line for line in plan.commands())
    first, tracker = fake_cerebro(fail_at=4), StudyTracker(plan, print)
    code = run_plan(plan, first, lambda line: None, tracker.flags)
    tracker.stop(143)
    parent = read_json(OUT / "mlflow.json")["run_id"]
    assert code == 2
    assert rows("select run_uuid, status from runs") == [(parent, "KILLED")]

    again, tracker = fake_cerebro(), StudyTracker(plan, print)
    assert run_plan(plan, again, lambda line: None, tracker.flags) == 0
    fits = [call for call in (*first.calls, *again.calls) if call[0] == "fit"]
    assert set(parents_of(fits)) == {parent}
    untracked = [call for call in fits if not parents_of([call])]
    assert untracked
    assert all("contrastive.yaml" in " ".join(call) for call in untracked)

    score = {"p_factor": {"nrmse": {"mean": 0.9}}, "score": {"mean": 0.8}}
    results = {"variants": {"full": score}, "baselines": {"constant": score}, "measures": {"p_factor": "nrmse"}}
    write_json(OUT / "results.json", results)
    tracker.finish(results, [OUT / "results.json"])
    assert rows("select run_uuid, status from runs") == [(parent, "FINISHED")]
    logged = dict(rows("select key, value from metrics"))
    names = ("full/p_factor/nrmse", "full/score", "constant/p_factor/nrmse", "constant/score")
    assert logged == dict(zip(names, (0.9, 0.8, 0.9, 0.8), strict=True))
    assert [path.name for path in Path("mlruns").rglob("*.json")] == ["results.json"]


def test_a_finished_study_that_was_never_tracked_stays_so(write_recipe, fake_cerebro):
    plan = tracked_plan(write_recipe())
    run_plan(plan, fake_cerebro(), lambda line: None)
    tracker = StudyTracker(plan, print)
    assert run_plan(plan, fake_cerebro(), lambda line: None, tracker.flags) == 0
    tracker.finish({}, [])
    assert not Path("mlflow.db").exists()


def test_names_of_sweep_members_become_names_that_mlflow_takes():
    model = {"age": {"nrmse": {"mean": 0.5}}, "score": {"mean": None}}
    results = {"variants": {"mask_ratio=0.2": model}, "baselines": {}, "measures": {"age": "nrmse"}}
    assert score_metrics(results) == {"mask_ratio_0.2/age/nrmse": 0.5}


def test_a_study_whose_mlflow_does_not_answer_trains_nothing(write_recipe, capsys, monkeypatch):
    pytest.importorskip("mlflow")
    path = write_recipe()
    Path("file").write_text("")
    nowhere = {"uri": "sqlite:///file/mlflow.db"}
    tracked_plan(path, tokenizer=nowhere)
    monkeypatch.setattr("cerebro.cli.study._check_keys", lambda plan: None)  # these configs lack most keys
    assert main(["run", str(path), "--out", str(OUT)]) == 2
    assert "does not answer" in capsys.readouterr().err
    assert not (OUT / "phases").exists()
