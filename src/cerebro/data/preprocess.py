"""One recording, from raw microvolts to what the store keeps: offset removed, filtered, resampled, as int16 counts.

What a recording must be to be kept, and what is reported about its channels, stands in `cerebro.data.plausible`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int16
from numpy import ndarray

from cerebro.data.plausible import Channels, check_scale, inspect_channels
from cerebro.data.readers.base import Finding, Recording
from cerebro.dsp.filters import bandpass_kernel, notch_kernel
from cerebro.dsp.resample import Ratio, filter_and_resample
from cerebro.errors import ConfigError, DataError, check_positive

NARROWEST_TRANSITION_HZ = 0.5  # a sharper low-pass would be longer than 6.6 s
# The average over a whole head stands for zero because the potential's surface integral vanishes (Bertrand, Perrin &
# Pernier 1985, doi:10.1016/0168-5597(85)90058-9); of fewer electrodes each loses more than an eighth of itself to it.
FEWEST_FOR_AVERAGE = 8
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
    reference : {"as_is", "average"}
        ``as_is`` keeps each recording's own reference. ``average`` subtracts, after filtering, the mean over the
        recording's electrodes: all but those that never change (unless such a one is the reference itself, which then
        carries minus the mean) and those that are railed. Channels that never change stay zero.
    window_s : float
        Seconds of the windows into which each recording is cut after that, side by side, for
        `cerebro.data.sequences.ChannelSequences`; the rest at the end is left out. 0 keeps recordings continuous, for
        all other windows.
    railed_windows : {"keep", "leave_out"}
        ``leave_out`` drops the windows in which a channel's raw samples lie at a rail of its converter (see
        `cerebro.data.cut_windows`), so that they take no part in anything; they are counted (``railed-window``).
    """

    sfreq: float = 100.0
    highpass_hz: float = 0.5
    lowpass_hz: float = 45.0
    notch_hz: float = 0.0
    reference: Literal["as_is", "average"] = "as_is"
    window_s: float = 0.0
    railed_windows: Literal["keep", "leave_out"] = "keep"

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
        n_samples = self.window_s * self.sfreq
        if not 0 <= n_samples < 1e9 or abs(n_samples - round(n_samples)) > 1e-6:
            raise ConfigError(
                f"window_s={self.window_s:g} is {n_samples:g} samples at sfreq={self.sfreq:g}; set window_s to a whole "
                "number of samples, or to 0 for continuous recordings."
            )
        if self.railed_windows != "keep" and not self.window_s:
            raise ConfigError(
                f"railed_windows={self.railed_windows} needs windows; set window_s to their seconds, or railed_windows "
                "to keep."
            )

    @property
    def window_samples(self) -> int:
        """Samples of a window; 0 for continuous recordings."""
        return round(self.window_s * self.sfreq)


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
    reference : str
        ``average`` where the plan asked for it, else the recording's own.
    railed : tuple of (str, float)
        Channels that sit at their own extremes, and for which share of their samples.
    """

    eeg: Float32[ndarray, "C T"]
    offset: Float32[ndarray, " C"]
    flat: tuple[str, ...]
    reference: str
    railed: tuple[tuple[str, float], ...] = ()

    def findings(self, where: str) -> list[Finding]:
        """What a build report counts about the recording named ``where``."""
        of_all = f"of {len(self.eeg)} channels"
        found = []
        if self.flat:
            detail = f"{len(self.flat)} {of_all} never change and are kept as zeros: {', '.join(self.flat)}"
            found.append(Finding("flat-channel", "repaired", where, detail))
        if self.railed:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in self.railed)
            detail = f"{len(self.railed)} {of_all} sit at their own extremes and are kept; share of samples: {shares}"
            found.append(Finding("railed-channel", "repaired", where, detail))
        return found


def preprocess(recording: Recording, plan: Preprocessing) -> Preprocessed:
    """Remove each channel's offset, filter and resample in one pass, without a shift in time; then re-reference.

    Any two rates will do, also those of a drifting clock such as 256.042 Hz.

    Parameters
    ----------
    recording : Recording
        Raw microvolts; not changed.
    plan : Preprocessing
        Band, rate and reference.

    Raises
    ------
    DataError
        No samples; a channel with NaN or infinite values; all channels flat; values that cannot be microvolts; a rate
        too low for the band; too few electrodes for an average reference.
    """
    if plan.lowpass_hz > recording.sfreq / 2 - NARROWEST_TRANSITION_HZ:
        raise DataError(
            f"the recording at {recording.sfreq:g} Hz cannot hold the band up to lowpass_hz={plan.lowpass_hz:g}; set "
            f"lowpass_hz to {recording.sfreq / 2 - NARROWEST_TRANSITION_HZ:g} or less, or leave the recording out."
        )
    channels = inspect_channels(recording, recording.eeg)
    nyquist_hz = min(recording.sfreq, plan.sfreq) / 2
    kernels = [bandpass_kernel(recording.sfreq, plan.highpass_hz, plan.lowpass_hz, nyquist_hz)]
    if plan.notch_hz:
        kernels.append(notch_kernel(recording.sfreq, plan.notch_hz))
    eeg = filter_and_resample(recording.eeg, channels.offset, kernels, recording.sfreq, plan.sfreq)
    return _finish(recording, plan, channels, eeg)


def keep_as_is(recording: Recording, plan: Preprocessing) -> Preprocessed:
    """Remove each channel's offset, of a recording that has the plan's rate and band already; then re-reference.

    Nothing is filtered. Padding of windows side by side does not enter the offset and stays zero.

    A recording that comes from a store has had its offsets removed; it keeps them, and was judged when it went in.

    Raises
    ------
    DataError
        Another rate than the plan's, and what `preprocess` refuses.
    """
    if Ratio.between(recording.sfreq, plan.sfreq) != Ratio(1, 1):
        raise DataError(
            f"the recording is kept as it is, at {recording.sfreq:g} Hz, and the store has {plan.sfreq:g} Hz; set "
            f"preprocessing.sfreq to {recording.sfreq:g}."
        )
    if recording.offsets_uV:
        return _keep_stored(recording, plan)
    is_padding = _padding(recording)
    channels = inspect_channels(recording, recording.eeg[:, ~is_padding] if is_padding.any() else recording.eeg)
    eeg = recording.eeg - channels.offset[:, None]
    eeg[:, is_padding] = 0
    return _finish(recording, plan, channels, eeg)


def quantise(
    eeg: Float32[ndarray, "C T"], lsb_uV: float, is_by_channel: bool = False
) -> tuple[Int16[ndarray, "T C"], int]:
    """Round to counts of ``lsb_uV`` microvolts; also how many values were clipped.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Finite microvolts. Beyond 32767 counts (1,638 microvolts at 0.05) values are clipped and counted.
    lsb_uV : float
        Microvolts per count; the largest rounding error is half of it.
    is_by_channel : bool
        The counts of a channel lie side by side in memory, instead of those of an instant.

    Returns
    -------
    counts : int16 array (T, C)
    n_clipped : int
    """
    check_positive("lsb_uV", lsb_uV)
    n_channels, n_times = eeg.shape
    counts = np.empty((n_channels, n_times), np.int16).T if is_by_channel else np.empty((n_times, n_channels), np.int16)
    n_clipped = 0
    for start in range(0, n_times, TIMES_AT_ONCE):
        rounded = np.rint(eeg[:, start : start + TIMES_AT_ONCE] / np.float32(lsb_uV))
        n_clipped += int(np.count_nonzero(np.abs(rounded) > LARGEST_COUNT))
        counts[start : start + TIMES_AT_ONCE] = np.clip(rounded, -LARGEST_COUNT, LARGEST_COUNT).T
    return counts, n_clipped


def _finish(
    recording: Recording, plan: Preprocessing, channels: Channels, eeg: Float32[ndarray, "C T"]
) -> Preprocessed:
    """Judge the scale of ``eeg``, at the plan's rate, and re-reference it in place."""
    check_scale(recording, channels, eeg)
    reference = recording.reference
    if plan.reference == "average":
        _subtract_average(eeg, channels)
        reference = "average"
    return Preprocessed(eeg, channels.offset, channels.flat, reference, channels.railed)


def _keep_stored(recording: Recording, plan: Preprocessing) -> Preprocessed:
    """A recording out of a store, with the offsets that were removed then."""
    constant = zip(recording.channels, np.ptp(recording.eeg, axis=1) == 0, strict=True)
    flat = tuple(channel for channel, is_flat in constant if is_flat and channel != recording.reference)
    offset = np.array(recording.offsets_uV, np.float32)
    if plan.reference == "as_is" or recording.reference == plan.reference:
        return Preprocessed(recording.eeg, offset, flat, recording.reference)
    eeg = recording.eeg.copy()
    _subtract_average(eeg, inspect_channels(recording, recording.eeg))
    return Preprocessed(eeg, offset, flat, "average")


def _subtract_average(eeg: Float32[ndarray, "C T"], channels: Channels) -> None:
    electrodes = np.flatnonzero(~channels.is_flat & ~channels.is_railed)
    if len(electrodes) < FEWEST_FOR_AVERAGE:
        raise DataError(
            f"{len(electrodes)} usable electrodes are too few for an average reference, which takes "
            f"{FEWEST_FOR_AVERAGE}; set preprocessing.reference to as_is, or leave the recording out."
        )
    kept = np.flatnonzero(~channels.is_flat)
    for start in range(0, eeg.shape[1], TIMES_AT_ONCE):
        piece = eeg[:, start : start + TIMES_AT_ONCE]
        piece[kept] -= piece[electrodes].mean(axis=0)


def _padding(recording: Recording) -> npt.NDArray[np.bool_]:
    """Whether each sample (T,) fills up a window that is too short."""
    n_times = recording.eeg.shape[1]
    if not recording.segments:
        return np.zeros(n_times, bool)
    n_valid = np.array([segment.n_valid for segment in recording.segments])
    place = np.arange(n_times // len(n_valid))
    return (place >= n_valid[:, None]).ravel()
