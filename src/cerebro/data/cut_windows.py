"""A continuous recording as windows side by side, cut after filtering, without those in which a converter was railed.

Windows lie behind one another from the first sample on; the rest at the end, shorter than a window, is left out. What
is left is kept channel by channel, as windows of Parquet files are, and each window knows its number and its seconds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numpy import ndarray

from cerebro.data.plausible import railed_samples
from cerebro.data.preprocess import Preprocessed, Preprocessing
from cerebro.data.readers.base import Finding, Recording, Segment, Skip
from cerebro.errors import DataError


@dataclass(frozen=True)
class Cut:
    """What of a recording goes into the store.

    Parameters
    ----------
    eeg : float32 array (C, T)
        Microvolts; windows side by side where there are ``segments``.
    segments : tuple of Segment
        One per window; empty where the recording stays continuous.
    findings : tuple of Finding
        What was left out.
    """

    eeg: Float32[ndarray, "C T"]
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...] = ()


def cut_windows(key: str, recording: Recording, done: Preprocessed, plan: Preprocessing) -> Cut:
    """Cut ``done`` into the windows that ``plan`` asks for; as it is where it asks for none.

    Parameters
    ----------
    key : str
        Name of the recording.
    recording : Recording
        Raw microvolts, which show where the converter was railed.
    done : Preprocessed
        The same filtered, at the plan's rate.
    plan : Preprocessing
        Length of a window and what becomes of railed ones.

    Raises
    ------
    DataError
        A recording that holds windows already, or one that was filtered before and shows no rails any more.
    Skip
        Rule ``no-window-left``: a recording shorter than a window, or railed in all of them.
    """
    if not plan.window_s:
        return Cut(done.eeg, recording.segments)
    if recording.segments:
        raise DataError("the recording holds windows already; set preprocessing.window_s to 0.")
    length = plan.window_samples
    n_channels, n_times = done.eeg.shape
    n_windows = n_times // length
    if not n_windows:
        detail = f"{n_times / plan.sfreq:g} s, shorter than a window of {plan.window_s:g} s"
        raise Skip(Finding("no-window-left", "skipped", key, detail))
    is_railed = np.zeros((n_channels, n_windows), bool)
    if plan.railed_windows == "leave_out":
        if recording.is_ready:
            raise DataError(
                "the recording was filtered before, so that rails do not show; set preprocessing.railed_windows to "
                "keep."
            )
        is_railed = _railed_windows(recording, n_windows, plan)
    kept = np.flatnonzero(~is_railed.any(axis=0))
    if not len(kept):
        raise Skip(Finding("no-window-left", "skipped", key, f"all {n_windows} windows are railed"))
    findings: tuple[Finding, ...] = ()
    if len(kept) < n_windows:
        per_channel = zip(recording.channels, is_railed.sum(axis=1).tolist(), strict=True)
        where = ", ".join(f"{name} {n}" for name, n in per_channel if n)
        detail = f"{n_windows - len(kept)} of {n_windows} windows are railed and left out; windows by channel: {where}"
        findings = (Finding("railed-window", "repaired", key, detail),)
    windows = done.eeg[:, : n_windows * length].reshape(n_channels, n_windows, length)
    segments = tuple(
        Segment(number, 0, number * plan.window_s, (number + 1) * plan.window_s, length) for number in kept.tolist()
    )
    return Cut(np.ascontiguousarray(windows[:, kept]).reshape(n_channels, -1), segments, findings)


def _railed_windows(recording: Recording, n_windows: int, plan: Preprocessing) -> npt.NDArray[np.bool_]:
    """Whether each window (W,) holds a raw sample of each channel at a rail, (C, W)."""
    is_railed = np.zeros((len(recording.eeg), n_windows), bool)
    channel, place = np.nonzero(railed_samples(recording.eeg))
    window = np.floor(place / recording.sfreq / plan.window_s + 1e-9).astype(np.int64)
    is_inside = window < n_windows  # the rest at the end is no window
    is_railed[channel[is_inside], window[is_inside]] = True
    return is_railed
