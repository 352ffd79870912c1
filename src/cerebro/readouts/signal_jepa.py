"""The three fine-tuning heads of Signal-JEPA: a spatial filter before, behind or in place of the transformer.

Each has a filter over the channels of the signal, to ``n_filters`` virtual channels, and a linear layer on what is left
(Guetschel, Moreau & Tangermann 2024, arXiv:2403.11772); start values are those of torch's convolutions. A weight is
that of a channel by name, so that the order of channels does not matter and padding has no influence. The linear layer
has a column for each token of the longest window: tokens that a shorter one lacks are zeros.
"""

from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, SignalSpec

N_FILTERS: Final = 4


class PreLocal(Readout):
    """Signal-JEPA's head before the convolutions: they read ``n_filters`` virtual channels in place of the recording's.

    Tokens that are handed in are not used: they would be those of the recording's channels.

    Parameters
    ----------
    encoder, signal
        What it reads from; the encoder has ``depth: 0``.
    n_outputs : int
        Outputs O.
    n_filters : int
        Virtual channels, 1 or more.

    Raises
    ------
    ConfigError
        If the encoder has a transformer or an adapter of channels, or ``n_filters`` is below 1.
    """

    reads_tokens = False

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int, n_filters: int = N_FILTERS) -> None:
        super().__init__(encoder, signal, n_outputs)
        _check(self, encoder, n_filters)
        _check_local(self, encoder)
        self.n_tokens = encoder.n_patches(signal.n_times)
        self.spatial_weight, self.spatial_bias = spatial_filter(n_filters, len(signal.channels))
        self.head = nn.Linear(n_filters * self.n_tokens * encoder.d_model, n_outputs)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""
        eeg, some = batch.eeg, torch.zeros_like(batch.n_valid)
        if batch.is_padded:
            padding = batch.channel < 0
            eeg, some = eeg.masked_fill(padding[..., None], 0.0), -padding.all(dim=1).long()  # -1: padding throughout
        with torch.autocast(eeg.device.type, enabled=False):  # sums of microvolts that nearly cancel
            virtual = filtered(eeg, batch.channel, self.spatial_weight, self.spatial_bias)  # (B, F, T)
        made = replace(batch, eeg=virtual, channel=some[:, None].expand(-1, virtual.shape[1]))
        features = encoder.embed(made)  # (B, F, N, D)
        present = encoder.valid(made)[:, 0] if batch.is_padded else None
        outputs: Tensor = self.head(laid_out(features, present, self.n_tokens))
        return outputs


class PostLocal(Readout):
    """Signal-JEPA's head behind the convolutions: its filter weighs the local tokens of the channels.

    Tokens that are handed in are not used.

    Parameters
    ----------
    encoder, signal
        What it reads from; the encoder has ``depth: 0``.
    n_outputs : int
        Outputs O.
    n_filters : int
        Virtual channels, 1 or more.

    Raises
    ------
    ConfigError
        If the encoder has a transformer or an adapter of channels, or ``n_filters`` is below 1.
    """

    reads_tokens = False

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int, n_filters: int = N_FILTERS) -> None:
        super().__init__(encoder, signal, n_outputs)
        _check(self, encoder, n_filters)
        _check_local(self, encoder)
        self.n_tokens = encoder.n_patches(signal.n_times)
        self.spatial_weight, self.spatial_bias = spatial_filter(n_filters, len(signal.channels))
        self.head = nn.Linear(n_filters * self.n_tokens * encoder.d_model, n_outputs)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""
        valid = encoder.valid(batch) if batch.is_padded else None
        features = filtered_tokens(encoder.embed(batch), batch.channel, valid, self.spatial_weight, self.spatial_bias)
        present = None if valid is None else valid.any(dim=1)
        outputs: Tensor = self.head(laid_out(features, present, self.n_tokens))
        return outputs


class Contextual(Readout):
    """Signal-JEPA's head behind the transformer: its filter weighs the contextual tokens of the channels.

    Parameters
    ----------
    encoder, signal
        What it reads from; the encoder has a transformer.
    n_outputs : int
        Outputs O.
    n_filters : int
        Virtual channels, 1 or more.

    Raises
    ------
    ConfigError
        If the encoder has no transformer, or an adapter of channels, or ``n_filters`` is below 1.
    """

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int, n_filters: int = N_FILTERS) -> None:
        super().__init__(encoder, signal, n_outputs)
        _check(self, encoder, n_filters)
        if encoder.n_layers == 0:
            raise ConfigError(
                "Contextual reads what the encoder's transformer makes, and this encoder has none: set "
                "model.encoder.init_args.depth to 8, or take PostLocal."
            )
        self.n_tokens = encoder.n_patches(signal.n_times)
        self.spatial_weight, self.spatial_bias = spatial_filter(n_filters, len(signal.channels))
        self.head = nn.Linear(n_filters * self.n_tokens * encoder.d_model, n_outputs)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""
        tokens = encoder(batch) if tokens is None else tokens
        valid = encoder.valid(batch) if batch.is_padded else None
        features = filtered_tokens(tokens, batch.channel, valid, self.spatial_weight, self.spatial_bias)
        present = None if valid is None else valid.any(dim=1)
        outputs: Tensor = self.head(laid_out(features, present, self.n_tokens))
        return outputs


def spatial_filter(n_filters: int, n_channels: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (F, S) over the channels of a signal and biases (F,), started as a convolution over S channels is."""
    start = nn.Linear(n_channels, n_filters)  # starts as a convolution over all channels does
    return nn.Parameter(start.weight.detach()), nn.Parameter(start.bias.detach())


def filtered(
    x: Float[Tensor, "B C X"], channel: Int64[Tensor, "B C"], weight: Float[Tensor, "F S"], bias: Float[Tensor, " F"]
) -> Float[Tensor, "B F X"]:
    """Weighted sums of the channels, each by the weights of its row of the signal; padding comes as zeros."""
    by_channel = F.embedding(channel.clamp(min=0), weight.t())  # (B, C, F)
    return by_channel.transpose(1, 2) @ x + bias[:, None]


def filtered_tokens(
    tokens: Float[Tensor, "B C N D"],
    channel: Int64[Tensor, "B C"],
    valid: Bool[Tensor, "B C N"] | None,
    weight: Float[Tensor, "F S"],
    bias: Float[Tensor, " F"],
) -> Float[Tensor, "B F N D"]:
    """As ``filtered``, of tokens; those that are not ``valid`` (``None``: none) are left out."""
    known = tokens if valid is None else tokens.masked_fill(~valid[..., None], 0.0)
    weighed = filtered(rearrange(known, "b c n d -> b c (n d)"), channel, weight, bias)
    return rearrange(weighed, "b f (n d) -> b f n d", n=tokens.shape[2])


def laid_out(
    features: Float[Tensor, "B F N D"], present: Bool[Tensor, "B N"] | None, n_tokens: int
) -> Float[Tensor, "B X"]:
    """All features of a window in a row, (filter, token, width), as of a window of ``n_tokens``.

    Zeros stand for tokens that are not ``present`` (``None``: all are) and for those that the window is too short for;
    padding beyond ``n_tokens`` is cut off.

    Raises
    ------
    ConfigError
        If there are more tokens than ``n_tokens`` and all are present.
    """
    if present is not None:
        features = features.masked_fill(~present[:, None, :, None], 0.0)
    elif features.shape[2] > n_tokens:
        raise ConfigError(
            f"a window has {features.shape[2]} tokens per channel and the readout was built for {n_tokens}; cut "
            "windows as long as those it was trained on (duration_s in data.windows)."
        )
    as_long = F.pad(features, (0, 0, 0, n_tokens - features.shape[2]))  # (B, F, n_tokens, D)
    return rearrange(as_long, "b f n d -> b (f n d)")


def _check(readout: Readout, encoder: Encoder, n_filters: int) -> None:
    name = type(readout).__name__
    if n_filters < 1:
        raise ConfigError(
            f"n_filters={n_filters} leaves {name} nothing to read; set n_filters to 1 or more (paper: 4)."
        )
    if isinstance(encoder, AdaptedEncoder):
        raise ConfigError(
            f"{name} weighs the channels of the recordings, and AdaptedEncoder gives tokens of other electrodes; map "
            "the channels before the model (data.channels: MapChannels), or take LinearReadout."
        )


def _check_local(readout: Readout, encoder: Encoder) -> None:
    if encoder.n_layers > 0:
        raise ConfigError(
            f"{type(readout).__name__} reads local features alone, and the encoder's {encoder.n_layers} transformer "
            "layers would never run: set model.encoder.init_args.depth to 0, or take Contextual."
        )
