"""Electrodes of two caps on one head: the same by name, or so many millimetres apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.montage import OLD_NAMES_10_20, VERTEX_NAMES_HYDROCEL, fit_sphere, hbn_129, standard_1005
from cerebro.signal import SignalSpec

LEAST_OWN_SPHERE = 32  # known positions from which a sphere of a cap's own is trusted
_SAME_PLACE_M = 1e-3
_OTHER_NAMES = OLD_NAMES_10_20 | {alias: name.upper() for alias, name in VERTEX_NAMES_HYDROCEL.items()}


@dataclass(frozen=True, eq=False)
class Electrodes:
    """Named electrodes and their positions.

    Parameters
    ----------
    channels : tuple of str
    positions : array (C, 3)
        Metres; NaN where unknown.
    """

    channels: tuple[str, ...]
    positions: npt.NDArray[np.float64]

    @classmethod
    def of(cls, signal: SignalSpec | Mapping[str, Any]) -> "Electrodes":
        """Those of a signal, or of the fields of one in a stamp."""
        fields = vars(signal) if isinstance(signal, SignalSpec) else signal
        channels = tuple(str(name) for name in fields["channels"])
        return cls(channels, np.asarray(fields["positions"], dtype=np.float64).reshape(len(channels), 3))

    @property
    def is_placed(self) -> npt.NDArray[np.bool_]:
        """Which positions are known."""
        return np.asarray(np.isfinite(self.positions).all(axis=1))

    def directions(self) -> npt.NDArray[np.float64]:
        """Directions (C, 3) from the centre of the head that the electrodes sit on, so that heads of any size agree."""
        return directions(self.positions, centre_of(self.channels, self.positions))


def same_names(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Place in ``theirs`` of each of ``ours`` by name, whatever its case, or by another name of the same place."""
    exact = {name.upper(): at for at, name in enumerate(theirs)}
    usual = {_usual(name): at for at, name in enumerate(theirs)}
    return [exact.get(name.upper(), usual.get(_usual(name))) for name in ours]


def apart_mm(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Straight lines on the 10-05 head, in mm, between directions (C, 3) and (K, 3): (C, K)."""
    radius = fit_sphere(standard_1005().positions)[1]
    return np.asarray(1000 * radius * np.linalg.norm(ours[:, None] - theirs[None], axis=2))


def centre_of(channels: Sequence[str], positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centre of the head that channels sit on: of their known cap, of their own sphere, else of the 10-05 head."""
    known = np.asarray(np.isfinite(positions).all(axis=1))
    for cap in (hbn_129(), standard_1005()):
        at = {name: row for row, name in enumerate(cap.channels)}
        if all(
            name in at and np.linalg.norm(positions[row] - cap.positions[at[name]]) < _SAME_PLACE_M
            for row, name in enumerate(channels)
            if known[row]
        ):
            return fit_sphere(cap.positions)[0]
    return fit_sphere(positions[known] if known.sum() >= LEAST_OWN_SPHERE else standard_1005().positions)[0]


def directions(positions: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Positions (C, 3) as directions of length one from a centre."""
    away = positions - centre
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


def some(names: Sequence[str]) -> str:
    """The first names, and how many others there are."""
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} others' if len(names) > 5 else ''}"


def _usual(name: str) -> str:
    return _OTHER_NAMES.get(name.upper(), name.upper())
