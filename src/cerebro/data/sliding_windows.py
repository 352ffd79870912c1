"""Windows over whole recordings: at a fixed stride, as random crops, with a label of the recording, paired by task."""

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Column, Ints
from cerebro.data.event_table import events_of
from cerebro.data.film_windows import FILMS
from cerebro.data.store import Store
from cerebro.data.window_source import (
    WindowSource,
    counted,
    in_samples,
    not_empty,
    of_tasks,
    pair_codes,
    slide,
    too_short,
)
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, check_positive

LABEL_PREFIX = "label/"  # columns of Store.recordings that hold labels of recordings
# Events of other tasks in recordings that run on into them, as 52 of 799 rests in four releases of HBN-EEG do.
OTHER_TASKS = {"RestingState": ("video_start", "seqLearning_start")}


class SlidingWindows(WindowSource):
    """Windows at a fixed stride over whole recordings.

    Parameters
    ----------
    duration_s : float
        Length of a window.
    stride_s : float
        Distance from one start to the next.
    tasks : tuple of str
        Tasks to use; empty = all.
    """

    def __init__(self, duration_s: float = 2.0, stride_s: float = 2.0, tasks: tuple[str, ...] = ()) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.tasks = tuple(tasks)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows that fit, from the first sample on; a shorter rest at the end is not used."""
        chosen, left_out = of_tasks(store, self.tasks)
        n_times, stride = in_samples(store, self.duration_s, self.stride_s)
        runs = slide(store, chosen, n_times, stride)
        left_out += too_short(runs, self.duration_s)
        table = WindowTable(Column(runs, chosen.astype(np.int32)), Column(runs, np.zeros_like(chosen), stride), n_times)
        return not_empty(table, left_out, store, self), left_out


class RandomCrops(WindowSource):
    """Random crops out of longer windows (Challenge 2 of the 2025 EEG Foundation Challenge: 2 s out of 4 s every 2 s).

    The crop is drawn anew in every epoch of training; validation and test use the draw of epoch 0.

    Parameters
    ----------
    duration_s : float
        Length of the crop.
    window_s : float
        Length of the window that the crop is taken from; shorter recordings are left out.
    stride_s : float
        Distance from one such window to the next.
    tasks : tuple of str
        Tasks to use; empty = all.
    """

    def __init__(
        self, duration_s: float = 2.0, window_s: float = 4.0, stride_s: float = 2.0, tasks: tuple[str, ...] = ()
    ) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        if window_s < duration_s:
            raise ConfigError(f"window_s={window_s} is shorter than the crop duration_s={duration_s}; make it longer.")
        self.duration_s = duration_s
        self.window_s = window_s
        self.stride_s = stride_s
        self.tasks = tuple(tasks)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows that fit, each with the room that its crop has."""
        chosen, left_out = of_tasks(store, self.tasks)
        n_window, stride = in_samples(store, self.window_s, self.stride_s)
        n_times, _ = in_samples(store, self.duration_s, self.stride_s)
        runs = slide(store, chosen, n_window, stride)
        left_out += too_short(runs, self.window_s)
        start = Column(runs, np.zeros_like(chosen), stride)
        table = WindowTable(Column(runs, chosen.astype(np.int32)), start, n_times, jitter=n_window - n_times)
        return not_empty(table, left_out, store, self), left_out


class TaskWindows(WindowSource):
    """Windows over whole recordings that carry a label of the recording, such as ``arithmetic``.

    Parameters
    ----------
    label : str
        Label of the recordings; the target has its name.
    duration_s, stride_s : float
        Length of a window; distance from one start to the next.
    tasks : tuple of str
        Tasks to use; empty = all.
    """

    def __init__(self, label: str, duration_s: float = 2.0, stride_s: float = 2.0, tasks: tuple[str, ...] = ()) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        self.label = label
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.tasks = tuple(tasks)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows of the recordings that have the label."""
        column = LABEL_PREFIX + self.label
        if column not in store.recordings.columns:
            labels = [
                str(name).removeprefix(LABEL_PREFIX) for name in store.recordings if str(name).startswith(LABEL_PREFIX)
            ]
            raise ConfigError(
                f"recordings of {store.path} have no label {self.label!r}; set label to one of "
                f"{', '.join(labels) or 'none'}."
            )
        chosen, left_out = of_tasks(store, self.tasks)
        values = store.recordings[column].to_numpy(np.float32)
        has_label = np.isfinite(values[chosen])
        left_out += counted(int((~has_label).sum()), "recordings", f"no label {self.label}")
        chosen = chosen[has_label]
        n_times, stride = in_samples(store, self.duration_s, self.stride_s)
        runs = slide(store, chosen, n_times, stride)
        left_out += too_short(runs, self.duration_s)
        table = WindowTable(
            Column(runs, chosen.astype(np.int32)),
            Column(runs, np.zeros_like(chosen), stride),
            n_times,
            targets={self.label: Column(runs, values[chosen])},
        )
        return not_empty(table, left_out, store, self), left_out


class TaskPairs(WindowSource):
    """Windows over whole recordings: equal ``pair`` = same task, anywhere in the recording, whatever the time.

    A positive is a window of another person in the same task, a negative one of another task. So two tasks at least
    are needed. The target ``task`` is the place of the task among ``tasks``.

    A rest ends where another task begins in its recording (``OTHER_TASKS``). A film without a start is left out where
    other recordings of that film have one: the reader has found that it is not what its name says.

    Parameters
    ----------
    duration_s, stride_s : float
        Length of a window; distance from one start to the next.
    tasks : tuple of str
        Tasks to use; empty = all of the store, sorted.
    """

    has_few_pairs = True

    def __init__(self, duration_s: float = 2.0, stride_s: float = 2.0, tasks: tuple[str, ...] = ()) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.tasks = tuple(tasks)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows that fit, from the first sample on, paired by the task of their recording."""
        chosen, left_out = of_tasks(store, self.tasks)
        n_times, stride = in_samples(store, self.duration_s, self.stride_s)
        until, is_film_without_start = _other_tasks(store)
        left_out += counted(
            int(is_film_without_start[chosen].sum()), "recordings", "a film without a start that can be trusted"
        )
        chosen = chosen[~is_film_without_start[chosen]]
        runs = slide(store, chosen, n_times, stride, until)
        n_behind = len(slide(store, chosen, n_times, stride)) - len(runs)
        left_out += counted(n_behind, "windows", "another task began in the recording")
        left_out += too_short(runs, self.duration_s)
        task = store.recordings["task"].astype(str).to_numpy(dtype=object)[chosen]
        names = self.tasks or tuple(sorted(set(task)))
        codes = pair_codes(names)
        pair = np.array([codes.get(name, -1) for name in task], np.int64)
        place = np.array([names.index(name) if name in codes else np.nan for name in task], np.float32)
        table = WindowTable(
            Column(runs, chosen.astype(np.int32)),
            Column(runs, np.zeros_like(chosen), stride),
            n_times,
            pair=Column(runs, pair),
            targets={"task": Column(runs, place)},
        )
        return not_empty(table, left_out, store, self), left_out


def _other_tasks(store: Store) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Sample at which another task begins in each recording, or its end, (R,); films without their start, (R,)."""
    events = events_of(store)
    task = store.recordings["task"].to_numpy(dtype=object)
    until = store.index["n_times"].astype(np.int64)
    for name, marks in OTHER_TASKS.items():
        other = events.only(events.is_one_of(marks) & (task == name)[events.recording])
        np.minimum.at(until, other.recording, other.onset_sample(store.sfreq))
    has_start = np.zeros(len(store.index), bool)
    has_start[events.recording[events.is_one_of(["video_start"])]] = True
    films = [name for name in FILMS if has_start[task == name].any()]
    return until, np.isin(task.astype(str), films) & ~has_start
