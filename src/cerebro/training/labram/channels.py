"""Channel registry of the published LaBraM weights, and which of its rows each channel of a store borrows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cerebro.errors import CheckpointError
from cerebro.montage import VERTEX_NAMES_HYDROCEL, fit_sphere, standard_1005
from cerebro.signal import SignalSpec
from cerebro.training.electrodes import apart_mm, centre_of, directions, some

OfficialRows = Literal["by_name", "nearest"]

# `standard_1020` in utils.py of the official repository (935963004/LaBraM). Channel i has row i + 1 of `pos_embed`, row
# 0 is the class token's. That list goes on with FP1-F3, F3-C3, C3-P3, P3-O1, FP2-F4, F4-C4, C4-P4 and P4-O2, for which
# the 129 rows of the weights have no place.
_NAMES = """
FP1 FPZ FP2
AF9 AF7 AF5 AF3 AF1 AFZ AF2 AF4 AF6 AF8 AF10
F9 F7 F5 F3 F1 FZ F2 F4 F6 F8 F10
FT9 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 FT8 FT10
T9 T7 C5 C3 C1 CZ C2 C4 C6 T8 T10
TP9 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 TP10
P9 P7 P5 P3 P1 PZ P2 P4 P6 P8 P10
PO9 PO7 PO5 PO3 PO1 POZ PO2 PO4 PO6 PO8 PO10
O1 OZ O2 O9 CB1 CB2 IZ O10
T3 T5 T4 T6 M1 M2 A1 A2
CFC1 CFC2 CFC3 CFC4 CFC5 CFC6 CFC7 CFC8
CCP1 CCP2 CCP3 CCP4 CCP5 CCP6 CCP7 CCP8
T1 T2 FTT9h TTP7h TPP9h FTT10h TPP8h TPP10h
FP1-F7 F7-T7 T7-P7 P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2
"""
OFFICIAL_CHANNELS: tuple[str, ...] = tuple(_NAMES.split())
# Other names of the same place: the 10-05 system calls O9 and O10 I1 and I2.
ALIASES = {"I1": "O9", "I2": "O10"} | {alias: name.upper() for alias, name in VERTEX_NAMES_HYDROCEL.items()}

_INDEX = {name.upper(): at for at, name in enumerate(OFFICIAL_CHANNELS)}
_PER_LINE = 8


@dataclass(frozen=True)
class BorrowedRows:
    """Rows of the official channel embedding for the channels of a signal.

    Parameters
    ----------
    rows : tuple of int
        Row of ``pos_embed`` for each channel, in 1..128.
    lines : tuple of str
        What a user should know: counts, aliases, and every row borrowed by position with its distance.
    """

    rows: tuple[int, ...]
    lines: tuple[str, ...]


def official_index(channel: str) -> int | None:
    """Place of a channel in `OFFICIAL_CHANNELS` by name or alias, whatever its case; None if it has none."""
    name = channel.upper()
    return _INDEX.get(name, _INDEX.get(ALIASES.get(name, "")))


def borrow_rows(signal: SignalSpec, rule: OfficialRows, path: Path) -> BorrowedRows:
    """Decide which official row each channel of a signal starts from.

    ``by_name``: that of its name or alias. ``nearest``: the same where there is one; any other channel takes the row of
    the official electrode nearest to it on the head. For that, positions become directions from the centre of their
    head (the sphere through the electrodes), so that heads of different size agree, and distances are straight lines
    on the sphere of the 10-05 head. Electrodes of the registry that the 10-05 system does not place, and its
    differences of two places, are borrowed by name only.

    Parameters
    ----------
    signal : SignalSpec
        Channels and positions.
    rule : {"by_name", "nearest"}
    path : Path
        File of the weights, for messages.

    Raises
    ------
    CheckpointError
        In one line: a channel is unknown by name, or has no position under ``nearest``.
    """
    found = [official_index(channel) for channel in signal.channels]
    unknown = [at for at, index in enumerate(found) if index is None]
    n_named = len(found) - len(unknown)
    aliases = [
        f"{channel} = {OFFICIAL_CHANNELS[index]}"
        for channel, index in zip(signal.channels, found, strict=True)
        if index is not None and channel.upper() not in _INDEX
    ]
    through = f" ({len(aliases)} through another name: {', '.join(aliases)})" if aliases else ""
    lines = [f"channel rows: {n_named} of {len(found)} channels by name{through}"]
    if unknown and rule == "by_name":
        names = [signal.channels[at] for at in unknown]
        raise CheckpointError(
            f"{path}: {len(names)} of {len(found)} channels of this store are not among the {len(OFFICIAL_CHANNELS)} "
            f"of LaBraM ({some(names)}); nothing was loaded; write rows: nearest into this entry of model.init to "
            "borrow the rows of the nearest electrodes, or map the channels in data.channels."
        )
    if unknown:
        nearest, distances_mm = _nearest(signal, unknown, path)
        for at, index in zip(unknown, nearest, strict=True):
            found[at] = index
        lines += _borrowed_lines(signal, unknown, nearest, distances_mm)
    return BorrowedRows(tuple(1 + index for index in found if index is not None), tuple(lines))


def _nearest(signal: SignalSpec, unknown: Sequence[int], path: Path) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Place in `OFFICIAL_CHANNELS` and distance in mm for each of the channels ``unknown``."""
    positions = np.asarray(signal.positions, dtype=np.float64)
    lost = [signal.channels[at] for at in unknown if not np.isfinite(positions[at]).all()]
    if lost:
        raise CheckpointError(
            f"{path}: {len(lost)} channels have neither a name of LaBraM nor a position ({some(lost)}); nothing was "
            "loaded; prepare the store with a montage that places them, or map the channels in data.channels."
        )
    cap = standard_1005()
    spelling = {name.upper(): at for at, name in enumerate(cap.channels)}
    other = {name: alias for alias, name in ALIASES.items()}  # O9 stands as I1 in the 10-05 system
    candidates, places = [], []
    for index, name in enumerate(OFFICIAL_CHANNELS):
        at = spelling.get(name.upper(), spelling.get(other.get(name.upper(), "")))
        if at is not None:
            candidates.append(index)
            places.append(cap.positions[at])
    theirs = directions(np.array(places), fit_sphere(cap.positions)[0])  # (K, 3)
    ours = directions(positions[list(unknown)], centre_of(signal.channels, positions))  # (C, 3)
    away_mm = apart_mm(ours, theirs)  # (C, K)
    best = away_mm.argmin(axis=1)
    return [candidates[at] for at in best], away_mm[np.arange(len(best)), best]


def _borrowed_lines(
    signal: SignalSpec, unknown: Sequence[int], nearest: Sequence[int], distances_mm: npt.NDArray[np.float64]
) -> list[str]:
    lines = [
        f"channel rows: {len(unknown)} of {len(signal.channels)} channels by position, from {len(set(nearest))} "
        f"electrodes; median distance {np.median(distances_mm):.1f} mm, largest {distances_mm.max():.1f} mm"
    ]
    pairs = [
        f"{signal.channels[at]} <- {OFFICIAL_CHANNELS[index]} {distance:.1f} mm"
        for at, index, distance in zip(unknown, nearest, distances_mm, strict=True)
    ]
    for first in range(0, len(pairs), _PER_LINE):
        some = pairs[first : first + _PER_LINE]
        lines.append(f"borrowed {first + 1}-{first + len(some)} of {len(pairs)}: {', '.join(some)}")
    return lines
