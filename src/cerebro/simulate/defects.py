"""Defects of the real data, planted in a stated, seeded few, so that every rule of a reader has something to meet.

Each kind below exists in HBN-EEG (releases R1 to R11); its share of participants is set here, with at least one case in
every cohort. What was planted where is listed in `ground_truth.json`. Besides these, all participants of R3 lack
`EEGChannelCount`, as there, and no recording has an electrodes file.
"""

from collections.abc import Mapping

import numpy as np

SHARES: dict[str, float] = {
    "no-events-file": 0.01,  # ThePresent without events.tsv
    "no-video-start": 0.02,  # DespicableMe without video_start and video_stop
    "six-channel-recording": 0.01,  # FunwithFractals with E1..E6 only
    "shortest-recording": 0.01,  # DiaryOfAWimpyKid of about a hundredth of a second
    "no-eyes-cues": 0.01,  # RestingState without instructed_toOpenEyes and instructed_toCloseEyes
    "no-feedback-column": 0.01,  # first run of contrastChangeDetection
    "unknown-units": 0.02,  # every channels.tsv says n/a for type and unit
    "unavailable-film": 0.05,  # the cell of ThePresent says unavailable, no file is there
    "caution-rest": 0.05,  # the cell of RestingState says caution
    "missing-factors": 0.02,  # p_factor, attention, internalizing and externalizing are n/a
}


def plan_defects(n_participants: int, seed: int, shares: Mapping[str, float] = SHARES) -> list[frozenset[str]]:
    """Kinds of defect of each participant; no one has two while there are enough people."""
    rng = np.random.default_rng([seed, 0xDEFEC7])
    order = rng.permutation(n_participants)
    kinds: list[set[str]] = [set() for _ in range(n_participants)]
    drawn = 0
    for kind, share in shares.items():
        for _ in range(min(n_participants, max(1, round(share * n_participants)))):
            kinds[order[drawn % n_participants]].add(kind)
            drawn += 1
    return [frozenset(kind) for kind in kinds]
