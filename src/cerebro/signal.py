"""What a model must know of the data, and the batch that every encoder and objective takes.

Shape legend of the whole package: B batch, C channel, T sample, N patch, P sample in patch, D width, H head, K code.
Units: ``EEGBatch.eeg`` is float32 microvolts. Positions are in metres, in the head frame (x right, y front, z up).
"""

from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int16, Int64
from torch import Tensor

from cerebro.errors import ConfigError

Batch = TypeVar("Batch", "RawBatch", "EEGBatch")


@dataclass(frozen=True)
class SignalSpec:
    """What a model must know of the data before the first batch arrives.

    Parameters
    ----------
    channels : tuple of str
        Every channel name that can occur, in the order that ``EEGBatch.channel`` indexes.
    positions : tuple of (x, y, z)
        Electrode positions in metres, one per channel; NaN where a position is unknown.
    sfreq : float
        Sampling rate in Hz.
    n_times : int
        Samples of the longest row.
    targets : tuple of str
        Targets that a batch carries.
    """

    channels: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    sfreq: float
    n_times: int
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.positions):
            raise ConfigError(
                f"{len(self.channels)} channel names came with {len(self.positions)} positions; give one position (or "
                "NaN) per channel."
            )
        if len(set(self.channels)) != len(self.channels):
            twice = sorted({name for name in self.channels if self.channels.count(name) > 1})
            raise ConfigError(f"channel names occur twice: {', '.join(twice)}; rename or drop one of each.")

    def unplaced(self) -> str:
        """Say which channels have no position (NaN, or the origin itself), for a message; empty where all have one."""
        lost = [
            name
            for name, place in zip(self.channels, self.positions, strict=True)
            if not all(map(isfinite, place)) or not any(place)
        ]
        if not lost:
            return ""
        some = f"{', '.join(lost[:5])}{f' and {len(lost) - 5} others' if len(lost) > 5 else ''}"
        return f"{len(lost)} of {len(self.channels)} channels have no position ({some})"


@dataclass
class EEGBatch:
    """Windows on the device, in microvolts, with what is known of each.

    Channels come sorted by nothing: ``channel`` says which one a row is, so that a model must not rely on their order.
    """

    eeg: Float[Tensor, "B C T"]  # float32 microvolts, zero where padded
    channel: Int64[Tensor, "B C"]  # row of SignalSpec.channels, -1 = padding
    n_valid: Int64[Tensor, " B"]  # valid samples from the left
    key: Int64[Tensor, " B"]  # hash(seed, epoch, sample): masks and augmentations are functions of it
    sample: Int64[Tensor, " B"]  # number of the window in its table
    recording: Int64[Tensor, " B"]
    participant: Int64[Tensor, " B"]
    pair: Int64[Tensor, " B"]  # equal = same film or state at the same time; -1 = none
    targets: dict[str, Float[Tensor, " B"]] = field(default_factory=dict)
    known: dict[str, Bool[Tensor, " B"]] = field(default_factory=dict)  # False where the label is missing
    is_padded: bool = True  # False promises that no channel is -1 and every n_valid is T: no look at the tensors needed
    deviation: Float[Tensor, "n C2"] = field(default_factory=lambda: torch.empty(0, 0))  # see `RawBatch`
    has_signal: bool = True  # False: ``eeg`` is one zero seen everywhere, for what is known of the samples is kept

    def scale(self, otherwise_uV: float) -> Float[Tensor, "B C"]:
        """Standard deviation of each channel of its recording in microvolts; ``otherwise_uV`` where none is carried."""
        if self.deviation.numel():
            return self.deviation
        return self.eeg.new_full(self.eeg.shape[:2], otherwise_uV)

    def to(self, device: torch.device, non_blocking: bool = False) -> "EEGBatch":
        """Copy to ``device``."""
        return _to(self, device, non_blocking)

    def __len__(self) -> int:
        return self.eeg.shape[0]


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """What becomes of the channels of a batch on its device: some are picked, placed among padding, or mixed.

    Parameters
    ----------
    pick : int64 (K,)
        Channels of the recording that are used, in this order; empty = all.
    place : int64 (K,)
        Row of the result for each of them, the others being zero; empty = as they come.
    n_out : int
        Rows of the result where ``place`` is used.
    weights : float32 (O, C)
        The result is ``weights @ eeg``; empty = no mixing.
    """

    pick: Int64[Tensor, " K"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    place: Int64[Tensor, " K"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    n_out: int = 0
    weights: Float[Tensor, "O C"] = field(default_factory=lambda: torch.empty(0, 0))
    _copies: "dict[torch.device, ChannelMap]" = field(default_factory=dict, repr=False)

    def to(self, device: torch.device, non_blocking: bool = False) -> "ChannelMap":
        """The same on ``device``; copied there once, however many batches ask."""
        if device == self.weights.device:
            return self
        if device not in self._copies:
            moved = {name: getattr(self, name).to(device) for name in ("pick", "place", "weights")}
            self._copies[device] = replace(self, **moved, _copies={})
        return self._copies[device]

    def of_counts(self, counts: Int16[Tensor, "B T C"]) -> Int16[Tensor, "B T K"]:
        """Counts of the channels that are used."""
        return counts.index_select(2, self.pick) if self.pick.numel() else counts

    def of_channels(self, eeg: Float[Tensor, "B C T"]) -> Float[Tensor, "B K T"]:
        """Rows of the channels that are used."""
        return eeg.index_select(1, self.pick) if self.pick.numel() else eeg

    def of_microvolts(self, eeg: Float[Tensor, "B K T"]) -> Float[Tensor, "B O T"]:
        """Rows that the model sees; float32 whatever autocast says."""
        if self.place.numel():
            rows = eeg.new_zeros(eeg.shape[0], self.n_out, eeg.shape[2])
            return rows.index_copy_(1, self.place, eeg)
        if self.weights.numel():
            with torch.autocast(eeg.device.type, enabled=False):
                return self.weights @ eeg
        return eeg


KEEP_CHANNELS = ChannelMap()


@dataclass
class RawBatch:
    """Windows as the store holds them: int16, time-major. The only place where int16 is known.

    Where the model runs on the CPU they may come as ``microvolts`` already, read and turned over in one pass; then
    ``counts`` is empty, (B, 0, 0). Sequences and recordings kept as windows carry the standard ``deviation`` of each
    channel over its whole recording, by which models may standardise; other windows carry none.

    Where only labels, or tokens that were computed before, are asked for, no signal is read: ``absent_samples`` is then
    the T that it would have had, and ``counts`` is empty.
    """

    counts: Int16[Tensor, "B T C"]
    microvolts_per_count: Float[Tensor, " B"]
    channel: Int64[Tensor, "B O"]  # of the rows that ``channel_map`` makes
    n_valid: Int64[Tensor, " B"]
    key: Int64[Tensor, " B"]
    sample: Int64[Tensor, " B"]
    recording: Int64[Tensor, " B"]
    participant: Int64[Tensor, " B"]
    pair: Int64[Tensor, " B"]
    targets: dict[str, Float[Tensor, " B"]] = field(default_factory=dict)
    known: dict[str, Bool[Tensor, " B"]] = field(default_factory=dict)
    is_padded: bool = True  # as in EEGBatch; whoever makes the batch knows it without reading a tensor
    channel_map: ChannelMap = KEEP_CHANNELS
    microvolts: Float[Tensor, "n C2 T2"] = field(default_factory=lambda: torch.empty(0, 0, 0))  # or empty
    deviation: Float[Tensor, "m O2"] = field(default_factory=lambda: torch.empty(0, 0))  # microvolts, (B, O); or empty
    absent_samples: int = 0

    def to(self, device: torch.device, non_blocking: bool = False) -> "RawBatch":
        """Copy to ``device``: half the bytes of float32."""
        return _to(self, device, non_blocking)

    def to_microvolts(self) -> EEGBatch:
        """Scale and transpose on the device where the counts lie; called once, after the transfer.

        Of a batch without its signal ``eeg`` has its shape and no memory: one zero, seen everywhere.
        """
        return EEGBatch(
            eeg=self._eeg(),
            channel=self.channel,
            n_valid=self.n_valid,
            key=self.key,
            sample=self.sample,
            recording=self.recording,
            participant=self.participant,
            pair=self.pair,
            targets=self.targets,
            known=self.known,
            is_padded=self.is_padded,
            deviation=self.deviation,
            has_signal=not self.absent_samples,
        )

    def _eeg(self) -> Float[Tensor, "B O T"]:
        if self.absent_samples:
            return self.microvolts_per_count.new_zeros(1).expand(*self.channel.shape, self.absent_samples)
        if self.microvolts.numel():
            return self.channel_map.of_microvolts(self.channel_map.of_channels(self.microvolts))
        counts = self.channel_map.of_counts(self.counts)
        eeg = counts.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (B, C, T)
        return self.channel_map.of_microvolts(eeg.contiguous().mul_(self.microvolts_per_count[:, None, None]))

    def __len__(self) -> int:
        return self.counts.shape[0]


def _to(batch: Batch, device: torch.device, non_blocking: bool) -> Batch:
    moved: dict[str, Tensor | dict[str, Tensor] | ChannelMap | bool | int] = {}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, dict):
            moved[entry.name] = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in value.items()}
        elif isinstance(value, int):  # bool too
            moved[entry.name] = value
        else:
            moved[entry.name] = value.to(device, non_blocking=non_blocking)
    return replace(batch, **moved)  # type: ignore[arg-type]
