"""A pre-norm transformer over the windows of each channel: what Mamba-2 is compared with."""

import re
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import check_positive
from cerebro.nn.attention import Block
from cerebro.nn.window_tokens import PlaceAndTime, WindowProjection, check_windows, n_valid_windows, valid_windows
from cerebro.signal import EEGBatch, SignalSpec


class Transformer(Encoder):
    """Pre-norm transformer (Vaswani et al. 2017, arXiv:1706.03762) in place of the layers of `Mamba2`, all else equal.

    The windows of one channel are one sequence; every token sees all valid ones of its channel.

    Parameters
    ----------
    signal : SignalSpec
        Channels with their positions, and samples of a row.
    patch_samples, d_model, n_layers, scale_uV, place_seed
        As in `Mamba2`.
    n_heads : int
        Heads, which must divide ``d_model``.
    mlp_ratio : float
        Hidden width of the MLPs (GELU) as a multiple of ``d_model``.

    Raises
    ------
    ConfigError
        If windows do not divide a row, a channel has no position, or sizes do not fit each other.
    """

    family = "transformer_eeg"
    local_parts = ("input_proj",)
    hides_inputs = True
    channel_tables = MappingProxyType({})  # no weight depends on which channels there are

    def __init__(
        self,
        signal: SignalSpec,
        patch_samples: int = 2048,
        d_model: int = 128,
        n_layers: int = 6,
        n_heads: int = 4,
        mlp_ratio: float = 4.0,
        scale_uV: float = 20.0,
        place_seed: int = 0,
    ) -> None:
        super().__init__(signal)
        check_windows(signal, patch_samples, "Transformer")
        check_positive("n_layers", n_layers)
        self.patch_samples = self.patch_stride = patch_samples
        self.d_model, self.n_layers = d_model, n_layers
        self.input_proj = WindowProjection(patch_samples, d_model, scale_uV)
        self.codes = PlaceAndTime(signal, d_model, place_seed)
        self.layers = nn.ModuleList(
            Block(d_model, n_heads, mlp_ratio, qkv_bias=True, qk_norm=False, layer_scale=0.0) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def valid(self, batch: EEGBatch) -> Bool[Tensor, "B C N"]:
        """Windows of a real channel that begin before the valid samples end; the rest of the last counts as zeros."""
        return valid_windows(batch, self.patch_samples)

    def token_scale(self, batch: EEGBatch) -> Float[Tensor, "B C"]:
        """Deviation of each channel, by which its windows are standardised."""
        return self.input_proj.scale(batch)

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Projection of each standardised window."""
        tokens: Tensor = self.input_proj(batch)
        return tokens

    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        """Contextual tokens; ``hidden`` windows count as zeros at their place and time."""
        n_channels, n_windows = tokens.shape[1:3]
        n_valid = n_valid_windows(batch, self.patch_samples) if batch.is_padded else None
        codes = self.codes(batch.channel, n_windows if n_valid is None else n_valid, n_windows)
        mixed = (self.input_proj.hide(tokens, hidden) + codes).flatten(0, 1)  # (B C, N, D)
        is_key = None
        if n_valid is not None:
            is_key = torch.arange(n_windows, device=tokens.device) < n_valid.repeat_interleave(n_channels)[:, None]
        for layer in self.layers:
            mixed = layer(mixed, is_key)
        normed: Tensor = self.norm(mixed)
        return normed.view(tokens.shape)

    def layer_of(self, parameter: str) -> int:
        """0 for projection and codes, i + 1 for layer i, the last for the norm behind them."""
        layer = re.match(r"layers\.(\d+)\.", parameter)
        if layer:
            return int(layer.group(1)) + 1
        return self.n_layers + 1 if parameter.startswith("norm.") else 0
