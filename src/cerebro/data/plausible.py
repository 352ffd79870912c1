"""What the samples of a recording say about it: numbers at all, microvolts, channels that are flat or railed.

A channel is railed where its amplifier or converter has run out of range: it sits at exactly its own highest or lowest
value for a large share of the samples. EEG reaches its extreme once or a few times. A hundredth of the samples is many
more than chance gives (a Gaussian signal cut off there would have lost all beyond 2.6 standard deviations), and a range
that no converter is narrower than keeps channels with a few coarse steps of noise apart: those of 12-bit consumer
headsets span 2,000 microvolts, of sleep recorders 384 (both among PhysioNet's and NeuroTechX's public sets). A channel
of fewer than 100 different values is too coarse to be judged: the noise of a quiet one may well lie on its last step.

A single sample is railed where it has its channel's lowest or highest value and that value is a rail: held for four
samples on end, or met by ten samples of the channels that share it as their extreme, as those of one converter do.
Of 104 headband runs this finds 168 of the 173 windows of 8 s that touch the known ends of the 12-bit converter, the
others touching them once or twice, and none besides; extremes that are no rails were held for two samples at most,
there and in recordings with wet electrodes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32
from numpy import ndarray

from cerebro.data.readers.base import Recording
from cerebro.dsp.levels import levels, mean_square
from cerebro.errors import DataError

# Root mean square of the median channel, filtered, in microvolts. EEG has 1 to 200 in any state, amplifier noise alone
# 0.3, and the worst of 104 runs of a dry headband 228. Values in volts or millivolts lie below, nanovolts, raw counts
# and microvolts that are called millivolts above; what lies above fits no store's range either (1,638 by default).
LEAST_PLAUSIBLE_UV, MOST_PLAUSIBLE_UV = 0.1, 2e3
SHORTEST_JUDGED_S = 1.0  # in less, it says nothing
RAILED_SHARE = 0.01  # of the samples, at the two extremes together
FEWEST_RAILED = 10  # samples; in a second of signal a hundredth may be chance
NARROWEST_RANGE_UV = 200.0  # between the rails of an amplifier
FEWEST_VALUES = 100  # different ones
SHORTEST_RAIL = 4  # samples on end at one extreme
SAMPLES_LOOKED_AT = 20_000  # for different values, evenly spaced


@dataclass(frozen=True)
class Channels:
    """What was measured of each of C raw channels.

    Parameters
    ----------
    offset : float32 array (C,)
        Mean in microvolts.
    is_constant : bool array (C,)
        Never changes.
    is_flat : bool array (C,)
        Never changes, and is not the reference itself.
    is_railed : bool array (C,)
        Sits at its own extremes.
    flat : tuple of str
        Names of the flat channels.
    railed : tuple of (str, float)
        Names of the railed ones, with the share of samples at their extremes.
    """

    offset: Float32[ndarray, " C"]
    is_constant: npt.NDArray[np.bool_]
    is_flat: npt.NDArray[np.bool_]
    is_railed: npt.NDArray[np.bool_]
    flat: tuple[str, ...]
    railed: tuple[tuple[str, float], ...]


def inspect_channels(recording: Recording, eeg: Float32[ndarray, "C T"]) -> Channels:
    """Measure raw microvolts of ``recording``, in one pass.

    Raises
    ------
    DataError
        No samples; a channel with NaN or infinite values.
    """
    n_times = eeg.shape[1]
    if n_times == 0:
        raise DataError("the recording has no samples; leave it out.")
    measured = levels(eeg)
    _check_finite(recording, measured.mean)
    is_constant = measured.lowest == measured.highest
    is_flat = is_constant & (np.array(recording.channels) != recording.reference)
    n_extreme = measured.n_lowest + measured.n_highest
    is_wide = measured.highest.astype(np.float64) - measured.lowest >= NARROWEST_RANGE_UV
    is_railed = is_wide & (n_extreme >= max(RAILED_SHARE * n_times, FEWEST_RAILED))
    for row in np.flatnonzero(is_railed):  # few, if any
        is_railed[row] = _is_fine(eeg[row])
    return Channels(
        offset=measured.mean.astype(np.float32),
        is_constant=is_constant,
        is_flat=is_flat,
        is_railed=is_railed,
        flat=tuple(recording.channels[row] for row in np.flatnonzero(is_flat)),
        railed=tuple((recording.channels[row], float(n_extreme[row] / n_times)) for row in np.flatnonzero(is_railed)),
    )


def railed_samples(eeg: Float32[ndarray, "C T"]) -> Bool[ndarray, "C T"]:
    """Whether each of the raw, finite samples lies at a rail of its converter."""
    measured = levels(eeg)
    is_wide = measured.highest.astype(np.float64) - measured.lowest >= NARROWEST_RANGE_UV
    is_railed = np.zeros(eeg.shape, bool)
    for extreme, n_there in ((measured.lowest, measured.n_lowest), (measured.highest, measured.n_highest)):
        for value in np.unique(extreme[is_wide]):
            rows = np.flatnonzero(is_wide & (extreme == value))
            if n_there[rows].sum() < SHORTEST_RAIL:
                continue
            rows = rows[[_is_fine(eeg[row]) for row in rows]]
            is_there = eeg[rows] == value
            if is_there.sum() >= FEWEST_RAILED or _is_held(is_there):
                is_railed[rows] |= is_there
    return is_railed


def check_scale(recording: Recording, channels: Channels, eeg: Float32[ndarray, "C T"]) -> None:
    """Raise DataError if all channels are flat, or if ``eeg``, without its offset, cannot be microvolts."""
    size = np.sqrt(mean_square(eeg))
    too_large = np.flatnonzero(~np.isfinite(size))
    if len(too_large):
        raise DataError(_beyond_microvolts(recording, too_large))
    if recording.eeg.shape[1] / recording.sfreq < SHORTEST_JUDGED_S:
        return
    live = size[~channels.is_constant]
    if len(live) == 0:
        raise DataError(f"all {len(size)} channels never change; the recording holds no signal, leave it out.")
    typical = float(np.median(live))
    if not LEAST_PLAUSIBLE_UV <= typical <= MOST_PLAUSIBLE_UV:
        likely = (
            "volts or millivolts"
            if typical < LEAST_PLAUSIBLE_UV
            else "nanovolts or unscaled counts, or microvolts that are called mV"
        )
        raise DataError(
            f"the median channel has a standard deviation of {typical:.3g} between {LEAST_PLAUSIBLE_UV:g} and "
            f"{MOST_PLAUSIBLE_UV:g} expected microvolts; the values look like {likely}: correct the unit in the file's "
            "header or in the reader's options."
        )


def _is_fine(samples: Float32[ndarray, " T"]) -> bool:
    """Whether a channel has steps fine enough to be judged."""
    return len(np.unique(samples[:: -(-len(samples) // SAMPLES_LOOKED_AT)])) >= FEWEST_VALUES


def _is_held(is_there: Bool[ndarray, "C T"]) -> bool:
    """Whether a channel is there for `SHORTEST_RAIL` samples on end."""
    n = is_there.shape[1] - SHORTEST_RAIL + 1
    on_end = np.logical_and.reduce([is_there[:, first : first + n] for first in range(SHORTEST_RAIL)]) if n > 0 else []
    return bool(np.any(on_end))


def _check_finite(recording: Recording, mean: npt.NDArray[np.float64]) -> None:
    """Raise DataError that names the first channel with a value that is no number; any such value spoils its mean."""
    spoiled = [row for row in np.flatnonzero(~np.isfinite(mean)) if not np.isfinite(recording.eeg[row]).all()]
    if spoiled:
        is_bad = ~np.isfinite(recording.eeg[spoiled[0]])
        first_s = np.flatnonzero(is_bad)[0] / recording.sfreq
        raise DataError(
            f"channel {recording.channels[spoiled[0]]} holds {np.count_nonzero(is_bad)} values that are NaN or "
            f"infinite, the first at {first_s:.3f} s ({len(spoiled)} such channels); mend the file or leave the "
            "recording out."
        )
    too_large = np.flatnonzero(~np.isfinite(mean))  # sums in float32 overflow
    if len(too_large):
        raise DataError(_beyond_microvolts(recording, too_large))


def _beyond_microvolts(recording: Recording, rows: npt.NDArray[np.intp]) -> str:
    return (
        f"channel {recording.channels[rows[0]]} holds values beyond 1e18 microvolts ({len(rows)} such channels); mend "
        "the file or leave the recording out."
    )
