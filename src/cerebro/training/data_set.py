"""A data set in MLflow: name, digest, place, and tags by which it is found; each state is logged once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cerebro.errors import ConfigError
from cerebro.training.tracking import (
    MLflowKeys,
    client_of,
    experiment_id,
    first_line,
    flatten,
    is_of_mlflow,
    without_deprecations,
)

DIGEST = "cerebro.data_set_digest"  # tag by which a data set is known again
DIGEST_LETTERS, TAG_LETTERS = 32, 500  # of a data set; MLflow keeps 36 and 500


@dataclass(frozen=True)
class LoggedDataSet:
    """What MLflow is told of a data set.

    Parameters
    ----------
    name : str
        Such as ``EEG_8s_af7-af8-tp9-tp10_496windows_primary``.
    digest : str
        SHA-256 of all that its bytes depend on.
    path : Path
        Its file.
    profile : mapping of str to number
        Its size: ``num_rows`` and others.
    parameters : mapping
        What it was made with, as nested plain types.
    tags : mapping of str to str
        By which to find it.
    report : Path
        File to keep with it.
    """

    name: str
    digest: str
    path: Path
    profile: Mapping[str, float]
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    report: Path


def log_data_set(keys: MLflowKeys, data_set: LoggedDataSet) -> str:
    """Log a data set as input of a run of its own, unless a finished run of the experiment has it; gives the run's id.

    Empty where tracking is off.

    Raises
    ------
    ConfigError
        In one line, if MLflow does not answer.
    """
    if not keys.enabled:
        return ""
    try:
        with without_deprecations():
            return _log(keys, data_set)
    except Exception as error:
        if not is_of_mlflow(error):
            raise
        raise ConfigError(
            f"MLflow at {keys.uri} does not answer ({first_line(error)}), and {data_set.path} is not logged but whole; "
            "mend mlflow.uri or add --mlflow.enabled false."
        ) from None


def _log(keys: MLflowKeys, data_set: LoggedDataSet) -> str:
    client = client_of(keys.uri)
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    experiment = experiment_id(client, keys.experiment)
    known = client.search_runs(
        [experiment], f"tags.`{DIGEST}` = '{data_set.digest}' and attributes.status = 'FINISHED'", max_results=1
    )
    if known:
        return str(known[0].info.run_id)
    tags = {**data_set.tags, DIGEST: data_set.digest}
    if keys.parent_run_id:
        tags["mlflow.parentRunId"] = keys.parent_run_id
    run_id = str(client.create_run(experiment, run_name=data_set.name, tags=tags).info.run_id)
    dataset = Dataset(
        name=data_set.name,
        digest=data_set.digest[:DIGEST_LETTERS],
        source_type="local",
        source=json.dumps({"uri": str(data_set.path.absolute())}),
        profile=json.dumps(dict(data_set.profile)),
    )
    tags_of_input = [InputTag(name, value[:TAG_LETTERS]) for name, value in data_set.tags.items()]
    input_tags = [InputTag("mlflow.data.context", "processing"), *tags_of_input]
    client.log_inputs(run_id, [DatasetInput(dataset, input_tags)])
    flat = flatten(dict(data_set.parameters))
    metrics = [Metric(name, float(value), 0, 0) for name, value in data_set.profile.items()]
    client.log_batch(run_id, metrics=metrics, params=[Param(name, str(value)[:6000]) for name, value in flat.items()])
    client.log_artifact(run_id, str(data_set.report))
    client.set_terminated(run_id, "FINISHED")
    return run_id
