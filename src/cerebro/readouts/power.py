"""One linear layer on the log power of components of the tokens, of every channel or of left against right."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, DataError
from cerebro.nn.attention import EPS
from cerebro.nn.joint_diagonal import joint_diagonal_axes
from cerebro.nn.pooling import apart_from_mean, log_power, mean_of
from cerebro.nn.processes import from_first_process, gather_uneven_rows, sum_over_processes
from cerebro.readouts.base import FEWEST_FOR_POWER, Readout
from cerebro.readouts.by_name import ByName
from cerebro.signal import EEGBatch, SignalSpec

TOKENS_PER_AXIS = (
    2  # of a recording's channel, whose covariance would else lack axes: a segment takes one of two tokens
)
SMALLEST_SCALE = 1e-6  # of a feature, below which it is taken to be constant over the training samples


class PowerReadout(Readout):
    """Components of the tokens, the logarithm of their power over time, standardised; Dropout, Linear.

    For effects on the power of rhythms, when people are few. The components are found on the training samples, without
    a label. Their space is that of the principal components: eigenvectors of the mean over samples and channels of the
    tokens' covariance over time, each with a trace of 1 (principal component analysis: Pearson 1901,
    doi:10.1080/14786440109462720). Tokens of pieces of a rhythm span planes in it. Axes within that space are those on
    which the covariances of all recordings and channels are as diagonal as can be, so that rhythms that are stronger
    and weaker in different people and places have axes of their own (joint approximate diagonalisation: Pham & Cardoso
    2001, doi:10.1109/78.942614), and a feature is the power of one of them instead of a mixture. Variance over time
    and its logarithm are those of common spatial patterns (`cerebro.nn.pooling.log_power`), in absolute units also
    where the encoder standardises channels. Features are standardised over the training samples instead of a LayerNorm
    over features, which would take away how strong an effect is in a person.

    Parameters
    ----------
    encoder, signal
        What it reads from.
    n_outputs : int
        Outputs O.
    n_components : int
        Components K, from 1 to the width of a token.
    over_channels : {"asymmetry", "concat", "mean"}
        ``asymmetry``: right minus left of every homologous pair, side by side. ``concat``: all channels side by side,
        in the order of the encoder. Both count what a recording lacks as average. ``mean``: over channels.
    segment_tokens : int
        Power is the variance within segments of so many tokens (32 of a quarter of a second are 8 s), so that drifts
        and the rise and fall of a rhythm over minutes take no part; 0 = that over the whole sample.
    trim : float
        Share of a sample's segments, those of the largest power in each component, that take no part (a trimmed mean:
        Tukey 1962, doi:10.1214/aoms/1177704711), in [0, 1): what the limits on artefacts let pass. Without segments
        it must be 0.
    dropout : float
        Dropout before the linear layer, in [0, 1).
    components : {"joint", "principal"}
        ``principal``: the K principal components. ``joint``: axes in their space, not at right angles, on which the
        covariances of all recordings and channels are as diagonal as can be. What has fewer than 2 (K + 1) tokens
        counts together, as one.

    Raises
    ------
    ConfigError
        If there are not so many components, a segment has a single token, ``trim`` is no such share, or no two channels
        are homologous and their asymmetry is asked for.
    """

    fewest_tokens = FEWEST_FOR_POWER
    starts_from_tokens = True
    pools = True
    axes: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        n_outputs: int,
        n_components: int = 12,
        over_channels: Literal["asymmetry", "concat", "mean"] = "asymmetry",
        segment_tokens: int = 32,
        trim: float = 0.0,
        dropout: float = 0.0,
        components: Literal["joint", "principal"] = "joint",
    ) -> None:
        super().__init__(encoder, signal, n_outputs)
        if segment_tokens < 0 or segment_tokens == 1:
            raise ConfigError(
                f"segment_tokens={segment_tokens} leaves no variance; set it to 2 or more, or 0 for the whole sample."
            )
        if not 0 <= trim < 1 or (trim > 0 and segment_tokens == 0):
            raise ConfigError(
                f"trim={trim:g} with segment_tokens={segment_tokens} leaves out no share of the segments; set trim "
                "from 0 to less than 1, and to 0 where segment_tokens is 0."
            )
        if not 1 <= n_components <= encoder.d_model:
            raise ConfigError(
                f"n_components={n_components} must be from 1 to {encoder.d_model}, the width of a token; change "
                "n_components of the readout."
            )
        self.by_name = None if over_channels == "mean" else ByName(encoder.signal.channels, over_channels)
        n_places = 1 if self.by_name is None else self.by_name.n_places
        self.register_buffer("axes", torch.eye(encoder.d_model)[:, :n_components].contiguous())
        self.register_buffer("centre", torch.zeros(n_places, n_components))
        self.register_buffer("scale", torch.ones(n_places, n_components))
        self.segment_tokens, self.trim, self.components = segment_tokens, trim, components
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_places * n_components, n_outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def start(self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]) -> None:
        """Find the axes, then mean and standard deviation of every feature, in passes over the training tokens.

        Of several processes each looks at its share, and all take what all have seen.
        """
        device = self.axes.device
        self.axes.copy_(from_first_process(self._principal_axes(encoder, batches).to(self.axes)))
        if self.components == "joint":
            self.axes.copy_(from_first_process(self._joint_axes(encoder, batches)))
        sums = torch.zeros(3, *self.centre.shape, dtype=torch.float64, device=device)
        for batch, tokens in batches():
            features, known = self._features(encoder, batch, tokens)
            values, weight = features.double(), known[..., None].double()
            sums += torch.stack([(weight * values**power).sum(dim=0) for power in (0, 1, 2)])
        n, total, squares = sum_over_processes(sums)
        mean = total / n.clamp(min=1)
        deviation = (squares / n.clamp(min=1) - mean**2).clamp(min=0).sqrt()
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(deviation > SMALLEST_SCALE, deviation, 1.0))

    def _principal_axes(
        self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]
    ) -> Float[Tensor, "D K"]:
        """Axes of largest variance, at right angles."""
        width, n_axes = self.axes.shape
        covariance = torch.zeros(width, width, dtype=torch.float64, device=self.axes.device)
        for batch, tokens in batches():
            covariance += _covariance(tokens, encoder.valid(batch), self.segment_tokens)
        covariance = sum_over_processes(covariance)
        if not bool(covariance.isfinite().all()):
            raise DataError(
                "tokens of the training samples are not finite; the encoder's weights have diverged: take an earlier "
                "checkpoint, or lower model.optim.lr of its phase."
            )
        _, vectors = torch.linalg.eigh(covariance.cpu())  # ascending, and the same on every device
        largest: Tensor = vectors.flip(1)[:, :n_axes]
        return largest

    def _joint_axes(
        self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]
    ) -> Float[Tensor, "D K"]:
        """Axes in the space of the present ones on which the covariances of all recordings' channels are diagonal."""
        n_axes, device = self.axes.shape[1], self.axes.device
        n_channels = len(encoder.signal.channels)
        of_channel: dict[int, tuple[Tensor, int]] = {}  # by number of recording and channel; samples of one add up
        for batch, tokens in batches():
            valid = encoder.valid(batch)
            apart = apart_from_mean(tokens.float() @ self.axes, valid, self.segment_tokens).double()
            scatter = torch.einsum("bcnk,bcnl->bckl", apart, apart).cpu()
            channel, n_valid = encoder.token_channels(batch).cpu(), valid.sum(dim=2).cpu()
            key = batch.recording.cpu()[:, None] * n_channels + channel
            is_real = channel >= 0
            for number, one, n in zip(key[is_real].tolist(), scatter[is_real], n_valid[is_real].tolist(), strict=True):
                before, n_before = of_channel.get(number, (torch.zeros_like(one), 0))
                of_channel[number] = before + one, n_before + n
        found = list(of_channel.values())
        keys = gather_uneven_rows(torch.tensor(list(of_channel), dtype=torch.int64, device=device)).cpu()
        numbers = gather_uneven_rows(torch.tensor([n for _, n in found], dtype=torch.int64, device=device)).cpu()
        parts = torch.stack([one for one, _ in found]) if found else torch.zeros(0, n_axes, n_axes).double()
        parts = gather_uneven_rows(parts.to(device)).cpu()
        known, place = torch.unique(keys, return_inverse=True)
        covariances = parts.new_zeros(len(known), n_axes, n_axes).index_add_(0, place, parts)
        is_long = numbers.new_zeros(len(known)).index_add_(0, place, numbers) >= TOKENS_PER_AXIS * (n_axes + 1)
        covariances = torch.cat([covariances[is_long], covariances[~is_long].sum(dim=0, keepdim=True)])
        covariances = covariances[covariances.diagonal(dim1=1, dim2=2).sum(dim=1) > 0]  # flat channels say nothing
        if not len(covariances):
            return self.axes
        return self.axes @ joint_diagonal_axes(covariances).to(self.axes)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per sample."""
        return self.of_pooled(self.pooled(encoder, batch, encoder(batch) if tokens is None else tokens))

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B F"]:
        """Standardised features, side by side; the axes and scales stay as ``start`` found them."""
        features, known = self._features(encoder, batch, tokens)
        return ((features - self.centre) / self.scale).masked_fill(~known[..., None], 0.0).flatten(1)

    def of_pooled(self, pooled: Float[Tensor, "B F"]) -> Float[Tensor, "B O"]:
        """Outputs from the features."""
        outputs: Tensor = self.head(self.dropout(pooled))
        return outputs

    def _features(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]
    ) -> tuple[Float[Tensor, "B S K"], Bool[Tensor, "B S"]]:
        """Log power of the components by place, and which places a sample has."""
        valid = encoder.valid(batch)
        with torch.autocast(tokens.device.type, enabled=False):  # powers of a rounded sum are no powers of the parts
            projected, scale = tokens.float() @ self.axes, encoder.token_scale(batch)
            power = log_power(projected, valid, scale, self.segment_tokens, self.trim)
        present = valid.any(dim=2)
        if self.by_name is not None:
            return self.by_name(encoder, batch, power, present)
        return mean_of(power, present)[:, None], present.any(dim=1, keepdim=True)


def _covariance(tokens: Float[Tensor, "B C N D"], valid: Bool[Tensor, "B C N"], segment: int) -> Float[Tensor, "D D"]:
    """Sum over samples and channels of the covariance over time of the valid tokens, each divided by its trace."""
    apart = apart_from_mean(tokens.float(), valid, segment)
    trace = apart.square().sum(dim=(2, 3), keepdim=True)
    rows = (apart / trace.clamp(min=EPS).sqrt()).flatten(0, 2)
    return (rows.T @ rows).double()
