"""From sources in the head to potentials at the electrodes: current dipoles in a homogeneous conducting sphere.

The potential on the surface of a homogeneous, insulated sphere has a closed form (Brody, Terry & Ideker 1973, IEEE
Trans Biomed Eng 20:141; Zhang 1995, doi:10.1088/0031-9155/40/3/001). A skull is not modelled; as an equivalent, dipoles
lie deeper than the cortex would (Berg & Scherg 1994, doi:10.1016/0013-4694(94)90113-9), which gives the smooth fields
of real scalp EEG. Directions are those of the head frame (x right, y front, z up), seen from the sphere's centre.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cerebro.montage import Montage
from cerebro.montage import fit_sphere as fit_centre

Floats = npt.NDArray[np.float64]

N_BACKGROUND = 48


@dataclass(frozen=True)
class Sphere:
    """Sphere through the electrodes: centre and radius in metres, electrodes moved onto it."""

    centre: Floats  # (3,)
    radius_m: float
    electrodes: Floats  # (C, 3), from the centre, each of length radius_m


@dataclass(frozen=True)
class Source:
    """One dipole: where it sits and where it points, in units of the sphere's radius."""

    name: str
    place: tuple[float, float, float]
    moment: tuple[float, float, float]


# Places are equivalents inside a homogeneous sphere, about 0.6 to 0.7 of the way out for cortex.
SOURCES: tuple[Source, ...] = (
    Source("alpha_left", (-0.25, -0.62, 0.10), (-0.3, -1.0, 0.2)),
    Source("alpha_right", (0.25, -0.62, 0.10), (0.3, -1.0, 0.2)),
    Source("frontal_alpha_left", (-0.40, 0.50, 0.25), (-0.6, 0.7, 0.4)),
    Source("frontal_alpha_right", (0.40, 0.50, 0.25), (0.6, 0.7, 0.4)),
    Source("theta", (0.0, 0.45, 0.45), (0.0, 0.6, 0.8)),
    Source("beta_left", (-0.50, 0.0, 0.45), (-0.7, 0.0, 0.7)),
    Source("beta_right", (0.50, 0.0, 0.45), (0.7, 0.0, 0.7)),
    Source("p300", (0.0, -0.30, 0.45), (0.0, -0.45, 0.9)),
    Source("film_visual", (0.0, -0.65, -0.05), (0.0, -0.8, 0.6)),
    Source("film_auditory_left", (-0.60, 0.0, 0.0), (-0.2, 0.5, 0.85)),
    Source("film_auditory_right", (0.60, 0.0, 0.0), (0.2, 0.5, 0.85)),
    Source("film_central", (0.0, 0.10, 0.55), (0.0, -0.2, 1.0)),
    Source("blink_left", (-0.30, 0.72, -0.15), (-0.1, 0.8, 0.6)),
    Source("blink_right", (0.30, 0.72, -0.15), (0.1, 0.8, 0.6)),
    Source("muscle_left", (-0.80, 0.15, -0.10), (-1.0, 0.2, 0.0)),
    Source("muscle_right", (0.80, 0.15, -0.10), (1.0, 0.2, 0.0)),
)


@dataclass(frozen=True)
class Head:
    """What each source gives at each electrode, before referencing.

    Parameters
    ----------
    channels : tuple of str
        Electrode names, C of them.
    reference : int
        Row of the reference electrode.
    names : tuple of str
        Names of the sources, K of them.
    patterns : array (C, K)
        Potentials of each source, largest absolute value 1.
    background : array (C, N_BACKGROUND)
        The same for the sources of the 1/f background.
    """

    channels: tuple[str, ...]
    reference: int
    names: tuple[str, ...]
    patterns: Floats
    background: Floats

    def pattern(self, name: str) -> Floats:
        """Potentials of one named source, shape (C,)."""
        return np.asarray(self.patterns[:, self.names.index(name)])


def fit_sphere(positions: Floats) -> Sphere:
    """Fit a sphere to electrode positions (C, 3) by linear least squares and move them onto it."""
    centre, radius = fit_centre(positions)
    away = positions - centre
    return Sphere(centre, radius, away / np.linalg.norm(away, axis=1, keepdims=True) * radius)


def surface_potential(electrodes: Floats, place: Floats, moment: Floats) -> Floats:
    """Potential on a homogeneous sphere of conductivity 1 around the origin, up to a constant.

    With d = r - r0, D = R**2 - r.r0 + R |d|:  4 pi V = q . [2 d / |d|**3 + (r + R d / |d|) / (R D)].

    Parameters
    ----------
    electrodes : array (C, 3)
        Points r on the sphere, all of length R.
    place, moment : array (3,)
        Dipole place r0 with |r0| < R and moment q.

    Returns
    -------
    array (C,)
    """
    radius = np.linalg.norm(electrodes, axis=1)
    away = electrodes - place
    distance = np.linalg.norm(away, axis=1)
    image = radius * (radius**2 - electrodes @ place + radius * distance)
    field = 2 * away / distance[:, None] ** 3
    field += (electrodes + (radius / distance)[:, None] * away) / image[:, None]
    return np.asarray(field @ moment / (4 * np.pi))


def build_head(montage: Montage, reference: str = "Cz") -> Head:
    """Head of every simulated person: named sources, and background dipoles at fixed pseudo-random places."""
    electrodes = fit_sphere(montage.positions).electrodes
    electrodes = electrodes / np.linalg.norm(electrodes, axis=1, keepdims=True)
    rng = np.random.default_rng(129)  # one anatomy for all cohorts; people differ in what their sources do
    directions = rng.standard_normal((N_BACKGROUND, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:, 2] = np.maximum(directions[:, 2], -0.4)  # little cortex lies below the net
    places = directions * rng.uniform(0.4, 0.75, (N_BACKGROUND, 1))
    moments = rng.standard_normal((N_BACKGROUND, 3))
    return Head(
        channels=montage.channels,
        reference=montage.channels.index(reference),
        names=tuple(source.name for source in SOURCES),
        patterns=np.stack([_pattern(electrodes, np.array(s.place), np.array(s.moment)) for s in SOURCES], axis=1),
        background=np.stack([_pattern(electrodes, p, q) for p, q in zip(places, moments, strict=True)], axis=1),
    )


def part_of(head: Head, channels: tuple[str, ...], reference: str) -> Head:
    """The same head with these electrodes alone, in this order, one of them the reference."""
    rows = [head.channels.index(name) for name in channels]
    return replace(
        head,
        channels=channels,
        reference=channels.index(reference),
        patterns=head.patterns[rows],
        background=head.background[rows],
    )


def _pattern(electrodes: Floats, place: Floats, moment: Floats) -> Floats:
    potential = surface_potential(electrodes, place, moment)
    potential = potential - potential.mean()
    return np.asarray(potential / np.abs(potential).max())
