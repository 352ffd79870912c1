"""Spherical splines: potentials at places on the head from those at other places (Perrin et al. 1989).

Perrin, Pernier, Bertrand & Echallier (1989), Electroencephalogr. Clin. Neurophysiol. 72, 184-187,
doi:10.1016/0013-4694(89)90180-6, with the sign corrected in vol. 76, p. 565.
"""

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import legval

STIFFNESS = 4  # m of the paper
N_TERMS = 50  # of the Legendre series
REGULARISATION = 1e-5  # added to the diagonal of G, as MNE-Python does


def spline_weights(sources: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights (O, C) that give potentials at ``targets`` (O, 3) as ``weights @ eeg`` from ``sources`` (C, 3).

    Both are directions from the centre of the head, of any length. The weights of a target sum to 1: a potential that
    is the same everywhere stays what it is.
    """
    here, there = (places / np.linalg.norm(places, axis=1, keepdims=True) for places in (sources, targets))
    n = len(here)
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = _g(here @ here.T) + REGULARISATION * np.eye(n)
    system[n, n] = 0.0
    right = np.concatenate([_g(there @ here.T), np.ones((len(there), 1))], axis=1)
    return np.asarray((right @ np.linalg.pinv(system))[:, :n])


def _g(cosine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Equation 3 of the paper."""
    n = np.arange(1, N_TERMS + 1, dtype=np.float64)
    factors = (2 * n + 1) / (n**STIFFNESS * (n + 1) ** STIFFNESS * 4 * np.pi)
    return np.asarray(legval(np.clip(cosine, -1, 1), np.concatenate([[0.0], factors])))
