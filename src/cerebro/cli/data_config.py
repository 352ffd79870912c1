"""The YAML of ``cerebro prepare`` and ``check``: typed, overridden by the command line, its paths made absolute."""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from cerebro.cli.messages import one_line
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Reader
from cerebro.errors import ConfigError
from cerebro.montage import is_electrode_file
from cerebro.yaml_safety import check_yaml


@dataclass(frozen=True)
class PrepareConfig:
    """One YAML of ``cerebro prepare``.

    Parameters
    ----------
    reader : Reader
        Corpus to read.
    preprocessing : Preprocessing
        What is done to each recording.
    lsb_uV : float
        Microvolts per count of the store.
    max_failed_share : float
        Share of failed recordings above which `prepare` exits with 1.
    """

    reader: Reader
    preprocessing: Preprocessing
    lsb_uV: float
    max_failed_share: float


def make_parser() -> ArgumentParser:
    """Parser of the keys of `PrepareConfig`, in a YAML or as ``--dotted.key VALUE``."""
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
    parser = ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--reader", type=Reader, required=True)
    parser.add_class_arguments(Preprocessing, "preprocessing")
    parser.add_argument("--lsb_uV", type=float, default=0.05)
    parser.add_argument("--max_failed_share", type=float, default=0.05)
    return parser


def is_mixture(path: Path) -> bool:
    """Whether a config names sources of a mixture."""
    check_yaml(path)
    return "sources" in yaml.safe_load(path.read_text(encoding="utf-8"))


def read_config(path: Path, overrides: Sequence[str] = (), options: Sequence[str] = ()) -> PrepareConfig:
    """Read and check one YAML.

    Parameters
    ----------
    path : Path
        The YAML; relative paths in it are relative to its folder.
    overrides : sequence of str
        ``--dotted.key VALUE`` of a command line, which win; relative paths in them are relative to the working folder.
    options : sequence of str
        Other options of that command line, which an unknown key may have meant.

    Raises
    ------
    ConfigError
        In one line: unsafe YAML, an unknown key, a wrong type, a class outside cerebro.
    """
    check_yaml(path)
    empty = empty_keys(yaml.safe_load(path.read_text(encoding="utf-8")))
    if empty:
        raise ConfigError(f"config {path}: key {empty[0]} is empty; give it a value, or leave out the key.")
    parser = make_parser()
    place = f"config {path}"
    try:
        config = parser.parse_string(path.read_text(encoding="utf-8"))
        config = resolve_paths(config, path.resolve().parent)
        if overrides:
            place = "command line"
            config = resolve_paths(parser.parse_args(list(overrides), namespace=config), Path.cwd())
        made = parser.instantiate(config)
    except (ArgumentError, TypeError, ValueError) as error:
        known = _known_keys(parser, path) if overrides else list(parser.get_defaults().keys())
        readers = [reader.__name__ for reader in Reader.__subclasses__()]
        raise ConfigError(f"{place}: {one_line('prepare', str(error), [*known, *options], readers)}") from None
    if not 0 <= made.max_failed_share <= 1:
        raise ConfigError(
            f"max_failed_share={made.max_failed_share:g} is no share; set max_failed_share between 0 (none may fail) "
            "and 1 (all may)."
        )
    return PrepareConfig(made.reader, made.preprocessing, made.lsb_uV, made.max_failed_share)


def empty_keys(content: Any, place: str = "") -> list[str]:
    """Dotted keys of a YAML without a value, which only a reader's own arguments may be."""
    if not isinstance(content, dict):
        return [place] if content is None and not place.startswith("reader.init_args.") else []
    return [
        key for name, value in content.items() for key in empty_keys(value, f"{place}.{name}" if place else str(name))
    ]


def split_overrides(argv: Sequence[str], options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate what a verb's own parser reads from ``--dotted.key VALUE`` pairs that override its config.

    Parameters
    ----------
    argv : sequence of str
        What was typed after the verb.
    options : sequence of str
        The verb's own options, such as ``--out``.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word.split("=")[0] in options:
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides


def resolve_paths(config: Any, folder: Path) -> Any:
    """Parsed arguments with every relative path among them made absolute, as seen from ``folder``.

    Parameters
    ----------
    config : Any
        What the parser made of a class's arguments: paths, lists and tables of them, and those of classes below it.
    folder : Path
        Where relative paths begin.
    """
    if isinstance(config, Path):
        return folder / config
    if isinstance(config, Namespace):
        electrodes = getattr(config, "montage", None)  # a name, or the path of an electrode file
        if isinstance(electrodes, str) and is_electrode_file(electrodes):
            config.montage = str(folder / electrodes)
        return Namespace({key: resolve_paths(value, folder) for key, value in vars(config).items()})
    if isinstance(config, dict):
        return {key: resolve_paths(value, folder) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(resolve_paths(value, folder) for value in config)
    return config


def _known_keys(parser: ArgumentParser, path: Path) -> list[str]:
    """Every dotted key that this config could have: those of its reader too."""
    keys = sorted(set(parser.get_defaults().keys()) - {"reader"})
    try:
        reader = parser.parse_string(path.read_text(encoding="utf-8")).reader
        module, _, name = reader.class_path.rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        keys += [f"reader.init_args.{key}" for key in parameters]
    except (ArgumentError, TypeError, ValueError):
        pass
    return keys
