"""What a representation has learned, in numbers: what people share in a film, and how the vectors are spread."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError

Array = npt.NDArray[np.float64]
LEAST_TIMES = 5  # that a person shares with others, to be counted
_FLAT = 1e-6  # of the largest value: a course that varies less does not vary


@dataclass(frozen=True)
class Synchrony:
    """Inter-subject correlation of a film, beside what turned time courses give.

    Parameters
    ----------
    isc : float
        In [-1, 1]; NaN without two people.
    shuffled_mean, shuffled_q95 : float
        Mean and 95 % quantile over the shuffles.
    p : float
        ``(1 + shuffles at or above isc) / (1 + shuffles)``.
    n_people, n_times : int
        People counted, moments of the film that somebody saw.
    moment_found, moment_chance : float
        As `moment_found` gives them.
    """

    isc: float
    shuffled_mean: float
    shuffled_q95: float
    p: float
    n_people: int
    n_times: int
    moment_found: float
    moment_chance: float


def inter_subject_correlation(course: npt.ArrayLike, known: npt.ArrayLike | None = None) -> float:
    """Mean correlation of each person's time course with the mean of the others' (leave one out).

    Each dimension of each person is standardised over time before the others are averaged, Pearson's correlation is
    taken per dimension, and the mean over people and dimensions is given (Hasson et al. 2004,
    doi:10.1126/science.1089506; in the form of Nastase et al. 2019, doi:10.1093/scan/nsz037). Dimensions that do not
    vary, and people who share fewer than 5 times with another, are left out.

    Parameters
    ----------
    course : (P, T, E)
        Value of each person at each time, in E dimensions.
    known : bool (P, T), optional
        False where a person has no value; all are known if left out.

    Returns
    -------
    float
        In [-1, 1]; NaN where fewer than two people are left.
    """
    return _correlation(*_standardised(course, known))


def synchrony(
    course: npt.ArrayLike, known: npt.ArrayLike | None = None, n_shuffles: int = 200, seed: int = 0
) -> Synchrony:
    """`inter_subject_correlation` beside that of time courses which were turned against each other.

    A shuffle turns each person's course by a number of places drawn from all, round the end of the film. That breaks
    what people share at a time and keeps how each course hangs together in time; dealing out single moments would not,
    and would find slow courses of strangers synchronous.

    Parameters
    ----------
    course, known
        As in `inter_subject_correlation`.
    n_shuffles : int
        At least 1.
    seed : int
        Seed of the shuffles.
    """
    if n_shuffles < 1:
        raise ConfigError(f"n_shuffles={n_shuffles} must be at least 1; 200 is a good number.")
    value, is_known = _standardised(course, known)
    isc, moment = _correlation(value, is_known), _moment_found(value, is_known)
    draw = np.random.default_rng(seed)
    shuffled = np.array([_correlation(*_turned(value, is_known, draw)) for _ in range(n_shuffles)])
    shuffled = shuffled[np.isfinite(shuffled)]
    n_shared = (is_known & (is_known.sum(axis=0) > 1)).sum(axis=1)
    n_people, n_times = int((n_shared >= LEAST_TIMES).sum()), int(is_known.any(axis=0).sum())
    if not np.isfinite(isc) or not len(shuffled):
        return Synchrony(isc, float("nan"), float("nan"), float("nan"), n_people, n_times, *moment)
    p = (1 + int((shuffled >= isc).sum())) / (1 + len(shuffled))
    q95 = float(np.quantile(shuffled, 0.95))
    return Synchrony(isc, float(shuffled.mean()), q95, p, n_people, n_times, *moment)


def moment_found(course: npt.ArrayLike, known: npt.ArrayLike | None = None) -> tuple[float, float]:
    """How often a moment of the film is told from a person's vector by the vectors of the others, and chance.

    Courses are standardised as in `inter_subject_correlation`. A moment is found if, of all moments that the person
    shares with another, the others' mean vector is likest there, by cosine. Both numbers are means over people who
    share at least 5 moments; chance is 1 over the number of moments.

    Parameters
    ----------
    course, known
        As in `inter_subject_correlation`.

    Returns
    -------
    tuple of float
        Share found and chance, in [0, 1]; NaN without two people.
    """
    return _moment_found(*_standardised(course, known))


def time_courses(
    value: npt.ArrayLike, person: npt.NDArray[np.integer], time: npt.NDArray[np.integer]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Vectors of windows as courses (P, T, E) by person and time, ascending, and which are there (P, T).

    Parameters
    ----------
    value : (N, E)
        Vector of each window; windows of one person at one time are averaged.
    person, time : int (N,)
        Whose it is, and when in the film.
    """
    vectors = np.asarray(value, np.float64)
    people, row = np.unique(person, return_inverse=True)
    times, column = np.unique(time, return_inverse=True)
    total = np.zeros((len(people), len(times), vectors.shape[1]))
    count = np.zeros((len(people), len(times)), np.int64)
    np.add.at(total, (row, column), vectors)
    np.add.at(count, (row, column), 1)
    return total / np.maximum(count, 1)[:, :, None], count > 0


def alignment(rows: npt.ArrayLike, pair: npt.NDArray[np.integer], person: npt.NDArray[np.integer]) -> float:
    """Mean squared distance of unit vectors (N, E) of equal ``pair`` (N,) and different ``person`` (N,).

    Lower is better; NaN where no two people share a pair, and -1 is no pair (Wang & Isola 2020, arXiv:2005.10242, with
    alpha = 2).
    """
    has_pair = pair >= 0
    unit, pair, person = _unit(rows)[has_pair], pair[has_pair], person[has_pair]
    products = n_couples = 0.0  # over all couples of a pair, less those of one person
    for codes, sign in ((pair[None], 1), (np.stack([pair, person]), -1)):
        _, group = np.unique(codes, axis=1, return_inverse=True)
        group = group.reshape(-1)
        total = np.zeros((int(group.max(initial=-1)) + 1, unit.shape[1]))
        np.add.at(total, group, unit)
        products += sign * float((total**2).sum())
        n_couples += sign * float((np.bincount(group).astype(np.float64) ** 2).sum()) if len(group) else 0.0
    return 2 - 2 * products / n_couples if n_couples else float("nan")


def uniformity(rows: npt.ArrayLike) -> float:
    """Logarithm of the mean of ``exp(-2 d^2)`` over all pairs of unit vectors (N, E); lower is better, 0 = all alike.

    Wang & Isola 2020, arXiv:2005.10242, with t = 2.
    """
    unit = _unit(rows)
    squared = np.maximum(2 - 2 * unit @ unit.T, 0)
    return float(np.log(np.exp(-2 * squared[np.triu_indices(len(unit), 1)]).mean()))


def effective_rank(rows: npt.ArrayLike) -> float:
    """Exponential of the entropy of the normalised singular values of centred vectors (N, E): 1 to E.

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality" (EUSIPCO). 0 where all are alike.
    """
    centred = np.asarray(rows, np.float64)
    centred = centred - centred.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    if not values.sum() > 0:
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _unit(rows: npt.ArrayLike) -> Array:
    vectors = np.asarray(rows, np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _standardised(course: npt.ArrayLike, known: npt.ArrayLike | None) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Courses (P, T, E) of mean 0 and variance 1 over each person's times, 0 where unknown or flat; known (P, T)."""
    value = np.asarray(course, np.float64)
    is_known = np.ones(value.shape[:2], bool) if known is None else np.asarray(known, bool)
    value = np.where(is_known[:, :, None], value, 0.0)
    n = np.maximum(is_known.sum(axis=1), 1)[:, None, None]
    centred = np.where(is_known[:, :, None], value - value.sum(axis=1, keepdims=True) / n, 0.0)
    sd = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    varies = sd > _FLAT * np.abs(value).max(axis=1, keepdims=True)
    return np.where(varies, centred / np.where(varies, sd, 1), 0.0), is_known


def _correlation(value: Array, known: npt.NDArray[np.bool_]) -> float:
    """Leave-one-out correlation of standardised courses (P, T, E), averaged over people and dimensions."""
    n_others = np.asarray(known.sum(axis=0)[None, :] - known, np.int64)  # (P, T): who else was there
    shared = known & (n_others > 0)  # (P, T)
    is_long = np.asarray(shared.sum(axis=1) >= LEAST_TIMES, bool)
    others = (value.sum(axis=0)[None] - value) / np.maximum(n_others, 1)[:, :, None]  # (P, T, E)
    n = np.asarray(np.maximum(shared.sum(axis=1), 1))[:, None, None]
    weight = shared[:, :, None]
    mine, theirs = (
        np.where(weight, one - (one * weight).sum(axis=1, keepdims=True) / n, 0.0) for one in (value, others)
    )
    scale = np.sqrt((mine**2).sum(axis=1) * (theirs**2).sum(axis=1))  # (P, E)
    usable = is_long[:, None] & (scale > _FLAT)
    if usable.any(axis=1).sum() < 2:
        return float("nan")
    found = np.divide((mine * theirs).sum(axis=1), scale, out=np.full(scale.shape, np.nan), where=usable)
    found = found[usable.any(axis=1)]
    return float(np.nanmean(found, axis=1).mean())


def _moment_found(value: Array, known: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """`moment_found` of standardised courses (P, T, E)."""
    n_others = known.sum(axis=0)[None, :] - known  # (P, T)
    total = value.sum(axis=0)
    found, chance = [], []
    for own, is_shared in zip(value, known & (n_others > 0), strict=True):
        if is_shared.sum() < LEAST_TIMES:
            continue
        mine, others = _unit(own[is_shared]), _unit((total - own)[is_shared])
        found.append(float((np.argmax(mine @ others.T, axis=1) == np.arange(len(mine))).mean()))
        chance.append(1 / len(mine))
    return (float(np.mean(found)), float(np.mean(chance))) if found else (float("nan"), float("nan"))


def _turned(
    value: Array, known: npt.NDArray[np.bool_], draw: np.random.Generator
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Each person's course turned by a random number of places."""
    n_people, n_times = known.shape
    by = draw.integers(0, n_times, (n_people, 1))
    place = (np.arange(n_times)[None, :] + by) % n_times
    return np.take_along_axis(value, place[:, :, None], axis=1), np.take_along_axis(known, place, axis=1)
