"""Every q-th sample of a low-passed signal: the cheap first step before a transform at a lower rate.

The low-pass is a short symmetric FIR filter, least-squares in the stop band and lenient in the pass band: the transform
that follows divides by the filter's response there, which is known. It is applied in polyphase form, only where a
sample is kept (Crochiere & Rabiner, Multirate Digital Signal Processing, 1983, section 3.3).
"""

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray

from cerebro.compiled import compiled

LARGEST_FACTOR = 4
TAP_COST = 0.02  # of one tap, per sample of the input, where the transform that follows costs 1; measured
LENGTH = 3.0  # taps times the width of the transition over the rate; with it the stop band lies below -85 dB
STOP_WEIGHT = 1e8  # error in the stop band against error in the pass band
AT_ONCE = 512  # samples of the result made together; their inputs fit the smallest cache


def decimation_factor(old_sfreq: float, new_sfreq: float) -> int:
    """One in how many samples to keep before resampling from ``old_sfreq`` to ``new_sfreq`` (Hz): 1 to 4."""

    def cost(factor: int) -> float:
        return (1 + TAP_COST * (2 * _half_length(old_sfreq, factor, new_sfreq / 2) + 1)) / factor

    allowed = [factor for factor in range(2, LARGEST_FACTOR + 1) if old_sfreq / factor > new_sfreq]
    cheapest = min(allowed, key=cost, default=1)
    return cheapest if cheapest > 1 and cost(cheapest) < 1 else 1


def decimation_kernel(sfreq: float, factor: int, keep_hz: float) -> npt.NDArray[np.float64]:
    """Right half (n,) of a symmetric low-pass, its centre tap first; ``[1.]`` for a factor of 1.

    Parameters
    ----------
    sfreq : float
        Rate before decimation in Hz.
    factor : int
        One in so many samples will be kept.
    keep_hz : float
        Up to here nothing may fold back; below half of ``sfreq / factor``.
    """
    if factor == 1:
        return np.ones(1)
    stop_hz = sfreq / factor - keep_hz
    half = _half_length(sfreq, factor, keep_hz)
    order = np.arange(half + 1)

    def integral(order: npt.NDArray[np.int64], edge_hz: float) -> npt.NDArray[np.float64]:
        """Of cos(order x angle), from 0 Hz to the edge."""
        edge = 2 * edge_hz / sfreq
        value: npt.NDArray[np.float64] = np.pi * edge * np.sinc(order * edge)
        return value

    def products(low_hz: float, high_hz: float) -> npt.NDArray[np.float64]:
        """Integrals over a band of the products of each two cosines."""
        sums, differences = order[:, None] + order, order[:, None] - order
        twice = integral(sums, high_hz) - integral(sums, low_hz)
        twice += integral(differences, high_hz) - integral(differences, low_hz)
        return twice / 2

    normal = products(0.0, keep_hz) + STOP_WEIGHT * products(stop_hz, sfreq / 2)
    cosines = np.asarray(np.linalg.solve(normal, integral(order, keep_hz)), np.float64)
    cosines[1:] /= 2  # each cosine is two taps
    return cosines


def _half_length(sfreq: float, factor: int, keep_hz: float) -> int:
    """Taps on each side of the centre."""
    return math.ceil(LENGTH * sfreq / (sfreq / factor - 2 * keep_hz) / 2)


def decimation_response(half_kernel: npt.NDArray[np.float64], cycles: npt.NDArray[np.float64]) -> ndarray:
    """Gain of the symmetric kernel at frequencies given in cycles per sample before decimation; real by symmetry."""
    cosines = half_kernel * np.where(np.arange(len(half_kernel)) == 0, 1, 2)
    return np.polynomial.chebyshev.chebval(np.cos(2 * np.pi * cycles), cosines)


def decimate(
    eeg: Float32[ndarray, "C T"],
    offset: Float32[ndarray, " C"],
    half_kernel: Float32[ndarray, " K"],
    factor: int,
    start: int,
    out: Float32[ndarray, "C N"],
) -> None:
    """Fill ``out`` with samples ``start``, ``start + factor``, ... of the continued, low-passed signal less its offset.

    Before its first and after its last sample the signal is continued by odd reflection by at most its own length,
    then by zeros (after the offset is gone). ``start`` may lie before or after the signal. All arrays are C-contiguous.
    """
    _decimate(eeg, offset, half_kernel, factor, start, out)


@compiled
def _decimate(eeg, offset, half_kernel, factor, start, out):  # type: ignore[no-untyped-def]
    n_channels, n_out = out.shape
    n_times = eeg.shape[1]
    half = len(half_kernel) - 1
    margin = (half + factor - 1) // factor  # kept samples on each side that the kernel reaches
    width = AT_ONCE + 2 * margin
    line = np.empty(width * factor, np.float32)
    phases = np.empty(width * factor, np.float32)  # sample i of the input stands at (i % factor) * width + i // factor
    before, after = np.empty(half + 1, np.int64), np.empty(half + 1, np.int64)
    for tap in range(half + 1):
        before[tap] = -tap % factor * width + margin + -tap // factor
        after[tap] = tap % factor * width + margin + tap // factor
    for channel in range(n_channels):
        row, constant = eeg[channel], offset[channel]
        for first in range(0, n_out, AT_ONCE):
            goal = out[channel, first : first + AT_ONCE]
            begin = start + (first - margin) * factor
            length = (len(goal) + 2 * margin) * factor
            if begin >= 0 and begin + length <= n_times:
                source = row[begin : begin + length]
            else:
                source = line[:length]
                _continue(row, constant, begin, source)
            if factor == 1:
                _subtract(source, constant, goal)
                continue
            _split(source, constant, factor, phases, width)
            _scale(goal, phases[margin:], half_kernel[0])
            for tap in range(1, half, 2):
                _add_two_pairs(
                    goal,
                    phases[before[tap] :],
                    phases[after[tap] :],
                    half_kernel[tap],
                    phases[before[tap + 1] :],
                    phases[after[tap + 1] :],
                    half_kernel[tap + 1],
                )
            if half % 2:
                _add_pair(goal, phases[before[half] :], phases[after[half] :], half_kernel[half])


@compiled
def _continue(row, constant, begin, line):  # type: ignore[no-untyped-def]
    """Samples ``begin`` and so on of the continued signal."""
    last = len(row) - 1
    n_zero = min(max(-begin - last, 0), len(line))
    n_before = min(max(-begin, 0), len(line))
    n_inside = min(max(last + 1 - begin, 0), len(line))
    n_mirrored = min(max(2 * last + 1 - begin, n_inside), len(line))
    line[:n_zero] = constant
    if n_before > n_zero:
        stop = -begin - n_zero + 1
        line[n_zero:n_before] = row[0] + row[0] - row[stop - (n_before - n_zero) : stop][::-1]
    if n_inside > n_before:
        line[n_before:n_inside] = row[begin + n_before : begin + n_inside]
    if n_mirrored > n_inside:
        stop = 2 * last - begin - n_inside + 1
        line[n_inside:n_mirrored] = row[last] + row[last] - row[stop - (n_mirrored - n_inside) : stop][::-1]
    line[n_mirrored:] = constant


@compiled
def _subtract(source, constant, goal):  # type: ignore[no-untyped-def]
    for place in range(len(goal)):
        goal[place] = source[place] - constant


@compiled
def _split(source, constant, factor, phases, width):  # type: ignore[no-untyped-def]
    """Sort samples by their phase, less the constant; written out for 2, 3 and 4 because only so they vectorise."""
    n = len(source) // factor
    a, b = phases[:n], phases[width : width + n]
    if factor == 2:
        for place in range(n):
            a[place] = source[2 * place] - constant
            b[place] = source[2 * place + 1] - constant
        return
    c = phases[2 * width : 2 * width + n]
    if factor == 3:
        for place in range(n):
            a[place] = source[3 * place] - constant
            b[place] = source[3 * place + 1] - constant
            c[place] = source[3 * place + 2] - constant
        return
    d = phases[3 * width : 3 * width + n]
    for place in range(n):
        a[place] = source[4 * place] - constant
        b[place] = source[4 * place + 1] - constant
        c[place] = source[4 * place + 2] - constant
        d[place] = source[4 * place + 3] - constant


@compiled
def _scale(goal, source, tap):  # type: ignore[no-untyped-def]
    for place in range(len(goal)):
        goal[place] = tap * source[place]


@compiled
def _add_pair(goal, left, right, tap):  # type: ignore[no-untyped-def]
    for place in range(len(goal)):
        goal[place] += tap * (left[place] + right[place])


@compiled
def _add_two_pairs(goal, left, right, tap, further_left, further_right, further_tap):  # type: ignore[no-untyped-def]
    for place in range(len(goal)):
        goal[place] += tap * (left[place] + right[place]) + further_tap * (further_left[place] + further_right[place])
