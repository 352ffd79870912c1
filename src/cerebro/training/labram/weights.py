"""Weights of LaBraM from other programs, brought into the shapes, channels and window of a phase of ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from cerebro.encoders.labram import LaBraM
from cerebro.errors import CheckpointError
from cerebro.objectives.vqnsp import VQNSP
from cerebro.signal import SignalSpec
from cerebro.training.labram.channels import OFFICIAL_CHANNELS, Rows, borrow_rows
from cerebro.training.labram.geometry import OFFICIAL_SFREQ, check_encoder, check_tokenizer, encoder_in
from cerebro.training.labram.layout import LABELS, Layout, their_name

_IS_SHARE = 1e-4  # a sum of cluster sizes this near to 1 says that they are shares already, as cerebro exports them


@dataclass(frozen=True)
class ForeignFile:
    """What is known of a file of another program beside its tensors.

    Parameters
    ----------
    layout : {"labram", "finetuned", "vqnsp", "braindecode"}
    n_heads, decoder_heads : int
        Heads where the tensors do not show them.
    left : tuple of str
        What else stands in the file and has no use here: ``optimizer``, ``scaler``.
    without_place : dict of str to tuple of int
        Shapes of tensors that have no place here, by their names in the file: ``projection_head.0.weight``.
    """

    layout: Layout
    n_heads: int
    decoder_heads: int
    left: tuple[str, ...] = ()
    without_place: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """Tensors as a module of ours takes them, and lines for the user."""

    tensors: dict[str, Tensor]
    lines: tuple[str, ...]


def fit_weights(
    taken: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    file: ForeignFile,
    path: Path,
    target: nn.Module,
    signal: SignalSpec,
    rows: Rows,
) -> Fitted:
    """Bring tensors into the shapes of ``target``: rows of its channels, rows of its time embedding, no empty axes.

    Parameters
    ----------
    taken : mapping of str to Tensor
        What is to move, by its names in ``target``.
    weights : mapping of str to Tensor
        All tensors of the file, by our names.
    file : ForeignFile
        Where they come from.
    path : Path
        The file, for messages.
    target : Module
        What receives them: a LaBraM, a VQNSP, a part of one, or something that holds both.
    signal : SignalSpec
        Channels and rate of that LaBraM.
    rows : {"by_name", "nearest"}
        See `cerebro.training.labram.channels.borrow_rows`.

    Raises
    ------
    CheckpointError
        In one line: another rate, size or tokenizer, channels without a row, a window longer than the time embedding,
        or numbers that are no float32.
    """
    if signal.sfreq != OFFICIAL_SFREQ:
        raise CheckpointError(
            f"{path} ({LABELS[file.layout]}) was trained at {OFFICIAL_SFREQ:g} Hz and this store has {signal.sfreq:g} "
            "Hz; nothing was loaded; set preprocessing.sfreq: 200 in the data config and prepare the store again."
        )
    _check_modules(taken, weights, file, path, target)
    wanted = target.state_dict()
    fitted: dict[str, Tensor] = {}
    lines: list[str] = []
    for name, value in taken.items():
        place, last = wanted.get(name), name.rpartition(".")[2]
        if not torch.is_floating_point(value) or value.dtype == torch.float64:
            raise CheckpointError(
                f"{path} holds {name} as {str(value.dtype).removeprefix('torch.')}, expected float32; nothing was "
                "loaded; save the file anew with float32 weights."
            )
        if last == "channel_embedding":
            value, told = _channel_rows(value, signal, rows, path)
            lines += [line for line in told if line not in lines]
        elif last == "time_embedding" and place is not None:
            value, told = _time_rows(value, place, path)
            lines += [line for line in told if line not in lines]
        elif name.endswith("codebook.use"):
            value = _shares(value)
        elif place is not None and _without_ones(value) == _without_ones(place):
            value = value.reshape(place.shape)
        fitted[name] = value
    lines += _class_token_lines(target, file.layout)
    lines.append("input scale: microvolt / 100, applied inside LaBraM")
    if file.left:
        lines.append(f"not used: {', '.join(file.left)}")
    return Fitted(fitted, tuple(lines))


def in_their_names(tensors: Mapping[str, Tensor], prefix: str, layout: Layout) -> dict[str, Tensor]:
    """Tensors of a part of a phase (``encoder.``) under the names that they have in a layout, for messages."""
    return {their_name(prefix + name, layout) or name: value for name, value in tensors.items()}


def without_mask_token(wanted: Mapping[str, Tensor], taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a target wants, less a mask token that the file does not have: tokenizers and classifiers mask nothing."""
    return {name: value for name, value in wanted.items() if name in taken or name.rpartition(".")[2] != "mask_token"}


def _check_modules(
    taken: Mapping[str, Tensor], weights: Mapping[str, Tensor], file: ForeignFile, path: Path, target: nn.Module
) -> None:
    theirs = encoder_in(weights, file.n_heads)
    for prefix, module in target.named_modules():
        is_filled = any(name.startswith(f"{prefix}." if prefix else "") for name in taken)
        if isinstance(module, LaBraM) and theirs is not None and is_filled:
            check_encoder(path, LABELS[file.layout], theirs, module)
        if isinstance(module, VQNSP) and is_filled and file.layout == "vqnsp":
            check_tokenizer(path, weights, file.decoder_heads, module)


def _class_token_lines(target: nn.Module, layout: Layout) -> list[str]:
    """Where the class token's position is another than in the program that the file comes from."""
    theirs = "official" if layout == "labram" else "fixed"
    ours = {module.transformer.class_position for module in target.modules() if isinstance(module, LaBraM)}
    if ours <= {theirs}:
        return []
    if theirs == "official":
        return [
            "class token: row 0, as class_token: fixed says and official fine-tuning has it; pretraining gave it the "
            "row of the first channel and left row 0 as it was (class_token: official is that)"
        ]
    return [
        "class token: the row of the first channel, as class_token: official says; this file was trained with row 0"
    ]


def _channel_rows(value: Tensor, signal: SignalSpec, rows: Rows, path: Path) -> tuple[Tensor, Iterable[str]]:
    """Row of the class token and those that the channels of a signal borrow: (1 + C, D)."""
    table = value.reshape(-1, value.shape[-1])
    if len(table) != 1 + len(OFFICIAL_CHANNELS):
        raise CheckpointError(
            f"{path} has {len(table)} rows of channel embeddings, expected {1 + len(OFFICIAL_CHANNELS)} (class token "
            "and the channels of LaBraM's list); nothing was loaded; give an unchanged official file."
        )
    borrowed = borrow_rows(signal, rows, path)
    return table[[0, *borrowed.rows]], borrowed.lines


def _time_rows(value: Tensor, place: Tensor, path: Path) -> tuple[Tensor, Iterable[str]]:
    """The first rows of the time embedding: (N, D)."""
    table = value.reshape(-1, value.shape[-1])
    n_wanted = len(place)
    if n_wanted > len(table):
        raise CheckpointError(
            f"{path} has time embeddings for {len(table)} patches and this model asks for {n_wanted}; nothing was "
            f"loaded; set max_patches to at most {len(table)}."
        )
    told = [] if n_wanted == len(table) else [f"time rows: the first {n_wanted} of {len(table)}"]
    return table[:n_wanted], told


def _shares(cluster_size: Tensor) -> Tensor:
    """Average share of the tokens per code, from counts that a moving average kept; all alike where none were kept."""
    counts = cluster_size.double().clamp(min=0)
    total = float(counts.sum())
    if abs(total - 1) < _IS_SHARE:
        return cluster_size
    if total == 0:
        return torch.full_like(cluster_size, 1.0 / len(cluster_size))
    return (counts / total).to(cluster_size.dtype)


def _without_ones(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]
