"""Two layers on pooled tokens: how the windows and channels of a sample become one prediction."""

from typing import Literal

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.nn.pooling import (
    AttentionPooling,
    log_mean_probability,
    log_power,
    mean_and_deviation,
    mean_of,
    mean_over_valid,
)
from cerebro.readouts.base import FEWEST_FOR_POWER, Readout
from cerebro.readouts.by_name import ByName
from cerebro.signal import EEGBatch, SignalSpec

OverChannels = Literal["mean", "attention", "concat", "asymmetry"]
OverWindows = Literal["mean", "attention", "statistics", "log_power", "vote"]


class MLPReadout(Readout):
    """Pooled tokens, LayerNorm, Dropout, Linear(., d/2), GELU, Dropout, Linear(d/2, outputs); Xavier start.

    Tokens are pooled over the windows (patches) of each channel first, then over channels; padding takes no part. By
    default both are means, together the mean of all valid tokens of width d.

    Parameters
    ----------
    encoder, signal
        What it reads from.
    n_outputs : int
        Outputs O; 2 or more where windows vote.
    dropout : float
        Dropout before each linear layer, in [0, 1).
    over_channels : {"mean", "attention", "concat", "asymmetry"}
        ``attention``: a weighted mean with learned weights (Ilse, Tomczak & Welling 2018, arXiv:1802.04712).
        ``concat``: side by side, in the order of the encoder's channels and not of the batch, so that left and right
        are told apart; zeros where a recording lacks one. Such a head is bound to these channels. ``asymmetry``: right
        minus left of every homologous pair (AF7-AF8, F3-F4 ...), side by side, so that what both sides share, which
        varies far more between people, drops out; zeros where a recording lacks one of a pair.
    over_windows : {"mean", "attention", "statistics", "log_power", "vote"}
        ``attention``: as of channels. ``statistics``: mean and standard deviation side by side (Snyder et al. 2018,
        doi:10.1109/ICASSP.2018.8461375), which keeps the power that a mean over random phases cancels. ``log_power``:
        the logarithm of that deviation alone, in absolute units also where the encoder standardises channels (see
        `cerebro.nn.pooling.log_power`). ``vote``: the head predicts every window from its channels, and the sample's
        prediction is the logarithm of the mean of the windows' probabilities.

    Raises
    ------
    ConfigError
        If windows are to vote with one output: a vote is one of probabilities of classes. If no two channels are
        homologous, and their asymmetry is asked for.
    """

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        n_outputs: int,
        dropout: float = 0.1,
        over_channels: OverChannels = "mean",
        over_windows: OverWindows = "mean",
    ) -> None:
        super().__init__(encoder, signal, n_outputs)
        if over_windows == "vote" and n_outputs < 2:
            raise ConfigError(
                "over_windows: vote is a mean of the windows' probabilities of classes, and this head has one output; "
                "set over_windows to mean, attention or statistics, or kind to classification."
            )
        self.over_channels, self.over_windows = over_channels, over_windows
        self.predicts_windows = over_windows == "vote"
        self.pools = over_windows != "vote" and "attention" not in (over_channels, over_windows)
        if over_windows in ("statistics", "log_power"):
            self.fewest_tokens = FEWEST_FOR_POWER
        self.by_name = (
            ByName(encoder.signal.channels, over_channels) if over_channels in ("concat", "asymmetry") else None
        )
        width = encoder.d_model
        if over_windows == "attention":
            self.window_attention = AttentionPooling(width)
        of_channel = 2 * width if over_windows == "statistics" else width
        if over_channels == "attention":
            self.channel_attention = AttentionPooling(of_channel)
        pooled = of_channel * (1 if self.by_name is None else self.by_name.n_places)
        self.layers = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Dropout(dropout),
            nn.Linear(pooled, width // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, n_outputs),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per sample; of a vote the logarithms of probabilities."""
        if self.predicts_windows:
            logits = self.window_outputs(encoder, batch, tokens)
            return log_mean_probability(logits, encoder.valid(batch).any(dim=1))
        return self.of_pooled(self.pooled(encoder, batch, encoder(batch) if tokens is None else tokens))

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B F"]:
        """Tokens pooled over windows and channels; nothing of it learns, unless by attention."""
        valid = encoder.valid(batch)
        if self.over_channels == self.over_windows == "mean":
            return mean_over_valid(tokens, valid)
        by_channel = self._windows_pooled(encoder, batch, tokens, valid)
        return self._channels_pooled(encoder, batch, by_channel, valid.any(dim=2))

    def of_pooled(self, pooled: Float[Tensor, "B F"]) -> Float[Tensor, "B O"]:
        """Outputs from pooled tokens."""
        outputs: Tensor = self.layers(pooled)
        return outputs

    def window_outputs(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B N O"]:
        """Logits of the classes by window, where windows vote; those of padding mean nothing."""
        if not self.predicts_windows:
            return super().window_outputs(encoder, batch, tokens)
        tokens = encoder(batch) if tokens is None else tokens
        pooled = self._each_window(encoder, batch, tokens, encoder.valid(batch))
        outputs: Tensor = self.layers(pooled)
        return outputs

    def _windows_pooled(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"], valid: Bool[Tensor, "B C N"]
    ) -> Float[Tensor, "B C E"]:
        if self.over_windows == "attention":
            pooled: Tensor = self.window_attention(tokens, valid)
            return pooled
        if self.over_windows == "log_power":
            return log_power(tokens, valid, encoder.token_scale(batch))
        return (mean_and_deviation if self.over_windows == "statistics" else mean_of)(tokens, valid)

    def _channels_pooled(
        self, encoder: Encoder, batch: EEGBatch, items: Float[Tensor, "B C E"], present: Bool[Tensor, "B C"]
    ) -> Float[Tensor, "B F"]:
        if self.over_channels == "attention":
            pooled: Tensor = self.channel_attention(items, present)
            return pooled
        if self.over_channels == "mean":
            return mean_of(items, present)
        assert self.by_name is not None
        return self.by_name(encoder, batch, items, present)[0].flatten(1)

    def _each_window(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"], valid: Bool[Tensor, "B C N"]
    ) -> Float[Tensor, "B N F"]:
        """Channels pooled, window by window."""
        if self.by_name is not None:
            known = tokens.masked_fill(~valid[..., None], 0.0)
            named, _ = self.by_name(encoder, batch, known.flatten(2), valid.any(dim=2))
            return rearrange(named, "b s (n d) -> b n (s d)", n=tokens.shape[2])
        pool = self.channel_attention if self.over_channels == "attention" else mean_of
        pooled: Tensor = pool(tokens.transpose(1, 2), valid.transpose(1, 2))
        return pooled
