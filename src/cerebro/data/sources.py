"""Where windows come from: one class per way of cutting recordings; its constructor is its schema."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cerebro.data.store import Store
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, DataError, check_positive

FILMS = ("DespicableMe", "DiaryOfAWimpyKid", "FunwithFractals", "ThePresent")
LABEL_PREFIX = "label/"  # columns of Store.recordings that hold labels of recordings


class WindowSource(ABC):
    """Lists the windows of a store; the order is by recording, then time, and depends on the store alone."""

    @abstractmethod
    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows, and what was left out and why.

        Raises
        ------
        DataError
            If no window is left.
        """


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
        chosen, left_out = _of_tasks(store, self.tasks)
        n_times, stride = _samples(store, self.duration_s, self.stride_s)
        recording, start, too_short = _slide(store, chosen, n_times, stride)
        left_out += _counted(too_short, "recordings", f"shorter than {self.duration_s:g} s")
        return _whole(WindowTable(recording, start, n_times), left_out, store, self), left_out


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
        chosen, left_out = _of_tasks(store, self.tasks)
        n_window, stride = _samples(store, self.window_s, self.stride_s)
        n_times, _ = _samples(store, self.duration_s, self.stride_s)
        recording, start, too_short = _slide(store, chosen, n_window, stride)
        left_out += _counted(too_short, "recordings", f"shorter than {self.window_s:g} s")
        table = WindowTable(recording, start, n_times, jitter=n_window - n_times)
        return _whole(table, left_out, store, self), left_out


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
        chosen, left_out = _of_tasks(store, self.tasks)
        values = store.recordings[column].to_numpy(np.float32)
        has_label = np.isfinite(values[chosen])
        left_out += _counted(int((~has_label).sum()), "recordings", f"no label {self.label}")
        n_times, stride = _samples(store, self.duration_s, self.stride_s)
        recording, start, too_short = _slide(store, chosen[has_label], n_times, stride)
        left_out += _counted(too_short, "recordings", f"shorter than {self.duration_s:g} s")
        table = WindowTable(recording, start, n_times, targets={self.label: values[recording]})
        return _whole(table, left_out, store, self), left_out


class FilmWindows(WindowSource):
    """Windows of films, counted from ``video_start``: equal ``pair`` = same film at the same time.

    The film ends at ``video_stop``, or after the film's median length where that event is missing. A recording whose
    film is more than 1 s longer or shorter than the median shows another film under this name and is left out.

    Parameters
    ----------
    duration_s, stride_s : float
        Length of a window; distance from one start to the next.
    films : tuple of str
        Tasks that are films.
    """

    def __init__(self, duration_s: float = 2.0, stride_s: float = 2.0, films: tuple[str, ...] = FILMS) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.films = tuple(films)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows from ``video_start`` on that lie inside film and recording."""
        if not self.films:
            raise ConfigError("films is empty; set films to the tasks that are films, such as ThePresent.")
        chosen, left_out = _of_tasks(store, self.films)
        n_times, stride = _samples(store, self.duration_s, self.stride_s)
        begins, ends = (_single_event(store, name) for name in ("video_start", "video_stop"))
        has_start = begins[chosen] >= 0
        left_out += _counted(int((~has_start).sum()), "recordings", "not exactly one video_start")
        chosen = chosen[has_start]
        film = store.recordings["task"].to_numpy(dtype=object)
        length = np.where(ends >= 0, ends - begins, -1)
        medians = {
            name: int(np.median(known))
            for name in self.films
            if len(known := length[chosen][(film[chosen] == name) & (length[chosen] > 0)])
        }
        expected = np.array([medians.get(str(name), -1) for name in film[chosen]], np.int64)
        is_other = (length[chosen] >= 0) & (np.abs(length[chosen] - expected) > store.sfreq)
        left_out += _counted(
            int(is_other.sum()), "recordings", "a film more than 1 s longer or shorter than its median"
        )
        chosen, expected = chosen[~is_other], expected[~is_other]
        inside = store.index["n_times"].astype(np.int64)[chosen] - begins[chosen]
        known_length = np.where(length[chosen] >= 0, length[chosen], np.where(expected >= 0, expected, inside))
        n_windows = np.maximum((np.minimum(known_length, inside) - n_times) // stride + 1, 0)
        left_out += _counted(int((n_windows == 0).sum()), "recordings", f"less than {self.duration_s:g} s of film")
        recording = np.repeat(chosen, n_windows).astype(np.int32)
        order = _count_up(n_windows)
        time_ms = np.rint(order * stride * (1000 / store.sfreq)).astype(np.int64)
        codes = {name: np.int64(zlib.crc32(name.encode()) >> 1) << 28 for name in self.films}
        pair = np.array([codes[str(name)] for name in film[chosen]], np.int64).repeat(n_windows) + time_ms
        table = WindowTable(recording, begins[recording] + order * stride, n_times, pair=pair)
        return _whole(table, left_out, store, self), left_out


class StimulusWindows(WindowSource):
    """Windows after the target of a contrast change trial, with the response time (Challenge 1).

    The response is the FIRST button press after the target and before the next target or trial; trials without one
    are left out. The window begins ``shift_s`` after the target's sample, whatever the response time. Target:
    ``response_time`` in seconds from the target, from the onsets as the source says them and not from samples.

    Parameters
    ----------
    shift_s : float
        From the target to the start of the window.
    duration_s : float
        Length of the window.
    tasks : tuple of str
        Tasks to use.
    """

    def __init__(
        self, shift_s: float = 0.5, duration_s: float = 2.0, tasks: tuple[str, ...] = ("contrastChangeDetection",)
    ) -> None:
        check_positive("duration_s", duration_s)
        self.shift_s = shift_s
        self.duration_s = duration_s
        self.tasks = tuple(tasks)

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """One window per trial with a response that lies inside its recording."""
        chosen, left_out = _of_tasks(store, self.tasks)
        events = store.events[store.events["recording"].isin(chosen)]
        events = events.sort_values(["recording", "onset_s"], kind="stable")
        n_without = len(chosen) - events.loc[_is_target(events), "recording"].nunique()
        left_out += _counted(n_without, "recordings", "no left_target or right_target")
        target, press = first_responses(events)
        left_out += _counted(int((press < 0).sum()), "trials", "no response before the next target or trial")
        target, press = target[press >= 0], press[press >= 0]
        recording = events["recording"].to_numpy(np.int64)[target]
        onset = events["onset_sample"].to_numpy(np.int64)
        n_times = round(self.duration_s * store.sfreq)
        start = onset[target] + round(self.shift_s * store.sfreq)
        length = store.index["n_times"].astype(np.int64)[recording]
        is_inside = (start >= 0) & (start + n_times <= length)
        left_out += _counted(int((~is_inside).sum()), "trials", "the window does not lie inside the recording")
        onset_s = events["onset_s"].to_numpy(np.float64)
        response_time = onset_s[press] - onset_s[target]
        table = WindowTable(
            recording[is_inside].astype(np.int32),
            start[is_inside],
            n_times,
            targets={"response_time": response_time[is_inside].astype(np.float32)},
        )
        return _whole(table, left_out, store, self), left_out


def first_responses(events: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of all targets in ``events``, and of the first press that answers each; -1 = none.

    Parameters
    ----------
    events : DataFrame
        Columns ``recording`` and ``name``, sorted by recording and time.
    """
    name = events["name"].astype(str)
    recording = events["recording"].to_numpy(np.int64)
    target = np.flatnonzero(_is_target(events))
    press = np.flatnonzero(name.str.endswith("_buttonPress"))
    boundary = np.flatnonzero(_is_target(events) | name.str.endswith("Trial_start"))
    end = len(events)
    next_press = np.append(press, end)[np.searchsorted(press, target, side="right")]
    next_boundary = np.append(boundary, end)[np.searchsorted(boundary, target, side="right")]
    is_answered = (next_press < next_boundary) & (np.append(recording, -1)[next_press] == recording[target])
    return target.astype(np.int64), np.where(is_answered, next_press, -1).astype(np.int64)


def _is_target(events: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return events["name"].isin(["left_target", "right_target"]).to_numpy(bool)


def _of_tasks(store: Store, tasks: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[Omission]]:
    """Rows of the recordings of ``tasks``; a task that no recording has is named."""
    task = store.recordings["task"].astype(str)
    absent = [name for name in tasks if name not in set(task)]
    chosen = np.flatnonzero(task.isin(tasks)) if tasks else np.arange(len(task))
    if not len(chosen):
        raise DataError(
            f"no recording of {store.path} has task {', '.join(tasks)}; it holds "
            f"{', '.join(sorted(set(task))) or 'none'}: choose among these or prepare more tasks."
        )
    return chosen.astype(np.int64), [Omission(0, "recordings", f"task {name} is not in the store") for name in absent]


def _samples(store: Store, duration_s: float, stride_s: float) -> tuple[int, int]:
    n_times, stride = round(duration_s * store.sfreq), round(stride_s * store.sfreq)
    if n_times < 1 or stride < 1:
        raise ConfigError(
            f"a window of {duration_s} s every {stride_s} s is less than one sample at {store.sfreq:g} Hz; set "
            "longer ones."
        )
    return n_times, stride


def _slide(
    store: Store, chosen: npt.NDArray[np.int64], n_times: int, stride: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]:
    """Recording and start of each window that fits, and the number of recordings in which none does."""
    n_windows = np.maximum((store.index["n_times"].astype(np.int64)[chosen] - n_times) // stride + 1, 0)
    return np.repeat(chosen, n_windows).astype(np.int32), _count_up(n_windows) * stride, int((n_windows == 0).sum())


def _count_up(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1 ... size - 1 for each size, one after the other."""
    return np.arange(sizes.sum(), dtype=np.int64) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _single_event(store: Store, name: str) -> npt.NDArray[np.int64]:
    """Sample of the event ``name`` of each recording that has exactly one, else -1; (R,)."""
    found = store.events[store.events["name"] == name]
    recording = found["recording"].to_numpy(np.int64)
    onset = np.full(len(store.index), -1, np.int64)
    onset[recording] = found["onset_sample"].to_numpy(np.int64)
    onset[np.bincount(recording, minlength=len(store.index)) != 1] = -1
    return onset


def _counted(n: int, what: str, why: str) -> list[Omission]:
    return [Omission(n, what, why)] if n else []


def _whole(table: WindowTable, left_out: list[Omission], store: Store, source: WindowSource) -> WindowTable:
    if not len(table):
        reasons = "; ".join(map(str, left_out)) or "it holds no recordings"
        raise DataError(f"{type(source).__name__} finds no window in {store.path} ({reasons}); choose other windows.")
    return table
