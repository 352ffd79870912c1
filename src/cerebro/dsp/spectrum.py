"""Power spectra of windows and power in the classical bands. EEG in microvolts, power density in microvolt^2 / Hz."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray

from cerebro.errors import ConfigError, check_positive


@dataclass(frozen=True)
class Band:
    """Named range of frequencies: ``low_hz <= f < high_hz``."""

    name: str
    low_hz: float
    high_hz: float


# Edges as the International Federation of Clinical Neurophysiology rounds them (Babiloni et al. 2020,
# doi:10.1016/j.clinph.2019.06.234).
DELTA = Band("delta", 1.0, 4.0)
THETA = Band("theta", 4.0, 8.0)
ALPHA = Band("alpha", 8.0, 13.0)
BETA = Band("beta", 13.0, 30.0)
BANDS = (DELTA, THETA, ALPHA, BETA)


def power_spectrum(
    eeg: Float[ndarray, "*rows C T"], sfreq: float
) -> tuple[Float[ndarray, " F"], Float[ndarray, "*rows C F"]]:
    """One-sided power density of whole windows: mean removed, Hann window, one transform each.

    Parameters
    ----------
    eeg : array (..., C, T)
        Microvolts.
    sfreq : float
        Hz.

    Returns
    -------
    frequencies : array (F,)
        Hz, from 0 to half of ``sfreq`` in steps of ``sfreq / T``.
    density : array (..., C, F)
        Microvolt^2 / Hz. White noise of variance v has the density 2 v / sfreq.
    """
    check_positive("sfreq", sfreq)
    n_times = eeg.shape[-1]
    taper = np.sin(np.pi * np.arange(n_times) / n_times) ** 2  # Hann, periodic
    centred = eeg - eeg.mean(-1, keepdims=True)
    density = np.abs(np.fft.rfft(centred * taper)) ** 2 * (2 / (sfreq * (taper**2).sum()))
    density[..., 0] /= 2
    if n_times % 2 == 0:
        density[..., -1] /= 2  # the Nyquist bin, like 0 Hz, has no mirror image
    return np.fft.rfftfreq(n_times, 1 / sfreq), density


def band_power(
    eeg: Float[ndarray, "*rows C T"], sfreq: float, bands: Sequence[Band] = BANDS
) -> Float[ndarray, "*rows C K"]:
    """Mean power density of each window and channel in each band: (..., C, K) microvolt^2 / Hz for K bands.

    Raises
    ------
    ConfigError
        The window is too short to resolve a band, or the band lies above half of ``sfreq``.
    """
    frequencies, density = power_spectrum(eeg, sfreq)
    powers = []
    for band in bands:
        is_inside = (frequencies >= band.low_hz) & (frequencies < band.high_hz)
        if not is_inside.any() or band.high_hz > sfreq / 2:
            raise ConfigError(
                f"band {band.name} ({band.low_hz:g}-{band.high_hz:g} Hz) cannot be measured in {eeg.shape[-1]} samples "
                f"at {sfreq:g} Hz; use longer windows or a band below {sfreq / 2:g} Hz."
            )
        powers.append(density[..., is_inside].mean(-1))
    return np.stack(powers, axis=-1)


def time_shift_s(
    first: Float[ndarray, "C T"], second: Float[ndarray, "C T"], sfreq: float, band: Band = Band("shared", 2.0, 40.0)
) -> float:
    """Seconds by which ``second`` lags ``first``, from the slope of the phase of their cross-spectrum.

    Both are (C, T) at the same rate and hold the same signal in ``band``. All channels are pooled; each frequency
    counts by its power in common. The phase is not unwrapped: shifts of up to half a period of ``band.high_hz`` are
    found.
    """
    n_times = first.shape[-1]
    taper = np.sin(np.pi * np.arange(n_times) / n_times) ** 2
    spectra = [np.fft.rfft((eeg - eeg.mean(-1, keepdims=True)) * taper) for eeg in (first, second)]
    frequencies = np.fft.rfftfreq(n_times, 1 / sfreq)
    is_inside = (frequencies >= band.low_hz) & (frequencies < band.high_hz)
    cross = (spectra[0] * spectra[1].conj()).sum(0)[is_inside]  # pooled over channels
    weights: npt.NDArray[np.float64] = np.abs(cross)
    radians_per_hz = (weights * np.angle(cross) * frequencies[is_inside]).sum() / (
        weights * frequencies[is_inside] ** 2
    ).sum()
    return float(radians_per_hz / (2 * np.pi))
