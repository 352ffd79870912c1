"""What each mode of the HBN reader takes, and what it leaves out: a purpose, its tasks, what a recording must have."""

from collections.abc import Callable, Sequence
from typing import Literal

from cerebro.data.readers.base import Event, Finding
from cerebro.data.readers.hbn_rules import START
from cerebro.errors import ConfigError, check_one_of

Mode = Literal["pretrain", "movies", "resting", "challenge1", "challenge2"]

FILMS = ("DespicableMe", "DiaryOfAWimpyKid", "FunwithFractals", "ThePresent")
TASKS = (
    "RestingState",
    *FILMS,
    "contrastChangeDetection",
    "surroundSupp",
    "seqLearning6target",
    "seqLearning8target",
    "symbolSearch",
)
FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
START_KIT_SECONDS = 4.0  # the challenge's start kit takes no shorter recording
MODE_TASKS: dict[Mode, tuple[str, ...]] = {
    "pretrain": TASKS,
    "movies": FILMS,
    "resting": ("RestingState",),
    "challenge1": ("contrastChangeDetection",),
    "challenge2": ("contrastChangeDetection",),
}


def tasks_of(mode: Mode, tasks: tuple[str, ...], min_duration_s: float) -> tuple[str, ...]:
    """Tasks to read: those asked for, or all that the mode has.

    Raises
    ------
    ConfigError
        If the mode or a task is unknown, the mode does not have the task, or the shortest duration is below the 4 s
        that Challenge 2 asks for.
    """
    check_one_of("mode", mode, tuple(MODE_TASKS))
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise ConfigError(f"HBN has no task {', '.join(unknown)}; set tasks to some of {', '.join(TASKS)}.")
    foreign = sorted(set(tasks) - set(MODE_TASKS[mode]))
    if foreign:
        raise ConfigError(
            f"mode {mode} does not read task {', '.join(foreign)}; set tasks to some of {', '.join(MODE_TASKS[mode])}, "
            "leave tasks out, or set mode to pretrain."
        )
    if mode == "challenge2" and min_duration_s < START_KIT_SECONDS:
        raise ConfigError(
            f"min_duration_s={min_duration_s:g} is below the {START_KIT_SECONDS:g} s that mode challenge2 asks for; "
            "raise it or set mode to pretrain."
        )
    return tuple(tasks) or MODE_TASKS[mode]


def left_out_by_mode(mode: Mode, events: tuple[Event, ...], where: str, rules: Sequence[str] = ()) -> Finding | None:
    """The finding that leaves a recording out of a mode, if it lacks what the mode is for; None keeps it.

    Parameters
    ----------
    mode : str
        Mode of the reader.
    events : tuple of Event
        Sorted by onset, after the rules of `hbn_rules`.
    where : str
        Key of the recording.
    rules : sequence of str
        Rules that its events met, to be named in the finding.
    """
    needs: dict[str, tuple[Callable[[tuple[Event, ...]], bool], str, str]] = {
        "movies": (_has_film, "no-trusted-film", "no film start that can be trusted"),
        "resting": (_has_eyes_cues, "no-eyes-cues", "no instructed_toOpenEyes or instructed_toCloseEyes"),
        "challenge1": (_has_response, "no-response", "no target that was answered by a press"),
    }
    if mode not in needs:
        return None
    has_it, rule, detail = needs[mode]
    if has_it(events):
        return None
    why = f" ({', '.join(rules)})" if rules else ""
    return Finding(rule, "skipped", where, f"{detail}{why}; mode {mode} leaves it out")


def _has_film(events: tuple[Event, ...]) -> bool:
    return any(event.name == START for event in events)


def _has_eyes_cues(events: tuple[Event, ...]) -> bool:
    return any(event.name in ("instructed_toOpenEyes", "instructed_toCloseEyes") for event in events)


def _has_response(events: tuple[Event, ...]) -> bool:
    """Whether a press follows some target before the next target or trial."""
    is_open = False
    for event in events:
        if event.name.endswith("_target"):
            is_open = True
        elif event.name.endswith("Trial_start"):
            is_open = False
        elif is_open and event.name.endswith("_buttonPress"):
            return True
    return False
