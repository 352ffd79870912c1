"""Registering the model of a run that ended before: MLflow was away then, or nobody had asked for it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from cerebro.files import write_json
from cerebro.objectives.supervised import Supervised
from cerebro.training.checkpoint import Stamp, read_checkpoint
from cerebro.training.keys import RunKeys
from cerebro.training.packaging import data_of, origin_tags, package_run, scores_of, version_tags
from cerebro.training.phase import Phase
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
    record: dict[str, Any], phase: Phase, data: PhaseData, stamp: Stamp, keys: RunKeys, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train nothing anew; register the model where ``mlflow.register`` asks for a name that it has not.

    Gives the record of the run.

    Parameters
    ----------
    record : dict
        Content of run.json, which is written anew where the model is registered.
    phase, data
        Phase with any weights, and what it trained on.
    stamp : Stamp
        That of the same run, started again.
    keys : RunKeys
        ``out``, and what MLflow is asked to do.
    say : callable
        Takes a line for the user.
    """
    wanted = keys.mlflow.register
    is_there = (record.get("registered") or {}).get("name") == wanted
    if not (wanted and keys.mlflow.enabled) or is_there or not isinstance(phase.objective, Supervised):
        say(f"{keys.out} holds this run already, finished; nothing to do")
        return record
    say(f"{keys.out} holds this run already, finished; its model is not registered as {wanted} yet")
    best = read_checkpoint(keys.out / "best.ckpt")
    phase.load_state_dict(best.weights)
    history = [json.loads(line) for line in (keys.out / "history.jsonl").read_text().splitlines()]
    config = yaml.safe_load((keys.out / "config.yaml").read_text())
    tracker = Tracker(keys.mlflow, keys.out, say)
    tracker.start(keys.run_name or phase.name, config, run_tags(record), history)
    tracker.log_data(*data_of(stamp))
    record = record | {"mlflow_run_id": tracker.run_id}
    folder = package_run(phase, best, data, keys, scores_of(record["best"], history), say)
    version = None if folder is None else tracker.publish(folder, version_tags(folder))
    if version is not None:
        record["registered"] = version.plain()
        write_json(keys.out / "run.json", record)
    tracker.finish("FINISHED", [keys.out / "config.yaml", *keys.out.glob("isc.json")], record)
    return record
