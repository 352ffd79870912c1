"""Fixed and learned codes of where and when a token is."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

LONGEST_TOKENS = 600  # the slowest wave of the time code turns once in 2 pi times this many tokens
REACH = 10.0  # coordinates are counted in this many times the largest one


def time_code(n_tokens: int, width: int) -> Float[Tensor, "N E"]:
    """Sines and cosines in turn of the number of a token (Vaswani et al. 2017), from one radian a token downwards."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(LONGEST_TOKENS) / width))
    angle = torch.arange(n_tokens)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def place_code(positions: Sequence[Sequence[float]], width: int) -> Float[Tensor, "S E"]:
    """Sines and cosines in turn of each of three coordinates, ``width / 3`` numbers for each.

    Parameters
    ----------
    positions : (S, 3)
        Metres; all finite.
    width : int
        A multiple of six.
    """
    place = torch.tensor(positions, dtype=torch.float64)  # (S, 3)
    each = width // 3
    rate = torch.exp((1 - torch.arange(0, each, 2) / each) * 2 * math.pi)
    angle = (place / (REACH * place.abs().max())).float()[:, :, None] * rate  # (S, 3, E / 6)
    return torch.stack([angle.sin(), angle.cos()], dim=3).flatten(1)


class PositionEncoder(nn.Module):
    """Place and time of tokens side by side: a learned row per channel that starts as its place, and a fixed time code.

    The tensor ``pos_encoder_spat.weight`` is that of braindecode's position encoder for Signal-JEPA.

    Parameters
    ----------
    positions : (S, 3)
        Metres, of every channel that can occur; all finite.
    place_width, time_width : int
        Numbers of each code: a multiple of six, an even number.
    n_tokens : int
        Tokens per channel of the longest window; a longer one makes the time code anew.
    """

    times: Tensor

    def __init__(self, positions: Sequence[Sequence[float]], place_width: int, time_width: int, n_tokens: int) -> None:
        super().__init__()
        self.pos_encoder_spat = nn.Embedding(len(positions), place_width, _weight=place_code(positions, place_width))
        self.register_buffer("times", time_code(n_tokens, time_width), persistent=False)

    def forward(self, channel: Int64[Tensor, "B C"], n_tokens: int) -> Float[Tensor, "B C N D"]:
        """Codes of ``n_tokens`` tokens of each channel; padding (-1) gets the first channel's."""
        if n_tokens > len(self.times):
            self.times = time_code(n_tokens, self.times.shape[1]).to(self.times.device)
        place = self.pos_encoder_spat(channel.clamp(min=0))  # (B, C, E)
        shape = (*channel.shape, n_tokens, -1)
        return torch.cat([place[:, :, None].expand(shape), self.times[:n_tokens].expand(shape)], dim=-1)
