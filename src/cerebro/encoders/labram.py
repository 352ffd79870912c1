"""LaBraM: temporal convolution per patch, channel and time embeddings, transformer."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_positive
from cerebro.nn.patch import PatchEncoder
from cerebro.nn.transformer import ClassToken, TokenTransformer
from cerebro.signal import EEGBatch, SignalSpec

MICROVOLTS_PER_UNIT = 100.0  # the published input scale, applied inside the model


class LaBraM(Encoder):
    """Large brain model (Jiang, Zhao & Lu 2024, arXiv:2405.18765).

    Every patch of every channel is a token. The base model at 200 Hz has ``patch_samples=200, conv_stride=8``; the
    default is its native form at 100 Hz, patches of one second as well. Tokens leave without a final norm, which is a
    part of the heads.

    Parameters
    ----------
    signal : SignalSpec
        Channels and window length.
    patch_samples : int
        Samples of a patch; must divide the window.
    conv_stride : int
        Stride of the first convolution in samples; ``steps x conv_channels`` is the width of a token.
    conv_channels : int
        Feature maps of the convolutions: 8, 16 and 32 in the base, large and huge model.
    depth, n_heads : int
        Blocks and heads of the transformer: 12/10, 24/16 and 48/16.
    mlp_ratio : float
        Hidden width of the MLPs as a multiple of the width.
    qkv_bias, qk_norm, layer_scale
        As in `cerebro.nn.attention.Block`. The published tokenizer has ``True, False, 0``.
    drop_path : float
        Stochastic depth at the last block, in [0, 1).
    class_token : {"official", "fixed"}
        See `cerebro.nn.transformer.TokenTransformer`.
    max_patches : int
        Rows of the time embedding.

    Raises
    ------
    ConfigError
        If patches do not divide the window, heads the width, or the window has more than ``max_patches``.
    """

    local_parts = ("patch", "mask_token")
    channel_tables = MappingProxyType({"transformer.channel_embedding": 1})  # row 0 is the class token's

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """``labram_d200_l12``."""
        n_steps = (settings["patch_samples"] - 1) // settings["conv_stride"] + 1
        return f"labram_d{n_steps * settings['conv_channels']}_l{settings['depth']}"

    def __init__(
        self,
        signal: SignalSpec,
        patch_samples: int = 100,
        conv_stride: int = 4,
        conv_channels: int = 8,
        depth: int = 12,
        n_heads: int = 10,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_norm: bool = True,
        layer_scale: float = 0.1,
        drop_path: float = 0.0,
        class_token: ClassToken = "fixed",
        max_patches: int = 16,
    ) -> None:
        super().__init__(signal)
        check_positive("patch_samples", patch_samples)
        if signal.n_times % patch_samples:
            fitting = [p for p in range(1, signal.n_times + 1) if signal.n_times % p == 0 and p >= 10]
            raise ConfigError(
                f"patch_samples={patch_samples} does not divide the window of {signal.n_times} samples "
                f"({signal.n_times / signal.sfreq:g} s at {signal.sfreq:g} Hz); set patch_samples to one of {fitting}."
            )
        if signal.n_times // patch_samples > max_patches:
            raise ConfigError(
                f"the window has {signal.n_times // patch_samples} patches and the model {max_patches} time "
                "embeddings; set max_patches higher or cut shorter windows (windows_per_sample or duration_s in "
                "data.windows)."
            )
        self.patch_samples = self.patch_stride = patch_samples
        self.n_layers = depth
        self.patch = PatchEncoder(patch_samples, conv_stride, conv_channels)
        self.d_model = self.patch.width
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(self.d_model), std=0.02))
        self.transformer = TokenTransformer(
            width=self.d_model,
            depth=depth,
            n_heads=n_heads,
            n_channels=len(signal.channels),
            max_patches=max_patches,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            layer_scale=layer_scale,
            drop_path=drop_path,
            class_token=class_token,
        )

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Local tokens; GroupNorm gives all patches of a window one scale, padding left out."""
        n_patches = self.n_patches(batch.eeg.shape[-1])
        scaled = batch.eeg[:, :, : n_patches * self.patch_samples] / MICROVOLTS_PER_UNIT
        patches = rearrange(scaled, "b c (n p) -> b (c n) p", p=self.patch_samples)
        valid = self._padding(batch)
        tokens: Tensor = self.patch(patches, None if valid is None else valid.flatten(1, 2))
        return tokens.view(len(batch), -1, n_patches, self.d_model)

    def positions(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Channel and time embeddings."""
        embeddings: Tensor = self.transformer.positions(batch.channel, self.n_patches(batch.eeg.shape[-1]))
        return embeddings

    def contextualise(
        self, placed: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M D"]:
        """The transformer on any tokens that have their positions; its class token has row 0 of the channels."""
        return self.transformer.layers(placed, valid)[-1]

    def last_layers(
        self, placed: Float[Tensor, "B M D"], n_last: int, valid: Bool[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """Tokens after each of the last blocks."""
        return self.transformer.layers(placed, valid)[-n_last:]

    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        """Contextual tokens; where ``hidden`` is True the local token is replaced by the mask token."""
        mixed = self.mix_subset(tokens, batch, hidden)
        return mixed.view(tokens.shape)

    def mix_subset(
        self,
        tokens: Float[Tensor, "B C N D"],
        batch: EEGBatch,
        hidden: Bool[Tensor, "B C N"] | None = None,
        keep: Int64[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B X D"]:
        """Like ``mix`` on the tokens ``keep`` alone; the last block computes only those at ``out``."""
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        mixed: Tensor = self.transformer(tokens, batch.channel, self._padding(batch), keep, out)
        return mixed

    def layer_of(self, parameter: str) -> int:
        """0 for patches, positions and special tokens; i + 1 for block i."""
        block = re.match(r"transformer\.blocks\.(\d+)\.", parameter)
        return int(block.group(1)) + 1 if block else 0

    def _padding(self, batch: EEGBatch) -> Bool[Tensor, "B C N"] | None:
        """Which tokens are no padding, or None for a batch without padding, which spares every mask."""
        return self.valid(batch) if batch.is_padded else None
