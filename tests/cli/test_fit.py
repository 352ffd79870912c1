import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parents[1] / "training"
CONFIG = str(HERE / "toy.yaml")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import toy

    from cerebro.cli import fit

    monkeypatch.setattr(fit, "DATA_CLASS", toy.ToyData)
    monkeypatch.setattr(fit, "ALLOWED_IMPORTS", [*fit.ALLOWED_IMPORTS, "toy"])
    monkeypatch.chdir(tmp_path)


def run(*argv: str) -> int:
    from cerebro.cli.main import main

    return main(list(argv))


def fit(*argv: str) -> int:
    return run("fit", "--config", CONFIG, "--trainer.max_epochs=1", *argv)


def test_the_whole_path_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    assert fit() == 0
    assert "nothing to do" in capsys.readouterr().out
    assert fit("--model.name", "second", "--ckpt_path", "outputs/toy/best.ckpt") == 0
    assert "hand-over from outputs/toy/best.ckpt (phase toy): encoder -> encoder" in capsys.readouterr().out
    resolved = "outputs/second/config.yaml"
    assert run("test", "--config", resolved) == 0
    assert "constant predictor" in capsys.readouterr().out
    assert run("validate", "--config", resolved) == 0
    assert run("predict", "--config", resolved) == 0
    assert {path.stem for path in (tmp_path / "outputs/second").glob("predictions_*")} == {
        "predictions_val",
        "predictions_test",
        "predictions_predict",
    }
    assert run("test", "--config", resolved, "--data.shift", "2") == 2
    assert "--allow_seen_participants true" in capsys.readouterr().err
    assert run("test", "--config", resolved, "--data.shift", "2", "--allow_seen_participants", "true") == 0
    assert "WARNING: 2 test participants were seen" in capsys.readouterr().out


def test_a_run_that_started_from_another_is_scored_by_its_own_checkpoint(tmp_path: Path) -> None:
    assert fit() == 0
    assert fit("--model.name", "second", "--ckpt_path", "outputs/toy/best.ckpt") == 0
    (tmp_path / "outputs/toy/best.ckpt").unlink()
    assert run("test", "--config", "outputs/second/config.yaml") == 0
    (tmp_path / "outputs/second/best.ckpt").unlink()
    assert run("test", "--config", "outputs/second/config.yaml") == 2


def test_the_checkpoint_of_another_phase_never_replaces_the_config(tmp_path: Path) -> None:
    assert fit() == 0
    assert fit("--model.name", "second", "--ckpt_path", "outputs/toy/best.ckpt", "--model.optim.lr", "0.5") == 0
    record = json.loads((tmp_path / "outputs/second/run.json").read_text())
    assert record["phase"] == "second"
    assert yaml.safe_load((tmp_path / "outputs/second/config.yaml").read_text())["model"]["optim"]["lr"] == 0.5
    assert json.loads((tmp_path / "outputs/toy/run.json").read_text())["phase"] == "toy"


MISTAKES = [
    (["--model.optm.lr", "1"], "key model.optm.lr is unknown; did you mean model.optim.lr"),
    (["--model.optim.lr", "fast"], "model.optim.lr: found fast, expected float"),
    (["--model.optim.lr", "nan"], "found nan, expected float"),
    (["--model.optim.lr", "-1"], "set model.optim.lr to a number above 0"),
    (["--trainer.max_epochs", "0"], "trainer.max_epochs=0 must be 1 or more"),
    (["--trainer.devices", "2"], "leave it at 1 and start as many processes: torchrun"),
    (["--model.encoder", "os.system"], "os.system is outside the allow list"),
    (["--model.encoder.class_path", "cerebro.files.os.system"], "outside the allow list"),
    (["--model.encoder.init_args.d_modl", "3"], "d_modl is unknown"),
    (["--config", "absent.yaml"], "config absent.yaml not found"),
    (["--ckpt_path", "absent.ckpt"], "checkpoint absent.ckpt not found"),
    (["--monitor_mode", "up"], "monitor_mode: found up, expected min or max"),
    (["--trainer.precision", "x"], "trainer.precision: found x, expected 32-true or bf16-mixed"),
    (["--mlflow.enabled", "3"], "mlflow.enabled: found 3, expected true or false"),
]


@pytest.mark.parametrize(("argv", "said"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(*argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error


FILES: list[tuple[Any, str]] = [
    ("model: {name: a}\nmodel: {name: b}\n", "second time"),
    ("model: {optim: {lr: .nan}}\n", "found the number .nan"),
    ("model: {encoder: {class_path: os.system, init_args: {command: touch hit}}}\n", "outside the allow list"),
    ("model: {nme: x}\n", "unknown"),
    ("data: !!python/object/apply:os.system ['touch hit']\n", "tag"),
    (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}' if i else '*a'] * 10)}]\n" for i in range(8)),
        "",
    ),
]


@pytest.mark.parametrize(("text", "said"), FILES, ids=range(len(FILES)))
def test_a_hostile_or_mistaken_file_is_one_line_and_runs_nothing(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert run("fit", "--config", CONFIG, "--config", "bad.yaml") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert not (tmp_path / "hit").exists()


def test_nested_files_are_relative_to_the_file_that_names_them_and_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "family").mkdir()
    (tmp_path / "parts/encoder.yaml").write_text("class_path: ToyEncoder\ninit_args: {d_model: 6}\n")
    config = yaml.safe_load(Path(CONFIG).read_text())
    config["model"]["encoder"] = "../parts/encoder.yaml"
    (tmp_path / "family/phase.yaml").write_text(yaml.safe_dump(config))
    assert run("fit", "--config", "family/phase.yaml", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["encoder"]["init_args"]["d_model"] == 6
    (tmp_path / "parts/encoder.yaml").write_text("class_path: ToyEncoder\nclass_path: ToyEncoder\n")
    assert run("fit", "--config", "family/phase.yaml", "--print_config") == 2
    assert "second time" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_exits_with_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model.objective.init_args.bad_step", "2") == 1
    assert capsys.readouterr().err.count("cerebro: the loss became nan") == 1


def test_a_collapsed_run_exits_with_1_and_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toy.ToyObjective.collapse", lambda self, means: "all windows look alike", raising=False)
    assert fit() == 1
    assert capsys.readouterr().err.count("cerebro: epoch 1 of toy is no good: all windows look alike.") == 1


def test_mlflow_keeps_one_run_per_phase_with_config_metrics_and_source(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    assert fit("--mlflow.enabled", "true") == 0
    record = json.loads((tmp_path / "outputs/toy/run.json").read_text())
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = database.execute("select run_uuid, status from runs").fetchall()
        parameters = dict(database.execute("select key, value from params").fetchall())
        metrics = {row[0] for row in database.execute("select key from metrics")}
        tags = dict(database.execute("select key, value from tags").fetchall())
    database.close()
    assert runs == [(record["mlflow_run_id"], "FINISHED")]
    assert parameters["model.optim.lr"] == "0.01"
    assert {"train/loss", "val/loss", "val/nrmse_y"} <= metrics
    assert tags["data_hash"] == "0" * 64
    assert tags["warm_start"] == "none"
    names = {path.name for path in (tmp_path / "mlruns").rglob("*") if path.is_file()}
    assert names == {"config.yaml", "run.json"}
