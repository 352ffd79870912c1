"""A finished phase as files that others use: one ``.pt``, or a folder of config.json, model.safetensors and README.md.

Both hold tensors and plain values only, and both load back wherever a checkpoint of another phase can stand. People are
in them as hashes of their ids (docs/decisions/0009-packages-and-people.md): whoever has an id can ask whether it was
trained on, and nobody reads a list of names.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cerebro.errors import CheckpointError, DataError
from cerebro.files import read_json, write_atomically, write_json
from cerebro.training.card import card
from cerebro.training.checkpoint import Checkpoint, Stamp, hashed, load_plain, weights_sha256

FORMAT = "cerebro-package"
FORMAT_VERSION = 1
PRIMARY_LABEL = "remission"  # target that the label table of a primary data set becomes
CONFIG, WEIGHTS, PROFILE, CARD = "config.json", "model.safetensors", "profile.safetensors", "README.md"
_LINK = "cerebro_package"  # metadata of the tensors: SHA-256 of the config that they belong to


@dataclass(frozen=True)
class Package:
    """A model that has been trained, and everything that rebuilds and uses it.

    Parameters
    ----------
    config : dict
        Plain values, as they stand in ``config.json``.
    weights : dict of str to Tensor
        State dict of the whole phase: ``encoder.*`` and ``objective.*``.
    profile : dict of str to Tensor
        What the training recordings are like (`cerebro.training.profile`); empty = unknown.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    profile: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a checkpoint does not say of itself.

    Parameters
    ----------
    name : str
        Name of the model.
    processing : dict
        What was done to its recordings (`Processing.plain`); empty = unknown.
    label : dict
        ``column`` and ``values`` of the label in the table it came from; empty = unknown.
    scores : dict of str to float
        Scores of the validation participants in the best epoch, by the keys of the history.
    sources : tuple of dict
        What it started from: ``file``, ``weights_sha256`` and ``mlflow_run_id``.
    data_name : str
        Name of the data set; empty = unknown.
    """

    name: str
    processing: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    sources: tuple[Mapping[str, str], ...] = ()
    data_name: str = ""


def package_of(source: Checkpoint, facts: Facts, profile: Mapping[str, Tensor]) -> Package:
    """Package of a checkpoint.

    Raises
    ------
    CheckpointError
        If it is no checkpoint of a phase of cerebro.
    """
    stamp = source.stamp
    if source.foreign is not None or "model" not in stamp.config:
        raise CheckpointError(f"{source.path} is no checkpoint of a phase of cerebro; give a best.ckpt or last.ckpt.")
    data = stamp.config.get("data") or {}
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": facts.name,
        "phase": stamp.phase,
        "version": stamp.version,
        "git_commit": stamp.git_commit,
        "data_hash": stamp.data_hash,
        "data_name": facts.data_name,
        "config_hash": stamp.config_hash,
        "weights_sha256": stamp.weights_sha256 or weights_sha256(source.weights),
        "model": {**stamp.config["model"], "init": []},
        "data": {key: data[key] for key in ("windows", "channels", "targets") if key in data},
        "signal": _plain_signal(stamp.signal),
        "target": _target(stamp.config["model"], facts.label),
        "processing": dict(facts.processing),
        "label": dict(facts.label),
        "participants": {side: _hashes(people) for side, people in stamp.participants.items()},
        "corpora": sorted({person.partition(":")[0] for person in stamp.seen if hashed(person) != person}),
        "trained": _hashes(stamp.trained),
        "seen": _hashes(stamp.seen),
        "recordings": {side: list(found) for side, found in stamp.recordings.items()},
        "started_from": [dict(link) for link in facts.sources],
        "scores": {key: value for key, value in facts.scores.items() if math.isfinite(value)},
    }
    return Package(json.loads(json.dumps(config)), source.weights, dict(profile))


def write_file(package: Package, path: Path) -> None:
    """Write ``{"model": state dict, "config": {...}}``, which ``torch.load(weights_only=True)`` reads; atomically."""
    config: dict[str, Any] = {**package.config, "sha256": _digest(package.config)}
    if package.profile:
        config["profile"] = dict(package.profile)
    content = {"model": dict(package.weights), "config": config}
    write_atomically(path, lambda file: torch.save(content, file))


def write_folder(package: Package, folder: Path) -> None:
    """Write config.json, README.md and, last, the tensors, each atomically.

    A folder whose files are not all of one package is refused when it is read: the tensors name their config.
    """
    digest = _digest(package.config)
    write_json(folder / CONFIG, {**package.config, "sha256": digest})
    text = card(package.config).encode()
    write_atomically(folder / CARD, lambda file: _write(file, text), len(text))
    if package.profile:
        _write_tensors(folder / PROFILE, package.profile, digest)
    else:
        (folder / PROFILE).unlink(missing_ok=True)
    _write_tensors(folder / WEIGHTS, package.weights, digest)


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that `write_folder` wrote, or its ``model.safetensors``."""
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.name != WEIGHTS or not weights.is_file():
        return False
    return _LINK in _metadata(weights)


def read_folder(path: Path) -> Package:
    """Read a folder that `write_folder` wrote.

    Raises
    ------
    CheckpointError
        In one line: a file is missing or damaged, or the files are not of one package.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(f"{file} is missing, and {WEIGHTS} beside it needs it; copy the folder as a whole.")
    try:
        content = read_json(file)
    except DataError:
        raise CheckpointError(f"{file} is damaged (no valid JSON); copy the folder again, or export it anew.") from None
    config = _checked(content, file)
    package = Package(config, _tensors(folder / WEIGHTS), {})
    _check_link(folder / WEIGHTS, config)
    _check_weights(package, folder / WEIGHTS)
    if (folder / PROFILE).is_file():
        _check_link(folder / PROFILE, config)
        package.profile.update(_tensors(folder / PROFILE))
    return package


def is_content(content: Mapping[str, Any]) -> bool:
    """Whether what a file of torch holds is what `write_file` wrote."""
    config = content.get("config")
    return isinstance(config, dict) and config.get("format") == FORMAT


def package_in(content: Mapping[str, Any], path: Path) -> Package:
    """Package in the content of a file that `write_file` wrote.

    Raises
    ------
    CheckpointError
        In one line: it is damaged.
    """
    config = dict(content["config"])
    profile, weights = config.pop("profile", {}), content.get("model")
    is_whole = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not (is_whole and isinstance(profile, dict) and all(isinstance(value, Tensor) for value in profile.values())):
        raise CheckpointError(f"{path} is damaged (no tensors under 'model'); export the model again.")
    package = Package(_checked(config, path), dict(content["model"]), profile)
    _check_weights(package, path)
    return package


def read_package(path: Path) -> Package | None:
    """Package at ``path``, a file or a folder; None if it is something else that could be read.

    Raises
    ------
    CheckpointError
        In one line.
    """
    if is_folder(path):
        return read_folder(path)
    if path.is_dir() or path.suffix == ".safetensors":
        return None
    content = load_plain(path)
    return package_in(content, path) if is_content(content) else None


def as_checkpoint(package: Package, path: Path) -> Checkpoint:
    """The package as a checkpoint that hands its weights over; it has no state of training to resume.

    Raises
    ------
    CheckpointError
        If its config lacks something.
    """
    config = package.config
    try:
        signal = dict(config["signal"])
        signal["positions"] = [[math.nan if x is None else float(x) for x in place] for place in signal["positions"]]
        stamp = Stamp(
            phase=str(config["phase"]),
            version=str(config["version"]),
            git_commit=str(config["git_commit"]),
            data_hash=str(config["data_hash"]),
            config_hash=str(config["config_hash"]),
            config={"model": dict(config["model"]), "data": dict(config["data"])},
            signal=signal,
            participants={side: list(people) for side, people in config["participants"].items()},
            trained=list(config["trained"]),
            seen=list(config["seen"]),
            recordings={side: list(found) for side, found in config["recordings"].items()},
            inputs={str(link["file"]): str(link["weights_sha256"]) for link in config["started_from"]},
            weights_sha256=str(config["weights_sha256"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks something that a packaged model has ({error}); export it again.") from None
    return Checkpoint(path, stamp, package.weights, content={})


def _target(model: Mapping[str, Any], label: Mapping[str, Any]) -> dict[str, Any]:
    """What is predicted: name, kind and names of the classes; empty if the phase predicts no target."""
    objective = model.get("objective") or {}
    if str(objective.get("class_path", "")).rpartition(".")[2] != "Supervised":
        return {}
    keys = objective.get("init_args") or {}
    kind = keys.get("kind", "regression")
    found: dict[str, Any] = {"name": keys["target"], "kind": kind}
    if kind == "classification":
        n_classes = int(keys.get("n_classes", 2))
        is_label = keys["target"] == PRIMARY_LABEL
        values = [str(value) for value in label.get("values", [])] if is_label else []
        found["classes"] = values if len(values) == n_classes else [str(number) for number in range(n_classes)]
    return found


def _plain_signal(signal: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SignalSpec as JSON has them: unknown places are null."""
    places = [[None if math.isnan(x) else float(x) for x in place] for place in signal.get("positions", [])]
    return {**signal, "positions": places}


def _hashes(people: Iterable[str]) -> list[str]:
    return sorted({hashed(person) for person in people})


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _checked(content: Any, path: Path) -> dict[str, Any]:
    """Config whose checksum agrees, of a format that this cerebro knows."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no config of a packaged model; copy the folder again, or export it anew.")
    config = {key: value for key, value in content.items() if key != "sha256"}
    if content.get("sha256") != _digest(config):
        raise CheckpointError(f"{path} is damaged or was edited (its checksum differs); copy or export it again.")
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {config.get('format_version')}, this cerebro reads {FORMAT_VERSION}; update cerebro."
        )
    return config


def _check_weights(package: Package, path: Path) -> None:
    if weights_sha256(package.weights) != package.config.get("weights_sha256"):
        raise CheckpointError(
            f"{path} is damaged: its tensors are not those that its config speaks of; export it again."
        )


def _check_link(file: Path, config: Mapping[str, Any]) -> None:
    if _metadata(file).get(_LINK) != _digest(config):
        raise CheckpointError(
            f"{file} and {CONFIG} are not of one model (a copy or an export broke off); copy or export it again."
        )


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], digest: str) -> None:
    from safetensors.torch import save  # late, as in `cerebro.training.foreign`

    state = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}  # no shared memory
    content = bytes(save(state, {"format": "pt", _LINK: digest}))
    write_atomically(path, lambda file: _write(file, content), len(content))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        first = str(error).splitlines()[0][:120] if str(error) else "no message"
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({first}); it is damaged; export it again."
        ) from None


def _write(file: BinaryIO | io.BufferedWriter, content: bytes) -> None:
    file.write(content)
