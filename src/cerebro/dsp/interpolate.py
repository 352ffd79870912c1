"""A well-sampled signal at any instants between its samples: a Kaiser-windowed sinc per instant.

For rates that are no small fraction of each other, such as 256.042 Hz of a consumer device whose clock drifts. The
signal comes at twice the rate it needs or more, so that 16 taps keep every image 100 dB down (Kaiser's formula;
Oppenheim & Schafer, Discrete-Time Signal Processing, section 7.5).
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64
from numpy import ndarray

from cerebro.compiled import compiled

HALF_TAPS = 8  # samples on each side of an instant
OVERSAMPLING = 2  # least rate of the signal, as a multiple of twice its highest frequency
BETA = 10.06  # 0.1102 (100 dB - 8.7)


def weights_at(instants: Float64[ndarray, " M"]) -> tuple[npt.NDArray[np.int64], Float32[ndarray, "M K"]]:
    """First sample and weights of the 16 samples around each instant, given in samples from sample 0."""
    nearest = np.floor(instants).astype(np.int64)
    distance = (instants - nearest)[:, None] - np.arange(1 - HALF_TAPS, HALF_TAPS + 1)
    window = np.i0(BETA * np.sqrt(np.clip(1 - (distance / HALF_TAPS) ** 2, 0, None))) / np.i0(BETA)
    return nearest + 1 - HALF_TAPS, (np.sinc(distance) * window).astype(np.float32)


def interpolate(
    signal: Float32[ndarray, "C N"],
    first: npt.NDArray[np.int64],
    weights: Float32[ndarray, "M K"],
    out: Float32[ndarray, "C M"],
) -> None:
    """Fill ``out`` with the signal at the instants that `weights_at` was asked for; all their samples are there."""
    _interpolate(signal, first, weights, out)


@compiled
def _interpolate(signal, first, weights, out):  # type: ignore[no-untyped-def]
    for channel in range(len(signal)):
        row = signal[channel]
        for place in range(len(first)):
            taps, samples = weights[place], row[first[place] :]
            value = np.float32(0)
            for tap in range(len(taps)):
                value += taps[tap] * samples[tap]
            out[channel, place] = value
