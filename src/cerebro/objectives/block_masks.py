"""Masks of JEPA: which tokens a context shows and which targets are predicted from it, drawn from the batch's keys.

Shapes depend on the batch's shape and the settings alone, so that no step waits for the host. Distances between
electrodes are straight lines; the head has a radius of 9.5 cm, as in MNE.
"""

from abc import ABC, abstractmethod
from math import ceil, isfinite, log
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_positive
from cerebro.randomness import uniform
from cerebro.signal import SignalSpec

HEAD_RADIUS_CM = 9.5
FEWEST_TOKENS = 4  # of a channel, below which there is no time to mask
Diameter = Literal["40%", "60%", "80%"]
Kind = Literal["spatial", "temporal", "spatiotemporal"]
MOST_BLOCKS = 256  # of a window; what they leave uncovered is hidden one by one
_CENTRES, _STARTS, _REST = 1, 2, 3  # streams of random numbers


class ContextTargets(NamedTuple):
    """Tokens of R contexts of each window, and of the G targets that are predicted from each, over the flattened (C N).

    Lists have the same length in every row; ``*_counts`` says which entries count. ``is_full`` promises that all do.
    """

    context: Int64[Tensor, "B R V"]
    context_counts: Bool[Tensor, "B R V"]
    target: Int64[Tensor, "B R G L"]
    target_counts: Bool[Tensor, "B R G L"]
    is_full: bool


class Masking(nn.Module, ABC):
    """Draws contexts and targets; final classes take ``(signal, n_patches, ...)``.

    Parameters
    ----------
    signal : SignalSpec
        Channels with their positions.
    n_patches : int
        Tokens of a channel in the longest window.

    Raises
    ------
    ConfigError
        If a channel has no position, or everything or nothing would be hidden.
    """

    distance_cm: Tensor

    def __init__(self, signal: SignalSpec, n_patches: int) -> None:
        super().__init__()
        lost = [n for n, place in zip(signal.channels, signal.positions, strict=True) if not all(map(isfinite, place))]
        if lost:
            raise ConfigError(
                f"{len(lost)} of {len(signal.channels)} channels have no position ({', '.join(lost[:5])}), and masks "
                "of JEPA are places on the head; prepare the store with a montage that places them, or drop them in "
                "data.channels."
            )
        self.channels, self.n_patches = signal.channels, n_patches
        place_cm = 100 * torch.tensor(signal.positions, dtype=torch.float64)
        self.register_buffer("distance_cm", torch.cdist(place_cm, place_cm).float(), persistent=False)

    @abstractmethod
    def forward(
        self, valid: Bool[Tensor, "B C N"], channel: Int64[Tensor, "B C"], key: Int64[Tensor, " B"], is_padded: bool
    ) -> ContextTargets:
        """Contexts and targets of a batch.

        Parameters
        ----------
        valid : bool (B, C, N)
            Tokens that are no padding.
        channel : (B, C)
            Row of ``SignalSpec.channels``; -1 = padding.
        key : (B,)
            Random numbers are functions of it.
        is_padded : bool
            False promises that every token is valid.
        """

    def _from(self, centre: Int64[Tensor, "B M"], channel: Int64[Tensor, "B C"]) -> Float[Tensor, "B M C"]:
        """Distances in cm of a batch's channels from those at its places ``centre``; padding is infinitely far."""
        row = channel.clamp(min=0)
        away = self.distance_cm[row.gather(1, centre)].gather(2, row[:, None].expand(-1, centre.shape[1], -1))
        return away.masked_fill((channel < 0)[:, None], torch.inf)

    def _check_time(self) -> None:
        if self.n_patches < FEWEST_TOKENS:
            raise ConfigError(
                f"the window has {self.n_patches} tokens per channel, and masks in time need {FEWEST_TOKENS} or more; "
                "cut longer windows (duration_s: 16 in data.windows), or mask in space (kind: spatial, DiskMask)."
            )


class DiskMask(Masking):
    """One disk for the whole window: an electrode and every channel nearer to it than a radius (Guetschel et al. 2024).

    The context is all other channels. On HBN's net of 129 channels a disk hides 6.3, 14.1 and 23.4 channels on average.

    Parameters
    ----------
    signal, n_patches
        As in `Masking`.
    diameter : {"40%", "60%", "80%"}
        Of the head's radius on either side of the electrode: 3.8, 5.7 and 7.6 cm.

    Raises
    ------
    ConfigError
        Also if a disk holds every channel.
    """

    def __init__(self, signal: SignalSpec, n_patches: int, diameter: Diameter = "60%") -> None:
        super().__init__(signal, n_patches)
        self.radius_cm = HEAD_RADIUS_CM * int(diameter.removesuffix("%")) / 100
        near = (self.distance_cm < self.radius_cm).sum(dim=1)
        if int(near.max()) == len(signal.channels):
            centre = signal.channels[int(near.argmax())]
            raise ConfigError(
                f"the disk of {diameter} of the head ({self.radius_cm:.1f} cm) around {centre} holds all "
                f"{len(signal.channels)} channels, which hides everything; set diameter to a smaller one, use "
                "BlockMask with a smaller radius_cm, or record more channels."
            )
        self.fewest, self.most = int(near.min()), int(near.max())

    def forward(
        self, valid: Bool[Tensor, "B C N"], channel: Int64[Tensor, "B C"], key: Int64[Tensor, " B"], is_padded: bool
    ) -> ContextTargets:
        """One context and one target per window."""
        _, n_channels, n_patches = valid.shape
        centre = _draw(valid.any(dim=2), key, 1, _CENTRES)  # (B, 1)
        near = self._from(centre, channel)[:, 0] < self.radius_cm  # (B, C)
        hidden = (valid & near[..., None]).flatten(1)
        shown = (valid & ~near[..., None]).flatten(1)
        is_whole = not is_padded and n_channels == len(self.channels)
        fewest = self.fewest if is_whole else 1
        most = min(self.most, n_channels)
        context, context_counts = _listed(shown, (n_channels - fewest) * n_patches)
        target, target_counts = _listed(hidden, most * n_patches)
        is_full = is_whole and self.fewest == self.most
        return ContextTargets(
            context[:, None], context_counts[:, None], target[:, None, None], target_counts[:, None, None], is_full
        )


class BlockMask(Masking):
    """Blocks of a radius on the head and a duration, until a share of the window is hidden: three knobs.

    The last block is cut so that the share is met exactly. The context is what no block hides; the hidden tokens are
    one target. The defaults are those that the author of Signal-JEPA recommends in a later study (9 cm, two tokens,
    45 % shown).

    Parameters
    ----------
    signal, n_patches
        As in `Masking`.
    kind : {"spatial", "temporal", "spatiotemporal"}
        Blocks of channels for the whole window, of times on every channel, or of both.
    radius_cm : float
        Channels nearer to a block's electrode than this belong to it, > 0; not used by ``temporal``.
    duration : int
        Tokens in time of a block, > 0; not used by ``spatial``.
    ratio : float
        Share to hide, in (0, 1): of the channels (``spatial``), of the times (``temporal``) or of all tokens.

    Raises
    ------
    ConfigError
        Also if ``ratio`` rounds to everything or nothing, or there is not enough time for a mask in time.
    """

    def __init__(
        self,
        signal: SignalSpec,
        n_patches: int,
        kind: Kind = "spatiotemporal",
        radius_cm: float = 9.0,
        duration: int = 2,
        ratio: float = 0.55,
    ) -> None:
        super().__init__(signal, n_patches)
        check_positive("radius_cm", radius_cm)
        check_positive("duration", duration)
        if kind != "spatial":
            self._check_time()
        self.kind, self.radius_cm, self.duration, self.ratio = kind, radius_cm, duration, ratio
        n_units = self._n_units(len(signal.channels), n_patches)
        if not 0 < int(n_units * ratio + 0.5) < n_units:
            what = {"spatial": "channels", "temporal": "times", "spatiotemporal": "tokens"}[kind]
            raise ConfigError(
                f"ratio={ratio} of {n_units} {what} hides {'nothing' if n_units * ratio < 1 else 'everything'}; set "
                f"ratio between {0.5 / n_units:.3g} and {1 - 0.5 / n_units:.3g}, such as 0.55."
            )
        share = 1.0 if kind == "temporal" else float((self.distance_cm < radius_cm).float().mean())
        share *= 1.0 if kind == "spatial" else min(duration / n_patches, 1.0)
        needed = log(1 - min(ratio, 0.98)) / log(1 - min(share, 0.98))
        self.n_blocks = min(MOST_BLOCKS, 4 + ceil(3 * needed))

    def forward(
        self, valid: Bool[Tensor, "B C N"], channel: Int64[Tensor, "B C"], key: Int64[Tensor, " B"], is_padded: bool
    ) -> ContextTargets:
        """One context and one target per window."""
        n_batch, n_channels, n_patches = valid.shape
        usable = self._units(valid).flatten(1)  # (B, U); a unit is a channel, a time or a token
        n_usable = usable.sum(dim=1)
        n_hidden = (n_usable.double() * self.ratio + 0.5).floor().long().clamp(min=1)
        n_hidden = torch.minimum(n_hidden, (n_usable - 1).clamp(min=0))
        priority = self._priority(valid, channel, key).flatten(1)
        order = torch.where(usable, priority, torch.inf).argsort(dim=1, stable=True)
        place = torch.arange(order.shape[1], device=order.device).expand_as(order)
        hidden_units = torch.zeros_like(usable).scatter_(1, order, place < n_hidden[:, None])
        hidden = hidden_units.view(n_batch, *self._shape(n_channels, n_patches)).expand_as(valid) & valid
        n_units = order.shape[1]
        most = min(max(int(n_units * self.ratio + 0.5), 1), n_units - 1)  # rows with padding have no more of either
        per_unit = n_channels * n_patches // n_units
        context, context_counts = _listed((valid & ~hidden).flatten(1), (n_units - most) * per_unit)
        target, target_counts = _listed(hidden.flatten(1), most * per_unit)
        return ContextTargets(
            context[:, None],
            context_counts[:, None],
            target[:, None, None],
            target_counts[:, None, None],
            not is_padded,
        )

    def _priority(
        self, valid: Bool[Tensor, "B C N"], channel: Int64[Tensor, "B C"], key: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B c n"]:
        """Order in which units are hidden: block after block, each from its middle on; then what no block holds."""
        _, n_channels, n_patches = valid.shape
        covered = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=valid.device)
        rim = torch.arange(self.n_blocks, device=valid.device)[:, None, None]  # (M, 1, 1)
        if self.kind != "temporal":
            away = self._from(_draw(valid.any(dim=2), key, self.n_blocks, _CENTRES), channel)[..., None]  # (B, M, C, 1)
            covered = covered & (away < self.radius_cm)
            rim = rim + 0.8 * away / self.radius_cm
        if self.kind != "spatial":
            n_times = valid.any(dim=1).sum(dim=1)[:, None]  # (B, 1) tokens in time, from the left
            starts = (n_times - self.duration).clamp(min=0) + 1
            start = (uniform(key, self.n_blocks, _STARTS) * starts).long()[..., None, None]  # (B, M, 1, 1)
            offset = torch.arange(n_patches, device=valid.device) - start  # (B, M, 1, N)
            covered = covered & (offset >= 0) & (offset < self.duration)
            rim = rim + 0.1 * offset / self.duration
        first = torch.where(covered, rim, torch.inf).amin(dim=1)  # (B, c, n)
        rest = self.n_blocks + uniform(key, self._n_units(n_channels, n_patches), _REST).view(first.shape)
        return torch.minimum(first, rest)

    def _shape(self, n_channels: int, n_patches: int) -> tuple[int, int]:
        return (1 if self.kind == "temporal" else n_channels, 1 if self.kind == "spatial" else n_patches)

    def _n_units(self, n_channels: int, n_patches: int) -> int:
        channels, times = self._shape(n_channels, n_patches)
        return channels * times

    def _units(self, valid: Bool[Tensor, "B C N"]) -> Bool[Tensor, "B c n"]:
        if self.kind == "spatial":
            return valid.any(dim=2, keepdim=True)
        return valid.any(dim=1, keepdim=True) if self.kind == "temporal" else valid


class ManyContexts(Masking):
    """Several small contexts per window, each with its own targets, as Signal-JEPA's published weights were trained.

    A target is an electrode and its nearest channels, for the whole window; a context likewise, of the channels that
    none of its targets holds.

    Parameters
    ----------
    signal, n_patches
        As in `Masking`.
    n_contexts, n_targets : int
        Contexts per window, targets per context.
    n_channels : int
        Channels of each.

    Raises
    ------
    ConfigError
        Also if there are too few channels for a context beside its targets.
    """

    def __init__(
        self, signal: SignalSpec, n_patches: int, n_contexts: int = 8, n_targets: int = 2, n_channels: int = 8
    ) -> None:
        super().__init__(signal, n_patches)
        for name, value in (("n_contexts", n_contexts), ("n_targets", n_targets), ("n_channels", n_channels)):
            check_positive(name, value)
        most = len(signal.channels) // (1 + n_targets)
        if n_channels > most:
            raise ConfigError(
                f"a context and {n_targets} targets of {n_channels} channels each want {n_channels * (1 + n_targets)} "
                f"channels, and there are {len(signal.channels)}; set n_channels to {max(most, 1)} or fewer targets."
            )
        self.n_contexts, self.n_targets, self.n_channels = n_contexts, n_targets, n_channels

    def forward(
        self, valid: Bool[Tensor, "B C N"], channel: Int64[Tensor, "B C"], key: Int64[Tensor, " B"], is_padded: bool
    ) -> ContextTargets:
        """R contexts of each window and G targets of each context."""
        n_batch, n_all, n_patches = valid.shape
        n_near = min(self.n_channels, n_all)
        is_there = valid.any(dim=2)
        n_draws = self.n_contexts * (1 + self.n_targets)
        away = self._from(_draw(is_there, key, n_draws, _CENTRES), channel)  # (B, R (1 + G), C)
        away = away.view(n_batch, self.n_contexts, 1 + self.n_targets, n_all)
        targets = away[:, :, 1:].argsort(dim=3, stable=True)[..., :n_near]  # (B, R, G, n)
        taken = torch.zeros_like(away[:, :, 0], dtype=torch.bool).scatter_(2, targets.flatten(2), True)  # (B, R, C)
        context = torch.where(taken, torch.inf, away[:, :, 0]).argsort(dim=2, stable=True)[..., :n_near]
        shown = ~taken.gather(2, context)  # a padded row may have too few channels left
        index, counts = _of_channels(context, valid)
        return ContextTargets(
            index, counts & shown.repeat_interleave(n_patches, dim=2), *_of_channels(targets, valid), not is_padded
        )


def _draw(is_there: Bool[Tensor, "B C"], key: Int64[Tensor, " B"], n: int, stream: int) -> Int64[Tensor, "B n"]:
    """Places of ``n`` channels that are there, with repeats; 0 where a row has none."""
    in_front = (~is_there).int().argsort(dim=1, stable=True)
    n_there = is_there.sum(dim=1, keepdim=True)
    drawn = (uniform(key, n, stream) * n_there).long()
    return in_front.gather(1, torch.minimum(drawn, (n_there - 1).clamp(min=0)))


def _listed(chosen: Bool[Tensor, "B T"], length: int) -> tuple[Int64[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Indices of the chosen entries in a list of fixed length, and which entries of the list count."""
    index = (~chosen).int().argsort(dim=1, stable=True)[:, :length]
    return index, chosen.gather(1, index)


def _of_channels(
    channels: Int64[Tensor, "B *S n"], valid: Bool[Tensor, "B C N"]
) -> tuple[Int64[Tensor, "B *S L"], Bool[Tensor, "B *S L"]]:
    """All tokens of some channels, and which of them are valid."""
    n_patches = valid.shape[2]
    index = (channels[..., None] * n_patches + torch.arange(n_patches, device=channels.device)).flatten(-2)
    return index, valid.flatten(1).gather(1, index.flatten(1)).view(index.shape)
