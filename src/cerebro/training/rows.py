"""A new recording as the rows of a batch that a model was trained on: one channel each, or windows of all channels.

What the training loader reads from a store, made from windows in memory; the store's rounding to int16 is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cerebro.data.new_recordings import NewRecording
from cerebro.errors import ConfigError, DataError
from cerebro.signal import EEGBatch, SignalSpec

BATCH_SAMPLES = 1 << 25  # of a batch: 128 MB


@dataclass(frozen=True)
class Layout:
    """How the rows of a model are made: `ChannelSequences` or `RecordingWindows`, and their keys.

    Parameters
    ----------
    has_all_channels : bool
        Whether a row is windows of all channels, or all windows of one.
    windows_per_row : int
        Windows of a row; 0 = all.
    max_windows : int
        Windows of a recording that are used, the first; 0 = all.
    channels : tuple of str
        Channels that are used; empty = all of the signal.
    """

    has_all_channels: bool
    windows_per_row: int = 0
    max_windows: int = 0
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Where a row comes from: its first window in the recording, and how many it has."""

    first: int
    n: int


@dataclass
class RecordingRows:
    """Rows of one recording.

    Parameters
    ----------
    batches : list of EEGBatch
        The rows, in order.
    rows : list of Row
        One for each row.
    window_samples : int
        Samples of a window.
    """

    batches: list[EEGBatch]
    rows: list[Row]
    window_samples: int


def layout_of(data: Mapping[str, Any]) -> Layout:
    """Layout that the ``data`` section of a config asks for.

    Raises
    ------
    ConfigError
        If its windows are not those of recordings that are windows side by side, or its channels are mapped.
    """
    windows = data.get("windows") or {}
    name = str(windows.get("class_path", "")).rpartition(".")[2]
    keys = windows.get("init_args") or {}
    mapped = str((data.get("channels") or {}).get("class_path", "AsPrepared")).rpartition(".")[2]
    if name not in ("ChannelSequences", "RecordingWindows") or mapped not in ("AsPrepared", "AsRecorded"):
        what = f"windows: {name or 'unknown'}" if mapped in ("AsPrepared", "AsRecorded") else f"channels: {mapped}"
        raise ConfigError(
            f"the model was trained with data.{what}, and recordings are predicted for models of ChannelSequences and "
            "RecordingWindows; prepare a store (cerebro prepare) and type cerebro predict --config RUN/config.yaml."
        )
    return Layout(
        has_all_channels=name == "RecordingWindows",
        windows_per_row=int(keys.get("windows_per_sample", 0)) if name == "RecordingWindows" else 0,
        max_windows=int(keys.get("max_windows", 0)),
        channels=tuple(keys.get("channels", ())),
    )


def rows_of(recording: NewRecording, signal: SignalSpec, layout: Layout, number: int) -> RecordingRows:
    """Rows of a recording; ``number`` is what batches call it.

    Raises
    ------
    DataError
        In one line: another rate than the model's, or no channel of it that ever changes.
    """
    if abs(recording.sfreq - signal.sfreq) > 1e-6:
        raise DataError(
            f"{recording.key} has {recording.sfreq:g} Hz after processing and the model {signal.sfreq:g} Hz; process "
            "it as the training data were."
        )
    n_used = min(len(recording.eeg), layout.max_windows) if layout.max_windows else len(recording.eeg)
    eeg, n_there = recording.eeg[:n_used], recording.n_valid[:n_used]
    deviation = _deviations(recording)
    place = {name.upper(): row for row, name in enumerate(recording.channels)}
    allowed = {name.upper() for name in layout.channels or signal.channels}
    used = [
        (number_of, place[name.upper()])
        for number_of, name in enumerate(signal.channels)
        if name.upper() in allowed and name.upper() in place and deviation[place[name.upper()]] > 0
    ]
    if not used:
        raise DataError(
            f"{recording.key} has no channel of the model ({', '.join(signal.channels[:6])}) that ever changes; it has "
            f"{', '.join(recording.channels[:6])}."
        )
    channel = np.array([one for one, _ in used], np.int64)
    columns = [column for _, column in used]
    if layout.has_all_channels:
        return _of_all(eeg[:, columns], n_there, channel, deviation[columns], layout, len(signal.channels), number)
    length = eeg.shape[2]
    whole = np.ascontiguousarray(eeg[:, columns].transpose(1, 0, 2)).reshape(len(columns), 1, n_used * length)
    n_valid = np.full(len(columns), (n_used - 1) * length + int(n_there[-1]))
    batches = _batches(whole, channel[:, None], n_valid, deviation[columns][:, None], number)
    return RecordingRows(batches, [Row(0, n_used)] * len(columns), length)


def _of_all(
    eeg: npt.NDArray[np.float32],
    n_there: npt.NDArray[np.int64],
    channel: npt.NDArray[np.int64],
    deviation: npt.NDArray[np.float32],
    layout: Layout,
    n_channels: int,
    number: int,
) -> RecordingRows:
    """Rows of all channels of the signal, those that are absent as padding."""
    n_windows, _, length = eeg.shape
    n_each = layout.windows_per_row or n_windows
    rows = [Row(first, min(n_each, n_windows - first)) for first in range(0, n_windows, n_each)]
    longest = max(row.n for row in rows)
    whole = np.zeros((len(rows), n_channels, longest * length), np.float32)
    n_valid = np.empty(len(rows), np.int64)
    for at, row in enumerate(rows):
        piece = eeg[row.first : row.first + row.n].transpose(1, 0, 2).reshape(len(channel), row.n * length)
        whole[at, channel, : row.n * length] = piece
        n_valid[at] = (row.n - 1) * length + n_there[row.first + row.n - 1]
    names = np.full(n_channels, -1, np.int64)
    names[channel] = channel
    scale = np.zeros(n_channels, np.float32)
    scale[channel] = deviation
    shape = (len(rows), n_channels)
    batches = _batches(whole, np.broadcast_to(names, shape), n_valid, np.broadcast_to(scale, shape), number)
    return RecordingRows(batches, rows, length)


def _batches(
    eeg: npt.NDArray[np.float32],
    channel: npt.NDArray[np.int64],
    n_valid: npt.NDArray[np.int64],
    deviation: npt.NDArray[np.float32],
    number: int,
) -> list[EEGBatch]:
    n_rows = max(1, BATCH_SAMPLES // max(1, eeg.shape[1] * eeg.shape[2]))
    found = []
    for first in range(0, len(eeg), n_rows):
        some = slice(first, first + n_rows)
        n = len(eeg[some])
        row = torch.arange(first, first + n)
        found.append(
            EEGBatch(
                eeg=torch.from_numpy(eeg[some].copy()),
                channel=torch.from_numpy(channel[some].copy()),
                n_valid=torch.from_numpy(n_valid[some].astype(np.int64)),
                key=row,
                sample=row,
                recording=torch.full((n,), number),
                participant=torch.full((n,), number),
                pair=torch.full((n,), -1),
                deviation=torch.from_numpy(deviation[some].copy()),
            )
        )
    return found


def _deviations(recording: NewRecording) -> npt.NDArray[np.float32]:
    """Standard deviation (C,) of each channel over all samples that are there, as `cerebro.data.deviations` has it."""
    n = float(recording.n_valid.sum())
    total = recording.eeg.sum(axis=(0, 2), dtype=np.float64) / n
    square = np.einsum("ncl,ncl->c", recording.eeg, recording.eeg, dtype=np.float64) / n
    return np.asarray(np.sqrt(np.maximum(square - total**2, 0)), np.float32)
