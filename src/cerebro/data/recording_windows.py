"""Windows of all channels of a recording side by side, from a store that keeps windows channel by channel."""

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Ints, column_of
from cerebro.data.deviations import deviations_uV
from cerebro.data.overlap import overlap_of_windows
from cerebro.data.store import Store
from cerebro.data.window_source import WindowSource, counted
from cerebro.data.windowed_recordings import (
    columns_of_channels,
    first_segments,
    labels_of_recordings,
    short_inside,
    windowed_recordings,
)
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, DataError


class RecordingWindows(WindowSource):
    """One sample = all channels of one recording, its windows in order: what a prediction for a recording is made of.

    With ``windows_per_sample: k`` a sample is k windows that follow each other, from the first one on, for encoders
    that look at seconds. It never crosses recordings; the windows that are left at the end of a recording, fewer than
    k, are a shorter sample. Where its last window is shorter, a sample ends where its samples end; a shorter window
    before that keeps its zeros, and is counted. Labels are those of the participant (``data.targets: [remission]``) and
    those of the recording that ``labels`` names.

    Batches are as long as their longest sample (``n_valid``), and carry the standard deviation of each channel over its
    whole recording (`cerebro.data.deviations`), whatever part of it a sample holds. A channel that never changes in a
    recording is hidden there (channel -1, as padding) and counted: it would dilute every mean over channels, and no
    model was pretrained on one. A recording whose channels all are so is left out.

    Parameters
    ----------
    windows_per_sample : int
        Windows of a sample; 0 = all those of a recording.
    max_windows : int
        Of longer recordings the first ``max_windows`` windows are used; 0 = all.
    channels : tuple of str
        Electrodes to use; empty = all. Recordings without any of them are left out.
    tasks : tuple of str
        Tasks to use; empty = all.
    labels : tuple of str
        Labels of recordings (columns ``label/NAME`` of the store) that are targets under their names.
    """

    def __init__(
        self,
        windows_per_sample: int = 0,
        max_windows: int = 0,
        channels: tuple[str, ...] = (),
        tasks: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
    ) -> None:
        for name, value in (("windows_per_sample", windows_per_sample), ("max_windows", max_windows)):
            if value < 0:
                raise ConfigError(f"{name}={value} is negative; set {name} to 0 or more.")
        self.windows_per_sample = windows_per_sample
        self.max_windows = max_windows
        self.channels = tuple(channels)
        self.tasks = tuple(tasks)
        self.labels = tuple(labels)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Samples by recording, then by time."""
        chosen, samples, left_out = windowed_recordings(store, self.tasks, type(self).__name__)
        columns = columns_of_channels(store, self.channels)
        deviation = deviations_uV(store)
        chosen = self._with_live_channels(store, chosen, columns, deviation, left_out)
        n_windows = store.index["n_times"].astype(np.int64) // samples
        n_used = np.minimum(n_windows, self.max_windows) if self.max_windows else n_windows
        left_out += counted(int((n_windows - n_used)[chosen].sum()), "windows", f"behind the first {self.max_windows}")
        recording, first, n = _samples_of(chosen, n_used[chosen], self.windows_per_sample)
        n_there = store.segments["n_valid"].to_numpy(np.int64)
        first_row = first_segments(store)[recording] + first  # segment of each sample's first window
        n_valid = n * samples - (samples - n_there[first_row + n - 1])
        n_short = np.concatenate([[0], np.cumsum(n_there < samples)])  # before each segment
        left_out += short_inside(int((n_short[first_row + n - 1] - n_short[first_row]).sum()))
        if n.max() > 1:
            left_out += overlap_of_windows(store, chosen, n_used)
        labels = labels_of_recordings(store, self.labels)
        table = WindowTable(
            recording=column_of(recording.astype(np.int32)),
            start=column_of(first * samples),
            n_times=int(n.max()) * samples,
            targets={name: column_of(values[recording]) for name, values in labels.items()},
            n_valid=column_of(n_valid),
            columns=columns,
            channel_deviation_uV=deviation,
        )
        return table, left_out

    def _with_live_channels(
        self,
        store: Store,
        chosen: Ints,
        columns: tuple[Ints, ...],
        deviation: npt.NDArray[np.float32],
        left_out: list[Omission],
    ) -> Ints:
        """Those of the ``chosen`` recordings in which a channel that is used changes; the others are counted."""
        montage, offset_row = store.index["montage"][chosen], store.index["offset_row"][chosen].astype(np.int64)
        n_live, n_channels = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
        for number in np.unique(montage).tolist():
            here = montage == number
            n_channels[here] = len(columns[number])
            n_live[here] = (deviation[offset_row[here][:, None] + columns[number]] > 0).sum(axis=1)
        none, dead = n_channels == 0, (n_live == 0) & (n_channels > 0)
        left_out += counted(int(none.sum()), "recordings", f"none of the channels {', '.join(self.channels)}")
        left_out += counted(int(dead.sum()), "recordings", "channels that never change, and no others")
        n_hidden = int((n_channels - n_live)[n_live > 0].sum())
        left_out += counted(n_hidden, "channels", "they never change in their recording")
        if not n_live.any():
            raise DataError(f"no channel of {store.path} that was chosen ever changes; choose other channels or tasks.")
        return chosen[n_live > 0]


def _samples_of(chosen: Ints, n_used: Ints, n_most: int) -> tuple[Ints, Ints, Ints]:
    """Recording, first window and number of windows of each sample, of ``n_used`` (Q,) windows of each recording.

    A sample has ``n_most`` windows, the last one of a recording as many as are left; 0 = all of a recording.
    """
    n_each = -(-n_used // n_most) if n_most else np.minimum(n_used, 1)
    number = np.arange(int(n_each.sum())) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    there = np.repeat(n_used, n_each)
    if not n_most:
        return np.repeat(chosen, n_each), number, there
    return np.repeat(chosen, n_each), number * n_most, np.minimum(n_most, there - number * n_most)
