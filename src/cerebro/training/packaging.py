"""When a phase becomes a package: at the end of a run that has a name or is registered, or by `cerebro export`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cerebro.data.processing import data_set_name, processing_of
from cerebro.errors import CerebroError, ConfigError
from cerebro.files import read_json
from cerebro.objectives.supervised import Supervised
from cerebro.progress import progress
from cerebro.training.checkpoint import Checkpoint, Stamp
from cerebro.training.keys import RunKeys
from cerebro.training.package import Facts, Package, package_of, read_folder, read_package, write_file, write_folder
from cerebro.training.phase import Phase
from cerebro.training.profile import profile_of
from cerebro.training.stamp import PhaseData

FOLDER = "model"
MOST_WINDOWS = 4096


def file_of(run_name: str) -> str:
    """Name of the file that stands beside ``<run_name>_best.ckpt``."""
    return f"{run_name}_best.pt"


def package_run(
    phase: Phase,
    best: Checkpoint,
    data: PhaseData,
    keys: RunKeys,
    scores: Mapping[str, float],
    say: Callable[[str], None],
) -> Path | None:
    """Package the best epoch of a supervised run that has a name or is to be registered; gives the folder, or None.

    Parameters
    ----------
    phase : Phase
        The phase, with the weights of its best epoch.
    best : Checkpoint
        Its ``best.ckpt``.
    data : PhaseData
        What it trained on: at most 4,096 of its windows say what its recordings are like.
    keys : RunKeys
        ``out``, ``run_name`` and what MLflow is asked to do; without a name that of the phase stands in its place.
    scores : dict of float
        Those of the best epoch, `scores_of`.
    say : callable
        Takes a line for the user.
    """
    name = keys.run_name or (phase.name if keys.mlflow.enabled and keys.mlflow.register else "")
    if not name or not isinstance(phase.objective, Supervised):
        return None
    profile = _profile(phase, data)
    package = package_of(best, facts_of(best, name, scores), profile)
    write_file(package, keys.out / file_of(name))
    write_folder(package, keys.out / FOLDER)
    say(f"{keys.out / FOLDER} and {file_of(name)} hold the model, to share and for cerebro predict")
    return keys.out / FOLDER


def package_beside(best: Checkpoint) -> Path | None:
    """The packaged model beside a checkpoint, if there is one of the same weights."""
    return None if _beside(best) is None else best.path.parent / FOLDER


def export_package(source: Checkpoint, out: Path) -> Package:
    """Package a checkpoint of any phase into ``out``: a file where it ends in .pt, else a folder.

    What only the run knew (scores, what its recordings are like) comes from the package beside the checkpoint, if there
    is one of these weights.

    Raises
    ------
    ConfigError
        If something is there already that is no package.
    """
    package = packaged(source)
    if out.suffix == ".pt":
        if out.exists() and not out.is_file():
            raise ConfigError(f"{out} is a folder; choose another --out.")
        _check_free(out)
        write_file(package, out)
        return package
    if out.exists():
        if not out.is_dir():
            raise ConfigError(f"{out} is a file; a packaged model is a folder, or a file that ends in .pt.")
        if any(out.iterdir()):
            _check_free(out)
    write_folder(package, out)
    return package


def packaged(source: Checkpoint) -> Package:
    """Package of a checkpoint, with all that is known of it, or the package itself that it was read from."""
    beside = _beside(source)
    if beside is not None:
        return beside
    return package_of(source, facts_of(source, source.path.parent.name or source.stamp.phase, {}), {})


def facts_of(source: Checkpoint, name: str, scores: Mapping[str, float]) -> Facts:
    """What stands beside the store and the sources of a checkpoint, where they are still there."""
    record = _record(source.stamp)
    return Facts(
        name=name,
        processing=record.get("processing") or {},
        label=record.get("label") or {},
        scores=scores,
        sources=tuple(links_of(source.stamp.inputs)),
        data_name=data_of(source.stamp)[0],
    )


def links_of(inputs: Mapping[str, str]) -> list[dict[str, str]]:
    """What a run started from: file and folder, weights, and the MLflow run that ``mlflow.json`` beside them names."""
    links = []
    for path, digest in inputs.items():
        file = Path(path)
        link = {"file": "/".join(file.parts[-2:]), "weights_sha256": digest}
        for folder in (file.parent, file.parent.parent, file):  # a checkpoint, a file in model/, or model/ itself
            if run_id := _run_id(folder / "mlflow.json"):
                link["mlflow_run_id"] = run_id
                break
        links.append(link)
    return links


def origin_tags(inputs: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run that started from others: their weights and, where they are known, their MLflow runs."""
    links = links_of(inputs)
    if not links:
        return {}
    runs = [link["mlflow_run_id"] for link in links if "mlflow_run_id" in link]
    return {
        "pretraining_weights_sha256": ", ".join(link["weights_sha256"] for link in links),
        **({"pretraining_run_id": ", ".join(runs)} if runs else {}),
    }


def version_tags(folder: Path) -> dict[str, str]:
    """Tags of a registered version: its weights, its data, where they came from, its scores."""
    config = read_folder(folder).config
    scores = {key.replace("/", "_"): f"{value:.6g}" for key, value in config["scores"].items()}
    inputs = {link["file"]: link["weights_sha256"] for link in config["started_from"]}
    runs = [link["mlflow_run_id"] for link in config["started_from"] if link.get("mlflow_run_id")]
    tags = {
        "weights_sha256": config["weights_sha256"],
        "data_hash": config["data_hash"],
        "data_name": config["data_name"],
        "git_commit": config["git_commit"],
        "target": config["target"].get("name", ""),
        "pretraining_weights_sha256": ", ".join(inputs.values()),
        "pretraining_run_id": ", ".join(runs),
    }
    return {key: value for key, value in tags.items() if value} | scores


def data_of(stamp: Stamp) -> tuple[str, str, str]:
    """Name, hash and place of the data that a run trains on, for MLflow."""
    store = (stamp.config.get("data") or {}).get("store")
    plan = _record(stamp).get("processing") or {}
    name = data_set_name(plan["window_s"], plan["channels"]) if plan.get("channels") else Path(store or "data").name
    return name, stamp.data_hash, str(store or "")


def scores_of(best: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Scores of the validation participants in the best epoch."""
    row = next((row for row in history if row["epoch"] == best.get("epoch")), {})
    named = {key: value for key, value in row.items() if key.startswith("val/") and key != "val/known"}
    return {key: float(value) for key, value in named.items() if value is not None}


def _check_free(out: Path) -> None:
    """Refuse to write over something that is no package."""
    try:
        is_package = read_package(out) is not None
    except CerebroError:
        is_package = False
    if out.exists() and not is_package:
        raise ConfigError(f"{out} is there already and is no packaged model; choose another --out, or remove it.")


def _profile(phase: Phase, data: PhaseData) -> dict[str, Tensor]:
    """What the training recordings are like; empty where they are too few to say, or no tokens are made of them."""
    if isinstance(phase.objective, Supervised) and not phase.objective.readout.reads_tokens:
        return {}
    device = next(phase.parameters()).device
    was_training = phase.training
    phase.eval()
    batches = progress(
        data.evaluation_loader("train", MOST_WINDOWS), "what the training data are like", "batch", stays=False
    )
    profile, _ = profile_of(phase.encoder, phase.signal, (raw.to(device).to_microvolts() for raw in batches))
    phase.train(was_training)
    return {} if profile is None else profile.tensors()


def _beside(source: Checkpoint) -> Package | None:
    """Package in ``model`` beside a checkpoint, if it is of the same weights."""
    folder = source.path.parent / FOLDER if source.content else source.path
    try:
        found = read_package(folder) if folder.exists() else None
    except CerebroError:
        return None
    same = found is not None and found.config["weights_sha256"] == source.stamp.weights_sha256
    return found if same else None


def _record(stamp: Stamp) -> dict[str, Any]:
    """What ``processing.json`` beside the store says, if it is of the data that were trained on; {} otherwise."""
    store = (stamp.config.get("data") or {}).get("store")
    if not isinstance(store, str) or not store:
        return {}
    try:
        found = processing_of(Path(store))
    except CerebroError:  # it is of other data
        return {}
    return found if found.get("data_hash") == stamp.data_hash else {}


def _run_id(file: Path) -> str:
    try:
        found = read_json(file) if file.is_file() else {}
    except CerebroError:
        return ""
    return str(found.get("run_id") or "") if isinstance(found, dict) else ""
