"""Features of windows by channel and by pair of homologous electrodes: numbers that a clinician can read.

`cerebro.data.feature_list` names every column with its unit and source.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64
from numpy import ndarray

from cerebro.data.feature_list import FEATURE_BANDS, feature_columns
from cerebro.data.features_shape import shape_features
from cerebro.data.features_spectral import band_coherence, segment_samples, spectral_features
from cerebro.errors import DataError
from cerebro.hemispheres import homologous

FLAT_UV = 1e-3  # a channel that moves less within a window than any amplifier resolves
BLOCK = 256  # windows at a time: a few megabytes of each channel


def feature_table(
    eeg: Float32[ndarray, "N C L"], sfreq: float, channels: Sequence[str]
) -> dict[str, Float64[ndarray, " N"]]:
    """Features of each window: one column per kind, channel and band, in the order of `feature_columns`.

    The offset of each window is left out. A value is NaN where it is not defined: all values of a channel that holds a
    sample that is no number or moves by less than 0.001 microvolts within the window, those of pairs with such a
    channel, and single ones (the sample entropy of a window in which nothing repeats). No value is infinite.

    Parameters
    ----------
    eeg : array (N, C, L)
        Windows, microvolts.
    sfreq : float
        Hz, 90 or more: gamma ends at 45 Hz.
    channels : sequence of str (C,)
        Names of the channels; those of the 10-05 system are paired left to right.

    Raises
    ------
    ConfigError
        If the windows are shorter than 2 s or have too low a rate.
    DataError
        If the names are not one for each channel, all different.
    """
    n_windows, n_channels, n_times = eeg.shape
    if len(set(channels)) != len(channels) or len(channels) != n_channels:
        raise DataError(
            f"{n_channels} channels are called {', '.join(channels)}; give each channel one name of its own."
        )
    segment_samples(n_times, sfreq)  # refuses windows that are too short
    table = {column: np.full(n_windows, np.nan) for column in feature_columns(channels)}
    pairs = homologous(channels)
    for first in range(0, n_windows, BLOCK):
        block = slice(first, first + BLOCK)
        for number, channel in enumerate(channels):
            windows, is_usable = _centred(eeg[block, number])
            for part in (spectral_features, shape_features):
                _fill(table, block, channel, is_usable, _quietly(part, windows, sfreq))
        for left, right in pairs:
            both = [eeg[block, channels.index(channel)] for channel in (left, right)]
            _fill_pair(table, block, left, right, both, sfreq)
    return table


def _centred(
    eeg: Float32[ndarray, "N L"], is_wanted: npt.NDArray[np.bool_] | None = None
) -> tuple[Float64[ndarray, "M L"], npt.NDArray[np.bool_]]:
    """The windows neither flat nor broken (or those that ``is_wanted``), without offset, and which they are."""
    if is_wanted is None:
        is_finite = np.isfinite(eeg).all(axis=1)
        is_wanted = is_finite.copy()
        is_wanted[is_finite] = np.ptp(eeg[is_finite].astype(np.float64), axis=1) >= FLAT_UV
    windows = np.ascontiguousarray(eeg[is_wanted], np.float64)
    windows -= windows.mean(axis=1, keepdims=True)
    return windows, is_wanted


def _fill_pair(
    table: dict[str, Float64[ndarray, " N"]],
    block: slice,
    left: str,
    right: str,
    both: Sequence[Float32[ndarray, "M L"]],
    sfreq: float,
) -> None:
    is_usable = _centred(both[0])[1] & _centred(both[1])[1]
    windows = [_centred(eeg, is_usable)[0] for eeg in both]
    found = {f"{name}_coherence": value for name, value in _quietly(_coherence, np.stack(windows), sfreq).items()}
    for band in FEATURE_BANDS:
        powers = [table[f"{channel}_{band.name}_power"][block][is_usable] for channel in (left, right)]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"{band.name}_asymmetry"] = np.log(powers[1]) - np.log(powers[0])
    _fill(table, block, f"{left}-{right}", is_usable, found)


def _coherence(both: Float64[ndarray, "2 M L"], sfreq: float) -> dict[str, Float64[ndarray, " M"]]:
    return band_coherence(both[0], both[1], sfreq)


def _quietly(
    part: Callable[[Float64[ndarray, "..."], float], dict[str, Float64[ndarray, " M"]]],
    windows: Float64[ndarray, "..."],
    sfreq: float,
) -> dict[str, Float64[ndarray, " M"]]:
    """Features of windows; what divides by zero becomes NaN in `_fill`, without a warning."""
    if not windows.shape[-2]:
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        return part(windows, sfreq)


def _fill(
    table: dict[str, Float64[ndarray, " N"]],
    block: slice,
    owner: str,
    is_usable: npt.NDArray[np.bool_],
    found: dict[str, Float64[ndarray, " M"]],
) -> None:
    """Put values of the usable windows of a block into their columns, NaN for what is not finite."""
    for name, values in found.items():
        table[f"{owner}_{name}"][block][is_usable] = np.where(np.isfinite(values), values, np.nan)
