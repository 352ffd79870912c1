"""Filtering and resampling in one pass: overlap-save blocks in float32, without a shift in time.

Where the old rate allows it, every second, third or fourth sample is kept first (`cerebro.dsp.decimate`). A block of N
of these is transformed, multiplied by the filter's zero-phase response over that of the first step, and transformed
back from only as many bins as the new rate can hold: M = N x new rate / rate of the block. Blocks overlap by twice the
filter's reach and the overlap is dropped. N is a multiple of the ratio's denominator, so that sample 0 stays at time 0
and every block begins on a sample of the new rate. Where the two rates have no ratio of small numbers (256.042 Hz of a
drifting clock), M is taken large enough to read the signal between its samples (`cerebro.dsp.interpolate`).

Overlap-save: Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.7; resampling by cutting the spectrum is
that of ``mne.filter.resample`` with ``npad=0`` and of ``scipy.signal.resample``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray
from scipy import fft

from cerebro.dsp.decimate import decimate, decimation_factor, decimation_kernel, decimation_response
from cerebro.dsp.filters import Kernel, half_length, zero_phase_response
from cerebro.dsp.interpolate import OVERSAMPLING, interpolate, weights_at

CHANNELS_AT_ONCE = 8  # the transform works on several rows in one vector register; eight rows still fit the cache
LONGEST_BLOCK = 24_000  # samples; longer ones leave the cache, unless
OVERLAPS_PER_BLOCK = 8  # a block is at least this many times what is dropped of it on one side
TAIL = 16  # samples dropped beyond the reach of the filter; the interpolation reads 8 of them
LARGEST_TERM = 4096  # of a ratio of rates: a block is a multiple of its denominator
LARGEST_PRIME = 11  # of both lengths: beyond it a transform slows down several times
RATE_STEPS_PER_HZ = 10**6  # rates are exact to a millionth of a hertz: 15 microseconds in an hour at 250 Hz


@dataclass(frozen=True)
class Ratio:
    """New rate over old rate in lowest terms: ``up / down``."""

    up: int
    down: int

    @classmethod
    def between(cls, old_sfreq: float, new_sfreq: float) -> "Ratio":
        """Ratio of two rates in Hz, each taken to the nearest millionth."""
        new, old = (Fraction(round(sfreq * RATE_STEPS_PER_HZ), RATE_STEPS_PER_HZ) for sfreq in (new_sfreq, old_sfreq))
        return cls((new / old).numerator, (new / old).denominator)

    def n_out(self, n_times: int) -> int:
        """Samples at the new rate of a signal of ``n_times``: those that lie within its duration."""
        return -(-n_times * self.up // self.down)

    def times(self, factor: int) -> "Ratio":
        """Ratio after every ``factor``-th sample alone was kept."""
        ratio = Fraction(self.up * factor, self.down)
        return Ratio(ratio.numerator, ratio.denominator)

    @property
    def is_small(self) -> bool:
        """Whether blocks of bearable length, with transforms of kindly lengths, are whole samples at both rates."""
        return (
            max(self.up, self.down) <= LARGEST_TERM and max(map(_largest_prime, (self.up, self.down))) <= LARGEST_PRIME
        )


@dataclass(frozen=True)
class Blocks:
    """How a signal is cut: lengths in samples after decimation, of which every block has ``n_fft``.

    Parameters
    ----------
    factor : int
        One in so many samples is kept first.
    ratio : Ratio
        Of the rates of a block after and before the transforms.
    n_fft : int
        Length of a block, a multiple of ``ratio.down``.
    dropped : int
        On each side, a multiple of ``ratio.down``.
    hits_every_instant : bool
        Whether every sample of the new rate is one of a rebuilt block.
    """

    factor: int
    ratio: Ratio
    n_fft: int
    dropped: int
    hits_every_instant: bool

    @property
    def step(self) -> int:
        """From block to block."""
        return self.n_fft - 2 * self.dropped

    def at_new_rate(self, n_samples: int) -> int:
        """As many samples after the transforms; ``n_samples`` is a multiple of ``ratio.down``."""
        return n_samples // self.ratio.down * self.ratio.up


def filter_and_resample(
    eeg: Float32[ndarray, "C T"],
    offset: Float32[ndarray, " C"],
    kernels: Sequence[Kernel],
    old_sfreq: float,
    new_sfreq: float,
) -> Float32[ndarray, "C T2"]:
    """Subtract ``offset``, filter by a cascade of symmetric kernels and resample, all channels alike.

    Sample m of the result belongs to time m / ``new_sfreq``, whatever the two rates. At both ends the signal is
    continued by odd reflection by at most its own length, then by zeros, as ``mne.filter.filter_data`` does. One
    thread; memory beyond the result is a few blocks.

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
    """
    ratio = Ratio.between(old_sfreq, new_sfreq)
    n_channels, n_times = eeg.shape
    factor = decimation_factor(old_sfreq, new_sfreq)
    first_step = decimation_kernel(old_sfreq, factor, new_sfreq / 2)
    blocks = cut(n_times, half_length(kernels) + len(first_step), factor, ratio)
    gain = _gain(kernels, first_step, blocks, ratio)
    taps = first_step.astype(np.float32)
    resampled = np.empty((n_channels, ratio.n_out(n_times)), np.float32)
    block = np.empty((min(CHANNELS_AT_ONCE, n_channels), blocks.n_fft), np.float32)
    for start in range(0, n_times, blocks.step * factor):  # in samples of ``eeg``
        window = slice(ratio.n_out(start), min(ratio.n_out(start + blocks.step * factor), resampled.shape[1]))
        weights = None if blocks.hits_every_instant else weights_at(_instants(window, start, ratio, blocks))
        for first in range(0, n_channels, CHANNELS_AT_ONCE):
            rows = slice(first, min(first + CHANNELS_AT_ONCE, n_channels))
            filled, goal = block[: rows.stop - first], resampled[rows, window]
            decimate(
                np.ascontiguousarray(eeg[rows]), offset[rows], taps, factor, start - blocks.dropped * factor, filled
            )
            spectrum = fft.rfft(filled, axis=-1).view(np.float32)[:, : len(gain)]  # real and imaginary in turn
            np.multiply(spectrum, gain, out=spectrum)
            rebuilt = fft.irfft(spectrum.view(np.complex64), n=blocks.at_new_rate(blocks.n_fft), axis=-1)
            if weights is None:
                begin = blocks.at_new_rate(blocks.dropped)
                goal[:] = rebuilt[:, begin : begin + goal.shape[1]]
            else:
                interpolate(rebuilt, *weights, out=goal)
    return resampled


def cut(n_times: int, reach: int, factor: int, ratio: Ratio) -> Blocks:
    """Blocks of even lengths for a signal of ``n_times`` samples and filters that reach ``reach`` samples."""
    rest = ratio.times(factor)
    if rest.is_small:
        block_ratio, hits = rest, True
    else:
        block_ratio, hits = Ratio(-(-OVERSAMPLING * rest.up // rest.down), 1), False
    n_samples = -(-n_times // factor)
    dropped = _round_up(-(-reach // factor) + TAIL, block_ratio.down)
    longest = max(LONGEST_BLOCK, OVERLAPS_PER_BLOCK * dropped)
    n_blocks = -(-n_samples // (longest - 2 * dropped))
    least = 2 * dropped + -(-n_samples // n_blocks)
    n_fft = block_ratio.down * fft.next_fast_len(-(-least // block_ratio.down), real=True)
    return Blocks(factor, block_ratio, n_fft, dropped, hits)


def _gain(
    kernels: Sequence[Kernel], first_step: npt.NDArray[np.float64], blocks: Blocks, ratio: Ratio
) -> npt.NDArray[np.float32]:
    """Gain of each kept bin, once for its real and once for its imaginary part."""
    n_old, n_new = blocks.n_fft, blocks.at_new_rate(blocks.n_fft)
    n_raw = n_old * blocks.factor
    last = min(n_old, n_raw * ratio.up // ratio.down) // 2  # at half of the lower rate
    gain = zero_phase_response(kernels, n_raw)[: last + 1] * (n_new / n_old)
    gain /= decimation_response(first_step, np.arange(last + 1) / n_raw)
    if n_new < n_old and 2 * last == n_new:
        gain[-1] *= 2  # both halves of the spectrum fold onto the new Nyquist bin
    if n_new > n_old and 2 * last == n_old:
        gain[-1] /= 2  # the old Nyquist bin now stands for two
    return np.repeat(gain, 2).astype(np.float32)


def _instants(window: slice, start: int, ratio: Ratio, blocks: Blocks) -> npt.NDArray[np.float64]:
    """Where samples ``window`` of the result lie in a rebuilt block whose kept part begins at sample ``start``."""
    per_sample = Fraction(blocks.ratio.up, blocks.ratio.down * blocks.factor)
    first = (Fraction(window.start * ratio.down, ratio.up) - start) * per_sample
    each = Fraction(ratio.down, ratio.up) * per_sample
    begin = blocks.at_new_rate(blocks.dropped)
    return begin + float(first) + float(each) * np.arange(window.stop - window.start)


def _largest_prime(number: int) -> int:
    largest, factor = 1, 2
    while number > 1:
        while number % factor == 0:
            largest, number = factor, number // factor
        factor += 1
    return largest


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
