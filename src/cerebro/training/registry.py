"""The registry of models in MLflow: a package becomes a version under a name, and a name gives a package back.

A version is a folder of safetensors, JSON and text among the artifacts of its run. Nothing is pickled, and nothing that
was fetched can run code: `cerebro.training.package` reads it like any other folder.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cerebro.errors import CheckpointError

ARTIFACTS = "model"  # folder of the package among the artifacts of a run
START = "models:/"


@dataclass(frozen=True)
class Version:
    """A version of a registered model, and whether it was made just now."""

    name: str
    number: str
    alias: str
    is_new: bool

    def plain(self) -> dict[str, str]:
        """As it stands in run.json."""
        return {"name": self.name, "version": self.number, "alias": self.alias}


def register(client: Any, run_id: str, folder: Path, name: str, alias: str, tags: Mapping[str, str]) -> Version:
    """Log the files of a package to a run and make them the version that ``alias`` of ``name`` stands for.

    The same weights of the same run are registered once, however often this is called.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Run that trained the model.
    folder : Path
        Folder that `cerebro.training.package.write_folder` wrote.
    name, alias : str
        Name of the registered model; empty alias = none.
    tags : dict of str to str
        Of the version; ``weights_sha256`` tells versions of one run apart.
    """
    from mlflow.exceptions import MlflowException

    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            client.log_artifact(run_id, str(file), ARTIFACTS)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    mine = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.run_id == run_id and version.tags.get("weights_sha256") == tags["weights_sha256"]
    ]
    if mine:
        number = str(mine[0].version)
    else:
        source = f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACTS}"
        number = str(client.create_model_version(name, source, run_id, tags=dict(tags)).version)
    if alias:
        client.set_registered_model_alias(name, alias, number)
    return Version(name, number, alias, not mine)


def log_data(client: Any, run_id: str, name: str, digest: str, source: str) -> None:
    """Say which data set a run trained on; ``digest`` is the hash of its content, of which MLflow keeps 36 digits."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name or "data", digest[:36], "local", json.dumps({"uri": source}))
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def fetch(client: Any, address: str, uri: str, into: Path) -> Path:
    """Files of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, copied below ``into``.

    Raises
    ------
    CheckpointError
        In one line: no such model, alias or version, with those that there are.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    found = re.fullmatch(rf"{START}([^/@:]+)(?:@([\w-]+)|/(\d+))", address)
    if found is None:
        raise CheckpointError(f"{address} is no address of a registered model; type models:/NAME@ALIAS or /VERSION.")
    name, alias, number = found.groups()
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException:
        raise CheckpointError(f"{address} is not registered at {uri}; {_what_is_there(client, name)}.") from None
    try:
        return Path(download_artifacts(artifact_uri=version.source, dst_path=str(into)))
    except (MlflowException, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(
            f"the files of {name} version {version.version} are not at {version.source} ({first}); run this where they "
            "were written, or give the folder of the model."
        ) from None


def _what_is_there(client: Any, name: str) -> str:
    """Models that are registered, or the aliases and versions of the one that was asked for."""
    models = {model.name: model for model in client.search_registered_models()}
    if not models:
        return "no model is registered there; set mlflow.register in the config of a phase, or mend --uri"
    if name not in models:
        return f"registered are {', '.join(sorted(models))}"
    aliases = ", ".join(f"@{alias} (version {number})" for alias, number in sorted(models[name].aliases.items()))
    numbers = sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))
    return f"{name} has {aliases or 'no alias'}; versions {', '.join(map(str, numbers)) or 'none'}"
