"""Zero-phase FIR filters: band-pass and notch, designed as MNE-Python designs them by default.

Windowed-sinc kernels with a Hamming window (Widmann, Schröger & Maess 2015, doi:10.1016/j.jneumeth.2014.08.002), each
edge as long as its transition band asks for: 3.3 / transition. The kernels equal those of ``mne.filter.create_filter``
(a test holds it); MNE itself is not imported here. Frequencies are in Hz.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft

from cerebro.errors import ConfigError, check_positive

HAMMING_LENGTH = 3.3  # length of a Hamming kernel times the width of its transition band
NOTCH_WIDTH = 1 / 200  # width of a notch as a share of its frequency
NOTCH_TRANSITION_HZ = 0.5  # on each side

Kernel = npt.NDArray[np.float64]


def highpass_transition_hz(highpass_hz: float) -> float:
    """Width of the transition below the pass band: a quarter of its edge, at least 2 Hz, never past 0 Hz."""
    return min(max(0.25 * highpass_hz, 2.0), highpass_hz)


def lowpass_transition_hz(lowpass_hz: float, nyquist_hz: float) -> float:
    """Width of the transition above the pass band: a quarter of its edge, at least 2 Hz, never past Nyquist."""
    return min(max(0.25 * lowpass_hz, 2.0), nyquist_hz - lowpass_hz)


def bandpass_kernel(sfreq: float, highpass_hz: float, lowpass_hz: float, nyquist_hz: float) -> Kernel:
    """Taps (n_taps,) of a symmetric band-pass, odd in number.

    Parameters
    ----------
    sfreq : float
        Sampling rate of the signal.
    highpass_hz : float
        Lower edge of the pass band; 0 makes it a low-pass.
    lowpass_hz : float
        Upper edge of the pass band.
    nyquist_hz : float
        Where the stop band begins at the latest: half the lower of the rates before and after resampling.

    Raises
    ------
    ConfigError
        The edges do not rise within 0 Hz and ``nyquist_hz``, or that lies above half of ``sfreq``.
    """
    if not 0 <= highpass_hz < lowpass_hz < nyquist_hz <= sfreq / 2:
        raise ConfigError(
            f"band {highpass_hz:g}-{lowpass_hz:g} Hz does not fit a signal of {sfreq:g} Hz whose stop band starts by "
            f"{nyquist_hz:g} Hz; set 0 <= highpass_hz < lowpass_hz < {min(nyquist_hz, sfreq / 2):g}."
        )
    upper = lowpass_transition_hz(lowpass_hz, nyquist_hz)
    if highpass_hz == 0:
        return _fir(sfreq, [(lowpass_hz, lowpass_hz + upper)], sharpest_hz=upper, ends_open=False)
    lower = highpass_transition_hz(highpass_hz)
    edges = [(highpass_hz - lower, highpass_hz), (lowpass_hz, lowpass_hz + upper)]
    return _fir(sfreq, edges, sharpest_hz=min(lower, upper), ends_open=False)


def notch_kernel(sfreq: float, notch_hz: float) -> Kernel:
    """Taps (n_taps,) of a symmetric band-stop around ``notch_hz``, odd in number.

    Raises
    ------
    ConfigError
        The notch and its transitions do not lie between 0 Hz and half of ``sfreq``.
    """
    check_positive("notch_hz", notch_hz)
    half = notch_hz * NOTCH_WIDTH / 2
    edges = [
        (notch_hz - half - NOTCH_TRANSITION_HZ, notch_hz - half),
        (notch_hz + half, notch_hz + half + NOTCH_TRANSITION_HZ),
    ]
    if edges[0][0] <= 0 or edges[1][1] >= sfreq / 2:
        raise ConfigError(
            f"notch_hz={notch_hz:g} does not fit a signal of {sfreq:g} Hz; set notch_hz between 1 and "
            f"{sfreq / 2 - 2:g}, or 0 for no notch."
        )
    return _fir(sfreq, edges, sharpest_hz=NOTCH_TRANSITION_HZ, ends_open=True)


def half_length(kernels: Sequence[Kernel]) -> int:
    """Samples on each side that a cascade of symmetric kernels reaches."""
    return sum(len(kernel) // 2 for kernel in kernels)


def zero_phase_response(kernels: Sequence[Kernel], n_fft: int) -> npt.NDArray[np.float64]:
    """Gains (n_fft // 2 + 1,) of a cascade of symmetric kernels at the bins of a real FFT; real by symmetry.

    ``n_fft`` is in samples and at least as long as each kernel.
    """
    response = np.ones(n_fft // 2 + 1)
    for kernel in kernels:
        centred = np.zeros(n_fft)
        half = len(kernel) // 2
        centred[: half + 1] = kernel[half:]
        centred[n_fft - half :] = kernel[:half]
        response *= fft.rfft(centred).real
    return response


def _fir(sfreq: float, edges: Sequence[tuple[float, float]], sharpest_hz: float, ends_open: bool) -> Kernel:
    """Sum of windowed-sinc low-passes, one per transition band (start, stop), falling and rising in turn.

    The kernel is as long as its narrowest transition, ``sharpest_hz`` wide, asks for. ``ends_open`` says whether the
    gain at half of ``sfreq`` is 1.
    """
    nyquist = sfreq / 2
    n_taps = _odd(math.ceil(HAMMING_LENGTH / sharpest_hz * sfreq))
    kernel = np.zeros(n_taps)
    if ends_open:
        kernel[n_taps // 2] = 1
    sign = -1 if ends_open else 1
    for start, stop in reversed(edges):
        n_edge = min(_odd(round(HAMMING_LENGTH / ((stop - start) / nyquist / 2))), n_taps)
        offset = (n_taps - n_edge) // 2
        kernel[offset : n_taps - offset] += sign * _lowpass(n_edge, (start + stop) / sfreq)
        sign = -sign
    return kernel


def _lowpass(n_taps: int, cutoff: float) -> Kernel:
    """Hamming-windowed sinc whose taps add up to 1; ``cutoff`` as a share of half the rate."""
    taps: Kernel = cutoff * np.sinc(cutoff * (np.arange(n_taps) - n_taps // 2)) * np.hamming(n_taps)
    taps /= taps.sum()
    return taps


def _odd(number: int) -> int:
    return number + 1 - number % 2
