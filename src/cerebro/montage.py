"""Channel names and positions of electrode caps, and which label of a file means which electrode.

Two montages stand here: the GSN-HydroCel-129 net of HBN-EEG and the 10-05 system (Oostenveld & Praamstra 2001,
doi:10.1016/S1388-2457(00)00527-7), both with the positions that MNE-Python ships; any other cap comes from an ASA
electrode file. Positions are in metres, in the head frame (x right, y front, z up; the ears on the x axis, the nasion
on the y axis).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError, DataError

# Older 10-20 names of four places (American Clinical Neurophysiology Society, Guideline 2).
OLD_NAMES_10_20 = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
# EGI's recording software numbers the reference at the vertex or calls it VREF.
VERTEX_NAMES_HYDROCEL = {"E129": "Cz", "VREF": "Cz"}
# What may follow an electrode after a dash: common reference, linked ears, average. Another electrode there makes the
# label a difference of two places, which is no electrode.
COMMON_REFERENCES = ("REF", "LE", "AR", "AVG", "AVE")
# Landmarks of a head; an electrode file gives their places so that others follow in the head frame.
LANDMARKS = ("LPA", "RPA", "NZ")
LEAST_SPHERE = 4  # points that a sphere takes
ELECTRODE_FILE = ".elc"  # ending of an ASA electrode file

_ASA_UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}  # in metres
_LABEL = re.compile(rf"(?:EEG\s+)?([A-Z]+[0-9]*[HZ]?)(?:\s*-\s*({'|'.join(COMMON_REFERENCES)}))?\.*", re.IGNORECASE)
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


def montage_named(name_or_path: str) -> Montage:
    """Montage of a name (``standard_1005``, ``hbn_129``) or of an ASA electrode file (a path that ends in ``.elc``).

    A Muse headset needs no montage of its own: TP9, AF7, AF8 and TP10 are places of ``standard_1005``.

    Raises
    ------
    ConfigError
        If it is neither.
    DataError
        If the file cannot be read; see `read_asa`.
    """
    if name_or_path in MONTAGES:
        return MONTAGES[name_or_path]()
    if is_electrode_file(name_or_path):
        return read_asa(Path(name_or_path))
    raise ConfigError(
        f"montage={name_or_path!r} is unknown; set montage to {' or '.join(MONTAGES)}, or to the path of an ASA "
        "electrode file (.elc)."
    )


def is_electrode_file(name_or_path: str) -> bool:
    """Whether a montage is given as the path of an ASA electrode file."""
    return Path(name_or_path).suffix.lower() == ELECTRODE_FILE


def read_asa(path: Path) -> Montage:
    """Read an ASA electrode file (``.elc``, ANT Neuro): names and positions, with LPA, RPA and Nz among them.

    Positions are ``x y z`` lines followed by a block ``Labels``, or lines ``name : x y z``; ``UnitPosition`` is m, cm
    or mm. The three landmarks span the head frame; Nz stays an electrode, because the 10-05 system has it. Older names
    (T3, T4, T5, T6) are aliases where the file has the newer ones only.

    Raises
    ------
    DataError
        In one line with the line's number: no such file, no unit, no positions, a line that is no position, names and
        positions of different number, a name twice, a landmark missing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"electrode file {path} does not exist; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); replace it by a whole copy.") from None
    places = _asa_places(lines, path)
    upper = {name.upper(): name for name in places}
    if len(upper) != len(places):
        twice = next(name for name in places if upper[name.upper()] != name)
        raise DataError(f"{path} names electrode {twice} twice; keep one of the two lines.")
    absent = [name for name in LANDMARKS if name not in upper]
    if absent:
        raise DataError(
            f"{path} has no {', '.join(absent)}; add the places of LPA, RPA and Nz, from which the directions of the "
            "head follow."
        )
    left, right, nasion = (places[upper[name]] for name in LANDMARKS)
    axes, origin = _head_frame(left, right, nasion, path)
    channels = tuple(name for name in places if name.upper() not in ("LPA", "RPA"))
    aliases = tuple((old, upper[new]) for old, new in OLD_NAMES_10_20.items() if old not in upper and new in upper)
    positions = np.array([axes @ (places[name] - origin) for name in channels])
    return Montage(path.stem, channels, positions, aliases)


def fit_sphere(positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Centre (3,) and radius of the sphere nearest to positions (C, 3), by linear least squares; metres.

    Raises
    ------
    DataError
        If the positions are too few, unknown or lie in one plane.
    """
    known = positions[np.isfinite(positions).all(axis=1)]
    design = np.column_stack([2 * known, np.ones(len(known))])
    spread = np.linalg.svd(known - known.mean(axis=0), compute_uv=False) if len(known) >= LEAST_SPHERE else [0.0] * 3
    if spread[2] <= 1e-6 * spread[0]:
        raise DataError(
            f"no sphere fits {len(known)} known positions; give {LEAST_SPHERE} or more that do not lie in one plane "
            "(those of the whole cap, not of a few electrodes)."
        )
    solution, *_ = np.linalg.lstsq(design, (known**2).sum(axis=1), rcond=None)
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + (centre**2).sum()))


def unit_sphere(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Directions of electrodes (C, 3) from the centre of the sphere fitted to them, each of length 1; NaN stays NaN.

    Take the positions of a whole cap and select afterwards: a sphere through four electrodes says little of the head.

    Raises
    ------
    DataError
        As `fit_sphere`.
    """
    away = positions - fit_sphere(positions)[0]
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


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
    names = names_of(labels, montage)
    for name in set(names) - {None}:
        if names.count(name) > 1:
            both = " and ".join(repr(label) for label, other in zip(labels, names, strict=True) if other == name)
            raise DataError(f"labels {both} all mean electrode {name}; keep one of them in the recording.")
    return names


def names_of(labels: Sequence[str], montage: Montage) -> tuple[str | None, ...]:
    """`canonical_names` for recordings in which two labels may mean one electrode; the caller has a rule for them."""
    is_biosemi = {"A3", "A4"} <= {label.strip() for label in labels}
    return tuple(
        None if is_biosemi and _BIOSEMI.fullmatch(label.strip()) else canonical_name(label, montage) for label in labels
    )


def reference_in(label: str) -> str:
    """Word that a label gives as its common reference (``REF`` of "EEG FP1-REF"), upper case; empty without one."""
    match = _LABEL.fullmatch(label.strip())
    return (match[2] or "").upper() if match else ""


def _asa_places(lines: Sequence[str], path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Name -> position in metres, in the file's own frame and order."""
    scale, block, names = 0.0, "head", []
    found: list[tuple[str, npt.NDArray[np.float64]]] = []  # name (may be empty), position
    for at, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("Positions", "Labels"):
            block = words[0]
        elif block == "head" and words[0] == "UnitPosition":
            if len(words) != 2 or words[1] not in _ASA_UNITS:
                raise DataError(f"{path} line {at} has unit {' '.join(words[1:])!r}; write m, cm or mm.")
            scale = _ASA_UNITS[words[1]]
        elif block == "Positions":
            name, _, numbers = line.rpartition(":")
            try:
                position = np.array([float(word) for word in numbers.split()])
            except ValueError:
                position = np.full(3, np.nan)
            if position.shape != (3,) or not np.isfinite(position).all():
                raise DataError(f"{path} line {at} is no position ({line.strip()[:40]!r}); write three numbers.")
            found.append((name.strip(), position))
        elif block == "Labels":
            has_names = any(name for name, _ in found)  # then several may stand in a line
            names += words if has_names else [line.strip()]
    if not scale:
        raise DataError(f"{path} has no line UnitPosition; write 'UnitPosition mm' (or m, cm) above the positions.")
    own = [name for name, _ in found]
    if not any(own):
        own = names
    if not found or not all(own) or len(own) != len(found) or len(names) not in (0, len(found)):
        raise DataError(
            f"{path} has {len(found)} positions and {len(names) or sum(map(bool, own))} names; mend the file."
        )
    if names and names != own:
        at = next(i for i, (a, b) in enumerate(zip(own, names, strict=True)) if a != b)
        raise DataError(f"{path} calls position {at + 1} {own[at]} and its label {names[at]}; mend the file.")
    twice = [name for name in own if own.count(name) > 1]
    if twice:
        raise DataError(f"{path} names electrode {twice[0]} twice; keep one of the two lines.")
    return {name: scale * position for name, (_, position) in zip(own, found, strict=True)}


def _head_frame(
    left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], nasion: npt.NDArray[np.float64], path: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows x, y, z of the head frame and its origin: the nasion's foot on the line through the ears."""
    width = np.linalg.norm(right - left)
    x = (right - left) / max(float(width), 1e-12)
    origin = left + x * ((nasion - left) @ x)
    depth = np.linalg.norm(nasion - origin)
    if width < 1e-6 or depth < 1e-6:
        raise DataError(f"{path} has LPA, RPA and Nz in one line or place; correct them.")
    y = (nasion - origin) / depth
    return np.stack([x, y, np.cross(x, y)]), origin


def _builtin_positions(*names: str) -> dict[str, npt.NDArray[np.float64]]:
    """Positions in the head frame of the first of ``names`` that this version of MNE ships."""
    import mne  # imported here because it takes a second

    known = mne.channels.get_builtin_montages()
    name = next(name for name in names if name in known)
    montage = mne.channels.montage.transform_to_head(mne.channels.make_standard_montage(name))
    positions: dict[str, npt.NDArray[np.float64]] = dict(montage.get_positions()["ch_pos"])
    return positions


MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
