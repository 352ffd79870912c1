"""The name of a configuration, made from its config alone: ``mamba2_eeg_d128_l6_m20_mae``."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from cerebro.encoders.base import Encoder
from cerebro.objectives.base import Objective


def configuration_name(model: Mapping[str, Any]) -> str:
    """Name of encoder and objective of a resolved config's ``model``; a function of their constructors' arguments.

    No data are opened and nothing is built, so that whoever has the config finds the run.
    """
    return "_".join(str(_named(model[part])) for part in ("encoder", "objective") if part in model)


def with_defaults(value: Any) -> Any:
    """An encoder or objective of a config with all arguments of its constructor, and the class by its own path."""
    cls = _class(value.get("class_path")) if isinstance(value, Mapping) else None
    if cls is None:
        return value
    given = {**_defaults(cls), **(value.get("init_args") or {})}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": given}


def _named(value: Any) -> Any:
    """``value`` with the name of its configuration in place of every encoder or objective within."""
    if isinstance(value, Mapping):
        cls = _class(value.get("class_path"))
        given = {key: _named(entry) for key, entry in (value if cls is None else value.get("init_args") or {}).items()}
        return given if cls is None else cls.configuration_name({**_defaults(cls), **given})
    return value


def _class(path: Any) -> type[Encoder] | type[Objective] | None:
    """Class of a dotted path, which the parser has allowed; ``None`` if it is neither an encoder nor an objective."""
    module, _, name = str(path).rpartition(".")
    found = getattr(importlib.import_module(module), name) if module else None
    return found if inspect.isclass(found) and issubclass(found, Encoder | Objective) else None


def _defaults(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
