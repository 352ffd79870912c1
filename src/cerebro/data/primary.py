"""One recording as the windows of a primary data set: chosen channels, filtered, cut, without offset, artefacts out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from cerebro.data.plausible import railed_samples
from cerebro.data.preprocess import preprocess
from cerebro.data.processing import Processing
from cerebro.data.readers.base import Finding, Recording, Skip
from cerebro.errors import DataError


@dataclass(frozen=True)
class Windowed:
    """Windows of one recording, in order: by parent, then by sub-window.

    Parameters
    ----------
    eeg : float32 array (N, C, L)
        Microvolts at ``downsample_hz``; the mean of every window of every channel is zero. In memory the windows of a
        channel lie side by side, as files keep them.
    channels : tuple of str
        C names in upper case.
    parent, sub : int64 array (N,)
        Number of the parent window in the recording, and of the window in its parent, from 0 on; windows that were left
        out keep theirs.
    start_s, end_s : float64 array (N,)
        Seconds from the start of the recording.
    findings : tuple of Finding
        What was repaired or left out.
    n_cut : int
        Windows before any was left out.
    reference : str
        Reference of the windows.
    """

    eeg: Float32[ndarray, "N C L"]
    channels: tuple[str, ...]
    parent: Int64[ndarray, " N"]
    sub: Int64[ndarray, " N"]
    start_s: Float64[ndarray, " N"]
    end_s: Float64[ndarray, " N"]
    findings: tuple[Finding, ...] = ()
    n_cut: int = 0
    reference: str = "unknown"


def windowed(recording: Recording, plan: Processing, key: str) -> Windowed:
    """Filter, resample and cut one recording.

    Parameters
    ----------
    recording : Recording
        Raw microvolts of a continuous recording; not changed.
    plan : Processing
        What is done to it; empty ``channels`` = all that the recording has.
    key : str
        Name of the recording in findings.

    Raises
    ------
    DataError
        In one line: a channel that the recording does not have, windows instead of a continuous signal, and what
        `cerebro.data.preprocess.preprocess` refuses.
    Skip
        Rule ``no-window-left``: the recording is shorter than a window, or all its windows were left out.
    """
    if recording.is_ready:
        raise DataError("the recording was filtered or cut before; process the raw recording.")
    rows = chosen_rows(recording.channels, plan.channels)
    if plan.reference == "as_is" and rows != list(range(len(recording.channels))):
        chosen = tuple(recording.channels[row] for row in rows)
        recording = replace(recording, eeg=recording.eeg[rows], channels=chosen)
        rows = list(range(len(rows)))
    done = preprocess(recording, plan.filters(recording.sfreq))
    parent, sub = _numbers(done.eeg.shape[1], plan)
    if not len(parent):
        detail = f"{done.eeg.shape[1] / plan.downsample_hz:g} s, shorter than a window of {plan.window_s:g} s"
        raise Skip(Finding("no-window-left", "skipped", key, detail))
    start = parent * plan.parent_samples + sub * plan.step_samples
    start_s = start / plan.downsample_hz
    judged = _raw_artefacts(recording, rows, start_s, plan)
    findings = [*recording.findings, *done.findings(key)]
    names = [recording.channels[row] for row in rows]
    del recording  # its memory, where the caller has let go of it too
    filtered = done.eeg if rows == list(range(len(done.eeg))) else done.eeg[rows]
    reference = done.reference
    del done
    eeg = np.empty((len(rows), len(start), plan.window_samples), np.float32).transpose(1, 0, 2)
    for window, first in enumerate(start.tolist()):
        piece = filtered[:, first : first + plan.window_samples].copy()
        piece -= piece.mean(axis=1, dtype=np.float64, keepdims=True)
        eeg[window] = piece
    del filtered
    if plan.peak_uV:
        judged["loud-window"] = np.maximum(eeg.max(axis=2), -eeg.min(axis=2)) > plan.peak_uV
    is_kept = ~_left_out(judged, len(eeg), names, key, findings)
    return Windowed(
        eeg=eeg if is_kept.all() else eeg.transpose(1, 0, 2)[:, is_kept].transpose(1, 0, 2),
        channels=tuple(name.upper() for name in names),
        parent=parent[is_kept],
        sub=sub[is_kept],
        start_s=start_s[is_kept],
        end_s=start_s[is_kept] + plan.window_s,
        findings=tuple(findings),
        n_cut=len(is_kept),
        reference=reference,
    )


def chosen_rows(channels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Rows of the channels wanted, in their order, whatever their case; all where none is named.

    Raises
    ------
    DataError
        If one is absent.
    """
    place = {name.upper(): row for row, name in enumerate(channels)}
    absent = [name for name in wanted if name.upper() not in place]
    if absent:
        raise DataError(
            f"the recording has no channel {', '.join(absent[:5])} (found {', '.join(channels[:8])}"
            f"{', ...' if len(channels) > 8 else ''}); choose other channels or leave the recording out."
        )
    return [place[name.upper()] for name in wanted] or list(range(len(channels)))


def _numbers(n_times: int, plan: Processing) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Parent and sub-window (N,) of every window that fits into ``n_times`` samples."""
    numbers = [
        (parent, sub)
        for parent in range(-(-n_times // plan.parent_samples))
        for sub in range((plan.parent_samples - plan.window_samples) // plan.step_samples + 1)
        if parent * plan.parent_samples + sub * plan.step_samples + plan.window_samples <= n_times
    ]
    parents, subs = np.array(numbers, np.int64).reshape(-1, 2).T
    return parents, subs


def _raw_artefacts(
    recording: Recording, rows: Sequence[int], start_s: npt.NDArray[np.float64], plan: Processing
) -> dict[str, npt.NDArray[np.bool_]]:
    """By rule, whether each channel of each window (N, C) is to be left out for its raw samples."""
    judged: dict[str, npt.NDArray[np.bool_]] = {}
    if plan.railed == "leave_out":
        judged["railed-window"] = _railed(recording, rows, start_s, plan)
    if plan.flat == "leave_out":
        judged["flat-window"] = _flat(recording, rows, start_s, plan)
    return judged


def _left_out(
    judged: Mapping[str, npt.NDArray[np.bool_]],
    n_windows: int,
    channels: Sequence[str],
    key: str,
    findings: list[Finding],
) -> npt.NDArray[np.bool_]:
    """Whether each window (N,) is to be left out; why is added to ``findings``. Skip where none is left."""
    is_out = np.zeros(n_windows, bool)
    reasons = []
    for rule, is_bad in judged.items():
        n_new = int((is_bad.any(axis=1) & ~is_out).sum())
        if not n_new:
            continue
        is_out |= is_bad.any(axis=1)
        by_channel = zip(channels, is_bad.sum(axis=0).tolist(), strict=True)
        worst = sorted(((n, name) for name, n in by_channel if n), reverse=True)[:5]
        detail = f"{n_new} of {n_windows} windows left out; windows by channel: " + ", ".join(
            f"{name} {n}" for n, name in worst
        )
        reasons.append(Finding(rule, "repaired", key, detail))
    if is_out.all():
        why = "; ".join(f"{one.rule}: {one.detail}" for one in reasons)
        raise Skip(Finding("no-window-left", "skipped", key, f"all {n_windows} windows were left out ({why})"))
    findings += reasons
    return is_out


def _railed(
    recording: Recording, rows: Sequence[int], start_s: npt.NDArray[np.float64], plan: Processing
) -> Bool[ndarray, "N C"]:
    """Whether each channel of each window holds a raw sample at a rail."""
    found = np.zeros((len(start_s), len(rows)), bool)
    is_railed = railed_samples(recording.eeg)
    for column in np.flatnonzero(is_railed[list(rows)].any(axis=1)).tolist():
        place_s = np.flatnonzero(is_railed[rows[column]]) / recording.sfreq
        first, last = np.searchsorted(place_s, [start_s - 1e-9, start_s + plan.window_s - 1e-9])
        found[:, column] = last > first
    return found


def _flat(
    recording: Recording, rows: Sequence[int], start_s: npt.NDArray[np.float64], plan: Processing
) -> Bool[ndarray, "N C"]:
    """Whether each channel of each window never changes, of those that change elsewhere."""
    found = np.zeros((len(start_s), len(rows)), bool)
    first = np.ceil(start_s * recording.sfreq - 1e-6).astype(np.int64)
    last = np.minimum(np.ceil((start_s + plan.window_s) * recording.sfreq - 1e-6), recording.eeg.shape[1])
    for window, (start, stop) in enumerate(zip(first.tolist(), last.astype(np.int64).tolist(), strict=True)):
        piece = recording.eeg[:, start:stop]
        found[window] = (piece.max(axis=1) == piece.min(axis=1))[list(rows)]
    is_dead = found.all(axis=0)  # never changes in any window: counted as flat-channel, and kept
    return found & ~is_dead
