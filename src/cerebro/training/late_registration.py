"""Registering the model of a run that ended before: MLflow was away then, or nobody had asked for it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cerebro.errors import CheckpointError
from cerebro.files import read_json, write_json
from cerebro.objectives.supervised import Supervised
from cerebro.training.checkpoint import Stamp, read_checkpoint
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.packaging import data_of, origin_tags, package_beside, package_run, scores_of, version_tags
from cerebro.training.phase import Phase
from cerebro.training.score import root_device
from cerebro.training.stamp import PhaseData
from cerebro.training.tracking import Tracker


def run_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a run in MLflow: what it is, of which data and code, and from which weights it started.

    Parameters
    ----------
    record : dict
        ``phase``, ``git_commit``, ``data_hash``, ``config_hash``, ``transfers`` and ``inputs``, as in run.json.
    """
    warm = ", ".join(f"{report['source']} ({report['weights_sha256'][:12]})" for report in record["transfers"])
    named = {key: str(record[key]) for key in ("phase", "git_commit", "data_hash", "config_hash")}
    return named | {"warm_start": warm or "none"} | origin_tags(record["inputs"])


def leave_finished(
    record: dict[str, Any],
    phase: Phase,
    data: PhaseData,
    stamp: Stamp,
    trainer_keys: TrainerKeys,
    keys: RunKeys,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train nothing anew; register the model where ``mlflow`` asks for a name, an alias or a place that it has not.

    Gives the record of the run.

    Parameters
    ----------
    record : dict
        Content of run.json, which is written anew where the model is registered.
    phase, data
        Phase with any weights, and what it trained on.
    stamp : Stamp
        That of the same run, started again.
    trainer_keys : TrainerKeys
        Where the encoder runs, should the model not be packaged yet.
    keys : RunKeys
        ``out``, and what MLflow is asked to do.
    say : callable
        Takes a line for the user.
    """
    wanted, out = keys.mlflow.register, keys.out
    if not (wanted and keys.mlflow.enabled) or _is_registered(record, keys):
        say(f"{out} holds this run already, finished; nothing to do")
        return record
    if not isinstance(phase.objective, Supervised):
        say(f"{out} holds this run already, finished; it is not registered as {wanted}: only supervised phases are")
        return record
    alias = f"@{keys.mlflow.alias}" if keys.mlflow.alias else ""
    say(f"{out} holds this run already, finished; its model is not registered as {wanted}{alias} yet")
    for name in ("best.ckpt", "history.jsonl", "config.yaml"):
        if not (out / name).is_file():
            raise CheckpointError(
                f"{out / name} is not there, and a run is registered as a whole; bring it back, or add "
                "--overwrite true to train anew."
            )
    best = read_checkpoint(out / "best.ckpt")
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    config = yaml.safe_load((out / "config.yaml").read_text())
    record = {key: value for key, value in record.items() if key != "registered"}
    write_json(out / "run.json", record)  # before mlflow.json names another place, where it may not be registered
    tracker = Tracker(keys.mlflow, out, say)
    tracker.start(keys.run_name or phase.name, config, run_tags(record), history)
    tracker.log_data(*data_of(stamp))
    record = record | {"mlflow_run_id": tracker.run_id}
    folder: Path | None = package_beside(best)
    if folder is None:
        device = root_device(trainer_keys)
        phase.load_state_dict(best.weights)
        phase.to(device)
        data.for_device(device)
        folder = package_run(phase, best, data, keys, scores_of(record["best"], history), say)
    version = None if folder is None else tracker.publish(folder, version_tags(folder))
    if version is not None:
        record["registered"] = version.plain()
        write_json(out / "run.json", record)
    tracker.finish("FINISHED", [out / "config.yaml", *out.glob("isc.json")], record)
    return record


def _is_registered(record: Mapping[str, Any], keys: RunKeys) -> bool:
    """Whether the model is a version of what is asked for, under its alias, where MLflow is asked to be."""
    made, note = record.get("registered") or {}, keys.out / "mlflow.json"
    uri = read_json(note)["uri"] if note.is_file() else ""
    return (made.get("name"), made.get("alias"), uri) == (keys.mlflow.register, keys.mlflow.alias, keys.mlflow.uri)
