"""One Mamba-2 layer and its peers with equal weights, and a step of each: forward and backward on the same tokens."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cerebro.nn.mamba2 import Mamba2Layer, Mamba2Mixer

BATCH, N_TIMES = 64, 124
SIZES = {"": (128, 32), "_headdim64": (128, 64), "_d256": (256, 64)}  # what a figure's name ends in: D, width of a head
D_STATE, D_CONV, EXPAND = 128, 4, 2
N_HEADS, FEEDFORWARD = 4, 4  # of the Transformer layer; its feed-forward branch as a multiple of the width
CHUNK, CHUNK_OF_TRANSFORMERS = 64, 256
REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "reference"
KINDS = ("ours", "ours_with_norm", "chunked_ssd", "chunked_ssd_shared", "transformers", "transformer_layer")

MixerOfTransformers = Callable[[int, int], nn.Module]  # (d_model, headdim)


@dataclass(frozen=True)
class Layer:
    """A layer, tokens and a gradient of what it gives."""

    module: nn.Module
    tokens: Tensor  # (B, T, D), asks for its gradient
    gradient: Tensor  # (B, T, D)

    def mixed(self) -> Tensor:
        found: Tensor = self.module(self.tokens)
        return found

    def step(self) -> None:
        self.module.zero_grad()
        self.tokens.grad = None
        self.mixed().backward(self.gradient)


def layer_of(kind: str, size: str = "", n_batch: int = BATCH, n_times: int = N_TIMES) -> Layer:
    """The same weights of Mamba-2, the same tokens and the same gradient for every kind."""
    d_model, headdim = SIZES[size]
    torch.manual_seed(0)
    module = module_of(kind, d_model, headdim)
    draw = torch.Generator().manual_seed(1)
    tokens, gradient = torch.randn(2, n_batch, n_times, d_model, generator=draw).unbind()
    return Layer(module.train(), tokens.clone().requires_grad_(), gradient.clone())


def module_of(kind: str, d_model: int, headdim: int) -> nn.Module:
    ours = Mamba2Mixer(d_model, D_STATE, D_CONV, EXPAND, headdim)
    if kind == "ours":
        return ours
    if kind == "ours_with_norm":
        return Mamba2Layer(d_model, ours)
    if kind == "transformer_layer":
        return nn.TransformerEncoderLayer(
            d_model, N_HEADS, FEEDFORWARD * d_model, dropout=0.0, batch_first=True, norm_first=True
        )
    peer = peer_of(kind, d_model, headdim)
    peer.load_state_dict(ours.state_dict(), strict=True)
    return peer


def peer_of(kind: str, d_model: int, headdim: int) -> nn.Module:
    if kind == "chunked_ssd":
        return plain(d_model, headdim, CHUNK)
    if kind == "chunked_ssd_shared":
        return plain(d_model, headdim, CHUNK, is_shared=True)
    if kind == "transformers":
        theirs, _ = transformers_mixer()
        return plain(d_model, headdim, CHUNK_OF_TRANSFORMERS) if theirs is None else theirs(d_model, headdim)
    raise ValueError(f"{kind}: not one of {KINDS}")


def plain(d_model: int, headdim: int, chunk: int, is_shared: bool = False) -> nn.Module:
    """`PlainMamba2` of tests/reference; there a chunk of 0 is the recurrence."""
    sys.path.insert(0, str(REFERENCE))
    try:
        from mamba2_plain import PlainMamba2, RecurrentMamba2
    finally:
        sys.path.remove(str(REFERENCE))
    module: nn.Module
    module = PlainMamba2(d_model, headdim, chunk, is_shared) if chunk else RecurrentMamba2(d_model, headdim)
    return module


def recurrence(d_model: int, headdim: int) -> nn.Module:
    return plain(d_model, headdim, chunk=0)


def transformers_mixer() -> tuple[MixerOfTransformers | None, str]:
    """A maker of its ``Mamba2Mixer`` in its default chunk size, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import Mamba2Config
            from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as Theirs
    except (ImportError, OSError) as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]

    def make(d_model: int, headdim: int) -> nn.Module:
        config = Mamba2Config(
            hidden_size=d_model,
            state_size=D_STATE,
            conv_kernel=D_CONV,
            expand=EXPAND,
            head_dim=headdim,
            num_heads=EXPAND * d_model // headdim,
            n_groups=1,
        )
        assert config.chunk_size == CHUNK_OF_TRANSFORMERS
        module: nn.Module = Theirs(config, layer_idx=0)
        return module

    return make, ""
