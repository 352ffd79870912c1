"""Montage to montage: which electrodes a model sees, whatever cap a recording was made with.

What becomes of the channels is decided once per montage of the store; on the way to the device a batch keeps the
channels of its recordings as int16, and `RawBatch.to_microvolts` applies the decision there.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from cerebro.data.mixture import Mixture
from cerebro.data.store import Store
from cerebro.data.windows import channel_rows, signal_of
from cerebro.dsp.spherical_spline import spline_weights
from cerebro.errors import ConfigError, DataError, check_one_of
from cerebro.montage import OLD_NAMES_10_20, Montage, fit_sphere, montage_named, standard_1005
from cerebro.signal import KEEP_CHANNELS, ChannelMap

# The 10-20 system (Jasper 1958, Electroencephalogr. Clin. Neurophysiol. 10, 371-375), front to back, left to right.
SCALP_10_20 = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8"),
    *("T7", "C3", "Cz", "C4", "T8"),
    *("P7", "P3", "Pz", "P4", "P8", "O1", "O2"),
)
SUBSETS = {"10-20-19": SCALP_10_20, "10-20-21": (*SCALP_10_20, "A1", "A2")}
_NEW_TO_OLD = {new: old for old, new in OLD_NAMES_10_20.items()}
_NEVER_M = 1e3  # a cost above any distance on a head


@dataclass(frozen=True)
class ChannelPlan:
    """What a model sees, and how each montage of a store gives it.

    Parameters
    ----------
    names : tuple of str
        Channels of the model.
    positions : tuple of (x, y, z)
        Metres in the head frame; NaN where unknown.
    rows : tuple of int64 arrays
        By montage: row of ``names`` of each channel of a batch, -1 = padding.
    maps : tuple of ChannelMap
        By montage: what is done to the channels on the device.
    notes : tuple of str
        By montage, in words, where something is done.
    """

    names: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    rows: tuple[npt.NDArray[np.int64], ...]
    maps: tuple[ChannelMap, ...]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of what a model sees of every montage, without the words."""
        digest = hashlib.sha256(f"{self.names};".encode())
        for rows, channel_map in zip(self.rows, self.maps, strict=True):
            digest.update(rows.tobytes() + f" {channel_map.n_out};".encode())
            for part in (channel_map.pick, channel_map.place, channel_map.weights):
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()


class ChannelSpace(ABC):
    """Which channels a model sees."""

    @abstractmethod
    def plan(self, store: Store) -> ChannelPlan:
        """Decide for every montage of a store.

        Raises
        ------
        DataError
            If a montage cannot give these channels.
        """


class AsRecorded(ChannelSpace):
    """The channels of the store, all montages together; a batch has those of its own montage."""

    def plan(self, store: Store) -> ChannelPlan:
        """Channels of all montages, each name once."""
        signal = signal_of(store, 1, ())
        rows = tuple(channel_rows(store, signal))
        return ChannelPlan(signal.channels, signal.positions, rows, (KEEP_CHANNELS,) * len(rows))


class AsPrepared(ChannelSpace):
    """What the config of a mixture says under ``channels``; of one store, or where it says nothing, `AsRecorded`."""

    def plan(self, store: Store) -> ChannelPlan:
        """As `MapChannels.plan` with the settings of the mixture, or as `AsRecorded.plan`."""
        settings = store.channels if isinstance(store, Mixture) else {}
        return MapChannels(**settings).plan(store) if settings else AsRecorded().plan(store)


class MapChannels(ChannelSpace):
    """The channels of one target montage.

    A channel of a recording is an electrode of the target if it has its name (T3 is T7). Of those left over, each is
    the nearest free electrode of the target within ``max_distance_mm``, so that the sum of all distances is smallest;
    no electrode is given twice. With ``interpolate``, names alone count.

    Parameters
    ----------
    target : str
        ``10-20-19`` (the scalp electrodes of the 10-20 system), ``10-20-21`` (with A1 and A2), ``standard_1005``,
        ``hbn_129``, or the path of an ASA electrode file (``.elc``).
    method : {"select", "pad", "interpolate"}
        ``select``: a batch has the channels that were matched, under the target's names, and no others. ``pad``: all
        channels of the target, zero and marked -1 where none was matched. ``interpolate``: all channels of the target,
        those without a match by spherical splines (Perrin et al. 1989, doi:10.1016/0013-4694(89)90180-6) over all
        channels of the recording.
    electrodes : sequence of str
        Electrodes of the target to use; empty = all.
    max_distance_mm : float
        Farthest match by position, in the head frame; 0 = by name alone. Caps on different template heads place the
        same site up to 22 mm apart (GSN-HydroCel-129 and the 10-05 system on Colin27).

    Raises
    ------
    ConfigError
        If the target or one of ``electrodes`` is unknown.
    """

    def __init__(
        self,
        target: str = "10-20-19",
        method: Literal["select", "pad", "interpolate"] = "select",
        electrodes: Sequence[str] = (),
        max_distance_mm: float = 25.0,
    ) -> None:
        check_one_of("method", method, ("select", "pad", "interpolate"))
        if not 0 <= max_distance_mm < float("inf"):
            raise ConfigError(f"max_distance_mm={max_distance_mm} is no distance; set it to 0 or more.")
        twice = [name for at, name in enumerate(electrodes) if name.upper() in map(str.upper, electrodes[:at])]
        if twice:
            raise ConfigError(f"electrodes has {twice[0]} twice; name each electrode once in channels.electrodes.")
        self.target = target
        self.method = method
        self.electrodes = tuple(electrodes)
        self.max_distance_mm = max_distance_mm

    def settings(self) -> dict[str, Any]:
        """Arguments that make this channel space again, as plain types."""
        return {
            "target": self.target,
            "method": self.method,
            "electrodes": list(self.electrodes),
            "max_distance_mm": self.max_distance_mm,
        }

    def plan(self, store: Store) -> ChannelPlan:
        """Match every montage of the store with the target."""
        return self.plan_of(store.montages)

    def target_of(self) -> tuple[Montage, Montage]:
        """Electrodes that the model sees, and the whole cap that they belong to.

        Raises
        ------
        ConfigError
            If the target or one of its electrodes is unknown.
        DataError
            If the target is an electrode file that cannot be read.
        """
        cap = standard_1005() if self.target in SUBSETS else _cap(self.target)
        return _some_of(cap, self.electrodes or SUBSETS.get(self.target, cap.channels)), cap

    def plan_of(self, montages: Sequence[Montage]) -> ChannelPlan:
        """Match montages with the target; see `ChannelSpace.plan`."""
        target, cap = self.target_of()
        decided = [self._decide(montage, target, cap) for montage in montages]
        positions = tuple((float(x), float(y), float(z)) for x, y, z in target.positions)
        rows, maps, notes = zip(*decided, strict=True)
        return ChannelPlan(target.channels, positions, rows, maps, tuple(filter(None, notes)))

    def _decide(self, montage: Montage, target: Montage, cap: Montage) -> tuple[npt.NDArray[np.int64], ChannelMap, str]:
        n_source, n_target = len(montage.channels), len(target.channels)
        if self.method == "interpolate":
            column = match_names(montage, target)
            if (column >= 0).all():
                return _selected(montage, target, column)
            weights = _interpolation(montage, target, cap, column)
            made = int((column < 0).sum())
            note = f"montage {montage.name}: {made} of {n_target} channels interpolated from {n_source}"
            return np.arange(n_target, dtype=np.int64), ChannelMap(weights=torch.from_numpy(weights).float()), note
        column = match(montage, target, self.max_distance_mm / 1000)
        if not (column >= 0).any():
            raise DataError(
                f"no channel of montage {montage.name} ({', '.join(montage.channels[:5])}, ...) is an electrode of "
                f"{self.target} by name or within {self.max_distance_mm:g} mm; set channels.target to another montage."
            )
        if self.method == "select" or (column >= 0).all():
            return _selected(montage, target, column)
        there = np.flatnonzero(column >= 0)
        rows = np.where(column >= 0, np.arange(n_target), -1).astype(np.int64)
        note = f"montage {montage.name}: {len(there)} of {n_target} channels, the rest padding"
        pick, place = torch.from_numpy(column[there]), torch.from_numpy(there.astype(np.int64))
        return rows, ChannelMap(pick=pick, place=place, n_out=n_target), note


def match(montage: Montage, target: Montage, max_distance_m: float) -> npt.NDArray[np.int64]:
    """Column of ``montage`` for each electrode of ``target`` (O,), -1 = none: by name, then by position.

    The order of the montage's channels does not matter.

    Parameters
    ----------
    max_distance_m : float
        Farthest match by position in metres; 0 = by name alone.

    Raises
    ------
    DataError
        If two channels have the name of one electrode, or positions are needed and unknown.
    """
    column = match_names(montage, target)
    free = sorted(set(range(len(montage.channels))) - set(column.tolist()), key=lambda at: montage.channels[at])
    open_rows = np.flatnonzero(column < 0)
    if not max_distance_m or not free or not len(open_rows):
        return column
    _refuse_unknown(montage, free)
    away = np.linalg.norm(montage.positions[free][:, None] - target.positions[open_rows][None], axis=2)
    cost = np.where(away <= max_distance_m, away, _NEVER_M)
    for at, row in zip(*linear_sum_assignment(cost), strict=True):
        if cost[at, row] < _NEVER_M:
            column[open_rows[row]] = free[at]
    return column


def match_names(montage: Montage, target: Montage) -> npt.NDArray[np.int64]:
    """Column of ``montage`` for each electrode of ``target`` (O,) that has its name, -1 = none; T3 is T7."""
    row_of = {name: row for row, name in enumerate(target.channels)}
    column = np.full(len(target.channels), -1, np.int64)
    for at, channel in enumerate(montage.channels):
        upper = channel.upper()
        name = target.spelling.get(upper) or target.spelling.get(OLD_NAMES_10_20.get(upper, "").upper())
        name = name or target.spelling.get(_NEW_TO_OLD.get(upper, ""))
        if name not in row_of:
            continue
        if column[row_of[name]] >= 0:
            other = montage.channels[column[row_of[name]]]
            raise DataError(
                f"channels {other} and {channel} of montage {montage.name} are both electrode {name} of the target; "
                "keep one of them in the store."
            )
        column[row_of[name]] = at
    return column


def _selected(
    montage: Montage, target: Montage, column: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], ChannelMap, str]:
    """Matched channels under the target's names; nothing is done to a batch where all of the montage are."""
    there = np.flatnonzero(column >= 0)
    note = f"montage {montage.name}: {len(there)} of {len(montage.channels)} channels used"
    if len(there) == len(montage.channels):
        row_of_column = np.empty(len(there), np.int64)
        row_of_column[column[there]] = there
        return row_of_column, KEEP_CHANNELS, note if len(there) < len(target.channels) else ""
    return there.astype(np.int64), ChannelMap(pick=torch.from_numpy(column[there])), note


def _interpolation(
    montage: Montage, target: Montage, cap: Montage, column: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Weights (O, C): rows of the identity for matched electrodes, spline weights for the others."""
    order = sorted(range(len(montage.channels)), key=lambda at: montage.channels[at])
    _refuse_unknown(montage, order)
    missing = np.flatnonzero(column < 0)
    centre, _ = fit_sphere(cap.positions)
    weights = np.zeros((len(target.channels), len(montage.channels)))
    weights[np.flatnonzero(column >= 0), column[column >= 0]] = 1.0
    weights[np.ix_(missing, np.array(order))] = spline_weights(
        montage.positions[order] - centre, target.positions[missing] - centre
    )
    return weights


def _refuse_unknown(montage: Montage, columns: Sequence[int]) -> None:
    unknown = [montage.channels[at] for at in columns if not np.isfinite(montage.positions[at]).all()]
    if unknown:
        raise DataError(
            f"channels {', '.join(unknown[:5])}{' and others' * (len(unknown) > 5)} of montage {montage.name} have no "
            "position, which is needed here; set channels.max_distance_mm to 0 (method select or pad) to match by name "
            "alone, or prepare with a montage that places them."
        )


def _cap(name: str) -> Montage:
    try:
        return montage_named(name)
    except ConfigError:
        raise ConfigError(
            f"target={name!r} is unknown; set channels.target to {', '.join(SUBSETS)}, standard_1005, hbn_129 or the "
            "path of an ASA electrode file (.elc)."
        ) from None


def _some_of(cap: Montage, electrodes: Sequence[str]) -> Montage:
    """The named electrodes of a cap, in the order given."""
    names = [cap.spelling.get(name.upper()) for name in electrodes]
    unknown = [name for name, found in zip(electrodes, names, strict=True) if found is None]
    if unknown:
        raise ConfigError(
            f"electrodes {', '.join(unknown[:5])} are not in {cap.name}; set channels.electrodes to some of "
            f"{', '.join(cap.channels[:8])}, ..."
        )
    row_of = {name: row for row, name in enumerate(cap.channels)}
    chosen = [name for name in names if name is not None]
    aliases = tuple((alias, name) for alias, name in cap.aliases if name in chosen)
    return Montage(cap.name, tuple(chosen), cap.positions[[row_of[name] for name in chosen]], aliases)
