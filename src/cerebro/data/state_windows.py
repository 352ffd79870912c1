"""Windows of rest with open and with closed eyes, from the spoken instructions."""

from typing import Literal

import numpy as np

from cerebro.data.columns import Column, Ints, Runs
from cerebro.data.event_table import EventTable, events_of
from cerebro.data.store import Store
from cerebro.data.window_source import (
    WindowSource,
    counted,
    in_samples,
    milliseconds,
    not_empty,
    of_tasks,
    pair_codes,
)
from cerebro.data.windows import Omission, WindowTable
from cerebro.errors import ConfigError, check_one_of, check_positive

CUES = {"instructed_toOpenEyes": "eyes_open", "instructed_toCloseEyes": "eyes_closed"}


class EyesWindows(WindowSource):
    """Windows after the instructions to open or close the eyes: equal ``pair`` = same state.

    A state lasts from its instruction to the next event of any name, and no longer than its part of the paradigm, so
    that a missing instruction or another task that follows in the recording is never taken for a state. Windows begin
    ``margin_s`` after the instruction. The target ``eyes_closed`` is 1 with closed eyes and 0 with open ones.

    Parameters
    ----------
    duration_s, stride_s : float
        Length of a window; distance from one start to the next.
    margin_s : float
        Seconds after an instruction that are not used: it takes time to follow it.
    open_s, closed_s : float
        Longest time in a state; 20 s and 40 s in HBN-EEG.
    tasks : tuple of str
        Tasks to use.
    positives : {"same_state", "same_state_and_time"}
        What counts as a positive, in another person: the same state, or the same state as long after its instruction.
        Negatives are windows of the other state (and, with time, of other times).
    """

    def __init__(
        self,
        duration_s: float = 2.0,
        stride_s: float = 2.0,
        margin_s: float = 2.0,
        open_s: float = 20.0,
        closed_s: float = 40.0,
        tasks: tuple[str, ...] = ("RestingState",),
        positives: Literal["same_state", "same_state_and_time"] = "same_state",
    ) -> None:
        for name, value in (
            ("duration_s", duration_s),
            ("stride_s", stride_s),
            ("open_s", open_s),
            ("closed_s", closed_s),
        ):
            check_positive(name, value)
        if margin_s < 0:
            raise ConfigError(f"margin_s={margin_s} is negative; set it to 0 or more seconds after the instruction.")
        check_one_of("positives", positives, ("same_state", "same_state_and_time"))
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.margin_s = margin_s
        self.open_s = open_s
        self.closed_s = closed_s
        self.tasks = tuple(tasks)
        self.has_few_pairs = positives == "same_state"

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows that lie inside a state and its recording."""
        chosen, left_out = of_tasks(store, self.tasks)
        is_chosen = np.zeros(len(store.index), bool)
        is_chosen[chosen] = True
        events = events_of(store)
        events = events.only(is_chosen[events.recording])
        n_times, stride = in_samples(store, self.duration_s, self.stride_s)
        cue, begin, end = self._states(store, events)
        recording = events.recording[cue]
        n_without = len(chosen) - len(np.unique(recording))
        left_out += counted(n_without, "recordings", "no instructed_toOpenEyes or instructed_toCloseEyes")
        begin = begin + round(self.margin_s * store.sfreq)
        n_windows = np.maximum((end - begin - n_times) // stride + 1, 0)
        left_out += counted(int((n_windows == 0).sum()), "states", "too short for a window after the margin")
        runs = Runs(n_windows)
        is_closed = events.is_one_of(["instructed_toCloseEyes"])[cue]
        codes = pair_codes(CUES.values())
        pair = np.where(is_closed, codes["eyes_closed"], codes["eyes_open"]).astype(np.int64)
        table = WindowTable(
            Column(runs, recording),
            Column(runs, begin, stride),
            n_times,
            pair=Column(runs, pair, 0 if self.has_few_pairs else milliseconds(stride, store.sfreq)),
            targets={"eyes_closed": Column(runs, is_closed.astype(np.float32))},
        )
        return not_empty(table, left_out, store, self), left_out

    def _states(self, store: Store, events: EventTable) -> tuple[Ints, Ints, Ints]:
        """Places of the instructions in ``events``, and first and last sample of the state that each begins."""
        sample = events.onset_sample(store.sfreq)
        cue = np.flatnonzero(events.is_one_of(CUES)).astype(np.int64)
        is_closed = events.is_one_of(["instructed_toCloseEyes"])[cue]
        longest = np.where(is_closed, round(self.closed_s * store.sfreq), round(self.open_s * store.sfreq))
        length = store.index["n_times"].astype(np.int64)[events.recording[cue]]
        after = np.minimum(cue + 1, len(events) - 1)
        is_followed = (cue + 1 < len(events)) & (events.recording[after] == events.recording[cue])
        until = np.where(is_followed, sample[after], length)
        return cue, sample[cue], np.minimum(np.minimum(sample[cue] + longest, until), length)
