"""MLflow as a run sees it: found again after a kill, and never the end of a training run."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cerebro.errors import ConfigError
from cerebro.files import read_json, write_json
from cerebro.training import tracking
from cerebro.training.tracking import MLflowKeys, Tracker

pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that a run has opened, whichever test comes first."""
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    Tracker(MLflowKeys(uri=address), folder, print).start("first", {}, {}, [])
    return address


def query(uri: str, text: str) -> list[Any]:
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    rows = database.execute(text).fetchall()
    database.close()
    return rows


def epoch(number: int) -> dict[str, Any]:
    return {"epoch": number, "step": 5 * number, "train/loss": 1.0 / (number + 1), "lr": 0.1}


class Gone:
    """A client whose database is locked until ``back`` is set."""

    def __init__(self, client: Any) -> None:
        self.client, self.back, self.n_calls = client, False, 0

    def __getattr__(self, name: str) -> Any:
        self.n_calls += 1
        if not self.back:
            raise sqlite3.OperationalError("database is locked")
        return getattr(self.client, name)


@pytest.fixture
def lost(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tracker, Gone, list[str]]:
    """A tracker whose MLflow went away after the first epoch."""
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    tracker = Tracker(MLflowKeys(uri=uri), tmp_path / "out", lines.append)
    tracker.start("toy", {"seed": 0}, {}, [])
    tracker.log(epoch(0))
    gone = Gone(tracker._client)
    tracker._client = gone
    tracker.log(epoch(1))
    tracker.log(epoch(2))
    return tracker, gone, lines


def test_only_a_new_database_is_written_without_waiting_for_the_disk(uri: str) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from cerebro.training import tracking

    assert not event.contains(Engine, "connect", tracking._write_unsynced)  # of the database that `uri` has made
    client = tracking.client_of(uri)
    with client._tracking_client.store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL, SQLite's default


def test_an_mlflow_that_goes_away_is_told_once_and_costs_no_further_epoch(lost: Any) -> None:
    tracker, gone, lines = lost
    assert gone.n_calls == 1
    assert len(lines) == 1
    assert "database is locked" in lines[0]
    tracker.finish("FINISHED", [], {"phase": "toy"})
    assert len(lines) == 2
    assert "lacks 2 epochs" in lines[1]


def test_what_it_missed_is_sent_at_the_end(lost: Any, uri: str) -> None:
    tracker, gone, lines = lost
    gone.back = True
    tracker.finish("FINISHED", [], {"phase": "toy"})
    found = query(uri, f"select step from metrics where run_uuid = '{tracker.run_id}' and key = 'train/loss'")
    assert sorted(step for (step,) in found) == [0, 1, 2]
    assert query(uri, f"select status from runs where run_uuid = '{tracker.run_id}'") == [("FINISHED",)]
    assert len(lines) == 1


def test_a_resumed_run_goes_on_and_one_that_was_deleted_is_made_anew(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = []
    for history in ([], [epoch(0)]):
        tracker = Tracker(MLflowKeys(uri=uri), tmp_path, lambda line: None)
        tracker.start("toy", {}, {}, history)
        ids.append(tracker.run_id)
    assert ids[0] == ids[1]
    assert query(uri, f"select step from metrics where run_uuid = '{ids[0]}'")
    write_json(tmp_path / "mlflow.json", {"uri": uri, "run_id": "0" * 32})
    tracker.start("toy", {}, {}, [])
    assert tracker.run_id not in (ids[0], "0" * 32)
    assert read_json(tmp_path / "mlflow.json")["run_id"] == tracker.run_id


@pytest.mark.parametrize("cut_in", ["write_json", "log_batch"])
def test_a_run_made_by_a_process_killed_while_opening_it_is_found_again(
    cut_in: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys, parameters, n_before = MLflowKeys(uri=uri), {"model": {"depth": 2}}, len(query(uri, "select * from runs"))
    with monkeypatch.context() as cut:

        def write(path: Path, content: dict[str, Any]) -> None:
            if cut_in == "write_json" and "run_id" in content:
                raise KeyboardInterrupt
            write_json(path, content)

        def log_batch(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        cut.setattr(tracking, "write_json", write)
        if cut_in == "log_batch":
            cut.setattr("mlflow.tracking.MlflowClient.log_batch", log_batch)
        with pytest.raises(KeyboardInterrupt):
            Tracker(keys, tmp_path, print).start("cut", parameters, {}, [])
    tracker = Tracker(keys, tmp_path, print)
    tracker.start("cut", parameters, {}, [])
    assert len(query(uri, "select * from runs")) == n_before + 1
    assert query(uri, f"select key, value from params where run_uuid = '{tracker.run_id}'") == [("model.depth", "2")]
    tracker = Tracker(keys, tmp_path, print)
    tracker.start("cut", {"model": {"depth": 3, "width": 8}}, {}, [])  # MLflow refuses another value of a parameter
    assert len(query(uri, f"select key from params where run_uuid = '{tracker.run_id}'")) == 2


def test_an_mlflow_that_does_not_answer_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keys = MLflowKeys(uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(ConfigError, match=r"does not answer .*--mlflow.enabled false"):
        Tracker(keys, tmp_path, lambda line: None).start("toy", {}, {}, [])
