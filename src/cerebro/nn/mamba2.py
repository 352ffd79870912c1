"""Mamba-2 layers with the names and numbers of mamba-ssm's ``Mamba2`` (Dao & Gu 2024, arXiv:2405.21060)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_positive
from cerebro.nn.ssd import gated_scan, is_fast
from cerebro.nn.ssd_kernels import kernel_scan, runs_in_kernels
from cerebro.nn.ssd_plain import plain_gated_scan

Direction = Literal["causal", "bidirectional"]
EPS = 1e-5


class Mamba2Mixer(nn.Module):
    """One Mamba-2: projection to gate, inputs and step sizes; short convolution; scan; gated norm; projection back.

    ``in_proj`` gives ``[z, x, B, C, dt]``, the convolution acts on ``[x, B, C]``, one group of B and C serves all
    heads. ``dt_bias``, ``A_log`` and ``D`` start as in mamba-ssm: A uniform in 1 ... 16, step sizes log-uniform in
    0.001 ... 0.1.

    Parameters
    ----------
    d_model : int
        Width D of a token.
    d_state : int
        Width of a head's state.
    d_conv : int
        Places that the convolution sees, this one and those before it.
    expand : int
        Inner width as a multiple of ``d_model``.
    headdim : int
        Width of a head; must divide the inner width. The kernels of mamba-ssm ask for a multiple of 8 heads.
    output_scale : float
        Factor of ``out_proj`` at the start; one over the root of the number of layers keeps the size of their sum (as
        in GPT-2 and mamba-ssm).

    Raises
    ------
    ConfigError
        If a number is not positive or heads do not divide the inner width.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand, "headdim": headdim}
        for name, value in sizes.items():
            check_positive(name, value)
        inner = expand * d_model
        if inner % headdim:
            fitting = [width for width in range(8, inner + 1) if inner % width == 0]
            raise ConfigError(
                f"headdim={headdim} does not divide the inner width {inner} (expand x d_model); set headdim to one of "
                f"{fitting}."
            )
        n_heads, n_conv = inner // headdim, inner + 2 * d_state
        self.in_proj = nn.Linear(d_model, inner + n_conv + n_heads, bias=False)
        self.conv1d = nn.Conv1d(n_conv, n_conv, d_conv, groups=n_conv, padding=d_conv - 1)
        step = torch.exp(torch.rand(n_heads) * math.log(0.1 / 0.001) + math.log(0.001))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(n_heads))
        self.norm = nn.RMSNorm(inner, eps=EPS)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self.out_proj.weight.data *= output_scale

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Mix each token with those before it in its sequence."""
        assert self.conv1d.bias is not None
        states = (self.conv1d.weight, self.conv1d.bias, self.dt_bias, self.A_log, self.D)
        if runs_in_kernels(tokens.device, tokens.dtype, len(self.D), self.conv1d.weight.shape[-1]):
            return kernel_scan(self.in_proj(tokens), *states, self.norm.weight, self.out_proj.weight, EPS)
        if is_fast(tokens):
            scanned = gated_scan(tokens, self.in_proj.weight, *states, EPS)
        else:
            scanned = plain_gated_scan(self.in_proj(tokens), *states, EPS)
        return F.linear(scanned, self.out_proj.weight * self.norm.weight)  # the norm's weight without a pass of its own


class Mamba2Layer(nn.Module):
    """``tokens + mixer(norm(tokens))``."""

    def __init__(self, d_model: int, mixer: Mamba2Mixer) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=EPS)
        self.mixer = mixer

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Mix, and add."""
        mixed: Tensor = tokens + self.mixer(self.norm(tokens))
        return mixed


class Mamba2Stack(nn.Module):
    """Layers and a final norm; tensors are named as in mamba-ssm's ``MixerModel`` (``layers.i.*``, ``norm_f``).

    Padding on the right changes nothing: no token sees what comes after it, and where a layer runs backwards each
    sequence is turned over within its own length.

    Parameters
    ----------
    d_model, n_layers : int
        Width of a token; layers.
    direction : {"causal", "bidirectional"}
        ``causal``: a token sees those before it. ``bidirectional``: every second layer runs backwards, so that from the
        second layer on every token sees all; tensors and cost are those of ``causal``.
    d_state, d_conv, expand, headdim
        As in `Mamba2Mixer`.
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        direction: Direction = "causal",
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
    ) -> None:
        super().__init__()
        check_positive("n_layers", n_layers)
        self.direction = direction
        self.layers = nn.ModuleList(
            Mamba2Layer(d_model, Mamba2Mixer(d_model, d_state, d_conv, expand, headdim, 1 / math.sqrt(n_layers)))
            for _ in range(n_layers)
        )
        self.norm_f = nn.RMSNorm(d_model, eps=EPS)

    def forward(
        self, tokens: Float[Tensor, "B T D"], n_valid: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Contextual tokens; of sequence b the first ``n_valid[b]`` are no padding (``None``: all of every one)."""
        normed: Tensor = self.norm_f(self.outputs(tokens, n_valid)[-1])
        return normed

    def outputs(
        self, tokens: Float[Tensor, "B T D"], n_valid: Int64[Tensor, " B"] | None = None
    ) -> list[Float[Tensor, "B T D"]]:
        """Tokens after each layer, before the final norm."""
        outputs = []
        for number, layer in enumerate(self.layers):
            is_backwards = self.direction == "bidirectional" and number % 2 == 1
            tokens = turned(layer(turned(tokens, n_valid)), n_valid) if is_backwards else layer(tokens)
            outputs.append(tokens)
        return outputs


def turned(tokens: Float[Tensor, "B T D"], n_valid: Int64[Tensor, " B"] | None) -> Float[Tensor, "B T D"]:
    """Each sequence in reverse within its own length; padding stays where it is."""
    if n_valid is None:
        return tokens.flip(1)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    source = n_valid[:, None] - 1 - place  # (B, T)
    source = torch.where(source >= 0, source, place)
    return tokens.gather(1, source[:, :, None].expand_as(tokens))
