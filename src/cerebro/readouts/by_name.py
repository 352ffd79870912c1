"""What a head has of channels, by their names: of every one, or right minus left of those that mirror each other."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.hemispheres import homologous
from cerebro.nn.pooling import by_channel
from cerebro.signal import EEGBatch


class ByName:
    """Items of channels in the order of an encoder's channels, whatever the order of a batch.

    Parameters
    ----------
    names : tuple of str
        The encoder's channels.
    over_channels : {"concat", "asymmetry"}
        ``concat``: one place for each channel. ``asymmetry``: one for each homologous pair (AF7-AF8, F3-F4 ...), which
        holds right minus left.

    Raises
    ------
    ConfigError
        If an asymmetry is asked for and no two channels are homologous.
    """

    def __init__(self, names: tuple[str, ...], over_channels: Literal["concat", "asymmetry"]) -> None:
        self.n_channels = len(names)
        pairs = homologous(names) if over_channels == "asymmetry" else []
        if over_channels == "asymmetry" and not pairs:
            raise ConfigError(
                f"over_channels: asymmetry compares left with right, and no two of {', '.join(names[:9])} are "
                "homologous; set over_channels to mean or concat."
            )
        self.sides = [[names.index(name) for name in side] for side in zip(*pairs, strict=True)]  # left, right
        self.n_places = len(pairs) or len(names)

    def __call__(
        self, encoder: Encoder, batch: EEGBatch, items: Float[Tensor, "B C X"], present: Bool[Tensor, "B C"]
    ) -> tuple[Float[Tensor, "B K X"], Bool[Tensor, "B K"]]:
        """Items by place, zeros where a recording lacks the channel or one of the pair, and which places are known."""
        channel = encoder.token_channels(batch)
        named = by_channel(items, channel, present, self.n_channels)
        is_there = by_channel(present[..., None].to(items.dtype), channel, present, self.n_channels) > 0
        if self.sides:
            left, right = self.sides
            is_there = is_there[:, right] & is_there[:, left]
            named = torch.where(is_there, named[:, right] - named[:, left], 0.0)
        return named, is_there[..., 0]
