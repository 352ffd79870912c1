"""Features of power spectra: bands, edges, entropy, slope; and of two channels: asymmetry and coherence."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy import signal, stats

from cerebro.data.feature_list import FEATURE_BANDS
from cerebro.errors import ConfigError

LOW_HZ, HIGH_HZ = FEATURE_BANDS[0].low_hz, FEATURE_BANDS[-1].high_hz
SEGMENT_S = 2.0  # of Welch's method: resolves 0.5 Hz
LEAST_WINDOW_S = 2.0  # three segments of a second, half overlapping, of which delta takes one period at least
EDGE, MEDIAN = 0.95, 0.5  # shares of the power
SLOPE_LOW_HZ, SLOPE_HIGH_HZ = 2.0, 40.0  # away from usual filters
NO_SLOPE_LOW_HZ, NO_SLOPE_HIGH_HZ = 7.0, 14.0  # the peak of alpha is no part of the background


def segment_samples(n_times: int, sfreq: float) -> int:
    """Samples of a segment of Welch's method: 2 s, or half of a window shorter than 4 s.

    Raises
    ------
    ConfigError
        If the windows are shorter than 2 s, or the rate does not reach the bands.
    """
    if sfreq < 2 * HIGH_HZ:
        raise ConfigError(
            f"features need power up to {HIGH_HZ:g} Hz and the windows have {sfreq:g} Hz; set downsample_hz to "
            f"{2 * HIGH_HZ:g} or more."
        )
    if n_times < LEAST_WINDOW_S * sfreq:
        raise ConfigError(
            f"features need windows of {LEAST_WINDOW_S:g} s or more and these have {n_times / sfreq:g} s; set a longer "
            "window_s."
        )
    return min(round(SEGMENT_S * sfreq), n_times // 2)


def spectral_features(eeg: Float64[ndarray, "N L"], sfreq: float) -> dict[str, Float64[ndarray, " N"]]:
    """Features of one channel by the end of their name (``alpha_power``).

    Parameters
    ----------
    eeg : array (N, L)
        Windows, microvolts; none of them constant.
    sfreq : float
        Hz.
    """
    length = segment_samples(eeg.shape[1], sfreq)
    frequencies, density = signal.welch(eeg, sfreq, "hann", length, length // 2, detrend="constant")  # (N, F)
    step = frequencies[1]
    is_inside = (frequencies >= LOW_HZ) & (frequencies < HIGH_HZ)
    inside = density[:, is_inside]
    total = inside.sum(axis=1)
    found = {}
    for band in FEATURE_BANDS:
        is_band = (frequencies >= band.low_hz) & (frequencies < band.high_hz)
        power = density[:, is_band].sum(axis=1)
        found[f"{band.name}_power"] = power * step
        found[f"{band.name}_relative"] = power / total
    share = np.cumsum(inside, axis=1) / total[:, None]
    upper_edge = frequencies[is_inside] + step / 2  # each density stands for a bin around its frequency
    for name, part in (("spectral_edge", EDGE), ("median_frequency", MEDIAN)):
        found[name] = _reached(share, upper_edge, step, part)
    found["spectral_entropy"] = stats.entropy(inside, axis=1) / np.log(inside.shape[1])
    found["spectral_slope"] = _slope(frequencies, density)
    return found


def _reached(
    share: Float64[ndarray, "N F"], upper_edge: Float64[ndarray, " F"], step: float, part: float
) -> Float64[ndarray, " N"]:
    """Frequency (N,) at which the cumulative share (N, F) reaches ``part``, linear within a bin."""
    at = np.minimum((share < part).sum(axis=1), share.shape[1] - 1)
    row = np.arange(len(share))
    after = share[row, at]
    before = np.where(at > 0, share[row, at - 1], 0.0)
    return np.asarray(upper_edge[at] - step * (after - part) / (after - before))


def _slope(frequencies: Float64[ndarray, " F"], density: Float64[ndarray, "N F"]) -> Float64[ndarray, " N"]:
    is_used = (frequencies >= SLOPE_LOW_HZ) & (frequencies <= SLOPE_HIGH_HZ)
    is_used &= (frequencies < NO_SLOPE_LOW_HZ) | (frequencies > NO_SLOPE_HIGH_HZ)
    x = np.log10(frequencies[is_used])
    x -= x.mean()
    return np.asarray(np.log10(density[:, is_used]) @ x / (x @ x))


def band_coherence(
    left: Float64[ndarray, "N L"], right: Float64[ndarray, "N L"], sfreq: float
) -> dict[str, Float64[ndarray, " N"]]:
    """Magnitude-squared coherence (N,) of two channels by band, mean over its frequencies."""
    length = segment_samples(left.shape[1], sfreq)
    frequencies, coherence = signal.coherence(left, right, sfreq, "hann", length, length // 2, detrend="constant")
    return {
        band.name: coherence[:, (frequencies >= band.low_hz) & (frequencies < band.high_hz)].mean(axis=1)
        for band in FEATURE_BANDS
    }
