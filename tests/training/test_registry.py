"""A finished classifier becomes a version of a registered model, once, with its links, and without any pickle."""

import io
import pickle
import pickletools
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_package import SUPERVISED, fit, run

from cerebro.errors import CheckpointError, ConfigError
from cerebro.files import read_json
from cerebro.training.package import read_folder
from cerebro.training.tracking import MLflowKeys, Tracker, client_of, fetch_model

pytest.importorskip("mlflow")

TRACKED = ["--mlflow.enabled", "true", "--mlflow.uri", "sqlite:///mlflow.db"]
REGISTERED = [*TRACKED, "--run_name", "mine", "--mlflow.register", "{run_name}", *SUPERVISED]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier that was registered and started from another tracked phase."""
    folder = tmp_path_factory.mktemp("registry")
    assert fit(folder, "pre", *TRACKED) == 0
    assert fit(folder, "tuned", *REGISTERED, "--ckpt_path", "outputs/pre/best.ckpt") == 0
    return folder


def registry_of(root: Path) -> Any:
    return client_of(f"sqlite:///{root / 'mlflow.db'}")


def test_the_alias_stands_for_the_model_of_the_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    for address in ("models:/mine@newest", "models:/mine/1"):
        folder = fetch_model(address, uri, tmp_path)
        assert read_folder(folder).config == read_folder(root / "outputs/tuned/model").config
    assert read_json(root / "outputs/tuned/run.json")["registered"] == {
        "name": "mine",
        "version": "1",
        "alias": "newest",
    }


def test_run_and_version_are_linked_to_the_pretraining_run_and_the_data(root: Path) -> None:
    client = registry_of(root)
    record, origin = read_json(root / "outputs/tuned/run.json"), read_json(root / "outputs/pre/run.json")
    tuned = client.get_run(record["mlflow_run_id"])
    version = client.get_model_version("mine", "1")
    for tags in (tuned.data.tags, version.tags):
        assert tags["pretraining_run_id"] == origin["mlflow_run_id"]
        assert tags["pretraining_weights_sha256"] == origin["weights_sha256"]
        assert tags["data_hash"] == record["data_hash"]
        assert tags["weights_sha256"] == record["weights_sha256"]
    assert version.run_id == record["mlflow_run_id"]
    assert tuned.data.tags["registered_model"] == "mine/1"
    (data,) = tuned.inputs.dataset_inputs
    assert data.dataset.digest == record["data_hash"][:36]
    assert "pretraining_run_id" not in client.get_run(origin["mlflow_run_id"]).data.tags


def test_no_artifact_is_pickled(root: Path) -> None:
    files = [path for path in (root / "mlruns").rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "README.md", "config.yaml", "run.json"} <= {path.name for path in files}
    for path in files:
        assert not zipfile.is_zipfile(path)
        with pytest.raises((ValueError, pickle.UnpicklingError, IndexError)):
            pickletools.dis(path.read_bytes(), out=io.StringIO())
        if path.suffix != ".safetensors":
            path.read_text()


def test_a_finished_run_is_registered_once_and_a_new_one_becomes_the_next_version(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [*REGISTERED, "--ckpt_path", "outputs/pre/best.ckpt"]
    assert fit(root, "tuned", *again) == 0
    (root / "outputs/tuned/run.json").unlink()  # killed between the registry and the record
    assert fit(root, "tuned", *again) == 0
    assert [v.version for v in registry_of(root).search_model_versions("name = 'mine'")] == [1]
    capsys.readouterr()
    assert fit(root, "tuned2", *again, "--seed", "5") == 0
    assert "registered as mine version 2: models:/mine@newest" in capsys.readouterr().out
    assert registry_of(root).get_model_version_by_alias("mine", "newest").version == 2
    registry_of(root).set_registered_model_alias("mine", "newest", "1")


def test_mlflow_that_fails_at_the_end_costs_a_line_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("mlflow.tracking.MlflowClient.create_model_version", gone)
    monkeypatch.setattr("mlflow.tracking.MlflowClient.log_inputs", gone)
    assert fit(root, "lost", *REGISTERED, "--seed", "6") == 0
    told = capsys.readouterr().out
    assert "did not register mine (database is locked); the model in outputs/lost/model is whole" in told
    assert "did not note the data set (database is locked)" in told
    record = read_json(root / "outputs/lost/run.json")
    assert record["state"] == "finished"
    assert "registered" not in record
    assert "cerebro fit --config outputs/lost/config.yaml registers it later" in told
    monkeypatch.undo()
    assert run(root, "fit", "--config", "outputs/lost/config.yaml") == 0
    assert "registered as mine version" in capsys.readouterr().out
    registry_of(root).set_registered_model_alias("mine", "newest", "1")


@pytest.mark.parametrize("first", [["--mlflow.enabled", "false"], TRACKED])
@pytest.mark.parametrize("name", [["--run_name", "mine"], []])
def test_a_finished_run_is_registered_later_without_training_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: list[str],
    first: list[str],
) -> None:
    named = [*name, *SUPERVISED]
    assert fit(tmp_path, "late", *named, *first) == 0
    before = read_json(tmp_path / "outputs/late/run.json")
    weights = (tmp_path / "outputs/late/best.ckpt").read_bytes()
    asked = [*named, *TRACKED, "--mlflow.register", "late"]
    with monkeypatch.context() as patch:  # still away
        patch.setattr("mlflow.tracking.MlflowClient.create_model_version", _away)
        assert fit(tmp_path, "late", *asked) == 0
    told = capsys.readouterr().out
    assert "holds this run already, finished; its model is not registered as late@newest yet" in told
    assert "did not register late" in told
    assert fit(tmp_path, "late", *asked) == 0
    assert "registered as late version 1: models:/late@newest" in capsys.readouterr().out
    record = read_json(tmp_path / "outputs/late/run.json")
    assert record["registered"] == {"name": "late", "version": "1", "alias": "newest"}
    client = registry_of(tmp_path)
    run = client.get_run(record["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["data_hash"] == record["data_hash"]
    assert len(client.get_metric_history(record["mlflow_run_id"], "train/loss")) == 1
    assert len(run.inputs.dataset_inputs) == 1
    assert client.get_model_version("late", "1").run_id == record["mlflow_run_id"]
    changed = {"registered", "mlflow_run_id"}
    assert record | dict.fromkeys(changed) == before | dict.fromkeys(changed)
    assert read_folder(tmp_path / "outputs/late/model").config["weights_sha256"] == record["weights_sha256"]
    assert (tmp_path / "outputs/late/best.ckpt").read_bytes() == weights
    assert fit(tmp_path, "late", *asked) == 0
    assert "finished; nothing to do" in capsys.readouterr().out
    assert len(client.search_model_versions("name = 'late'")) == 1
    assert len(client.search_runs([run.info.experiment_id])) == 1
    assert fit(tmp_path, "late", *asked, "--mlflow.alias", "best") == 0
    assert client.get_model_version_by_alias("late", "best").version == 1
    assert fit(tmp_path, "late", *asked, "--mlflow.alias", "best", "--mlflow.uri", "sqlite:///other.db") == 0
    assert "registered as late version 1: models:/late@best" in capsys.readouterr().out
    assert client_of(f"sqlite:///{tmp_path / 'other.db'}").get_model_version("late", "1").aliases == ["best"]
    third = [*asked, "--mlflow.uri", "sqlite:///third.db"]
    with monkeypatch.context() as patch:  # away, after its run was made there
        patch.setattr("mlflow.tracking.MlflowClient.create_model_version", _away)
        assert fit(tmp_path, "late", *third) == 0
    assert "did not register late" in capsys.readouterr().out
    assert fit(tmp_path, "late", *third) == 0
    assert "registered as late version 1: models:/late@newest" in capsys.readouterr().out
    (tmp_path / "outputs/late/history.jsonl").unlink()
    assert fit(tmp_path, "late", *asked) == 2
    assert "history.jsonl is not there, and a run is registered as a whole" in capsys.readouterr().err


def _away(*_: Any, **__: Any) -> None:
    raise sqlite3.OperationalError("database is locked")


def test_a_run_without_a_name_of_its_own_is_registered_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "head", *SUPERVISED, *TRACKED, "--mlflow.register", "{run_name}") == 0
    assert "registered as head version 1: models:/head@newest" in capsys.readouterr().out
    assert read_folder(tmp_path / "outputs/head/model").config["name"] == "head"


def test_what_cannot_be_registered_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "pre", *TRACKED, "--mlflow.register", "mine") == 0
    assert "nothing is registered as mine: only supervised phases are" in capsys.readouterr().out
    assert fit(tmp_path, "pre", *TRACKED, "--mlflow.register", "mine") == 0
    assert "finished; it is not registered as mine: only supervised phases are" in capsys.readouterr().out


def test_what_is_not_registered_is_one_line_that_says_what_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    for address, message in [
        ("models:/mine@best", r"models:/mine@best is not registered at .*; mine has @newest \(version 1\); versions 1"),
        ("models:/mine/77", "mine has @newest"),
        ("models:/other@newest", "registered are mine"),
        ("models:/mine", "type models:/NAME@ALIAS or /VERSION"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            fetch_model(address, uri, tmp_path)
    with pytest.raises(ConfigError, match=r"no MLflow database .*nowhere.db"):
        fetch_model("models:/mine@newest", f"sqlite:///{tmp_path}/nowhere.db", tmp_path)
    assert not (tmp_path / "nowhere.db").exists()


@pytest.mark.parametrize("keys", [{"register": "a/b"}, {"alias": "latest"}, {"alias": "v2"}, {"alias": "two words"}])
def test_names_that_mlflow_refuses_are_refused_before_training(keys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"mlflow\.(register|alias)="):
        MLflowKeys(**keys)


def test_a_run_that_is_not_tracked_registers_nothing(tmp_path: Path) -> None:
    tracker = Tracker(MLflowKeys(enabled=False, register="mine"), tmp_path, print)
    tracker.start("toy", {}, {}, [])
    assert tracker.publish(tmp_path, {"weights_sha256": ""}) is None
    assert run(tmp_path, "export", "absent.ckpt", "--format", "package", "--out", "x") == 2
