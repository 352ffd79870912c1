"""Pooling of tokens that leaves out padding: over both axes at once, over one, by attention, by name."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-5  # added under the root: its gradient stays finite where all windows are alike


def mean_over_valid(tokens: Float[Tensor, "B C N D"], valid: Bool[Tensor, "B C N"]) -> Float[Tensor, "B D"]:
    """Mean over channels and patches that are no padding; zero for a window of nothing but padding."""
    weight = valid[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)


def mean_of(items: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"]) -> Float[Tensor, "*A D"]:
    """Mean of the valid ones of M items; zero where none is."""
    known = items.masked_fill(~valid[..., None], 0.0)
    return known.sum(dim=-2) / valid.sum(dim=-1, keepdim=True).clamp(min=1)


def mean_and_deviation(items: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"]) -> Float[Tensor, "*A E"]:
    """Mean and standard deviation of the valid ones of M items, side by side: E = 2 D.

    The pooling of x-vectors (Snyder et al. 2018, doi:10.1109/ICASSP.2018.8461375). A mean over windows of a rhythm at
    random phases goes to zero with their number; the deviation keeps its power. One item has the deviation 0, up to the
    root of ``VARIANCE_FLOOR``; zeros where no item is valid. Float32 whatever the items are.
    """
    items = items.float()
    mean = mean_of(items, valid)
    variance = mean_of((items - mean[..., None, :]).square(), valid)
    both = torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=-1)
    return both.masked_fill(~valid.any(dim=-1, keepdim=True), 0.0)


def apart_from_mean(
    items: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"], segment: int = 0
) -> Float[Tensor, "*A M D"]:
    """Items minus the mean of the valid ones, or of those in their segment of so many items; zero where not valid."""
    if not 0 < segment < items.shape[-2]:
        return (items - mean_of(items, valid)[..., None, :]).masked_fill(~valid[..., None], 0.0)
    n_items = items.shape[-2]
    n_more = -n_items % segment
    parts = rearrange(F.pad(items, (0, 0, 0, n_more)), "... (g m) d -> ... g m d", m=segment)
    are_valid = rearrange(F.pad(valid, (0, n_more)), "... (g m) -> ... g m", m=segment)
    return rearrange(apart_from_mean(parts, are_valid), "... g m d -> ... (g m) d")[..., :n_items, :]


def log_power(
    items: Float[Tensor, "*A M D"],
    valid: Bool[Tensor, "*A M"],
    scale: Float[Tensor, "*A"],
    segment: int = 0,
    trim: float = 0.0,
) -> Float[Tensor, "*A D"]:
    """Half the logarithm of the variance of the valid ones of M items, as if they had been multiplied by ``scale``.

    With ``segment`` above 0 the variance is that within segments of so many items, over all of them but the share
    ``trim`` with the largest variance, of each of the D features for itself (at most that share: 4 of 42 for 0.1).

    Variance over time, then a logarithm, is how power leaves a filter bank in EEG (common spatial patterns: Ramoser,
    Mueller-Gerking & Pfurtscheller 2000, doi:10.1109/86.895946; networks: Schirrmeister et al. 2017,
    doi:10.1002/hbm.23730). One item has no variance and gives the logarithm of the root of ``VARIANCE_FLOOR``; zeros
    where no item is valid. Float32 whatever the items are.
    """
    squares = apart_from_mean(items.float(), valid, segment).square()
    variance = _trimmed(squares, valid, segment, trim) if segment > 0 and trim > 0 else mean_of(squares, valid)
    power = 0.5 * (variance + VARIANCE_FLOOR).log() + scale.float().log()[..., None]
    return power.masked_fill(~valid.any(dim=-1, keepdim=True), 0.0)


def _trimmed(
    squares: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"], segment: int, trim: float
) -> Float[Tensor, "*A D"]:
    """Mean of the valid squares of the segments that are left when those with the largest means are taken away."""
    n_more = -squares.shape[-2] % segment
    parts = rearrange(F.pad(squares, (0, 0, 0, n_more)), "... (g m) d -> ... g m d", m=segment)
    n_valid = rearrange(F.pad(valid, (0, n_more)), "... (g m) -> ... g m", m=segment).sum(dim=-1)  # (..., G)
    total = parts.sum(dim=-2)  # (..., G, D); what is not valid is zero
    power = (total / n_valid.clamp(min=1)[..., None]).masked_fill((n_valid == 0)[..., None], -1.0)
    place = power.argsort(dim=-2, descending=True, stable=True).argsort(dim=-2)  # 0 = the largest
    n_gone = ((n_valid > 0).sum(dim=-1) * trim).floor()
    is_left = (place >= n_gone[..., None, None]).to(total.dtype)
    return (total * is_left).sum(dim=-2) / (n_valid[..., None] * is_left).sum(dim=-2).clamp(min=1)


class AttentionPooling(nn.Module):
    """Weighted mean of M items, whose weights are learned: attention-based pooling of multiple-instance learning.

    The weight of an item is the softmax over the valid items of ``query . tanh(key(item))`` (Ilse, Tomczak & Welling
    2018, arXiv:1802.04712, equation 8, without the gate). Keys see items standardised over their width, so that tokens
    of any size do not saturate the tanh.

    Parameters
    ----------
    width : int
        Width D of an item; keys and query have half of it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 2)
        self.key = nn.Linear(width, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)  # a bias would change no weight

    def forward(self, items: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"]) -> Float[Tensor, "*A D"]:
        """Weighted mean of the valid items; zero where none is."""
        weight = self.weights(items, valid)[..., None]
        return (items.masked_fill(~valid[..., None], 0.0) * weight.to(items.dtype)).sum(dim=-2)

    def weights(self, items: Float[Tensor, "*A M D"], valid: Bool[Tensor, "*A M"]) -> Float[Tensor, "*A M"]:
        """Weights in float32 that sum to 1; all 0 where no item is valid."""
        score: Tensor = self.query(torch.tanh(self.key(F.layer_norm(items, items.shape[-1:]))))[..., 0].float()
        lowest = torch.finfo(score.dtype).min
        return score.masked_fill(~valid, lowest).softmax(dim=-1).masked_fill(~valid, 0.0)


def by_channel(
    items: Float[Tensor, "B C X"], channel: Int64[Tensor, "B C"], present: Bool[Tensor, "B C"], n_channels: int
) -> Float[Tensor, "B S X"]:
    """Items in the order of ``n_channels`` names, whatever the order they come in; absent ones are zero.

    Parameters
    ----------
    items : tensor (B, C, X)
        One of each channel; those that are not ``present`` may hold anything.
    channel : tensor (B, C)
        Number of each one's name; no number twice among those present.
    """
    row = torch.where(present, channel, n_channels)  # what is absent goes to a row that is cut off
    known = items.masked_fill(~present[..., None], 0.0)
    placed = known.new_zeros(len(items), n_channels + 1, items.shape[2])
    return placed.scatter(1, row[..., None].expand_as(known), known)[:, :n_channels]


def log_mean_probability(logits: Float[Tensor, "B N K"], valid: Bool[Tensor, "B N"]) -> Float[Tensor, "B K"]:
    """Logarithm of the mean over valid windows of the probabilities that ``logits`` stand for, in float32.

    Its softmax is that mean itself, so that the cross-entropy of these outputs is that of the mean probability. Where
    no window is valid, the first one counts.
    """
    is_first = torch.arange(valid.shape[1], device=valid.device) == 0
    counted = valid | (~valid.any(dim=1, keepdim=True) & is_first)
    log_probability = logits.float().log_softmax(dim=-1)
    lowest = torch.finfo(log_probability.dtype).min / 2  # exp of it is 0; -inf would give NaN in the gradient
    known = log_probability.masked_fill(~counted[..., None], lowest)
    return known.logsumexp(dim=1) - counted.sum(dim=1, keepdim=True).log()
