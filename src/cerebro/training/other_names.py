"""Other names of keys of a phase config, as fine-tuning commands have them: ``--data-path``, ``--freeze-backbone``."""

from collections.abc import Mapping
from typing import Any

from cerebro.errors import ConfigError

OTHER_NAMES = {"data_path": "data.store", "output_dir": "out", "freeze_backbone": "model.freeze_encoder"}
"""Key -> the usual key that it is another name of."""
PRETRAIN_CONFIG = "pretrain_config"


def given_names(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Usual keys -> values that a config gives under other names; an empty text gives nothing.

    Parameters
    ----------
    content : mapping
        A config as it stands in its file.
    where : str
        The file, for messages.

    Raises
    ------
    ConfigError
        If the usual key stands there too, with another value.
    """
    found = {usual: content[name] for name, usual in OTHER_NAMES.items() if content.get(name, "") != ""}
    for name, usual in OTHER_NAMES.items():
        if usual in found:
            check_one_value(name, found[usual], usual, _at(content, usual), where)
    return found


def usual_flag(flag: str) -> str:
    """``--data-path`` -> ``--data.store``; any other flag as it is."""
    name, equals, value = flag.partition("=")
    bare = name[2:].replace("-", "_") if name.startswith("--") else ""
    if bare == PRETRAIN_CONFIG:
        return f"--{PRETRAIN_CONFIG}{equals}{value}"
    return f"--{OTHER_NAMES[bare]}{equals}{value}" if bare in OTHER_NAMES else flag


def in_usual_names(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config with usual keys alone, and without a pretraining to look for.

    Raises
    ------
    ConfigError
        As `given_names`.
    """
    usual = {key: value for key, value in content.items() if key not in (*OTHER_NAMES, PRETRAIN_CONFIG)}
    for key, value in given_names(content, where).items():
        *parents, last = key.split(".")
        node = usual
        for parent in parents:
            node[parent] = dict(node.get(parent) or {})
            node = node[parent]
        node[last] = value
    return usual


def check_one_value(name: str, value: Any, usual: str, other: Any, where: str) -> None:
    """Raise ConfigError where a key has one value under its other name and another under its usual one."""
    if other is not None and _text(other) != _text(value):
        raise ConfigError(
            f"{where} gives {name} {_text(value)} and {usual} {_text(other)}, which are one key; leave one of them out."
        )


def _at(content: Any, key: str) -> Any:
    """Value at a dotted key; ``None`` where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or str(value).lower() in ("true", "false") else str(value)
