"""What was planted in a cohort and how well it can be found: the content of `ground_truth.json`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.simulate.presets import TRAIT_TARGETS, Strength
from cerebro.simulate.reference import FEATURES, cross_validated, held_out, nrmse
from cerebro.simulate.traits import Person, expected_response_time, expected_traits

Floats = npt.NDArray[np.float64]

TARGETS = (*TRAIT_TARGETS, "response_time")
HOLDOUT = "R5"


@dataclass(frozen=True)
class Participant:
    """One member of a cohort."""

    number: int
    name: str
    release: str
    person: Person
    defects: frozenset[str]


@dataclass(frozen=True)
class Recorded:
    """What one recording shows (see `reference.Measurement`).

    Each of ``trials`` is (response time in s, planted feature, parietal potential, log theta power); trials without a
    response are left out.
    """

    participant: int
    name: str
    features: tuple[float, ...]
    trials: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Rows:
    """Samples of one target: true values, best guess with the planted feature known, measured features."""

    target: Floats
    expected: Floats
    measured: Floats
    people: npt.NDArray[np.int64]

    def scores(self) -> tuple[float, float]:
        """NRMSE with the planted feature known, and of ridge on the measured features, over left-out people."""
        guess = cross_validated(self.measured, self.target, self.people)
        return nrmse(self.target, self.expected), nrmse(self.target, guess)


def ground_truth(strength: Strength, people: list[Participant], recorded: list[Recorded]) -> dict[str, Any]:
    """Content of ``ground_truth.json``: couplings, latent values, defects, oracle and reference scores.

    Missing factors do not count. ``strength`` holds the couplings after scaling by the effect.
    """
    rows = {target: trait_rows(target, k, strength, people, recorded) for k, target in enumerate(TRAIT_TARGETS)}
    rows["response_time"] = _trial_rows(strength, recorded)
    scores: dict[str, dict[str, float]] = {name: {} for name in ("oracle", "reference", "oracle_r5", "reference_r5")}
    in_holdout = np.array([participant.release == HOLDOUT for participant in people])
    for target, row in rows.items():
        is_test = in_holdout[row.people]
        guess_r5 = held_out(row.measured, row.target, row.people, is_test)
        scores["oracle"][target], scores["reference"][target] = row.scores()
        scores["oracle_r5"][target] = nrmse(row.target[is_test], row.expected[is_test])
        scores["reference_r5"][target] = nrmse(row.target[is_test], guess_r5)
    return {
        "planted_r2": {target: getattr(strength, target) for target in TARGETS},
        "planted_sex_distance": strength.sex_distance,
        "film_uV": strength.film_uV,
        "alpha_closed": strength.alpha_closed,
        "oracle_nrmse": scores["oracle"],
        "reference_nrmse": scores["reference"],
        "holdout": {
            "release": HOLDOUT,
            "oracle_nrmse": scores["oracle_r5"],
            "reference_nrmse": scores["reference_r5"],
        },
        "n_samples": {target: len(row.target) for target, row in rows.items()},
        "participants": {
            participant.name: {"release": participant.release, **described(participant)} for participant in people
        },
        "defects": planted_defects(people),
    }


def described(participant: Participant) -> dict[str, Any]:
    """What is true of one participant, whatever is written of them."""
    person = participant.person
    return {"sex": person.sex, "values": person.values, "scores": person.scores, "features": person.features}


def planted_defects(people: list[Participant]) -> list[dict[str, str]]:
    """Each defect and whose recording has it."""
    return [
        {"kind": kind, "participant": participant.name}
        for participant in people
        for kind in sorted(participant.defects)
    ]


def trait_rows(
    target: str, column: int, strength: Strength, people: list[Participant], recorded: list[Recorded]
) -> Rows:
    """One sample per participant whose label is known; features are means over rest and films."""
    sums = np.zeros((len(people), len(FEATURES)))
    counts = np.zeros(len(people))
    for recording in recorded:
        if recording.features:
            sums[recording.participant] += recording.features
            counts[recording.participant] += 1
    is_known = np.array(["missing-factors" not in p.defects or target == "age" for p in people])
    keep = np.flatnonzero(is_known & (counts > 0))
    planted = np.array([[p.person.features[name] for name in TRAIT_TARGETS] for p in people])
    return Rows(
        target=np.array([people[k].person.values[target] for k in keep]),
        expected=expected_traits(planted, strength)[keep, column],
        measured=sums[keep] / counts[keep, None],
        people=keep.astype(np.int64),
    )


def _trial_rows(strength: Strength, recorded: list[Recorded]) -> Rows:
    """One sample per trial with a response."""
    table = np.array([(r.participant, *trial) for r in recorded for trial in r.trials])
    return Rows(
        target=table[:, 1],
        expected=expected_response_time(table[:, 2], strength),
        measured=table[:, 3:],
        people=table[:, 0].astype(np.int64),
    )
