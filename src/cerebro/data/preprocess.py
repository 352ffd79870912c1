"""One recording, from raw microvolts to what the store keeps: offset removed, filtered, resampled, as int16 counts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16
from numpy import ndarray

from cerebro.data.readers.base import Finding, Recording
from cerebro.dsp.filters import bandpass_kernel, notch_kernel
from cerebro.dsp.resample import filter_and_resample
from cerebro.errors import ConfigError, DataError, check_positive

NARROWEST_TRANSITION_HZ = 0.5  # a sharper low-pass would be longer than 6.6 s
# Standard deviation of the median channel, filtered, in microvolts. EEG has 1 to 200 in any state, amplifier noise
# alone 0.3; values in volts or millivolts lie below, raw counts and nanovolts far above.
LEAST_PLAUSIBLE_UV, MOST_PLAUSIBLE_UV = 0.1, 1e4
SHORTEST_JUDGED_S = 1.0  # in less, the standard deviation says nothing
LARGEST_COUNT = 32767
TIMES_AT_ONCE = 4096  # transposed together, in cache


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every recording of a store; the result depends on nothing else.

    The pass band reaches from ``highpass_hz`` to ``lowpass_hz``. Its transitions are MNE's: a quarter of the edge and
    at least 2 Hz, but never past 0 Hz and never past half of ``sfreq`` (or of the recording's own rate, if lower), so
    that nothing folds back: with the defaults the gain falls from 1 at 45 Hz to 0 at 50 Hz. A line frequency at or
    above half of ``sfreq`` is in the stop band already and needs no notch.

    Parameters
    ----------
    sfreq : float
        Sampling rate of the result in Hz.
    highpass_hz : float
        Lower edge of the pass band; 0 keeps slow drifts (the constant offset is removed all the same).
    lowpass_hz : float
        Upper edge of the pass band, below half of ``sfreq`` by 0.5 Hz or more.
    notch_hz : float
        Frequency of the power line, below half of every recording's rate; 0 for no notch.
    """

    sfreq: float = 100.0
    highpass_hz: float = 0.5
    lowpass_hz: float = 45.0
    notch_hz: float = 0.0

    def __post_init__(self) -> None:
        check_positive("sfreq", self.sfreq)
        highest = self.sfreq / 2 - NARROWEST_TRANSITION_HZ
        if not 0 <= self.highpass_hz < self.lowpass_hz <= highest:
            raise ConfigError(
                f"band {self.highpass_hz:g}-{self.lowpass_hz:g} Hz does not fit sfreq={self.sfreq:g}; set "
                f"0 <= highpass_hz < lowpass_hz <= {highest:g}, or a higher sfreq."
            )
        if self.notch_hz and not self.notch_hz > 1:
            raise ConfigError(
                f"notch_hz={self.notch_hz:g} is no power line's frequency; set notch_hz to 50 or 60, or to 0 for none."
            )


@dataclass(frozen=True)
class Preprocessed:
    """A recording as the store keeps it, before quantising.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Microvolts at the rate of the plan; sample m belongs to time m / sfreq of the recording.
    offset : float32 array (C,)
        Mean of each raw channel in microvolts, which was removed first.
    flat : tuple of str
        Channels that never changed, other than the reference itself; all zeros in ``eeg``.
    """

    eeg: Float32[ndarray, "C T"]
    offset: Float32[ndarray, " C"]
    flat: tuple[str, ...]

    def findings(self, where: str) -> list[Finding]:
        """What a build report counts about the recording named ``where``."""
        if not self.flat:
            return []
        detail = (
            f"{len(self.flat)} of {len(self.eeg)} channels never change and are kept as zeros: {', '.join(self.flat)}"
        )
        return [Finding("flat-channel", "repaired", where, detail)]


def preprocess(recording: Recording, plan: Preprocessing) -> Preprocessed:
    """Remove each channel's offset, filter and resample in one pass; no shift in time.

    Parameters
    ----------
    recording : Recording
        Raw microvolts; not changed.
    plan : Preprocessing
        Band and rate.

    Raises
    ------
    DataError
        No samples; a channel with NaN or infinite values; all channels flat; values that cannot be microvolts; a rate
        too low for the band.
    """
    eeg = recording.eeg
    if eeg.shape[1] == 0:
        raise DataError("the recording has no samples; leave it out.")
    if plan.lowpass_hz > recording.sfreq / 2 - NARROWEST_TRANSITION_HZ:
        raise DataError(
            f"the recording at {recording.sfreq:g} Hz cannot hold the band up to lowpass_hz={plan.lowpass_hz:g}; set "
            f"lowpass_hz to {recording.sfreq / 2 - NARROWEST_TRANSITION_HZ:g} or less, or leave the recording out."
        )
    offset = eeg.mean(axis=1, dtype=np.float64)
    _check_finite(recording, offset)
    offset = offset.astype(np.float32)
    nyquist_hz = min(recording.sfreq, plan.sfreq) / 2
    kernels = [bandpass_kernel(recording.sfreq, plan.highpass_hz, plan.lowpass_hz, nyquist_hz)]
    if plan.notch_hz:
        kernels.append(notch_kernel(recording.sfreq, plan.notch_hz))
    filtered = filter_and_resample(eeg, offset, kernels, recording.sfreq, plan.sfreq)
    flat = _check_scale(recording, filtered)
    return Preprocessed(filtered, offset, tuple(channel for channel in flat if channel != recording.reference))


def keep_as_is(recording: Recording, plan: Preprocessing) -> Preprocessed:
    """Remove each channel's offset and nothing else, from a signal that has the plan's rate and band already.

    A recording that comes from a store has had its offsets removed; it keeps them, and was judged when it went in.

    Raises
    ------
    DataError
        Another rate than the plan's, and what `preprocess` refuses.
    """
    if recording.sfreq != plan.sfreq:
        raise DataError(
            f"the recording is kept as it is, at {recording.sfreq:g} Hz, and the store has {plan.sfreq:g} Hz; set "
            f"preprocessing.sfreq to {recording.sfreq:g}."
        )
    if recording.offsets_uV:
        constant = zip(recording.channels, np.ptp(recording.eeg, axis=1) == 0, strict=True)
        flat = [channel for channel, is_flat in constant if is_flat and channel != recording.reference]
        return Preprocessed(recording.eeg, np.array(recording.offsets_uV, np.float32), tuple(flat))
    offset = recording.eeg.mean(axis=1, dtype=np.float64)
    _check_finite(recording, offset)
    offset = offset.astype(np.float32)
    kept = recording.eeg - offset[:, None]
    flat = _check_scale(recording, kept)
    return Preprocessed(kept, offset, tuple(channel for channel in flat if channel != recording.reference))


def quantise(eeg: Float32[ndarray, "C T"], lsb_uV: float) -> tuple[Int16[ndarray, "T C"], int]:
    """Round to counts of ``lsb_uV`` microvolts, time-major and contiguous; also how many values were clipped.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Finite microvolts. Beyond 32767 counts (1,638 microvolts at 0.05) values are clipped and counted.
    lsb_uV : float
        Microvolts per count; the largest rounding error is half of it.

    Returns
    -------
    counts : int16 array (T, C)
    n_clipped : int
    """
    check_positive("lsb_uV", lsb_uV)
    n_channels, n_times = eeg.shape
    counts = np.empty((n_times, n_channels), np.int16)
    n_clipped = 0
    for start in range(0, n_times, TIMES_AT_ONCE):
        rounded = np.rint(eeg[:, start : start + TIMES_AT_ONCE] / np.float32(lsb_uV))
        n_clipped += int(np.count_nonzero(np.abs(rounded) > LARGEST_COUNT))
        counts[start : start + TIMES_AT_ONCE] = np.clip(rounded, -LARGEST_COUNT, LARGEST_COUNT).T
    return counts, n_clipped


def _check_finite(recording: Recording, mean: ndarray) -> None:
    """Raise DataError that names the first channel with a value that is no number; any such value spoils its mean."""
    spoiled = np.flatnonzero(~np.isfinite(mean))
    if len(spoiled):
        is_bad = ~np.isfinite(recording.eeg[spoiled[0]])
        first_s = np.flatnonzero(is_bad)[0] / recording.sfreq
        raise DataError(
            f"channel {recording.channels[spoiled[0]]} holds {np.count_nonzero(is_bad)} values that are NaN or "
            f"infinite, the first at {first_s:.3f} s ({len(spoiled)} such channels); mend the file or leave the "
            "recording out."
        )


def _check_scale(recording: Recording, filtered: Float32[ndarray, "C T"]) -> list[str]:
    """Names of flat channels; DataError if all are, or if the rest cannot be microvolts."""
    deviation = filtered.std(axis=1)
    flat = [
        row for row in np.flatnonzero(deviation < LEAST_PLAUSIBLE_UV) if np.ptp(recording.eeg[row]) == 0
    ]  # only suspects are read again
    names = [recording.channels[row] for row in flat]
    rest = np.delete(deviation, flat)
    if recording.eeg.shape[1] / recording.sfreq < SHORTEST_JUDGED_S:
        return names
    if len(rest) == 0:
        raise DataError(f"all {len(names)} channels never change; the recording holds no signal, leave it out.")
    typical = float(np.median(rest))
    if not LEAST_PLAUSIBLE_UV <= typical <= MOST_PLAUSIBLE_UV:
        likely = "volts or millivolts" if typical < LEAST_PLAUSIBLE_UV else "nanovolts or unscaled counts"
        raise DataError(
            f"the median channel has a standard deviation of {typical:.3g} between {LEAST_PLAUSIBLE_UV:g} and "
            f"{MOST_PLAUSIBLE_UV:g} expected microvolts; the values look like {likely}: correct the unit in the file's "
            "header or in the reader's options."
        )
    return names
