"""Mamba-2 over the windows of each channel: linear projection, codes of place and time, state-space layers."""

import re
from types import MappingProxyType

from jaxtyping import Bool, Float
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.nn.mamba2 import Direction, Mamba2Stack
from cerebro.nn.window_tokens import PlaceAndTime, WindowProjection, check_windows, n_valid_windows, valid_windows
from cerebro.signal import EEGBatch, SignalSpec


class Mamba2(Encoder):
    """Mamba-2 (Dao & Gu 2024, arXiv:2405.21060) on EEG windows; no fallback to another model, on no device.

    The windows of one channel are one sequence, whatever other channels there are; channels meet in the readout, which
    takes the mean over all valid tokens. A sequence may be of any length.

    Parameters
    ----------
    signal : SignalSpec
        Channels with their positions, and samples of a row.
    patch_samples : int
        Samples of a window, which is one token; must divide a row: 2,048 for 8 s at 256 Hz, 50 for challenge windows.
    d_model, n_layers : int
        Width of a token; layers. Named sizes: 128 x 6 with ``headdim=32``, 256 x 2 with ``headdim=64``.
    direction : {"causal", "bidirectional"}
        ``causal``: a token sees windows before it. ``bidirectional``: every second layer runs backwards, at no cost
        (docs/decisions/0006-mamba2-direction.md).
    d_state, d_conv, expand, headdim
        As in `cerebro.nn.mamba2.Mamba2Mixer`.
    scale_uV : float
        Microvolts that count as one where the batch does not know how much each channel varies, > 0.
    place_seed : int
        Of the fixed random projection of places; the projection itself is kept in checkpoints.

    Raises
    ------
    ConfigError
        If windows do not divide a row, a channel has no position, or sizes do not fit each other.
    """

    family = "mamba2_eeg"
    local_parts = ("input_proj",)
    hides_inputs = True
    channel_tables = MappingProxyType({})  # no weight depends on which channels there are

    def __init__(
        self,
        signal: SignalSpec,
        patch_samples: int = 2048,
        d_model: int = 128,
        n_layers: int = 6,
        direction: Direction = "causal",
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 32,
        scale_uV: float = 20.0,
        place_seed: int = 0,
    ) -> None:
        super().__init__(signal)
        check_windows(signal, patch_samples, "Mamba2")
        if direction == "bidirectional" and n_layers == 1:
            raise ConfigError(
                "direction: bidirectional runs every second layer backwards and n_layers is 1, so that none would; set "
                "n_layers to 2 or more, or direction to causal."
            )
        self.patch_samples = self.patch_stride = patch_samples
        self.d_model, self.n_layers = d_model, n_layers
        self.input_proj = WindowProjection(patch_samples, d_model, scale_uV)
        self.codes = PlaceAndTime(signal, d_model, place_seed)
        self.stack = Mamba2Stack(d_model, n_layers, direction, d_state, d_conv, expand, headdim)

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
        n_valid = n_valid_windows(batch, self.patch_samples) if batch.is_padded else None
        codes = self.codes(batch.channel, tokens.shape[2] if n_valid is None else n_valid, tokens.shape[2])
        placed = self.input_proj.hide(tokens, hidden) + codes
        n_channels = tokens.shape[1]
        mixed: Tensor = self.stack(
            placed.flatten(0, 1), None if n_valid is None else n_valid.repeat_interleave(n_channels)
        )  # each channel a sequence of its own
        return mixed.view(tokens.shape)

    def layer_of(self, parameter: str) -> int:
        """0 for projection and codes, i + 1 for layer i, the last for the norm behind them."""
        layer = re.match(r"stack\.layers\.(\d+)\.", parameter)
        if layer:
            return int(layer.group(1)) + 1
        return self.n_layers + 1 if parameter.startswith("stack.") else 0
