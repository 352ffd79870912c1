"""Weights of LaBraM from other programs, brought into the shapes, channels and window of a phase of ours."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from cerebro.encoders.labram import LaBraM
from cerebro.errors import CheckpointError
from cerebro.objectives.vqnsp import VQNSP
from cerebro.signal import SignalSpec
from cerebro.training.foreign_file import Fitted, Request, check_float32, reshaped
from cerebro.training.labram.channels import OFFICIAL_CHANNELS, OfficialRows, borrow_rows
from cerebro.training.labram.geometry import (
    OFFICIAL_HEADS,
    OFFICIAL_SFREQ,
    check_encoder,
    check_tokenizer,
    encoder_in,
)

_IS_SHARE = 1e-4  # a sum of cluster sizes this near to 1 says that they are shares already, as cerebro exports them


def fit_weights(asked: Request) -> Fitted:
    """Bring tensors into the shapes of a module: rows of its channels, rows of its time embedding, no empty axes.

    The module is a LaBraM, a VQNSP, a part of one, or something that holds both. Tokenizers and classifiers have no
    mask token, which then keeps its start.

    Raises
    ------
    CheckpointError
        In one line: another rate, size or tokenizer, a rule that is not this model's, channels without a row, a window
        longer than the time embedding, or numbers that are no float32.
    """
    path, file, target, signal = asked.path, asked.file, asked.target, asked.signal
    if signal.sfreq != OFFICIAL_SFREQ:
        raise CheckpointError(
            f"{path} ({file.label()}) was trained at {OFFICIAL_SFREQ:g} Hz and this store has {signal.sfreq:g} "
            "Hz; nothing was loaded; set preprocessing.sfreq: 200 in the data config and prepare the store again."
        )
    if asked.rows != "by_name" and asked.rows != "nearest":
        raise CheckpointError(
            f"{path} ({file.label()}): rows: {asked.rows} is not for LaBraM's published channels; write rows: by_name "
            "or nearest into this entry of model.init."
        )
    _check_modules(asked)
    wanted = target.state_dict()
    fitted: dict[str, Tensor] = {}
    lines: list[str] = []
    for name, value in asked.taken.items():
        place, last = wanted.get(name), name.rpartition(".")[2]
        check_float32(name, value, path)
        if last == "channel_embedding":
            value, told = _channel_rows(value, signal, asked.rows, path)
            lines += [line for line in told if line not in lines]
        elif last == "time_embedding" and place is not None:
            value, told = _time_rows(value, place, path)
            lines += [line for line in told if line not in lines]
        elif name.endswith("codebook.use"):
            value = _shares(value)
        else:
            value = reshaped(value, place)
        fitted[name] = value
    lines += _class_token_lines(target, file.layout)
    lines.append("input scale: microvolt / 100, applied inside LaBraM")
    if file.left:
        lines.append(f"not used: {', '.join(file.left)}")
    return Fitted(fitted, tuple(lines), tuple(n for n in wanted if n.rpartition(".")[2] == "mask_token"))


def _check_modules(asked: Request) -> None:
    file = asked.file
    theirs = encoder_in(asked.weights, file.n_heads or OFFICIAL_HEADS)
    for prefix, module in asked.target.named_modules():
        is_filled = any(name.startswith(f"{prefix}." if prefix else "") for name in asked.taken)
        if isinstance(module, LaBraM) and theirs is not None and is_filled:
            check_encoder(asked.path, file.label(), theirs, module)
        if isinstance(module, VQNSP) and is_filled and file.layout == "vqnsp":
            check_tokenizer(asked.path, asked.weights, file.decoder_heads or OFFICIAL_HEADS, module)


def _class_token_lines(target: nn.Module, layout: str) -> list[str]:
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


def _channel_rows(value: Tensor, signal: SignalSpec, rows: OfficialRows, path: Path) -> tuple[Tensor, Iterable[str]]:
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
