"""Modes of the HBN reader: which tasks, what a recording must have, and what is counted."""

import itertools

import pytest

from cerebro.data.readers import HBN
from cerebro.data.readers.base import Event
from cerebro.data.readers.hbn_modes import MODE_TASKS, left_out_by_mode
from cerebro.errors import ConfigError

FILM = (("1.0", "video_start"), ("171.55", "video_stop"))
TRIAL = (("1.0", "contrastTrial_start"), ("1.5", "left_target"), ("2.9", "left_buttonPress"))
CUES = (("1.0", "instructed_toOpenEyes"), ("4.0", "instructed_toCloseEyes"))


@pytest.fixture
def cohort(release):
    """Two people: A is sound in every task, B lacks in every task what a mode asks for, and B's factors."""
    folder = release()
    known = {"p_factor": "0.1", "attention": "0", "internalizing": "0", "externalizing": "0.5"}
    folder.participants({"participant_id": "sub-A", **known}, {"participant_id": "sub-B"})
    for person, has_all in (("sub-A", True), ("sub-B", False)):
        long = {"duration_s": 300.0}
        folder.recording(person, "DespicableMe", events=FILM if has_all else FILM[1:], **long)
        folder.recording(person, "RestingState", events=CUES if has_all else (("1", "resting_start"),))
        events = TRIAL if has_all else TRIAL[:2]
        folder.recording(person, "contrastChangeDetection", run=1, events=events, columns=("feedback",))
        folder.recording(person, "symbolSearch", events=())
    return folder.folder


def of_mode(root, mode, **keys):
    scan = HBN(root, mode=mode, **keys).scan()
    return {f"{entry.participant} {entry.task}" for entry in scan.entries}, {
        f"{finding.severity}:{finding.rule} {finding.where.split('/')[-1]}" for finding in scan.findings
    }


def test_pretraining_takes_every_recording(cohort):
    used, _ = of_mode(cohort, "pretrain")
    tasks = ("DespicableMe", "RestingState", "contrastChangeDetection", "symbolSearch")
    assert used == {f"{person} {task}" for person in ("sub-A", "sub-B") for task in tasks}


@pytest.mark.parametrize(
    ("mode", "task", "rule", "why"),
    [
        ("movies", "DespicableMe", "no-trusted-film", "film-without-start"),
        ("resting", "RestingState", "no-eyes-cues", "resting-without-cues"),
        ("challenge1", "contrastChangeDetection", "no-response", ""),
    ],
)
def test_a_mode_leaves_out_what_lacks_its_events_and_says_why(cohort, mode, task, rule, why):
    used, found = of_mode(cohort, mode)
    assert used == {f"sub-A {task}"}
    run = "_run-1" if mode == "challenge1" else ""
    assert found == {f"skipped:{rule} sub-B_task-{task}{run}"}
    (finding,) = HBN(cohort, mode=mode).scan().findings
    assert why in finding.detail
    assert f"mode {mode} leaves it out" in finding.detail


def test_challenge_2_keeps_people_whose_factors_are_unknown_and_counts_them(cohort):
    used, found = of_mode(cohort, "challenge2")
    assert used == {"sub-A contrastChangeDetection", "sub-B contrastChangeDetection"}
    assert found == {"repaired:factors-missing sub-B"}
    assert HBN(cohort, mode="challenge2").scan().participants.loc["sub-B"].isna()["externalizing"]


def test_tasks_narrow_a_mode_and_must_not_contradict_it(cohort):
    assert of_mode(cohort, "movies", tasks=("DespicableMe",))[0] == {"sub-A DespicableMe"}
    with pytest.raises(ConfigError, match="mode resting does not read task DespicableMe; set tasks to some of Resting"):
        HBN(cohort, mode="resting", tasks=("DespicableMe", "RestingState"))
    with pytest.raises(ConfigError, match="below the 4 s that mode challenge2 asks for"):
        HBN(cohort, mode="challenge2", min_duration_s=2.0)


def test_modes_cover_ten_tasks_and_four_films():
    assert len(set(MODE_TASKS["pretrain"])) == 10
    assert all(set(tasks) <= set(MODE_TASKS["pretrain"]) for tasks in MODE_TASKS.values())
    assert len(MODE_TASKS["movies"]) == 4


def test_a_response_is_a_press_after_a_target_and_before_the_next_target_or_trial():
    names = ("left_target", "right_buttonPress", "contrastTrial_start", "other")
    for sequence in itertools.product(names, repeat=4):
        text = "".join(
            {"left_target": "t", "right_buttonPress": "p", "contrastTrial_start": "s"}.get(n, "") for n in sequence
        )
        events = tuple(Event(float(at), name) for at, name in enumerate(sequence))
        assert (left_out_by_mode("challenge1", events, "x") is None) == ("tp" in text), sequence
