"""Weights of a phase in the names and shapes of another program, and their file."""

import inspect
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cerebro.errors import ConfigError
from cerebro.files import write_atomically
from cerebro.training.foreign import EXPORTED

ENDINGS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Exported:
    """State dict of another program, in its names and shapes, and what a user should know of it.

    Parameters
    ----------
    state : dict of str to Tensor
    plain : dict
        What the tensors do not show: heads, where they come from.
    lines : tuple of str
    is_bare : bool
        Whether a file of torch holds the tensors alone, as braindecode takes them.
    """

    state: dict[str, Tensor]
    plain: dict[str, Any]
    lines: tuple[str, ...]
    is_bare: bool


def write_exported(exported: Exported, path: Path) -> bool:
    """Write atomically: tensors and plain values only; False if the very same file is there already.

    Raises
    ------
    ConfigError
        If the name has another ending than .pth, .pt or .safetensors, or another file is there.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"out={path} has no ending of a file of weights; write one of {', '.join(ENDINGS)}.")
    content = _bytes(exported, path.suffix)
    if path.exists():
        if path.is_file() and path.read_bytes() == content:
            return False
        raise ConfigError(f"{path} is there already and holds something else; choose another --out, or remove it.")

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write, len(content))
    return True


def arguments_of(part: Mapping[str, Any], cls: type) -> dict[str, Any] | None:
    """Constructor arguments of a part of a config, defaults included; None if it is of another class."""
    if str(part["class_path"]).rpartition(".")[2] != cls.__name__:
        return None
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return defaults | dict(part.get("init_args") or {})


def _bytes(exported: Exported, ending: str) -> bytes:
    state = {name: value.contiguous() for name, value in exported.state.items()}
    if ending == ".safetensors":
        from safetensors.torch import save  # late, as in `cerebro.training.foreign`

        state = {name: value.clone() for name, value in state.items()}  # it takes no shared memory
        return bytes(save(state, {"format": "pt", EXPORTED: json.dumps(exported.plain, sort_keys=True)}))
    buffer = io.BytesIO()
    torch.save(state if exported.is_bare else {"model": state, EXPORTED: exported.plain}, buffer)
    return buffer.getvalue()
