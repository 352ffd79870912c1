"""The contract of every encoder: a batch gives tokens (B, C, N, D)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.signal import EEGBatch, SignalSpec


class Encoder(nn.Module, ABC):
    """Turns windows into tokens, one per channel and patch; final classes take ``(signal, ...)``.

    A subclass sets ``d_model`` (width of a token), ``patch_samples``, ``patch_stride`` and ``n_layers`` in its
    constructor. Encoders are strangers to each other: none imports or inherits another.

    ``channel_tables`` names the tensors with a row per channel and how many rows stand before the first channel's; it
    promises that no other weight depends on which channels there are, so that the others may move to any montage.
    ``None`` promises nothing.

    ``hides_inputs`` promises that ``embed`` gives each token from its own samples alone, and that where ``mix`` hides
    one it takes what ``embed`` makes of zeros: the samples themselves then need not be zeroed in a copy of the batch.
    """

    channel_tables: ClassVar[Mapping[str, int] | None] = None
    family: ClassVar[str] = ""  # first word of a configuration's name; empty = that of the class
    hides_inputs: ClassVar[bool] = False

    d_model: int
    patch_samples: int
    patch_stride: int
    n_layers: int
    local_parts: tuple[str, ...] = ()  # modules and parameters that only ``embed`` and masking use

    def __init__(self, signal: SignalSpec) -> None:
        super().__init__()
        self.signal = signal

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """Name of the constructor's arguments, for folders and files: family, width, layers (``labram_d200_l12``).

        In ``settings`` an encoder within has its own name.
        """
        known = {"d": settings.get("d_model"), "l": settings.get("n_layers", settings.get("depth"))}
        sizes = [f"{letter}{number}" for letter, number in known.items() if number is not None]
        return "_".join([cls.family or in_words(cls.__name__), *sizes])

    def n_patches(self, n_times: int) -> int:
        """Patches in a window of ``n_times`` samples."""
        return (n_times - self.patch_samples) // self.patch_stride + 1

    def valid(self, batch: EEGBatch) -> Bool[Tensor, "B C N"]:
        """Tokens made of real samples of a real channel: True where nothing is padding."""
        n = self.n_patches(batch.eeg.shape[-1])
        end = torch.arange(n, device=batch.eeg.device) * self.patch_stride + self.patch_samples  # (N,)
        return (batch.channel >= 0)[:, :, None] & (end[None, None, :] <= batch.n_valid[:, None, None])

    def token_channels(self, batch: EEGBatch) -> Int64[Tensor, "B C"]:
        """Row of ``self.signal.channels`` of each row of tokens, -1 = padding: which electrode a token is of."""
        return batch.channel

    def token_scale(self, batch: EEGBatch) -> Float[Tensor, "B C"]:
        """Microvolts by which the samples of each row of tokens are divided; 1 where they are seen as they are."""
        return batch.eeg.new_ones(self.token_channels(batch).shape)

    @abstractmethod
    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Local tokens of each patch, without positions and without a look at other patches."""

    @abstractmethod
    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        """Contextual tokens; where ``hidden`` is True the local token is replaced by the encoder's mask token."""

    def positions(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """What tells each token where and when it is; ``contextualise`` takes local tokens with it added.

        This default and the two below serve encoders that can only mix whole windows.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot place single tokens")

    def contextualise(
        self, placed: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M D"]:
        """Mix any list of placed tokens; those that are not ``valid`` have no influence on the others."""
        raise NotImplementedError(f"{type(self).__name__} cannot mix single tokens")

    def last_layers(
        self, placed: Float[Tensor, "B M D"], n_last: int, valid: Bool[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """As ``contextualise``, after each of the last ``n_last`` layers."""
        raise NotImplementedError(f"{type(self).__name__} cannot mix single tokens")

    def mix_subset(
        self,
        tokens: Float[Tensor, "B C N D"],
        batch: EEGBatch,
        hidden: Bool[Tensor, "B C N"] | None = None,
        keep: Int64[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Like ``mix`` on the tokens ``keep`` alone, giving those at ``out``; both index the flattened (C N).

        ``keep=None`` keeps all tokens; ``out=None`` gives the kept ones. Counts are the same for every row of a batch,
        so that shapes are static. ``out`` must lie in ``keep``. This default serves encoders without a faster way and
        knows ``keep=None`` only.
        """
        if keep is not None:
            raise NotImplementedError(f"{type(self).__name__} cannot leave tokens out")
        mixed = self.mix(tokens, batch, hidden).flatten(1, 2)  # (B, C N, D)
        return mixed if out is None else mixed.gather(1, out[:, :, None].expand(-1, -1, mixed.shape[-1]))

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Depth of a parameter for layer-wise learning-rate decay: 0 = input side, ``n_layers + 1`` = output side."""

    def forward(self, batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None) -> Float[Tensor, "B C N D"]:
        """Tokens of a batch: ``mix(embed(batch), batch, hidden)``."""
        return self.mix(self.embed(batch), batch, hidden)


def in_words(name: str) -> str:
    """Name of a class in small letters: ``SignalJEPA`` -> ``signal_jepa``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
