"""Which tokens to hide: pure functions of the batch's keys."""

import struct
from math import floor
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from cerebro.randomness import uniform


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


def _float32(value: float) -> float:
    """The nearest number that float32 holds."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
