"""What a command line of ``cerebro fit`` asks for: keys under other names, names of runs, a pretraining to be found."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from cerebro.errors import ConfigError
from cerebro.training.checkpoint import Checkpoint
from cerebro.training.discovery import (
    Pretraining,
    check_same_encoder,
    find_checkpoint,
    first_difference,
    pretrained_name,
    store_of,
)
from cerebro.training.foreign import read_source
from cerebro.training.naming import configuration_name
from cerebro.training.other_names import OTHER_NAMES, PRETRAIN_CONFIG, check_one_value, given_names, usual_flag

PRETRAINED = "{pretrained}"
OF_WINDOWS = ("ChannelSequences", "RecordingWindows")  # what reads the stores of windows


@dataclass(frozen=True)
class Asked:
    """A parsed command line, before anything of it is built."""

    parser: ArgumentParser
    config: Namespace
    resolved: dict[str, Any]

    def filled(self, text: str) -> str:
        """``text`` with the phase's name for ``{name}`` and that of encoder and objective for ``{model}``."""
        text = text.replace("{name}", self.config.model.name)
        return text.replace("{model}", configuration_name(self.resolved["model"])) if "{model}" in text else text

    @property
    def run_name(self) -> str:
        """Name of the run; empty if it is that of the phase."""
        name = self.filled(str(self.config.run_name))
        return "" if name == self.config.model.name else name


Parse = Callable[[list[str]], Asked]


def add_other_names(parser: ArgumentParser) -> None:
    """Let a parser know keys that are other names of usual ones; `with_usual_flags` puts these in their place."""
    parser.add_argument(
        f"--{PRETRAIN_CONFIG}",
        type=str,
        default="",
        help="config of the pretraining whose encoder this phase starts from; its checkpoint is found by it",
    )
    of = {"data_path": str, "output_dir": str, "freeze_backbone": bool | str}
    for name, kind in of.items():
        parser.add_argument(f"--{name}", type=kind, default="", help=f"another name of {OTHER_NAMES[name]}")


def with_usual_flags(argv: Sequence[str]) -> list[str]:
    """A command line in which keys have their usual names, and what its YAML files say under others follows them.

    Raises
    ------
    ConfigError
        If a key has two values, under both its names, in one file.
    """
    flags = [usual_flag(argument) for argument in argv]
    result: list[str] = []
    for place, flag in enumerate(flags):
        result.append(flag)
        file = (
            flag.partition("=")[2] if flag.startswith("--config=") else flag if flags[place - 1] == "--config" else ""
        )
        if file and (place or flag.startswith("--config=")) and Path(file).is_file():
            result += _of_file(Path(file))
    return result


def _of_file(path: Path) -> list[str]:
    """Flags for what a config gives under other names; its paths of YAML are relative to it."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return []
    flags = [f"--{usual}={_written(value)}" for usual, value in given_names(content, str(path)).items()]
    if isinstance(pretraining := content.get(PRETRAIN_CONFIG), str) and pretraining:
        flags.append(f"--{PRETRAIN_CONFIG}={path.parent / pretraining}")
    return flags


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_flags(argv: Sequence[str]) -> None:
    """Raise ConfigError if a key has two values on a command line, under both its names."""
    values: dict[str, dict[str, str]] = {}  # usual key -> name as typed -> value
    for place, typed in enumerate(argv):
        key, equals, value = usual_flag(typed).partition("=")
        if key.removeprefix("--") in OTHER_NAMES.values():
            following = argv[place + 1] if place + 1 < len(argv) else ""
            values.setdefault(key, {})[typed.partition("=")[0]] = value if equals else following
    for typed_values in values.values():
        (name, value), *others = typed_values.items()
        for other, another in others:
            check_one_value(name, value, other, another, "the command line")


def in_typed_names(message: str, argv: Sequence[str]) -> str:
    """A message that speaks of keys by the names under which they were typed."""
    for typed in argv:
        flag = typed.partition("=")[0]
        if (usual := usual_flag(flag)) != flag and usual != f"--{PRETRAIN_CONFIG}":
            message = message.replace(usual, flag).replace(usual.removeprefix("--"), flag.removeprefix("--"))
    return message


def found_flags(verb: str, asked: Asked, parse: Parse, allowed: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Flags that put in place what is found by other things: store, checkpoint of the pretraining, names.

    Of verbs other than ``fit`` only the names and the store: they have a checkpoint of their own.

    Raises
    ------
    CerebroError
        In one line: no data, no checkpoint, one that does not fit, or two sources of the encoder.
    """
    flags: list[str] = []
    config = asked.config
    store = Path(str(getattr(config.data, "store", "")))
    windows = str((asked.resolved["data"].get("windows") or {}).get("class_path", "")).rpartition(".")[2]
    is_asked = store.suffix == ".parquet" or windows in OF_WINDOWS
    if is_asked and (found := store_of(store)) != store:
        flags += ["--data.store", str(found)]
    pretraining = _pretraining(Path(config.pretrain_config), parse, allowed, ()) if config.pretrain_config else None
    if pretraining is not None:
        pretraining = replace(pretraining, data_path="" if Path(pretraining.data_path) == store else str(store))
    if pretraining is not None and verb == "fit":
        flags += ["--model.init", json.dumps(_hand_over(asked, pretraining, allowed))]
        if not (pretraining.out / "run.json").is_file():
            say(f"the pretraining in {pretraining.out} has not finished; its best epoch so far is taken")
        if difference := first_difference(asked.resolved["data"].get("split"), pretraining.split, "data.split"):
            key, ours, theirs = difference
            say(
                f"the pretraining {pretraining.path} has {key} {json.dumps(theirs)} and this phase {json.dumps(ours)}: "
                "people of the same store change sides, and are refused where the encoder has seen them"
            )
    if pretraining is not None:
        flags += [f"--{PRETRAIN_CONFIG}="]
    for key in ("out", "run_name"):
        if PRETRAINED in (text := str(config[key])):
            name = _name(asked, allowed) if pretraining is None else pretraining.name
            flags += [f"--{key}", text.replace(PRETRAINED, name)]
    return flags


def _hand_over(asked: Asked, pretraining: Pretraining, allowed: Sequence[str]) -> list[dict[str, Any]]:
    """``model.init`` with the encoder of the pretraining."""
    model = asked.resolved["model"]
    for entry in model["init"]:
        if entry["into"] == "encoder":
            raise ConfigError(
                f"the encoder has two sources, {entry['source']} in model.init and the pretraining {pretraining.path}; "
                f"leave one of them out: add --{PRETRAIN_CONFIG}= or remove the entry of model.init."
            )
    if asked.config.ckpt_path and not _is_resumed(asked):
        raise ConfigError(
            f"the encoder has two sources, --ckpt_path {asked.config.ckpt_path} and the pretraining "
            f"{pretraining.path}; leave one of them out: add --{PRETRAIN_CONFIG}= or remove --ckpt_path."
        )
    check_same_encoder(model, pretraining)
    return [*model["init"], {"source": str(find_checkpoint(pretraining, allowed).path)}]


def _is_resumed(asked: Asked) -> bool:
    source = read_source(Path(asked.config.ckpt_path))
    return source.foreign is None and source.stamp.phase == asked.config.model.name


def _name(asked: Asked, allowed: Sequence[str]) -> str:
    """What ``{pretrained}`` stands for where no pretraining config is given: told by the source of the encoder."""
    model = asked.resolved["model"]
    sources = [entry["source"] for entry in model["init"] if entry["into"] == "encoder"]
    if asked.config.ckpt_path and not _is_resumed(asked):
        sources = [asked.config.ckpt_path]
    source: Checkpoint | None = None
    if sources and model["transfer"] != "none":
        source = read_source(Path(sources[0]))
    return pretrained_name(model, source, allowed)


def _pretraining(path: Path, parse: Parse, allowed: Sequence[str], above: tuple[Path, ...]) -> Pretraining:
    """What a pretraining config says of its run."""
    if not path.is_file():
        raise ConfigError(f"pretraining config {path} not found; correct --pretrain-config.")
    if path.resolve() in above:
        raise ConfigError(f"pretraining config {path} starts from itself; correct {PRETRAIN_CONFIG} in it.")
    try:
        asked = parse(["--config", str(path)])
    except ConfigError as error:
        raise ConfigError(f"pretraining config {path}: {error}") from None
    name = ""
    if any(PRETRAINED in str(asked.config[key]) for key in ("out", "run_name")):
        before = asked.config.pretrain_config
        name = (
            _pretraining(Path(before), parse, allowed, (*above, path.resolve())).name
            if before
            else _name(asked, allowed)
        )
    out = asked.filled(str(asked.config.out).replace(PRETRAINED, name))
    split = asked.resolved["data"].get("split")
    store = str(asked.resolved["data"]["store"])
    return Pretraining(path, asked.resolved["model"], split, Path(out), asked.run_name.replace(PRETRAINED, name), store)
