import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml

from cerebro.cli.main import main
from cerebro.files import lock_folder
from cerebro.study.execute import weights_hash
from cerebro.study.plan import UNPREPARED

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("study_fixtures", Path(__file__).parents[1] / "study" / "conftest.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
write_recipe = _module.write_recipe
no_collection = _module.no_collection
finished_study = _module.finished_study
study_folder = _module.study_folder


def test_a_dry_run_prints_commands_and_writes_nothing(write_recipe, capsys):
    path = write_recipe()
    assert main(["run", str(path), "--dry-run", "--variant", "supervised", "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == 4
    assert all(line.startswith(("cerebro fit --config ", "cerebro test --config ")) for line in commands)
    assert "--seed 3" in commands[0]
    assert "not prepared yet" in lines[-1]
    assert not Path("runs").exists()


def test_a_run_ends_with_results_a_table_and_a_page(write_recipe, study_folder, capsys, monkeypatch):
    monkeypatch.setattr("cerebro.cli.study.installed_code_version", lambda: "test")
    assert main(["run", "recipes/tiny.yaml", "--out", str(study_folder)]) == 0
    out = capsys.readouterr()
    assert "constant" in out.out
    assert "reused" in out.err
    assert json.loads((study_folder / "results.json").read_text())["variants"]["full"]["score"]["mean"] > 0
    assert (study_folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ground_truth": "nowhere.json"}, "ground truth nowhere.json not found"),
        ({"set": {"trainer.max_epoch": 3}}, "phase 'tokenizer' of"),
    ],
)
def test_mistakes_of_a_phase_show_before_the_data_are_made(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    content = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text())
    if "set" in change:
        content["phases"]["tokenizer"] |= change
    else:
        del content["data"]["simulate"]
        content |= change
    Path("recipes").mkdir()
    Path("recipes/wrong.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["run", "recipes/wrong.yaml"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert sorted(path.name for path in Path().iterdir()) == ["configs", "recipes"]


def test_weights_that_are_not_there_show_before_the_data_are_made(write_recipe, capsys):
    path = write_recipe()
    config = yaml.safe_load(Path("configs/pretrain.yaml").read_text())
    config["model"]["init"].append({"source": "weights/labram-base.pth"})
    Path("configs/pretrain.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "weights/labram-base.pth, which a phase of recipes/tiny.yaml starts from, is not there" in error
    assert "\n" not in error
    assert not Path("runs").exists()


def test_a_file_of_features_that_is_not_there_shows_before_the_data_are_made(write_recipe, capsys):
    path = write_recipe(baselines=["features_logistic"], features="processed/features.parquet")
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "file of features not found at processed/features.parquet; `cerebro process --config" in error
    assert "\n" not in error
    assert not Path("runs").exists()


def test_weights_are_known_by_content_also_those_in_a_folder(tmp_path):
    file, folder = tmp_path / "a.pth", tmp_path / "hub"  # braindecode's `save_pretrained` writes a folder
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    file.write_bytes(b"one")
    assert weights_hash(file) == weights_hash(folder)
    (folder / "model.safetensors").write_bytes(b"two")
    assert weights_hash(file) != weights_hash(folder)
    assert weights_hash(tmp_path / "absent") == UNPREPARED


@pytest.mark.parametrize("part", [["--variant", "supervised"], ["--seeds", "1"]])
def test_a_part_of_a_study_never_takes_the_place_of_the_whole(study_folder, capsys, monkeypatch, part):
    monkeypatch.setattr("cerebro.cli.study.installed_code_version", lambda: "test")
    before = (study_folder / "study.json").read_bytes()
    assert main(["run", "recipes/tiny.yaml", "--out", str(study_folder), *part]) == 2
    assert "with seed 0 too, which its results would lose" in capsys.readouterr().err
    assert (study_folder / "study.json").read_bytes() == before


def test_nothing_is_written_into_a_study_that_another_process_holds(study_folder, capsys, monkeypatch):
    monkeypatch.setattr("cerebro.cli.study.installed_code_version", lambda: "test")
    before = sorted(path.name for path in study_folder.iterdir())
    with lock_folder(study_folder, "another run"):
        for argv in (["run", "recipes/tiny.yaml", "--out", str(study_folder)], ["report", str(study_folder)]):
            assert main(argv) == 2
            assert "another run" in capsys.readouterr().err
    assert sorted(path.name for path in study_folder.iterdir()) == before


def test_one_seed_of_a_recipe_with_ensembles_says_that_there_are_none(finished_study, capsys, monkeypatch):
    monkeypatch.setattr("cerebro.cli.study.installed_code_version", lambda: "test")
    out = finished_study(seeds=[0, 1], ensemble=True)
    assert main(["run", "recipes/tiny.yaml", "--out", str(out)]) == 0
    assert "no ensembles" not in "".join(capsys.readouterr())
    monkeypatch.setattr("cerebro.cli.study._check_keys", lambda plan: None)
    monkeypatch.setattr("cerebro.cli.study.run_plan", lambda *_: 3)
    assert main(["run", "recipes/tiny.yaml", "--out", "runs/one", "--seeds", "0"]) == 3
    assert "one seed is run, so that there are no ensembles" in "".join(capsys.readouterr())


def test_report_writes_the_page_where_it_is_asked_to(study_folder, capsys):
    assert main(["report", str(study_folder), "--out", "elsewhere.html"]) == 0
    assert Path("elsewhere.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "nowhere.yaml"], "not found"),
        (["run", "recipes/tiny.yaml", "--variant", "nothing"], "choose from full"),
        (["run", "recipes/tiny.yaml", "--seeds", "a,b"], "whole numbers"),
        (["run", "recipes/tiny.yaml", "--seeds", "1,1"], "repeats"),
        (["run", "recipes/tiny.yaml", "--executor", "slurm"], "not there yet"),
        (["run", "recipes/tiny.yaml", "--colour"], "unrecognized arguments"),
        (["run"], "required"),
        (["report", "nowhere"], "holds no study"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_two(write_recipe, capsys, argv, message):
    write_recipe()
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("verb", ["run", "report"])
def test_help_shows_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert f"cerebro {verb}" in capsys.readouterr().out.split("example", 1)[1]


SEARCH = {
    "phase": "challenge2",
    "scored_phase": "challenge2",
    "parameters": {"model.optim.lr": {"low": 1.0e-5, "high": 1.0e-3, "log": True}},
    "trials": 3,
    "monitor": "val/participant_f1_p_factor",
    "direction": "max",
}


def test_a_dry_run_of_a_search_prints_what_is_searched_and_writes_nothing(write_recipe, capsys):
    path = write_recipe(searches={"tuning": SEARCH})
    assert main(["run", str(path), "--search", "tuning", "--seeds", "0,1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# search tuning: 3 trials (TPE, seed 0), each with seeds 0, 1"
    assert "# challenge2: model.optim.lr from 1e-05 to 0.001, logarithmic" in lines
    assert sum(line.startswith("cerebro fit ") for line in lines) == 2 * 4
    assert not any(line.startswith("cerebro test") for line in lines)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--search", "tunning"], "--search tunning is not in recipes/tiny.yaml; choose from tuning"),
        (["--search", "tuning", "--variant", "full"], "leave one of them away"),
    ],
)
def test_a_search_that_is_not_there_is_refused(write_recipe, capsys, flags, message):
    path = write_recipe(searches={"tuning": SEARCH})
    assert main(["run", str(path), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_plain_run_knows_nothing_of_searches(write_recipe, capsys):
    printed = []
    for searches in (None, {"tuning": SEARCH}):
        assert main(["run", str(write_recipe(searches=searches)), "--dry-run"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
