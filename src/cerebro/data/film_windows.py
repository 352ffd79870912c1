"""Windows of films that several people saw, aligned by the film's start."""

from typing import Literal

import numpy as np

from cerebro.data.columns import Column, Runs
from cerebro.data.event_table import events_of, single_event
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

FILMS = ("DespicableMe", "DiaryOfAWimpyKid", "FunwithFractals", "ThePresent")


class FilmWindows(WindowSource):
    """Windows of films, counted from ``video_start``: equal ``pair`` = same film at the same time.

    With ``positives: same_film_any_time`` equal ``pair`` = same film, whenever: a positive may then come from any place
    of the film, and negatives are other films only, of which two at least are needed. That asks of a model what film
    it was, and no longer what was seen; it is for cohorts too small for shared moments.

    The film ends at ``video_stop``, or after the film's median length where that event is missing. A recording whose
    film is more than 1 s longer or shorter than the median shows another film under this name and is left out.

    Parameters
    ----------
    duration_s, stride_s : float
        Length of a window; distance from one start to the next.
    films : tuple of str
        Tasks that are films.
    positives : {"same_time", "same_film_any_time"}
        What counts as a positive, in another person.
    """

    def __init__(
        self,
        duration_s: float = 2.0,
        stride_s: float = 2.0,
        films: tuple[str, ...] = FILMS,
        positives: Literal["same_time", "same_film_any_time"] = "same_time",
    ) -> None:
        check_positive("duration_s", duration_s)
        check_positive("stride_s", stride_s)
        check_one_of("positives", positives, ("same_time", "same_film_any_time"))
        self.duration_s = duration_s
        self.stride_s = stride_s
        self.films = tuple(films)
        self.has_few_pairs = positives == "same_film_any_time"

    def table(self, store: Store) -> tuple[WindowTable, list[Omission]]:
        """Windows from ``video_start`` on that lie inside film and recording."""
        if not self.films:
            raise ConfigError("films is empty; set films to the tasks that are films, such as ThePresent.")
        chosen, left_out = of_tasks(store, self.films)
        n_times, stride = in_samples(store, self.duration_s, self.stride_s)
        events = events_of(store)
        begins, ends = (single_event(store, events, name) for name in ("video_start", "video_stop"))
        has_start = begins[chosen] >= 0
        left_out += counted(int((~has_start).sum()), "recordings", "not exactly one video_start")
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
        left_out += counted(int(is_other.sum()), "recordings", "a film more than 1 s longer or shorter than its median")
        chosen, expected = chosen[~is_other], expected[~is_other]
        inside = store.index["n_times"].astype(np.int64)[chosen] - begins[chosen]
        known_length = np.where(length[chosen] >= 0, length[chosen], np.where(expected >= 0, expected, inside))
        n_windows = np.maximum((np.minimum(known_length, inside) - n_times) // stride + 1, 0)
        left_out += counted(int((n_windows == 0).sum()), "recordings", f"less than {self.duration_s:g} s of film")
        runs = Runs(n_windows)
        codes = pair_codes(self.films)
        pair = np.array([codes[str(name)] for name in film[chosen]], np.int64)
        step_ms = milliseconds(stride, store.sfreq)
        table = WindowTable(
            Column(runs, chosen.astype(np.int32)),
            Column(runs, begins[chosen], stride),
            n_times,
            pair=Column(runs, pair, 0 if self.has_few_pairs else step_ms),
            film_ms=Column(runs, np.zeros_like(pair), step_ms),
        )
        return not_empty(table, left_out, store, self), left_out
