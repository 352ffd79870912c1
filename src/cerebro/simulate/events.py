"""What happens when in a simulated recording: instructions, films and trials, named and coded as in HBN-EEG.

contrastChangeDetection: a target is a contrast ramp of 2.4 s; `contrastTrial_start` and a pause follow, after which
the next target comes. The response time is that of the first press after the target. As in the real runs some
trials have no press (15 %), some presses name the wrong side (12 %), and after some a second press follows (8 %) that
is no response time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.simulate.presets import Film, Preset
from cerebro.simulate.traits import to_value

Floats = npt.NDArray[np.float64]

TARGET_S = 2.4
REST_LEAD_S = 2.0
CCD_LEAD_S = 2.0
SHARE_WITHOUT_PRESS = 0.15
SHARE_WRONG_SIDE = 0.12
SHARE_SECOND_PRESS = 0.08


@dataclass(frozen=True)
class Row:
    """One line of an events table."""

    onset_s: float
    value: str
    code: str
    feedback: str = "n/a"


@dataclass(frozen=True)
class Trial:
    """One target: when it came, its response time (NaN without a press) and the planted feature of its window."""

    target_s: float
    response_time_s: float
    feature: float


@dataclass(frozen=True)
class Timeline:
    """One recording before any signal exists.

    Parameters
    ----------
    task : str
    run : int
        0 where the task has no runs.
    duration_s : float
        Whole seconds.
    rows : tuple of Row
        Sorted by onset.
    closed : tuple of (start, stop)
        Seconds during which the eyes are closed.
    film_start_s, film_s : float
        When the film starts and how long it runs; 0 and 0 without a film.
    trials : tuple of Trial
    """

    task: str
    run: int
    duration_s: float
    rows: tuple[Row, ...]
    closed: tuple[tuple[float, float], ...] = ()
    film_start_s: float = 0.0
    film_s: float = 0.0
    trials: tuple[Trial, ...] = ()


def resting_state(preset: Preset) -> Timeline:
    """Blocks of open and closed eyes in turn, each announced by an instruction; the last block has open eyes."""
    rows = [Row(0.0, "break cnt", "break cnt"), Row(0.5, "resting_start", "90")]
    closed = []
    now = REST_LEAD_S
    for block in range(preset.rest_blocks):
        is_open = block % 2 == 0
        stop = now + (preset.rest_open_s if is_open else preset.rest_closed_s)
        rows.append(Row(now, "instructed_toOpenEyes", "20") if is_open else Row(now, "instructed_toCloseEyes", "30"))
        if not is_open:
            closed.append((now, stop))
        now = stop
    return Timeline("RestingState", 0, float(np.ceil(now + 1)), tuple(rows), closed=tuple(closed))


def film(preset: Preset, film: Film, rng: np.random.Generator) -> Timeline:
    """One film; it starts 0.6 to 3 s into the recording, at another moment in every person.

    Where the preset shortens films the recording ends while the film runs and has no `video_stop`.
    """
    start = _on_grid(rng.uniform(0.6, 3.0), preset.sfreq)
    rows = [Row(0.0, "9999", "9999"), Row(start, "video_start", str(film.start_code))]
    if film.duration_s > preset.film_s:
        duration_s = float(np.ceil(start + preset.film_s))
        return Timeline(film.task, 0, duration_s, tuple(rows), film_start_s=start, film_s=duration_s - start)
    stop = _on_grid(start + film.duration_s, preset.sfreq)
    rows.append(Row(stop, "video_stop", str(film.stop_code)))
    duration_s = float(np.ceil(stop + 0.5))
    return Timeline(film.task, 0, duration_s, tuple(rows), film_start_s=start, film_s=film.duration_s)


def contrast_change(preset: Preset, run: int, scores: Floats, features: Floats, rng: np.random.Generator) -> Timeline:
    """One run of contrastChangeDetection.

    Parameters
    ----------
    run : int
        1, 2 or 3.
    scores, features : array (n_trials,)
        Normal scores of the response times and the planted features of the trials.
    """
    rows = [Row(0.0, "break cnt", "break cnt"), Row(0.5, f"contrastChangeB{run}_start", str(93 + run))]
    trials = []
    now = CCD_LEAD_S
    for score, feature in zip(scores, features, strict=True):
        rows.append(Row(now, "contrastTrial_start", "5"))
        target = _on_grid(now + float(rng.choice(preset.ccd_pauses_s)), preset.sfreq)
        side = str(rng.choice(("left", "right")))
        rows.append(Row(target, f"{side}_target", _CODES[f"{side}_target"]))
        pressed, wrong, again = rng.random(3)
        delay, later = _on_grid(float(to_value("response_time", np.array(score))), preset.sfreq), rng.uniform(0.2, 0.9)
        response_time = float("nan")
        end = _on_grid(target + TARGET_S + 0.1, preset.sfreq)
        if pressed >= SHARE_WITHOUT_PRESS:
            response_time = delay
            pressed_side = side if wrong >= SHARE_WRONG_SIDE else ("left" if side == "right" else "right")
            name = f"{pressed_side}_buttonPress"
            feedback = "smiley_face" if pressed_side == side else "sad_face"
            rows.append(Row(_on_grid(target + delay, preset.sfreq), name, _CODES[name], feedback))
            second = _on_grid(target + delay + later, preset.sfreq)
            if again < SHARE_SECOND_PRESS and second < end:
                rows.append(Row(second, name, _CODES[name], "non_target"))
        trials.append(Trial(target, response_time, float(feature)))
        now = end
    rows.append(Row(now, "contrastTrial_start", "5"))
    return Timeline("contrastChangeDetection", run, float(np.ceil(now + 0.5)), tuple(rows), trials=tuple(trials))


_CODES = {"left_target": "8", "right_target": "9", "left_buttonPress": "12", "right_buttonPress": "13"}


def _on_grid(seconds: float, sfreq: float) -> float:
    return round(round(seconds * sfreq) / sfreq, 6)
