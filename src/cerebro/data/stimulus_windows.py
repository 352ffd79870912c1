"""Windows after a stimulus, with the time of the response (Challenge 1 of the 2025 EEG Foundation Challenge)."""

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Ints, column_of
from cerebro.data.event_table import EventTable, events_of
from cerebro.data.store import EVENT_TICKS_PER_S, Store
from cerebro.data.window_source import WindowSource, counted, not_empty, of_tasks
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import check_positive

TARGETS = ("left_target", "right_target")


class StimulusWindows(WindowSource):
    """Windows after the target of a contrast change trial, with the response time (Challenge 1).

    The response is the FIRST button press after the target and before the next target or trial; trials without one
    are left out. The window begins ``shift_s`` after the target's sample, whatever the response time. Target:
    ``response_time`` in seconds from the target, from the onsets as the source says them (to 0.1 ms) and not from
    samples.

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
        chosen, left_out = of_tasks(store, self.tasks)
        is_chosen = np.zeros(len(store.index), bool)
        is_chosen[chosen] = True
        events = events_of(store)
        events = events.only(is_chosen[events.recording])
        target, press = first_responses(events)
        n_without = len(chosen) - len(np.unique(events.recording[target]))
        left_out += counted(n_without, "recordings", "no left_target or right_target")
        left_out += counted(int((press < 0).sum()), "trials", "no response before the next target or trial")
        target, press = target[press >= 0], press[press >= 0]
        recording = events.recording[target]
        n_times = round(self.duration_s * store.sfreq)
        start = events.onset_sample(store.sfreq)[target] + round(self.shift_s * store.sfreq)
        length = store.index["n_times"].astype(np.int64)[recording]
        is_inside = (start >= 0) & (start + n_times <= length)
        left_out += counted(int((~is_inside).sum()), "trials", "the window does not lie inside the recording")
        response_time = (events.onset[press] - events.onset[target]) / EVENT_TICKS_PER_S
        table = WindowTable(
            column_of(recording[is_inside]),
            column_of(start[is_inside]),
            n_times,
            targets={"response_time": column_of(response_time[is_inside].astype(np.float32))},
        )
        return not_empty(table, left_out, store, self), left_out


def first_responses(events: EventTable) -> tuple[Ints, Ints]:
    """Positions of all targets in ``events``, and of the first press that answers each; -1 = none."""
    is_target = events.is_one_of(TARGETS)
    target = _places(is_target)
    press = _places(events.matches(lambda name: name.endswith("_buttonPress")))
    boundary = _places(is_target | events.matches(lambda name: name.endswith("Trial_start")))
    end = len(events)
    next_press = np.append(press, end)[np.searchsorted(press, target, side="right")]
    next_boundary = np.append(boundary, end)[np.searchsorted(boundary, target, side="right")]
    recording = np.append(events.recording, -1)
    is_answered = (next_press < next_boundary) & (recording[next_press] == recording[target])
    return target, np.where(is_answered, next_press, -1)


def _places(is_wanted: npt.NDArray[np.bool_]) -> Ints:
    return np.flatnonzero(is_wanted).astype(np.int64)
