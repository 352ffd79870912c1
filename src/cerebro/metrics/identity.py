"""Who is it: how well a window's features tell the person, with other windows of the same people to compare with.

People differ in their EEG for reasons that have nothing to do with what is asked of a model, so that features can sort
people without saying anything of their brains. The people are the same on both sides here, and the windows are apart.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf

from cerebro.errors import DataError

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RULE = (
    "people with two recordings or more: the first half of their recordings is known and the windows of the others are "
    "named; people with one: the first half of its windows is known, and those windows are named that begin at least "
    "one window's length after it"
)


@dataclass(frozen=True)
class Identified:
    """Windows that were given a name.

    Parameters
    ----------
    row : int64 (M,)
        Row of each window among those that came.
    truth, prediction : int64 (M,)
        Number of the person among the candidates, who are 0 ... ``n_people`` - 1.
    n_people : int
        Candidates; chance is one in so many.
    n_known : int
        Windows to compare with.
    n_left_out : int
        People who were left out by the cap, or have no windows on one of the two sides.
    """

    row: Ints
    truth: Ints
    prediction: Ints
    n_people: int
    n_known: int
    n_left_out: int


def separate_in_time(
    participant: Ints, recording: Ints, span_s: Array
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which windows are known and which are to be named, by `RULE`; no two of them overlap.

    Parameters
    ----------
    participant, recording : int64 (N,)
        Whose window it is, and of which recording.
    span_s : array (N, 2)
        Beginning and end of the window in its recording, in seconds.
    """
    known, named = np.zeros(len(participant), bool), np.zeros(len(participant), bool)
    order = np.lexsort((span_s[:, 0], recording, participant))
    borders = np.flatnonzero(np.diff(participant[order])) + 1
    for rows in np.split(order, borders) if len(order) else []:  # one person, by recording and time
        recordings = np.unique(recording[rows])
        if len(recordings) > 1:
            is_known = np.isin(recording[rows], recordings[: len(recordings) // 2])
            known[rows], named[rows] = is_known, ~is_known
            continue
        first, rest = np.split(rows, [len(rows) // 2])
        if len(first):
            gap_s = float(np.ptp(span_s[rows], axis=1).max())
            known[first] = True
            named[rest] = span_s[rest, 0] >= span_s[first, 1].max() + gap_s
    return known, named


def identify(
    features: npt.ArrayLike, participant: Ints, recording: Ints, span_s: Array, max_people: int = 50, seed: int = 0
) -> Identified:
    """Give each window the person whose known windows are nearest.

    Distances go to the mean of each person's known windows, in the metric of the covariance within people, which is
    shrunk by the rule of Ledoit and Wolf (2004, J. Multivariate Analysis 88): linear discriminant analysis with equal
    priors.

    Parameters
    ----------
    features : array (N, F)
        One row per window.
    participant, recording, span_s
        As for `separate_in_time`.
    max_people : int
        Candidates at most, drawn by ``seed``; 0 = everyone.
    seed : int
        Seed of the draw.

    Raises
    ------
    DataError
        If fewer than two people have windows that are far enough apart.
    """
    x = np.asarray(features, np.float64)
    known, named = separate_in_time(participant, recording, span_s)
    everyone = np.unique(participant)
    people = np.intersect1d(participant[known], participant[named])
    if len(people) < 2:
        raise DataError(
            f"{len(people)} of {len(everyone)} participants have windows that are far enough apart to be told from "
            "others; give that side more people or longer recordings (data.split, data.windows, max_windows)."
        )
    if max_people and len(people) > max_people:
        people = np.sort(np.random.default_rng(seed).choice(people, max_people, replace=False))
    chosen = np.isin(participant, people)
    known, named = known & chosen, named & chosen
    number = np.searchsorted(people, participant)
    centre, scale = x[known].mean(axis=0), x[known].std(axis=0)
    standard = (x - centre) / np.where(scale > 0, scale, 1.0)
    means = np.stack([standard[known & (number == one)].mean(axis=0) for one in range(len(people))])  # (people, F)
    within = standard[known] - means[number[known]]
    covariance = ledoit_wolf(within, assume_centered=True)[0]
    size = float(np.trace(covariance)) / len(covariance)
    covariance = covariance + 1e-6 * size * np.eye(len(covariance)) if size > 0 else np.eye(len(covariance))
    weight = np.linalg.solve(covariance, means.T)  # (F, people)
    closeness = standard[named] @ weight - 0.5 * (means * weight.T).sum(axis=1)
    row = np.flatnonzero(named)
    return Identified(
        row=row,
        truth=number[row].astype(np.int64),
        prediction=closeness.argmax(axis=1).astype(np.int64),
        n_people=len(people),
        n_known=int(known.sum()),
        n_left_out=len(everyone) - len(people),
    )
