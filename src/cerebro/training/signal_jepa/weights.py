"""Weights of Signal-JEPA from braindecode, brought into the shapes and channels of a phase of ours."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from cerebro.encoders.signal_jepa import SignalJEPA
from cerebro.errors import CheckpointError
from cerebro.nn.positions import PositionEncoder
from cerebro.nn.postnorm import PostNormEncoderLayer
from cerebro.training.electrodes import some
from cerebro.training.foreign_file import Fitted, Request, check_float32, refuse_differences, reshaped
from cerebro.training.signal_jepa.channels import PUBLISHED_SFREQ, fit_table
from cerebro.training.signal_jepa.layout import ROWS, SPATIAL, TABLE

PUBLISHED_HEADS = 8  # braindecode's default; tensors do not show it


def fit_weights(asked: Request) -> Fitted:
    """Bring tensors into the shapes of a module: rows of its channels, no empty axes.

    Raises
    ------
    CheckpointError
        In one line: another size, channels without a row, a predictor of zeros, or numbers that are no float32.
    """
    file, signal, path = asked.file, asked.signal, asked.path
    wanted = asked.target.state_dict()
    if asked.rows == "nearest":
        raise CheckpointError(
            f"{path} ({file.label()}): rows: nearest is for published LaBraM; write rows: interpolated or initial into "
            "this entry of model.init."
        )
    lines = _checked_geometry(asked)
    if asked.rows != "by_name" and not any(name.endswith(ROWS) for name in wanted):
        lines.append(f"rows: {asked.rows} has no use here: no table of channels moves")
    fitted: dict[str, Tensor] = {}
    initial: tuple[str, ...] = ()
    for name, value in asked.taken.items():
        check_float32(name, value, path)
        if name.endswith(ROWS) and name in wanted:
            table, told = fit_table(value, file, signal, asked.rows, path)
            lines += told
            if table is None:
                initial = (name,)
                continue
            value = table
        elif name.rpartition(".")[2] == SPATIAL.rpartition(".")[2]:
            lines.append(_spatial_line(asked, value))
        fitted[name] = reshaped(value, wanted.get(name))
    if asked.rows == "initial":
        initial = tuple(name for name in wanted if name.endswith(ROWS))
    if fitted and not any(value.any() for value in fitted.values()):
        raise CheckpointError(
            f"{path} has zeros in these places, as cerebro writes them where a phase has no predictor; nothing was "
            "loaded; take that entry out of model.init."
        )
    lines.append("input scale: microvolt")
    if not file.signal:
        lines.append(
            f"the file does not tell its rate: braindecode's published weights know {PUBLISHED_SFREQ:g} Hz, this store "
            f"has {signal.sfreq:g} Hz"
        )
    if file.left:
        lines.append(f"not used: {', '.join(file.left)}")
    return Fitted(fitted, tuple(lines), initial)


def _checked_geometry(asked: Request) -> list[str]:
    """Lines on what tensors do not show; a CheckpointError that names every key in which the sizes differ."""
    lines: list[str] = []
    for prefix, module in asked.target.named_modules():
        below = f"{prefix}." if prefix else ""
        taken = {name.removeprefix(below) for name in asked.taken if name.startswith(below)}
        if not isinstance(module, SignalJEPA) or not taken:
            continue
        theirs, ours = _geometry_in(asked.weights), geometry_of(module)
        if asked.file.conv_layers:
            theirs["conv_layers"] = [list(layer) for layer in asked.file.conv_layers]
        else:
            ours["conv_layers"] = [layer[:2] for layer in module_layers(module)]
        if asked.file.n_heads:
            theirs["n_heads"] = asked.file.n_heads
        elif ours.get("n_heads", PUBLISHED_HEADS) != PUBLISHED_HEADS:
            lines.append(f"the file does not tell its heads: braindecode's default is 8, here are {ours['n_heads']}")
        has_transformer = any(name.startswith("transformer.") for name in taken) and module.n_layers > 0
        kept = [key for key in theirs if has_transformer or key == "conv_layers"]
        if TABLE not in taken or asked.rows == "initial":
            kept = [key for key in kept if key != "place_width"]
        refuse_differences(
            f"{asked.path} ({asked.file.label()}) holds SignalJEPA of another size",
            {key: theirs[key] for key in kept},
            ours,
            "model.encoder.init_args",
        )
    return lines


def _geometry_in(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Constructor keys of `SignalJEPA` as tensors with our names show them; strides and heads they do not."""
    convolutions = {
        int(match[1]): value
        for name, value in weights.items()
        if (match := re.fullmatch(r"encoder\.feature_encoder\.(\d+)\.0\.weight", name))
    }
    found: dict[str, object] = {
        "conv_layers": [[value.shape[0], value.shape[-1]] for _, value in sorted(convolutions.items())]
    }
    layers = [re.match(r"encoder\.transformer\.encoder\.layers\.(\d+)\.", name) for name in weights]
    depth = max((int(match[1]) for match in layers if match), default=-1) + 1
    hidden = weights.get("encoder.transformer.encoder.layers.0.linear1.weight")
    if hidden is not None:
        found |= {"depth": depth, "feedforward": hidden.shape[0]}
    if f"encoder.{TABLE}" in weights:
        found["place_width"] = weights[f"encoder.{TABLE}"].shape[-1]
    return found


def geometry_of(encoder: SignalJEPA) -> dict[str, object]:
    """Constructor keys of an encoder of ours."""
    found: dict[str, object] = {"conv_layers": module_layers(encoder), "depth": encoder.n_layers}
    for module in encoder.modules():
        if isinstance(module, PostNormEncoderLayer):
            found |= {"feedforward": module.linear1.out_features, "n_heads": module.self_attn.n_heads}
        if isinstance(module, PositionEncoder):
            found["place_width"] = module.pos_encoder_spat.embedding_dim
    return found


def module_layers(encoder: SignalJEPA) -> list[list[int]]:
    """Channels, kernel and stride of the convolutions of an encoder."""
    convolutions = [module for module in encoder.feature_encoder.modules() if isinstance(module, nn.Conv1d)]
    return [[conv.out_channels, conv.kernel_size[0], conv.stride[0]] for conv in convolutions]


def _spatial_line(asked: Request, filters: Tensor) -> str:
    """A line on the channels of spatial filters, which a file may name; a CheckpointError if they are others."""
    theirs, ours = [str(name) for name in asked.file.signal.get("channels", ())], list(asked.signal.channels)
    if theirs and theirs != ours:
        lost = [name for name in ours if name not in theirs]
        raise CheckpointError(
            f"{asked.path}: its spatial filters are of {len(theirs)} other channels than the {len(ours)} of this store "
            f"({some(lost) or 'in another order'}); nothing was loaded; take objective.readout out of model.init."
        )
    if theirs:
        return f"spatial filters: {len(ours)} channels by name"
    n_channels = filters.numel() // len(filters)
    return f"spatial filters: {n_channels} channels, taken in the order of this store's: the file does not name them"
