"""Weights of a phase in the files of other programs: official LaBraM and VQNSP, braindecode's Labram."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cerebro import __version__
from cerebro.encoders.labram import LaBraM
from cerebro.errors import CheckpointError
from cerebro.objectives.vqnsp import VQNSP
from cerebro.training.checkpoint import Checkpoint, grouped
from cerebro.training.exported import Exported, arguments_of
from cerebro.training.labram.channels import OFFICIAL_CHANNELS, official_index
from cerebro.training.labram.geometry import OFFICIAL_PATCH, OFFICIAL_SFREQ
from cerebro.training.labram.layout import LABELS, their_name

OFFICIAL_TIME_ROWS = 16


def export_weights(source: Checkpoint, form: str) -> Exported:
    """Bring the weights of a phase into a format of another program; tensors that both have are equal to the bit.

    ``labram`` is the layout of official fine-tuning for a phase that ends in a `LinearReadout`, else that of official
    pretraining (``student.*``, with ``lm_head`` if the phase predicted codes). ``vqnsp`` takes a tokenizer phase.

    Raises
    ------
    CheckpointError
        In one line: the encoder is no LaBraM, its patches, rate, channels or targets have no place in the format.
    """
    model = source.stamp.config["model"]
    encoder = arguments_of(model["encoder"], LaBraM)
    if encoder is None:
        name = str(model["encoder"]["class_path"]).rpartition(".")[2]
        raise CheckpointError(
            f"{source.path} holds the encoder {name}, and format {form} is LaBraM's; give such a phase."
        )
    _check_geometry(source, form, encoder)
    layout, renamed, heads = _chosen(source, form, model["objective"])
    moved = {name: name for name in source.weights if name.startswith("encoder.")} | renamed
    channels = [str(name) for name in source.stamp.signal["channels"]]
    lines: list[str] = []
    state: dict[str, Tensor] = {}
    left: list[str] = [name for name in source.weights if name not in moved.values()]
    for ours, name in moved.items():
        theirs = their_name(ours, layout)
        if theirs is None:
            left.append(name)
            continue
        value, told = _shaped(ours, source.weights[name], layout, channels, source.path)
        state[theirs] = value
        lines += [line for line in told if line not in lines]
    if layout == "vqnsp":
        state |= _codebook_copies(state)
    lines.insert(0, f"{len(state)} tensors in the layout of {LABELS[layout]}")
    lines.append(f"its input is microvolt / 100 at {OFFICIAL_SFREQ:g} Hz")
    lines.append(f"not in this format: {grouped(dict.fromkeys(sorted(left), ())) or 'nothing'}")
    lines.append(f"not in cerebro: {_absent(layout)}")
    plain = {
        "version": __version__,
        "phase": source.stamp.phase,
        "weights_sha256": source.stamp.weights_sha256,
        "n_heads": int(encoder["n_heads"]),
        **heads,
    }
    return Exported(state, plain, tuple(lines), is_bare=layout == "braindecode")


def _check_geometry(source: Checkpoint, form: str, encoder: Mapping[str, Any]) -> None:
    """The modules of the other programs have patches of 200 samples and a stride of 8, whatever a file says."""
    found = {key: encoder[key] for key in OFFICIAL_PATCH} | {"sfreq": source.stamp.signal["sfreq"]}
    wanted = OFFICIAL_PATCH | {"sfreq": OFFICIAL_SFREQ}
    if found != wanted:
        differing = [key for key in wanted if found[key] != wanted[key]]
        here = ", ".join(f"{key} {found[key]:g}" for key in differing)
        there = ", ".join(f"{key} {wanted[key]:g}" for key in differing)
        raise CheckpointError(
            f"{source.path} has {here}, and format {form} stands for {there}: the other program would compute "
            "something else with these weights; train with configs/encoders/labram_base_200hz.yaml at 200 Hz."
        )


def _chosen(source: Checkpoint, form: str, objective: Mapping[str, Any]) -> tuple[str, dict[str, str], dict[str, int]]:
    """str, name in a phase of the layout -> name in this checkpoint for its heads, and heads of a decoder."""
    parts = {"objective.": objective}
    for name, term in ((objective.get("init_args") or {}).get("terms") or {}).items():
        parts[f"objective.terms.{name}."] = term
    if form == "vqnsp":
        for prefix, part in parts.items():
            arguments = arguments_of(part, VQNSP)
            if arguments is None:
                continue
            if arguments["targets"] != "official":
                raise CheckpointError(
                    f"{source.path} was trained with targets: {arguments['targets']}, and format vqnsp holds amplitude "
                    "and phase of all bins; train the tokenizer with targets: official to export it."
                )
            return "vqnsp", _below(source, prefix), {"decoder_heads": int(arguments["decoder_heads"])}
        raise CheckpointError(f"{source.path} holds no VQNSP; give the checkpoint of a tokenizer phase.")
    layout: str = "labram" if form == "labram" else "braindecode"
    readout = (objective.get("init_args") or {}).get("readout") or {}
    if str(readout.get("class_path", "")).rpartition(".")[2] == "LinearReadout":
        below = {ours: name for ours, name in _below(source, "objective.").items() if ".readout." in ours}
        return "finetuned" if form == "labram" else layout, below, {}
    kept = ("objective.norm.", "objective.head.")  # the second has no name in braindecode's layout
    for prefix, part in parts.items():
        if str(part["class_path"]).rpartition(".")[2] == "MaskedCodes":
            return layout, {o: n for o, n in _below(source, prefix).items() if o.startswith(kept)}, {}
    return layout, {}, {}


def _below(source: Checkpoint, prefix: str) -> dict[str, str]:
    return {"objective." + n.removeprefix(prefix): n for n in source.weights if n.startswith(prefix)}


def _shaped(ours: str, value: Tensor, layout: str, channels: list[str], path: Path) -> tuple[Tensor, list[str]]:
    """A tensor in the shape that the other program has, and lines on rows that are not ours."""
    last = ours.rpartition(".")[2]
    if last in ("class_token", "mask_token"):
        return value[None, None], []
    if last == "channel_embedding":
        return _all_channels(value, channels, path)
    if last == "time_embedding":
        return _all_times(value, layout, path)
    if ours == "objective.from_code.weight":
        return value[:, :, None, None], []
    return value, []


def _all_channels(value: Tensor, channels: list[str], path: Path) -> tuple[Tensor, list[str]]:
    """Rows of all official channels (1, 129, D): zeros where this model has no such channel."""
    found = {channel: official_index(channel) for channel in channels}
    unknown = [channel for channel, index in found.items() if index is None]
    if unknown:
        some = f"{', '.join(unknown[:5])}{f' and {len(unknown) - 5} others' if len(unknown) > 5 else ''}"
        raise CheckpointError(
            f"{path}: {len(unknown)} of {len(channels)} channels are not among the {len(OFFICIAL_CHANNELS)} of LaBraM "
            f"({some}), so their embeddings have no place in the file; train on channels of the 10-20 system "
            "(data.channels maps them)."
        )
    rows = [index for index in found.values() if index is not None]
    if len(set(rows)) != len(rows):
        twice = [channel for channel, index in found.items() if rows.count(-1 if index is None else index) > 1]
        raise CheckpointError(f"{path}: channels {', '.join(twice)} share a row of LaBraM; keep one of them and train.")
    table = value.new_zeros(1, 1 + len(OFFICIAL_CHANNELS), value.shape[1])
    table[0, [0, *(1 + row for row in rows)]] = value
    n_empty = len(OFFICIAL_CHANNELS) - len(rows)
    return table, [f"{n_empty} channels of LaBraM are not this model's; their rows are zero"] if n_empty else []


def _all_times(value: Tensor, layout: str, path: Path) -> tuple[Tensor, list[str]]:
    """Rows of the time embedding (1, 16, D), zeros where this model has none; braindecode's has as many as ours."""
    n_rows = len(value)
    if layout == "braindecode":
        return value[None], [f"time rows fit Labram(n_times={200 * (n_rows - 1)}), which has one row more than patches"]
    if n_rows > OFFICIAL_TIME_ROWS:
        raise CheckpointError(
            f"{path} has {n_rows} time embeddings and the official model {OFFICIAL_TIME_ROWS}; train with max_patches: "
            f"{OFFICIAL_TIME_ROWS} or fewer."
        )
    table = value.new_zeros(1, OFFICIAL_TIME_ROWS, value.shape[1])
    table[0, :n_rows] = value
    return table, [] if n_rows == OFFICIAL_TIME_ROWS else [f"time rows {n_rows + 1} to {OFFICIAL_TIME_ROWS} are zero"]


def _codebook_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the official quantiser keeps of its codebook beside the codes."""
    return {
        "quantize.embedding.cluster_size": state["quantize.cluster_size"],
        "quantize.embedding.embed_avg": state["quantize.embedding.weight"],
        "quantize.embedding.initted": torch.ones(1),
    }


def _absent(layout: str) -> str:
    if layout == "labram":
        return "student.lm_head, projection_head, optimizer, epoch, args, scaler"
    if layout == "vqnsp":
        return "optimizer, epoch, args, scaler; cluster_size is the share of tokens per code, embed_avg the codes"
    return "optimizer, epoch, args, scaler" if layout == "finetuned" else "nothing"
