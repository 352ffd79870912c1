"""Filtering and resampling in one pass: overlap-save blocks in float32, without a shift in time.

A block of N samples is transformed, multiplied by the filter's zero-phase response, and transformed back from only as
many bins as the new rate can hold: M = N x new rate / old rate. Blocks overlap by twice the filter's reach and the
overlap is dropped. N is a multiple of the decimation, so that sample 0 stays at time 0 and every block begins on a
sample of the new rate. Overlap-save: Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.7; resampling by
cutting the spectrum is that of ``mne.filter.resample`` with ``npad=0`` and of ``scipy.signal.resample``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray
from scipy import fft

from cerebro.dsp.filters import Kernel, half_length, zero_phase_response
from cerebro.errors import ConfigError

CHANNELS_AT_ONCE = 8  # the transform works on several rows in one vector register; eight rows still fit the cache
OVERLAPS_PER_BLOCK = 12  # a block is at least this many times the filter's reach
LONGEST_BLOCK = 2**21  # samples; rates that are no small fraction of each other need longer ones


@dataclass(frozen=True)
class Ratio:
    """New rate over old rate in lowest terms: ``up / down``."""

    up: int
    down: int

    @classmethod
    def between(cls, old_sfreq: float, new_sfreq: float) -> "Ratio":
        """Ratio of two rates in Hz, each taken to the nearest thousandth."""
        ratio = Fraction(round(new_sfreq * 1000), 1000) / Fraction(round(old_sfreq * 1000), 1000)
        return cls(ratio.numerator, ratio.denominator)

    def n_out(self, n_times: int) -> int:
        """Samples at the new rate of a signal of ``n_times``: those that lie within its duration."""
        return -(-n_times * self.up // self.down)


def filter_and_resample(
    eeg: Float32[ndarray, "C T"],
    offset: Float32[ndarray, " C"],
    kernels: Sequence[Kernel],
    old_sfreq: float,
    new_sfreq: float,
) -> Float32[ndarray, "C T2"]:
    """Subtract ``offset``, filter by a cascade of symmetric kernels and resample, all channels alike.

    Sample m of the result belongs to time m / ``new_sfreq``. At both ends the signal is continued by odd reflection by
    at most its own length, then by zeros, as ``mne.filter.filter_data`` does. One thread; memory beyond the result is
    a few blocks.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Any unit; T at least 1.
    offset : float32 array (C,)
        Constant of each channel, in the same unit.
    kernels : sequence of float64 array (n_taps,)
        Taps at ``old_sfreq``, odd in number and symmetric; together they stop what ``new_sfreq`` cannot hold.
    old_sfreq, new_sfreq : float
        Hz.

    Returns
    -------
    float32 array (C, ceil(T x new_sfreq / old_sfreq))

    Raises
    ------
    ConfigError
        The two rates are no small fraction of each other.
    """
    ratio = Ratio.between(old_sfreq, new_sfreq)
    n_channels, n_times = eeg.shape
    reach = _round_up(half_length(kernels), ratio.down)
    n_fft = block_length(n_times, half_length(kernels), ratio)
    n_new = n_fft // ratio.down * ratio.up
    gain = _gain(kernels, n_fft, n_new)
    step = n_fft - 2 * reach
    reach_new, step_new = (samples // ratio.down * ratio.up for samples in (reach, step))
    resampled = np.empty((n_channels, ratio.n_out(n_times)), np.float32)
    block = np.empty((min(CHANNELS_AT_ONCE, n_channels), n_fft), np.float32)
    for first in range(0, n_channels, CHANNELS_AT_ONCE):
        rows = slice(first, min(first + CHANNELS_AT_ONCE, n_channels))
        group, constant = eeg[rows], offset[rows, None]
        for number, start in enumerate(range(0, n_times, step)):
            filled = block[: len(group)]
            _fill(filled, group, constant, start - reach)
            spectrum = fft.rfft(filled, axis=-1).view(np.float32)  # (channels, real and imaginary in turn)
            kept = np.zeros((len(group), 2 * (n_new // 2 + 1)), np.float32)
            np.multiply(spectrum[:, : len(gain)], gain, out=kept[:, : len(gain)])
            rebuilt = fft.irfft(kept.view(np.complex64), n=n_new, axis=-1, overwrite_x=True)  # (channels, n_new)
            goal = resampled[rows, number * step_new : (number + 1) * step_new]
            goal[:] = rebuilt[:, reach_new : reach_new + goal.shape[1]]
    return resampled


def block_length(n_times: int, reach: int, ratio: Ratio) -> int:
    """Samples of a block: a multiple of ``ratio.down`` that a transform likes, no longer than the signal needs.

    Raises
    ------
    ConfigError
        No block of bearable length is a whole number of samples at both rates.
    """
    overlap = 2 * _round_up(reach, ratio.down)
    wanted = min(max(OVERLAPS_PER_BLOCK * reach, 4096), n_times + overlap)
    wanted = max(wanted, overlap + ratio.down)
    n_fft = ratio.down * fft.next_fast_len(-(-wanted // ratio.down), real=True)
    if n_fft > LONGEST_BLOCK:
        raise ConfigError(
            f"resampling by {ratio.up}/{ratio.down} needs blocks of {n_fft} samples; set sfreq to a rate that is a "
            "small fraction of the recording's, such as 100 for 500."
        )
    return n_fft


def _gain(kernels: Sequence[Kernel], n_fft: int, n_new: int) -> npt.NDArray[np.float32]:
    """Gain of each kept bin, once for its real and once for its imaginary part; scaled by n_new / n_fft."""
    n_kept = min(n_fft, n_new) // 2 + 1
    gain = zero_phase_response(kernels, n_fft)[:n_kept] * (n_new / n_fft)
    if n_new < n_fft and n_new % 2 == 0:
        gain[-1] *= 2  # both halves of the spectrum fold onto the new Nyquist bin
    if n_new > n_fft and n_fft % 2 == 0:
        gain[-1] /= 2  # the old Nyquist bin now stands for two
    return np.repeat(gain, 2).astype(np.float32)


def _fill(
    block: Float32[ndarray, "C N"],
    eeg: Float32[ndarray, "C T"],
    offset: Float32[ndarray, "C 1"],
    start: int,
) -> None:
    """Write samples ``start`` to ``start + N`` of the continued signal, less its offset, into ``block``."""
    n_times, stop = eeg.shape[1], start + block.shape[1]
    inner = slice(max(start, 0), min(stop, n_times))
    np.subtract(eeg[:, inner], offset, out=block[:, inner.start - start : inner.stop - start])
    if start < 0:
        n_reflected = min(-start, n_times - 1)
        block[:, : -start - n_reflected] = 0
        mirror = eeg[:, n_reflected:0:-1] - offset
        np.subtract(2 * (eeg[:, :1] - offset), mirror, out=block[:, -start - n_reflected : -start])
    if stop > n_times:
        n_reflected = min(stop - n_times, n_times - 1)
        end = n_times - start
        block[:, end + n_reflected :] = 0
        mirror = eeg[:, -2 : -2 - n_reflected : -1] - offset
        np.subtract(2 * (eeg[:, -1:] - offset), mirror, out=block[:, end : end + n_reflected])


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
