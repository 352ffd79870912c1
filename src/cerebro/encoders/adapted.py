"""An encoder of one montage behind an adapter that makes its channels from those of any recording."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.nn.channels import PerceiverChannels
from cerebro.signal import EEGBatch, SignalSpec

_log = logging.getLogger(__name__)


class AdaptedEncoder(Encoder):
    """Any encoder, fed through `PerceiverChannels` with the electrodes of a target montage.

    Its tokens are those of the target's O electrodes, whatever the recording has: (B, O, N, D). Readouts and objectives
    that look at tokens alone (supervised, contrastive, auxiliary) take it as any other; those that rebuild the
    recording's own channels refuse it. An encoder that was trained on the target montage moves in by
    ``model.init: [{source: ..., into: encoder.encoder}]``. It sees microvolts as the adapter mixes them: the deviation
    of a recording's own channels, which some batches carry, is none of the electrodes', and ``scale_uV`` of an encoder
    that standardises stands in its place.

    Parameters
    ----------
    signal : SignalSpec
        Channels of the recordings.
    encoder : builder of an `Encoder`
        Called with the signal of the target montage.
    target : callable
        Gives the target montage (``channels`` and ``positions`` in metres): ``cerebro.montage.hbn_129``.
    width, n_heads : int
        As in `PerceiverChannels`.

    Raises
    ------
    ConfigError
        If not one channel of the recordings has a position. Where some have none a line counts them: the adapter tells
        these by name alone.
    """

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """``adapted_labram_d200_l12``."""
        return f"adapted_{settings['encoder']}"

    def __init__(
        self,
        signal: SignalSpec,
        encoder: Callable[[SignalSpec], Encoder],
        target: Callable[[], Any],
        width: int = 64,
        n_heads: int = 4,
    ) -> None:
        known = zip(signal.channels, signal.positions, strict=True)
        unknown = [name for name, place in known if not all(map(isfinite, place))]
        some = f"{', '.join(unknown[:5])}{' and others' * (len(unknown) > 5)}"
        if len(unknown) == len(signal.channels):
            raise ConfigError(
                f"no channel of the recordings has a position ({some}), and AdaptedEncoder asks where they are; "
                "prepare the store with a montage that places them."
            )
        if unknown:
            _log.warning("%d of %d channels have no position: %s", len(unknown), len(signal.channels), some)
        cap = target()
        places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
        super().__init__(replace(signal, channels=tuple(cap.channels), positions=places))
        self.encoder = encoder(self.signal)
        self.d_model, self.n_layers = self.encoder.d_model, self.encoder.n_layers
        self.patch_samples, self.patch_stride = self.encoder.patch_samples, self.encoder.patch_stride
        self.adapter = PerceiverChannels(
            torch.tensor(signal.positions), torch.tensor(places), self.patch_samples, width, n_heads
        )

    def n_patches(self, n_times: int) -> int:
        """Patches in a window of ``n_times`` samples."""
        return self.encoder.n_patches(n_times)

    def valid(self, batch: EEGBatch) -> Bool[Tensor, "B O N"]:
        """Tokens made of real samples; none in a window without a real channel."""
        return self.encoder.valid(self._outline(batch))

    def token_channels(self, batch: EEGBatch) -> Int64[Tensor, "B O"]:
        """The target's electrodes in their order, whatever the recording has."""
        return self._outline(batch).channel

    def adapt(self, batch: EEGBatch) -> EEGBatch:
        """The batch as a recording of the target montage."""
        return replace(self._outline(batch), eeg=self.adapter(batch.eeg, batch.channel, batch.n_valid))

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B O N D"]:
        """Local tokens of the target's electrodes."""
        return self.encoder.embed(self.adapt(batch))

    def mix(
        self, tokens: Float[Tensor, "B O N D"], batch: EEGBatch, hidden: Bool[Tensor, "B O N"] | None = None
    ) -> Float[Tensor, "B O N D"]:
        """Contextual tokens of the target's electrodes."""
        return self.encoder.mix(tokens, self._outline(batch), hidden)

    def mix_subset(
        self,
        tokens: Float[Tensor, "B O N D"],
        batch: EEGBatch,
        hidden: Bool[Tensor, "B O N"] | None = None,
        keep: Int64[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B X D"]:
        """As `Encoder.mix_subset`, over the target's electrodes."""
        return self.encoder.mix_subset(tokens, self._outline(batch), hidden, keep, out)

    def layer_of(self, parameter: str) -> int:
        """0 for the adapter; as the encoder says for its own."""
        own = parameter.removeprefix("encoder.")
        return 0 if own == parameter else self.encoder.layer_of(own)

    def _outline(self, batch: EEGBatch) -> EEGBatch:
        """The batch as the target montage has it, without its samples."""
        n_rows, n_targets = len(batch), len(self.signal.channels)
        channel = torch.arange(n_targets, device=batch.channel.device).expand(n_rows, -1)
        if batch.is_padded:
            channel = torch.where((batch.channel >= 0).any(dim=1, keepdim=True), channel, -1)
        eeg = batch.eeg.new_zeros(1).expand(n_rows, n_targets, batch.eeg.shape[-1])
        nothing = batch.deviation.new_empty(0, 0)  # those of the recording's channels are not the electrodes'
        return replace(batch, eeg=eeg, channel=channel, deviation=nothing)
