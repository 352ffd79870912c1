"""Which tokens to hide: pure functions of the batch's keys."""

import struct
from fractions import Fraction
from math import floor
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from cerebro.randomness import keys_within, uniform


class RandomMask(NamedTuple):
    """Hidden and visible tokens of each row, over the flattened (C N); shapes depend on C, N and the ratio alone.

    Where a row has padding, its index lists are longer than it has tokens; ``*_counts`` says which entries count.
    """

    hidden: Bool[Tensor, "B C N"]
    hidden_index: Int64[Tensor, "B L"]
    hidden_counts: Bool[Tensor, "B L"]
    visible_index: Int64[Tensor, "B V"]
    visible_counts: Bool[Tensor, "B V"]


def random_mask(valid: Bool[Tensor, "B C N"], ratio: float, key: Int64[Tensor, " B"], stream: int = 0) -> RandomMask:
    """Hide ``round(ratio * n)`` of the n valid tokens of each row, halves rounded up; padding is never hidden."""
    total = valid[0].numel()
    draw = torch.where(valid.flatten(1), uniform(key, total, stream), 2.0)  # padding comes last
    order = draw.argsort(dim=1)  # (B, C N)
    n_valid = valid.flatten(1).sum(dim=1)  # (B,)
    n_hidden = (n_valid * ratio + 0.5).floor().long()
    place = torch.arange(total, device=valid.device).expand_as(order)
    hidden = torch.zeros_like(draw, dtype=torch.bool).scatter_(1, order, place < n_hidden[:, None])
    longest = floor(_float32(_float32(total * _float32(ratio)) + 0.5))  # rounded as ``n_hidden`` is on the device
    behind = n_hidden[:, None] + place[:, : total - longest]  # places of the visible tokens in the order
    return RandomMask(
        hidden=hidden.view_as(valid),
        hidden_index=order[:, :longest],
        hidden_counts=(place < n_hidden[:, None])[:, :longest],
        visible_index=order.gather(1, behind.clamp(max=total - 1)),
        visible_counts=behind < n_valid[:, None],
    )


class SequenceMask(NamedTuple):
    """Hidden tokens of each channel, which is a sequence of its own; shapes depend on C, N and the ratio alone.

    ``drawn`` lists the hidden places of a sequence in the order in which they were drawn, and then others, so that all
    lists are as long as that of the longest sequence; ``counts`` says which entries are hidden.
    """

    hidden: Bool[Tensor, "B C N"]
    drawn: Int64[Tensor, "B C L"]
    counts: Bool[Tensor, "B C L"]
    n_hidden: Int64[Tensor, "B C"]


def sequence_mask(
    valid: Bool[Tensor, "B C N"], ratio: float, key: Int64[Tensor, " B"], channel: Int64[Tensor, "B C"]
) -> SequenceMask:
    """Hide ``round(ratio * n)`` of the n valid tokens of each channel, halves rounded up; padding is never hidden.

    What is hidden in a channel depends on the key of its row, its ``channel`` and which of its tokens are valid.
    """
    n_tokens = valid.shape[2]
    draw = uniform(keys_within(key, channel).flatten(), n_tokens).view_as(valid)
    order = torch.where(valid, draw, 2.0).argsort(dim=2, stable=True)  # padding comes last
    n_hidden = rounded_share(valid.sum(dim=2), ratio)  # (B, C)
    place = torch.arange(n_tokens, device=valid.device)
    is_hidden = place < n_hidden[:, :, None]  # (B, C, N), by place in the order
    longest = rounded_share(n_tokens, ratio)
    return SequenceMask(
        hidden=torch.zeros_like(valid).scatter_(2, order, is_hidden),
        drawn=order[:, :, :longest],
        counts=is_hidden[:, :, :longest],
        n_hidden=n_hidden,
    )


Counts = TypeVar("Counts", int, Tensor)


def rounded_share(n: Counts, ratio: float) -> Counts:
    """``round(ratio * n)`` in whole numbers, halves up: 0.35 of 90 is 32 on every device, whatever floats make of it.

    ``ratio`` is taken as the nearest fraction with a denominator of up to a million.
    """
    share = Fraction(ratio).limit_denominator(1_000_000)
    return (2 * share.numerator * n + share.denominator) // (2 * share.denominator)


def _float32(value: float) -> float:
    """The nearest number that float32 holds."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
