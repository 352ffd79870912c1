"""Channel names and positions of electrode caps, and which label of a file means which electrode.

Two montages stand here: the GSN-HydroCel-129 net of HBN-EEG and the 10-05 system (Oostenveld & Praamstra 2001,
doi:10.1016/S1388-2457(00)00527-7), both with the positions that MNE-Python ships. Positions are in metres, in the head
frame (x right, y front, z up; the ears on the x axis, the nasion on the y axis).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from cerebro.errors import DataError

# Older 10-20 names of four places (American Clinical Neurophysiology Society, Guideline 2).
OLD_NAMES_10_20 = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
# EGI's recording software numbers the reference at the vertex or calls it VREF.
VERTEX_NAMES_HYDROCEL = {"E129": "Cz", "VREF": "Cz"}
# What may follow an electrode after a dash: common reference, linked ears, average. Another electrode there makes the
# label a difference of two places, which is no electrode.
COMMON_REFERENCES = ("REF", "LE", "AR", "AVG", "AVE")

_LABEL = re.compile(rf"(?:EEG\s+)?([A-Z]+[0-9]*[HZ]?)(?:\s*-\s*(?:{'|'.join(COMMON_REFERENCES)}))?\.*", re.IGNORECASE)
_BIOSEMI = re.compile(r"[A-H](?:[1-9]|[12][0-9]|3[0-2])")


@dataclass(frozen=True, eq=False)
class Montage:
    """Named electrodes and where they sit.

    Parameters
    ----------
    name : str
        Name of the cap or system.
    channels : tuple of str
        Electrode names, unique whatever their case.
    positions : array (C, 3)
        Metres in the head frame; NaN where a position is unknown. Read-only.
    aliases : tuple of (str, str)
        Other names of an electrode: (upper-case alias, name in ``channels``).
    """

    name: str
    channels: tuple[str, ...]
    positions: npt.NDArray[np.float64]
    aliases: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=np.float64)
        if positions.shape != (len(self.channels), 3):
            raise DataError(
                f"montage {self.name} has {len(self.channels)} channels and positions of shape {positions.shape}; give "
                "one row of (x, y, z) in metres, or NaN, per channel."
            )
        if len({channel.upper() for channel in self.channels}) != len(self.channels):
            raise DataError(f"montage {self.name} names a channel twice; give each electrode its own name.")
        positions.flags.writeable = False
        object.__setattr__(self, "positions", positions)

    @cached_property
    def spelling(self) -> dict[str, str]:
        """Upper-case name or alias -> the montage's own spelling."""
        own = {channel.upper(): channel for channel in self.channels}
        return dict(self.aliases) | own


@cache
def hbn_129() -> Montage:
    """Net of HBN-EEG: E1..E128 and the vertex reference Cz, in that order (GSN-HydroCel-129)."""
    channels = (*(f"E{number}" for number in range(1, 129)), "Cz")
    positions = _builtin_positions("GSN-HydroCel-129")
    return Montage(
        name="GSN-HydroCel-129",
        channels=channels,
        positions=np.array([positions[channel] for channel in channels]),
        aliases=tuple(VERTEX_NAMES_HYDROCEL.items()),
    )


@cache
def standard_1005() -> Montage:
    """The 10-05 system on the Colin27 head, with the older names T3, T4, T5, T6 as aliases of T7, T8, P7, P8."""
    positions = _builtin_positions("colin27_1005", "standard_1005")  # the second name before MNE 1.13
    channels = tuple(channel for channel in positions if channel not in OLD_NAMES_10_20)
    return Montage(
        name="10-05",
        channels=channels,
        positions=np.array([positions[channel] for channel in channels]),
        aliases=tuple(OLD_NAMES_10_20.items()),
    )


def canonical_name(label: str, montage: Montage) -> str | None:
    """Name of the electrode that a file's label means, in the montage's own spelling; None if it means none.

    "EEG FP1-REF", "EEG Fp1", "FP1-LE", "Fp1." and "fp1" are Fp1, "T3" is T7. A difference of two places ("FP1-F7",
    "EEG A2-A1"), another kind of signal ("ECG ECG", "EMG-REF", "PHOTIC-REF") and a name that the montage does not have
    are None. A bare "A1" or "A2" is an ear lobe here; use `canonical_names` where all labels of a recording are known,
    because a BioSemi cap numbers its electrodes A1..A32, B1..B32.

    Parameters
    ----------
    label : str
        Label as it stands in the file.
    montage : Montage
        Electrodes that can be meant.
    """
    match = _LABEL.fullmatch(label.strip())
    return montage.spelling.get(match[1].upper()) if match else None


def canonical_names(labels: Sequence[str], montage: Montage) -> tuple[str | None, ...]:
    """`canonical_name` of every label of one recording, judged together.

    Labels of a BioSemi cap (A1..A32, B1..B32, ...) map to nothing: its A1 and A2 are no ear lobes.

    Raises
    ------
    DataError
        Two labels mean the same electrode, such as "T3" and "T7".
    """
    bare = {label.strip() for label in labels}
    is_biosemi = {"A3", "A4"} <= bare
    names = tuple(
        None if is_biosemi and _BIOSEMI.fullmatch(label.strip()) else canonical_name(label, montage) for label in labels
    )
    for name in set(names) - {None}:
        if names.count(name) > 1:
            both = " and ".join(repr(label) for label, other in zip(labels, names, strict=True) if other == name)
            raise DataError(f"labels {both} all mean electrode {name}; keep one of them in the recording.")
    return names


def _builtin_positions(*names: str) -> dict[str, npt.NDArray[np.float64]]:
    """Positions in the head frame of the first of ``names`` that this version of MNE ships."""
    import mne  # imported here because it takes a second

    known = mne.channels.get_builtin_montages()
    name = next(name for name in names if name in known)
    montage = mne.channels.montage.transform_to_head(mne.channels.make_standard_montage(name))
    positions: dict[str, npt.NDArray[np.float64]] = dict(montage.get_positions()["ch_pos"])
    return positions
