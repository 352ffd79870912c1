"""Weights of a phase in the names and shapes of braindecode's Signal-JEPA and its three classifiers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cerebro import __version__
from cerebro.encoders.signal_jepa import CONV_LAYERS, SignalJEPA
from cerebro.errors import CheckpointError
from cerebro.training.checkpoint import Checkpoint, grouped
from cerebro.training.exported import Exported, arguments_of
from cerebro.training.signal_jepa.layout import LABELS, SPATIAL, TABLE, their_name

FEEDFORWARD = 2048  # of torch's transformer, which braindecode leaves as it is
N_DECODER_LAYERS, N_FILTERS = 4, 4  # braindecode's defaults
READOUTS = {"PreLocal": "pre_local", "PostLocal": "post_local", "Contextual": "contextual"}


def is_signal_jepa(source: Checkpoint) -> bool:
    """Whether a checkpoint holds a `SignalJEPA` encoder."""
    return arguments_of(source.stamp.config["model"]["encoder"], SignalJEPA) is not None


def export_weights(source: Checkpoint) -> Exported:
    """Encoder, and predictor or classifier, as braindecode's class for them has them.

    A phase with a predictor, or without a classifier of Signal-JEPA, becomes ``SignalJEPA``. A decoder that the class
    has and the phase has not is zeros: nothing is computed with it there.

    Raises
    ------
    CheckpointError
        In one line: the encoder is no SignalJEPA, or its feed-forward branches are of another width.
    """
    keys = arguments_of(source.stamp.config["model"]["encoder"], SignalJEPA)
    if keys is None:
        raise CheckpointError(f"{source.path} holds no SignalJEPA; give the checkpoint of such a phase.")
    if keys["depth"] and keys["feedforward"] != FEEDFORWARD:
        raise CheckpointError(
            f"{source.path} has feedforward {keys['feedforward']}, and format braindecode stands for {FEEDFORWARD}; "
            "train with that to export it."
        )
    width = int(keys["conv_layers"][-1][0])
    layout, prefix = _chosen(source)
    decoder = _decoder(width, _n_layers(source.weights, f"{prefix}predictor."))
    state: dict[str, Tensor] = {}
    left: list[str] = []
    lines: list[str] = []
    for name, value in source.weights.items():
        ours = "objective." + name.removeprefix(prefix) if name.startswith(prefix) else name
        theirs = their_name(ours, layout) if name.startswith(("encoder.", prefix)) else None
        is_other = ours.startswith("objective.predictor.") and decoder.get(str(theirs)) != tuple(value.shape)
        if theirs is None or is_other:
            left.append(name)
            continue
        n_axes = 2 if layout == "pre_local" else 3
        state[theirs] = value.reshape(len(value), 1, -1, *(1,) * (n_axes - 1)) if ours == SPATIAL else value
    absent = {name: shape for name, shape in decoder.items() if name not in state}
    if TABLE in state and absent:
        state |= {name: torch.zeros(shape) for name, shape in absent.items()}
        lines.append(f"{len(absent)} tensors of transformer.decoder are zero: nothing is computed with them there")
    signal = source.stamp.signal
    lines.insert(0, f"{len(state)} tensors in the layout of {LABELS[layout]}")
    lines.append(f"loads into {_call(layout, keys, signal, state)}")
    lines.append(f"its input is microvolt at {signal['sfreq']:g} Hz")
    lines.append(f"not in this format: {grouped(dict.fromkeys(sorted(left), ())) or 'nothing'}")
    plain = {
        "version": __version__,
        "phase": source.stamp.phase,
        "weights_sha256": source.stamp.weights_sha256,
        "n_heads": int(keys["n_heads"]),
        "conv_layers": [list(layer) for layer in keys["conv_layers"]],
        "signal": {key: signal[key] for key in ("channels", "positions", "sfreq")},
    }
    return Exported(state, plain, tuple(lines), is_bare=True)


def _chosen(source: Checkpoint) -> tuple[str, str]:
    """Layout, and the objective or term of a sum that its predictor or classifier stands in."""
    objective = source.stamp.config["model"]["objective"]
    parts = {"objective.": objective}
    for name, term in ((objective.get("init_args") or {}).get("terms") or {}).items():
        parts[f"objective.terms.{name}."] = term
    for prefix in parts:
        if any(name.startswith(f"{prefix}predictor.") for name in source.weights):
            return "signal_jepa", prefix
    for prefix, part in parts.items():
        readout = (part.get("init_args") or {}).get("readout") or {}
        layout = READOUTS.get(str(readout.get("class_path", "")).rpartition(".")[2])
        if layout is not None:
            return layout, prefix
    return "signal_jepa", "objective."


def _n_layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Layers of a predictor; braindecode's number where there is none."""
    found = {name.removeprefix(prefix).split(".")[1] for name in weights if name.startswith(f"{prefix}layers.")}
    return len(found) or N_DECODER_LAYERS


def _decoder(width: int, n_layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of braindecode's decoder."""
    with torch.device("meta"):
        layer = nn.TransformerDecoderLayer(width, 1, FEEDFORWARD)
        decoder = nn.TransformerDecoder(layer, n_layers, nn.LayerNorm(width))
    return {f"transformer.decoder.{name}": tuple(value.shape) for name, value in decoder.state_dict().items()}


def _call(layout: str, keys: Mapping[str, Any], signal: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """How braindecode's module is made that takes the tensors; arguments with its defaults are left out."""
    told: dict[str, Any] = {"n_chans": len(signal["channels"]), "n_times": signal["n_times"], "sfreq": signal["sfreq"]}
    for name in ("final_layer.1.bias", "final_layer.linear.bias"):
        told |= {"n_outputs": len(state[name])} if name in state else {}
    for name in ("spatial_conv.1.bias", "final_layer.spat_conv.bias"):
        told |= {"n_spat_filters": len(state[name])} if name in state and len(state[name]) != N_FILTERS else {}
    if [list(layer) for layer in keys["conv_layers"]] != [list(layer) for layer in CONV_LAYERS]:
        told["feature_encoder__conv_layers_spec"] = [tuple(layer) for layer in keys["conv_layers"]]
    if TABLE in state:
        told["chs_info"] = "..."
        width, place_width = int(keys["conv_layers"][-1][0]), int(keys["place_width"])
        n_layers = _n_layers(state, "transformer.decoder.")
        for name, value, default in (
            ("transformer__d_model", width, 64),
            ("transformer__num_encoder_layers", keys["depth"], 8),
            ("transformer__num_decoder_layers", n_layers, N_DECODER_LAYERS),
            ("transformer__nhead", keys["n_heads"], 8),
            ("pos_encoder__spat_dim", place_width, 30),
            ("pos_encoder__time_dim", width - place_width, 34),
        ):
            told |= {name: value} if value != default else {}
    missing = "" if TABLE in state or layout in ("pre_local", "post_local") else ", with strict=False"
    arguments = ", ".join(f"{name}={value}" for name, value in told.items())
    return f"{LABELS[layout].removeprefix('braindecode ')}({arguments}){missing}"
