"""What people share in the EEG itself: correlated components, a linear reference for what a network finds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, eigh

from cerebro.errors import ConfigError, DataError

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.float32]
SHRINKAGE = 0.1


@dataclass(frozen=True)
class Components:
    """Spatial filters whose output is most alike in different people.

    Parameters
    ----------
    filters : float64 (K, C)
        One per component, the strongest first; their output is ``filters @ eeg``.
    isc : float64 (K,)
        Inter-subject correlation of each, on the people that it was found on.
    """

    filters: Array
    isc: Array


class CorrelatedComponents:
    """Correlated components of windows that come in batches.

    A component is a spatial filter; the first maximises the ratio of the covariance between people to that within
    people, over windows of the same moment (Dmochowski et al. 2012, doi:10.3389/fnhum.2012.00112; as a generalised
    eigenvalue problem in Parra et al. 2019, arXiv:1801.08881). Each window is centred by channel and scaled to a mean
    square of 1, so that a window with an artefact weighs no more than others. Memory: a window and a (C, C) covariance
    per moment.

    Parameters
    ----------
    n_channels : int
        C.
    shrinkage : float
        Share, in [0, 1], of the covariance within people that becomes that of channels alike and unrelated: channels
        that the net interpolates or references leave it singular.
    """

    def __init__(self, n_channels: int, shrinkage: float = SHRINKAGE) -> None:
        if not 0 <= shrinkage <= 1:
            raise ConfigError(f"shrinkage={shrinkage} is not in [0, 1]; 0.1 is a good number.")
        self.n_channels, self.shrinkage = n_channels, shrinkage
        self._sum: dict[int, Samples] = {}  # of a moment: windows of everyone, (C, T)
        self._within: dict[int, Array] = {}  # of a moment: sum of everyone's own covariance, (C, C)
        self._people: dict[int, set[int]] = {}

    def add(self, eeg: Samples, moment: npt.NDArray[np.integer], person: npt.NDArray[np.integer]) -> None:
        """Take windows (N, C, T) of a moment and a person each (N,); a person's second at a moment is left out."""
        for window, at, who in zip(standard_windows(eeg), moment.tolist(), person.tolist(), strict=True):
            seen = self._people.setdefault(at, set())
            if who in seen:
                continue
            seen.add(who)
            own = (window @ window.T).astype(np.float64)
            if len(seen) == 1:
                self._sum[at], self._within[at] = window.copy(), own
            else:
                self._sum[at] += window
                self._within[at] += own

    def find(self, n_components: int = 1) -> Components:
        """The strongest components of what was added.

        Raises
        ------
        DataError
            If no two people share a moment, all that is shared is flat, or ``shrinkage`` is 0 and some channels are
            mixtures of others.
        """
        between, within = (np.zeros((self.n_channels, self.n_channels)) for _ in range(2))
        for at, seen in self._people.items():
            if len(seen) < 2:
                continue
            total = self._sum[at].astype(np.float64)
            between += total @ total.T - self._within[at]
            within += (len(seen) - 1) * self._within[at]
        power = np.trace(within) / self.n_channels
        if not power > 0:
            raise DataError("there is no moment at which two people have EEG that is not flat; add more people.")
        shrunk = (1 - self.shrinkage) * within + self.shrinkage * power * np.eye(self.n_channels)
        try:
            _, vectors = eigh(between, shrunk)
        except LinAlgError:
            raise DataError(
                f"some of {self.n_channels} channels are mixtures of others, and shrinkage is {self.shrinkage}; set it "
                "to 0.1."
            ) from None
        filters = vectors[:, ::-1][:, :n_components].T  # (K, C)
        isc = np.einsum("kc,cd,kd->k", filters, between, filters) / np.einsum("kc,cd,kd->k", filters, within, filters)
        return Components(filters, isc)


def standard_windows(eeg: Samples) -> Samples:
    """Windows (N, C, T), each channel centred, each window of mean square 1; a flat window stays 0."""
    centred = eeg - eeg.mean(axis=2, keepdims=True)
    power = np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.where(power > 0, power, 1), np.float32)
