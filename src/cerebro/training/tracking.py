"""MLflow: parameters, metrics per epoch, where a run came from. Nothing is pickled, nothing is sent anywhere else.

Before training starts, an MLflow that does not answer is the user's mistake, in one line. Once it has started, nothing
that MLflow does can end it: what could not be written is kept, tried once more at the end, and counted in one line.
"""

import contextlib
import json
import logging
import os
import re
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cerebro.collection import uncollected
from cerebro.errors import CerebroError, ConfigError
from cerebro.files import read_json, write_json
from cerebro.training.registry import Version, fetch, log_data, register

FAMILY = ("mlflow", "sqlalchemy", "alembic", "sqlite3", "requests", "urllib3")  # packages whose errors are MLflow's
CLAIM = "cerebro.claim"  # tag by which a run is found whose id a killed process could not note


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
    register : str
        Name under which the model of a finished supervised phase is registered; empty = it is not. ``{run_name}``,
        ``{name}`` and ``{model}`` stand for what they do elsewhere.
    alias : str
        Alias that moves to the version registered last; empty = none.

    Raises
    ------
    ConfigError
        If MLflow knows no such name or alias.
    """

    enabled: bool = True
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "cerebro"
    parent_run_id: str = ""
    register: str = ""
    alias: str = "newest"

    def __post_init__(self) -> None:
        if re.search(r"[/:@']", self.register):
            raise ConfigError(
                f"mlflow.register={self.register!r} cannot name a registered model; leave out the signs / : @ and '."
            )
        if self.alias and (
            not re.fullmatch(r"[A-Za-z][\w-]*", self.alias) or re.fullmatch(r"latest|[vV]\d+", self.alias)
        ):
            raise ConfigError(
                f"mlflow.alias={self.alias!r} cannot be an alias (MLflow keeps latest, v1, v2 ... for itself); set "
                "mlflow.alias to a word such as newest."
            )


class Tracker:
    """One MLflow run per phase run or study; a resumed one goes on with the run whose id is kept in its folder.

    Parameters
    ----------
    keys : MLflowKeys
        Where to track.
    out : Path
        Folder of the run; ``mlflow.json`` in it keeps the run's id.
    say : callable
        Takes a line for the user.
    """

    def __init__(self, keys: MLflowKeys, out: Path, say: Callable[[str], None]) -> None:
        self.keys, self.say = keys, say
        self.path = out / "mlflow.json"
        self.run_id = ""
        self._client: Any = None
        self._waiting: list[dict[str, Any]] = []  # rows that MLflow has not taken
        self._is_lost = False  # it failed once; the next try is at the end, so that no epoch waits for it

    def start(self, name: str, parameters: dict[str, Any], tags: dict[str, str], history: list[dict[str, Any]]) -> None:
        """Open the run, or the one that a killed process left; rows of ``history`` that it lacks are added."""
        if not self.keys.enabled:
            return
        try:
            with without_deprecations():
                self._open(name, parameters, tags, history)
        except Exception as error:
            if not is_of_mlflow(error):
                raise
            raise ConfigError(
                f"MLflow at {self.keys.uri} does not answer ({first_line(error)}); mend mlflow.uri or add "
                "--mlflow.enabled false."
            ) from None

    def _open(self, name: str, parameters: dict[str, Any], tags: dict[str, str], history: list[dict[str, Any]]) -> None:
        self._client = client_of(self.keys.uri)
        kept = read_json(self.path) if self.path.exists() else {"uri": ""}
        run = _find(self._client, kept, self.keys.experiment) if kept["uri"] == self.keys.uri else None
        if run is None:
            # Noted before the run is made: a process killed in between would leave a run that nobody finds again.
            kept = {"uri": self.keys.uri, "claim": uuid.uuid4().hex}
            write_json(self.path, kept)
            tags = tags | {CLAIM: kept["claim"]}
            if self.keys.parent_run_id:
                tags |= {"mlflow.parentRunId": self.keys.parent_run_id}
            run = self._client.create_run(experiment_id(self._client, self.keys.experiment), run_name=name, tags=tags)
        self.run_id = run.info.run_id
        write_json(self.path, kept | {"run_id": self.run_id})
        self._client.update_run(self.run_id, status="RUNNING")
        self._log_parameters({key: value for key, value in flatten(parameters).items() if key not in run.data.params})
        logged = {metric.step for metric in self._client.get_metric_history(self.run_id, "train/loss")}
        for row in history:
            if row["epoch"] not in logged:
                self._send(row)

    def _log_parameters(self, parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:6000]) for key, value in parameters.items()]
        for first in range(0, len(flat), 100):
            self._client.log_batch(self.run_id, params=flat[first : first + 100])

    def log(self, row: dict[str, Any]) -> None:
        """Log one row of the history in a single call; a failure is told once and never raised."""
        if not self.run_id:
            return
        self._waiting.append(row)
        if self._is_lost:
            return
        try:
            self._send_waiting()
        except Exception as error:  # a tracker must not cost a training run
            self._is_lost = True
            self.say(
                f"warning: MLflow at {self.keys.uri} does not answer ({first_line(error)}); training goes on and "
                "MLflow is tried again at the end; history.jsonl holds every number"
            )

    def publish(self, folder: Path, tags: Mapping[str, str]) -> Version | None:
        """Register the package in ``folder``, tag version and run; None if nothing was. Never raises."""
        if not self.run_id or not self.keys.register:
            return None
        try:
            with without_deprecations():
                version = register(self._client, self.run_id, folder, self.keys.register, self.keys.alias, tags)
                for key, value in {**tags, "registered_model": f"{version.name}/{version.number}"}.items():
                    self._client.set_tag(self.run_id, key, value)
        except Exception as error:  # as above
            config = self.path.parent / "config.yaml"
            self.say(
                f"warning: MLflow at {self.keys.uri} did not register {self.keys.register} ({first_line(error)}); the "
                f"model in {folder} is whole, and cerebro fit --config {config} registers it later"
            )
            return None
        alias = f"@{version.alias}" if version.alias else f"/{version.number}"
        self.say(f"registered as {version.name} version {version.number}: models:/{version.name}{alias}")
        return version

    def log_data(self, name: str, digest: str, source: str) -> None:
        """Say which data set the run trains on. Never raises."""
        if not self.run_id:
            return
        try:
            with without_deprecations():
                log_data(self._client, self.run_id, name, digest, source)
        except Exception as error:  # as above
            self.say(f"warning: MLflow at {self.keys.uri} did not note the data set ({first_line(error)})")

    def finish(self, state: str, artifacts: list[Path], result: dict[str, Any] | None) -> None:
        """Close the run with its files; ``state`` is FINISHED, KILLED or FAILED. Never raises."""
        if not self.run_id:
            return
        try:
            self._send_waiting()
            with without_deprecations():
                for path in artifacts:
                    self._client.log_artifact(self.run_id, str(path))
                if result is not None:
                    self._client.log_text(self.run_id, json.dumps(result, indent=1, sort_keys=True), "run.json")
                self._client.set_terminated(self.run_id, state)
        except Exception as error:  # as above: the files of the run are whole
            self.say(
                f"warning: MLflow at {self.keys.uri} lacks {len(self._waiting)} epochs, or the end, of run "
                f"{self.run_id} ({first_line(error)}); the files in {self.path.parent} are whole"
            )

    def _send_waiting(self) -> None:
        while self._waiting:
            self._send(self._waiting[0])
            del self._waiting[0]

    def _send(self, row: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, int(row["epoch"]))
            for key, value in row.items()
            if value is not None and key not in ("epoch", "step")
        ]
        with without_deprecations():
            self._client.log_batch(self.run_id, metrics=metrics)


def fetch_model(address: str, uri: str, into: Path) -> Path:
    """Files of a registered model, copied below ``into``; see `cerebro.training.registry.fetch`.

    Raises
    ------
    CheckpointError, ConfigError
        In one line: nothing of that name, or an MLflow that does not answer.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise ConfigError(f"there is no MLflow database {path}, so no registered model; give --uri.")
    try:
        with without_deprecations():
            return fetch(client_of(uri), address, uri, into)
    except CerebroError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in FAMILY:
            raise
        raise ConfigError(f"MLflow at {uri} does not answer ({first_line(error)}); mend --uri.") from None


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Hide what MLflow's own code is told by the libraries below it; a user can do nothing about it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def client_of(uri: str) -> Any:
    """MLflow's client, imported late (2 s); its migration chatter is switched off, its warnings are not.

    A new database costs another 2.5 s, once. A server that is gone is asked twice and not, as by default, for minutes.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"
    )  # a model is small, and has a line of its own
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with uncollected():
        from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=_with_database(uri))


def _with_database(uri: str) -> str:
    """URI whose SQLite file is there, with an absolute path; any other URI as it is.

    The file is made as a whole: MLflow fills an empty one by some fifty migrations in seconds, and a kill within them
    would leave one that never opens again, for SQLite does not undo a migration that is cut short.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.name == ":memory:" or "?" in uri:
        return uri
    path = path.absolute()
    if not path.exists():
        _make_database(path)
    return f"sqlite:///{path}"


def _make_database(path: Path) -> None:
    with uncollected():
        from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

    start = f".{path.name}.{socket.gethostname()}."
    for orphan in path.parent.glob(f"{start}*"):  # of killed processes; their numbers come again
        pid = int(orphan.name.removeprefix(start).partition(".")[0])
        if pid == os.getpid() or not psutil.pid_exists(pid):
            orphan.unlink(missing_ok=True)
    part = path.with_name(f"{start}{os.getpid()}.part")
    event.listen(Engine, "connect", _write_unsynced)  # nobody opens it before it is whole
    try:
        with uncollected():
            SqlAlchemyStore(f"sqlite:///{part}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    finally:
        event.remove(Engine, "connect", _write_unsynced)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:  # another process made it in between
        pass
    except OSError:  # a file system without hard links
        os.replace(part, path)
    part.unlink(missing_ok=True)


def _write_unsynced(connection: Any, record: Any) -> None:
    """Leave it to the system when a new database reaches the disk: each of its migrations would wait for it."""
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")


def _find(client: Any, kept: Mapping[str, str], experiment: str) -> Any | None:
    """The run that ``mlflow.json`` names or has announced, if it is still there."""
    from mlflow.exceptions import MlflowException

    if "run_id" in kept:
        try:
            run = client.get_run(kept["run_id"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if str(run.info.lifecycle_stage) == "active" else None
    found = client.search_runs([experiment_id(client, experiment)], f"tags.`{CLAIM}` = '{kept['claim']}'")
    return found[0] if found else None


def is_of_mlflow(error: Exception) -> bool:
    """Whether an error is MLflow's, or of what it stands on, and no fault of cerebro."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in FAMILY


def first_line(error: Exception) -> str:
    """First line of a message, cut to 160 letters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def experiment_id(client: Any, name: str) -> str:
    """Id of an experiment, which is made where it is not there."""
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
