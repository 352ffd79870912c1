"""Weights of Mamba-2 layers from mamba-ssm, checked against the layers of a phase of ours; nothing is reshaped."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cerebro.errors import CheckpointError
from cerebro.nn.mamba2 import Mamba2Layer, Mamba2Stack
from cerebro.training.foreign_file import Fitted, Request, check_float32, refuse_differences
from cerebro.training.mamba_ssm.layout import MAMBA_1, STACK

CONFIG_FILE = "config.json"  # that ``save_pretrained`` writes beside the tensors


def fit_weights(asked: Request) -> Fitted:
    """Tensors as they are, if the layers of the module are of the same size; its other tensors keep their start.

    Raises
    ------
    CheckpointError
        In one line: Mamba-1, several groups of B and C, another size, or numbers that are no float32.
    """
    path, file = asked.path, asked.file
    if file.layout in MAMBA_1:
        raise CheckpointError(
            f"{path} ({file.label()}) has the tensors of Mamba-1 (dt_proj, x_proj), and the layers here are Mamba-2; "
            "nothing was loaded; give a file of mamba-ssm's Mamba2."
        )
    n_groups = _groups_beside(path)
    if n_groups > 1:
        raise CheckpointError(
            f"{path} has {n_groups} groups of B and C, says {CONFIG_FILE} beside it, and the layers here have one; "
            "nothing was loaded; give a file with ngroups 1."
        )
    for name, value in asked.taken.items():
        check_float32(name, value, path)
    stacks = {
        f"{prefix}." if prefix else "": module
        for prefix, module in asked.target.named_modules()
        if isinstance(module, Mamba2Stack)
    }
    lines = []
    for stack in stacks.values():
        _check_size(asked, stack)
        if stack.direction == "bidirectional":
            lines.append("direction: every second layer runs backwards here, and all run forwards in mamba-ssm")
    if n_groups == 0 and not file.n_heads:
        lines.append("the file does not tell its groups of B and C: taken as one (ngroups 1)")
    if asked.rows != "by_name":
        lines.append(f"rows: {asked.rows} has no use here: no table of channels moves")
    if file.left:
        lines.append(f"not used: {', '.join(file.left)}")
    initial = tuple(name for name in asked.target.state_dict() if not name.startswith(tuple(stacks)))
    return Fitted(dict(asked.taken), tuple(lines), initial if stacks else ())


def _groups_beside(path: Path) -> int:
    """Groups of B and C as the config beside a file tells them; 0 if there is none that does."""
    try:
        content = json.loads((path.parent / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return 0
    if not isinstance(content, dict):
        return 0
    layer = content.get("ssm_cfg")  # as mamba-ssm writes it, with a default of one group; else as transformers does
    found = layer.get("ngroups", 1) if isinstance(layer, dict) else content.get("n_groups", 0)
    return found if isinstance(found, int) else 0


def _check_size(asked: Request, stack: Mamba2Stack) -> None:
    theirs, ours = _size_in(asked.weights), size_of(stack)
    told = f"{asked.path} ({asked.file.label()})"
    n_file, n_here = theirs.get("d_state", 0), ours["d_state"]
    if n_file > n_here and n_file % n_here == 0:
        raise CheckpointError(
            f"{told} has {n_file} numbers of B for each token and d_state is {n_here} here: ngroups "
            f"{n_file // n_here}, which is not to be had, or ngroups 1 and d_state {n_file}; nothing was loaded; set "
            f"model.encoder.init_args.d_state: {n_file} if it has one group."
        )
    refuse_differences(f"{told} holds Mamba-2 of another size", theirs, ours, "model.encoder.init_args")


def _size_in(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Constructor keys of `Mamba2` as far as tensors with our names show them, taken as of one group."""
    numbers = [re.match(rf"{re.escape(STACK)}layers\.(\d+)\.", name) for name in weights]
    found = {"n_layers": max((int(match[1]) for match in numbers if match), default=-1) + 1}
    first = f"{STACK}layers.0."
    width, inner, heads, kernel = (
        weights.get(f"{first}{name}")
        for name in ("norm.weight", "mixer.norm.weight", "mixer.dt_bias", "mixer.conv1d.weight")
    )
    if width is not None:
        found["d_model"] = width.numel()
    if width is not None and inner is not None:
        found["expand"] = inner.numel() // width.numel()
    if inner is not None and heads is not None:
        found["headdim"] = inner.numel() // heads.numel()
    if inner is not None and kernel is not None:
        found |= {"d_state": (len(kernel) - inner.numel()) // 2, "d_conv": kernel.shape[-1]}
    return found


def size_of(stack: Mamba2Stack) -> dict[str, int]:
    """Constructor keys of a stack of ours."""
    layer = stack.layers[0]
    assert isinstance(layer, Mamba2Layer)
    width, inner, kernel = layer.norm.weight.numel(), layer.mixer.norm.weight.numel(), layer.mixer.conv1d.weight
    return {
        "n_layers": len(stack.layers),
        "d_model": width,
        "expand": inner // width,
        "headdim": inner // layer.mixer.dt_bias.numel(),
        "d_state": (len(kernel) - inner) // 2,
        "d_conv": kernel.shape[-1],
    }
