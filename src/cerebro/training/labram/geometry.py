"""Size of the LaBraM that a file of another program holds, and whether a model of ours has the same."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cerebro.encoders.labram import LaBraM
from cerebro.errors import CheckpointError
from cerebro.nn.attention import Block
from cerebro.objectives.vqnsp import VQNSP
from cerebro.training.foreign_file import refuse_differences

OFFICIAL_SFREQ = 200.0  # Hz
OFFICIAL_PATCH = {"patch_samples": 200, "conv_stride": 8}  # fixed in the modules of the other programs
OFFICIAL_HEADS = 10  # of the tokenizers, whose tensors do not show their number
SIZES = {(200, 12): "base", (400, 24): "large", (800, 48): "huge"}  # by width and depth

Value = int | bool


@dataclass(frozen=True)
class Geometry:
    """Constructor keys of `LaBraM` or `VQNSP` as a set of tensors shows them, and width and depth for people."""

    width: int
    depth: int
    keys: dict[str, Value]

    def size(self) -> str:
        """Published size, width and depth in words."""
        name = SIZES.get((self.width, self.depth))
        return f"{name or 'no published size'} (width {self.width}, depth {self.depth})"


def encoder_in(weights: Mapping[str, Tensor], n_heads: int) -> Geometry | None:
    """Geometry of the encoder among tensors with our names; None if there is none.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Tensors by our names, in any shape.
    n_heads : int
        Heads where the tensors do not show them: only q/k norms do.
    """
    body = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
    first = "transformer.blocks.0."
    token, conv, hidden = (body.get(n) for n in ("transformer.class_token", "patch.conv1.weight", f"{first}fc1.weight"))
    if token is None or conv is None or hidden is None:
        return None
    width, q_norm = token.shape[-1], body.get(f"{first}attn.q_norm.weight")
    keys: dict[str, Value] = {
        **OFFICIAL_PATCH,
        "conv_channels": conv.shape[0],
        "depth": _depth(body, "transformer.blocks."),
        "n_heads": n_heads if q_norm is None else width // q_norm.shape[0],
        "mlp_ratio": hidden.shape[0] // width,
        "qkv_bias": f"{first}attn.q_bias" in body,
        "qk_norm": q_norm is not None,
        "layer_scale": f"{first}gamma_1" in body,
    }
    return Geometry(width, int(keys["depth"]), keys)


def encoder_of(encoder: LaBraM) -> Geometry:
    """Geometry of an encoder of ours."""
    block = encoder.transformer.blocks[0]
    assert isinstance(block, Block)
    keys: dict[str, Value] = {
        "patch_samples": encoder.patch_samples,
        "conv_stride": encoder.patch.conv1.stride[1],
        "conv_channels": encoder.patch.conv1.out_channels,
        "depth": encoder.n_layers,
        "n_heads": block.attn.n_heads,
        "mlp_ratio": block.fc1.out_features // encoder.d_model,
        "qkv_bias": block.attn.q_bias is not None,
        "qk_norm": not isinstance(block.attn.q_norm, nn.Identity),
        "layer_scale": block.gamma_1 is not None,
    }
    return Geometry(encoder.d_model, encoder.n_layers, keys)


def check_encoder(path: Path, what: str, theirs: Geometry, encoder: LaBraM) -> None:
    """Raise CheckpointError that names every differing key unless an encoder has the geometry of a file."""
    ours = encoder_of(encoder)
    told = f"{path} ({what}) holds LaBraM of {theirs.size()}, this encoder is of {ours.size()}"
    refuse_differences(told, theirs.keys, ours.keys, "model.encoder.init_args")


def check_tokenizer(path: Path, weights: Mapping[str, Tensor], n_heads: int, objective: VQNSP) -> None:
    """The same for the decoder and the codebook of a tokenizer, and its targets."""
    if objective.spectrum_targets != "official":
        raise CheckpointError(
            f"{path} predicts all bins of the FFT and this VQNSP has targets: {objective.spectrum_targets}; nothing "
            "was loaded; set targets: official in its init_args."
        )
    codes = weights.get("objective.codebook.weight")
    if codes is None:
        return
    theirs: dict[str, Value] = {
        "n_codes": codes.shape[0],
        "code_dim": codes.shape[1],
        "decoder_depth": _depth(weights, "objective.decoder.blocks."),
        "decoder_heads": n_heads,
    }
    block = objective.decoder.blocks[0]
    assert isinstance(block, Block)
    ours: dict[str, Value] = {
        "n_codes": objective.codebook.n_codes,
        "code_dim": objective.codebook.weight.shape[1],
        "decoder_depth": len(objective.decoder.blocks),
        "decoder_heads": block.attn.n_heads,
    }
    refuse_differences(f"{path} holds another tokenizer", theirs, ours, "VQNSP's init_args")


def _depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    found = [re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in weights]
    return max((int(match[1]) for match in found if match), default=-1) + 1
