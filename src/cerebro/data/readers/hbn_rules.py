"""What the events of an HBN-EEG recording must look like, and what is done where they do not.

The figures come from the metadata of releases R1, R2, R3 and R5 (OpenNeuro ds005505, ds005506, ds005507, ds005509);
``docs/reference/hbn_rules.md`` lists every rule with its counts.
"""

import itertools
import math

from cerebro.data.readers.base import Event, Finding

# Seconds between video_start and video_stop: medians over the four releases, whose runs agree within 0.15 s.
FILM_SECONDS = {"DespicableMe": 170.55, "DiaryOfAWimpyKid": 117.39, "FunwithFractals": 162.99, "ThePresent": 203.07}
FILM_TOLERANCE_S = 1.0
START, STOP = "video_start", "video_stop"


def film_events(
    film: str, events: tuple[Event, ...], duration_s: float, where: str
) -> tuple[tuple[Event, ...], list[Finding]]:
    """Events of a film run with exactly one trusted start and at most one stop, or with neither.

    A recording may hold several films, a film that was broken off, or another film than its name says. The start is
    trusted whose stop comes after the film's own length, and a single start without stop in a recording that ends
    before the film would; no stop is made up for it, as that would look like a film of another length. Where there is
    no such start, the start and stop events go, so that the recording still serves pretraining and yields no film pair.

    Parameters
    ----------
    film : str
        One of ``FILM_SECONDS``.
    events : tuple of Event
        Sorted by onset.
    duration_s : float
        Length of the recording; NaN if unknown.
    where : str
        Key of the recording.
    """
    length = FILM_SECONDS[film]
    marks = [event for event in events if event.name in (START, STOP)]
    others = [event for event in events if event.name not in (START, STOP)]
    n_starts = sum(event.name == START for event in marks)
    if n_starts == 0:
        return tuple(others), [Finding("film-without-start", "repaired", where, "kept without film pairs")]
    runs = [(a, b) for a, b in itertools.pairwise(marks) if (a.name, b.name) == (START, STOP)]
    whole = [run for run in runs if abs(run[1].onset_s - run[0].onset_s - length) <= FILM_TOLERANCE_S]
    if whole:
        findings = []
        if len(marks) > 2:
            detail = f"{n_starts} film starts; kept the one that runs for {length:g} s (at {whole[0][0].onset_s:g} s)"
            findings.append(Finding("film-several-starts", "repaired", where, detail))
        return _sorted([*others, *whole[0]]), findings
    is_cut_off = len(marks) == 1 and not duration_s > marks[0].onset_s + length + FILM_TOLERANCE_S
    if is_cut_off:
        lasted = "" if math.isnan(duration_s) else f" after {min(duration_s - marks[0].onset_s, length):.0f}"
        detail = f"no stop; the film ends with the recording{lasted} of {length:.0f} s"
        return _sorted([*others, *marks]), [Finding("film-without-stop", "repaired", where, detail)]
    seen = ", ".join(f"{b.onset_s - a.onset_s:.1f}" for a, b in runs) or "no"
    detail = f"{film} lasts {length:g} s, found {seen} s between start and stop; kept without film pairs"
    return tuple(others), [Finding("film-length", "repaired", where, detail)]


def resting_findings(events: tuple[Event, ...], where: str) -> list[Finding]:
    """Resting runs without eyes cues, or that run on into another task; both are kept."""
    findings = []
    if not any(event.name.startswith("instructed_to") for event in events):
        findings.append(Finding("resting-without-cues", "repaired", where, "kept without eyes open or closed"))
    later = [event for event in events if event.name in (START, "seqLearning_start")]
    if later:
        detail = f"runs on into another task ({later[0].name} at {later[0].onset_s:.0f} s); kept whole"
        findings.append(Finding("resting-runs-on", "repaired", where, detail))
    return findings


def contrast_change_findings(events: tuple[Event, ...], columns: tuple[str, ...], where: str) -> list[Finding]:
    """Contrast-change runs without feedback column or without targets; both are kept."""
    findings = []
    if events and "feedback" not in columns:
        findings.append(Finding("ccd-without-feedback", "repaired", where, "response times come from presses alone"))
    if not any(event.name.endswith("_target") for event in events):
        findings.append(Finding("ccd-without-targets", "repaired", where, "kept without response times"))
    return findings


def _sorted(events: list[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: (event.onset_s, event.name)))
