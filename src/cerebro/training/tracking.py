"""MLflow: parameters, metrics per epoch, where a run came from. Nothing is pickled, nothing is sent anywhere else."""

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cerebro.errors import ConfigError
from cerebro.files import read_json, write_json


@dataclass(frozen=True)
class MLflowKeys:
    """Where runs are tracked.

    Parameters
    ----------
    enabled : bool
        False writes nothing; history.jsonl and run.json stand in any case.
    uri : str
        Tracking URI; the default is a file in the current folder, with artifacts under ``./mlruns``.
    experiment : str
        Name of the experiment; it is created when missing.
    parent_run_id : str
        Run of the study that this run belongs to; empty = none.
    """

    enabled: bool = True
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "cerebro"
    parent_run_id: str = ""


class Tracker:
    """One MLflow run per phase run; a resumed phase goes on with the run whose id is kept in its folder.

    Parameters
    ----------
    keys : MLflowKeys
        Where to track.
    out : Path
        Folder of the phase run; ``mlflow.json`` in it keeps the run's id.
    """

    def __init__(self, keys: MLflowKeys, out: Path) -> None:
        self.keys = keys
        self.path = out / "mlflow.json"
        self.run_id = ""
        self._client: Any = None

    def start(self, name: str, parameters: dict[str, Any], tags: dict[str, str], history: list[dict[str, Any]]) -> None:
        """Open the run, or the one that a killed process left; rows of ``history`` that it lacks are added."""
        if not self.keys.enabled:
            return
        try:
            with _without_deprecations():
                self._open(name, parameters, tags, history)
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy"):
                raise
            first = (str(error).strip().splitlines() or ["no message"])[0]
            raise ConfigError(
                f"MLflow at {self.keys.uri} does not answer ({first[:160]}); mend mlflow.uri or add "
                "--mlflow.enabled false."
            ) from None
        write_json(self.path, {"uri": self.keys.uri, "run_id": self.run_id})

    def _open(self, name: str, parameters: dict[str, Any], tags: dict[str, str], history: list[dict[str, Any]]) -> None:
        self._client = _client(self.keys.uri)
        if self.path.exists() and (kept := read_json(self.path))["uri"] == self.keys.uri:
            self.run_id = kept["run_id"]
            self._client.update_run(self.run_id, status="RUNNING")
            logged = {metric.step for metric in self._client.get_metric_history(self.run_id, "train/loss")}
            for row in history:
                if row["epoch"] not in logged:
                    self.log(row)
            return
        if self.keys.parent_run_id:
            tags = tags | {"mlflow.parentRunId": self.keys.parent_run_id}
        run = self._client.create_run(_experiment_id(self._client, self.keys.experiment), run_name=name, tags=tags)
        self.run_id = run.info.run_id
        self._log_parameters(parameters)

    def _log_parameters(self, parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:6000]) for key, value in flatten(parameters).items()]
        for first in range(0, len(flat), 100):
            self._client.log_batch(self.run_id, params=flat[first : first + 100])

    def log(self, row: dict[str, Any]) -> None:
        """Log one row of the history in a single call."""
        if not self.run_id:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, int(row["epoch"]))
            for key, value in row.items()
            if value is not None and key not in ("epoch", "step")
        ]
        with _without_deprecations():
            self._client.log_batch(self.run_id, metrics=metrics)

    def finish(self, state: str, artifacts: list[Path], result: dict[str, Any] | None) -> None:
        """Close the run with its files; ``state`` is FINISHED, KILLED or FAILED."""
        if not self.run_id:
            return
        with _without_deprecations():
            for path in artifacts:
                self._client.log_artifact(self.run_id, str(path))
            if result is not None:
                self._client.log_text(self.run_id, json.dumps(result, indent=1, sort_keys=True), "run.json")
            self._client.set_terminated(self.run_id, state)


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Hide what MLflow's own code is told by the libraries below it; a user can do nothing about it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def _client(uri: str) -> Any:
    """MLflow's client, imported late (3.5 s); its migration chatter is switched off, its warnings are not."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment_id(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another process made it in between
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
