"""Traits of simulated people, the spectral features tied to them, and how well a trait can be known from them.

Every trait has a normal score z. Its planted feature is ``f = r z + sqrt(1 - r**2) e`` with e an independent normal
number, so that f explains ``R2 = r**2`` of z. Values come from z through the marginals of the real people of HBN-EEG
(quantiles over releases R1, R2, R3 and R5, Shirazi et al. 2024, doi:10.1101/2024.10.03.615261); scores of different
traits correlate as theirs do. Which feature goes with which trait follows reports from real EEG:

p_factor
    amplitude of frontal-midline theta, relative to the rest of the spectrum (theta/beta ratio and attention disorders:
    Arns et al. 2013, doi:10.1177/1087054712460087).
attention
    amplitude of sensorimotor beta (the other half of the same ratio).
internalizing
    asymmetry of frontal alpha (Thibodeau et al. 2006, doi:10.1037/0021-843X.115.4.715).
externalizing
    exponent of the 1/f background (Ostlund et al. 2021, doi:10.1016/j.dcn.2021.100931, in attention disorders).
age
    frequency of posterior alpha, and half as strongly its amplitude (Freschl et al. 2022,
    doi:10.1016/j.dcn.2022.101146).
sex
    frequency of sensorimotor beta: an arbitrary choice, stated here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from cerebro.simulate.presets import TRAIT_TARGETS, Strength

Floats = npt.NDArray[np.float64]

_LEVELS = np.array([0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1])
# Value at each level above; response times are first presses after the target in 2,136 runs of 607 people.
_QUANTILES: dict[str, tuple[float, ...]] = {
    "p_factor": (-1.99, -1.91, -1.44, -1.09, -0.69, -0.5, -0.21, -0.02, 0.21, 0.5, 0.82, 1.21, 1.61, 2.22, 3.5),
    "attention": (-2.37, -1.72, -1.32, -1.05, -0.78, -0.47, -0.23, -0.02, 0.26, 0.48, 0.75, 1.09, 1.46, 1.97, 2.41),
    "internalizing": (-1.96, -1.53, -1.23, -0.94, -0.67, -0.38, -0.14, 0.07, 0.26, 0.45, 0.76, 1.14, 1.41, 2.09, 3.3),
    "externalizing": (-2.22, -1.64, -1.11, -0.85, -0.54, -0.38, -0.22, -0.05, 0.18, 0.44, 0.68, 1.14, 1.43, 1.92, 2.32),
    "age": (5.04, 5.2, 5.69, 6.25, 7.12, 8.01, 8.84, 9.64, 10.58, 11.62, 13.23, 15.23, 16.65, 19.38, 21.67),
    "response_time": (0.1, 0.24, 0.93, 1.12, 1.29, 1.41, 1.51, 1.61, 1.7, 1.8, 1.91, 2.08, 2.21, 2.35, 2.42),
}
# Correlation of normal scores in the 782 real people whose factors are known, in the order of TRAIT_TARGETS.
_CORRELATION = np.array(
    [
        [1.0, 0.11, 0.22, 0.15, -0.01],
        [0.11, 1.0, 0.08, -0.08, -0.05],
        [0.22, 0.08, 1.0, -0.25, 0.19],
        [0.15, -0.08, -0.25, 1.0, -0.17],
        [-0.01, -0.05, 0.19, -0.17, 1.0],
    ]
)
_SHARE_OF_BOYS = 0.66  # of the same people
_ICC_RESPONSE_TIME = 0.20  # share of the variance of response times (normal scores) that lies between people, as there


@dataclass(frozen=True)
class Person:
    """What is true of one simulated participant.

    ``scores`` and ``features`` are normal numbers keyed by TRAIT_TARGETS (``features`` also ``sex``); ``values`` are
    what participants.tsv says, before defects; ``rt_score`` and ``rt_feature`` are the participant's part of the
    response-time score and of its planted feature.
    """

    scores: dict[str, float]
    features: dict[str, float]
    values: dict[str, float]
    sex: str
    handedness: float
    gain: float
    muscle: float
    blinks_per_min: float
    film_gain: float
    rt_score: float
    rt_feature: float


def draw_person(rng: np.random.Generator, strength: Strength) -> Person:
    """Draw one participant; ``strength`` holds the couplings after scaling by the effect."""
    z = np.linalg.cholesky(_CORRELATION) @ rng.standard_normal(len(TRAIT_TARGETS))
    noise = rng.standard_normal(len(TRAIT_TARGETS))
    r2 = np.array([getattr(strength, name) for name in TRAIT_TARGETS])
    f = np.sqrt(r2) * z + np.sqrt(1 - r2) * noise
    is_boy = bool(rng.random() < _SHARE_OF_BOYS)
    features = {name: float(value) for name, value in zip(TRAIT_TARGETS, f, strict=True)}
    features["sex"] = float(rng.standard_normal() + strength.sex_distance * (0.5 if is_boy else -0.5))
    rt_score, rt_noise = rng.standard_normal(2)
    return Person(
        scores={name: float(value) for name, value in zip(TRAIT_TARGETS, z, strict=True)},
        features=features,
        values={
            name: round(float(to_value(name, np.array(score))), 4 if name == "age" else 3)
            for name, score in zip(TRAIT_TARGETS, z, strict=True)
        },
        sex="M" if is_boy else "F",
        handedness=round(float(np.clip(rng.normal(60, 50), -100, 100)), 2),
        gain=float(np.exp(0.2 * rng.standard_normal())),
        muscle=float(np.exp(0.6 * rng.standard_normal())),
        blinks_per_min=float(rng.uniform(6, 24)),
        film_gain=float(np.exp(0.3 * rng.standard_normal())),
        rt_score=float(rt_score),
        rt_feature=float(np.sqrt(strength.response_time) * rt_score + np.sqrt(1 - strength.response_time) * rt_noise),
    )


def draw_trials(rng: np.random.Generator, person: Person, n: int, strength: Strength) -> tuple[Floats, Floats]:
    """Draw the response-time scores of ``n`` trials and their planted features, each of shape (n,).

    Score and feature have a participant's part and a trial's part in the same proportion, both with explained variance
    ``strength.response_time``: nothing is gained by averaging a person's trials.
    """
    own, other = rng.standard_normal((2, n))
    r2 = strength.response_time
    between, within = np.sqrt(_ICC_RESPONSE_TIME), np.sqrt(1 - _ICC_RESPONSE_TIME)
    score = between * person.rt_score + within * own
    feature = between * person.rt_feature + within * (np.sqrt(r2) * own + np.sqrt(1 - r2) * other)
    return score, feature


def to_value(target: str, score: Floats) -> Floats:
    """Value of ``target`` (years, factor units or seconds) at each normal score; same shape."""
    return np.asarray(np.interp(ndtr(score), _LEVELS, _QUANTILES[target]))


def expected_traits(features: Floats, strength: Strength) -> Floats:
    """Best guess of each trait's value for people whose planted features are known exactly.

    Scores and features are jointly normal, so the guess is a normal integral of the marginal's quantile function over
    the conditional law of the score, by Gauss-Hermite quadrature.

    Parameters
    ----------
    features : array (n, 5)
        Planted features in the order of TRAIT_TARGETS.

    Returns
    -------
    array (n, 5)
        Conditional means of the values.
    """
    mean, variance = expected_scores(features, strength)
    columns = [_expect(name, mean[:, k], float(variance[k])) for k, name in enumerate(TRAIT_TARGETS)]
    return np.stack(columns, axis=1)


def expected_scores(features: Floats, strength: Strength) -> tuple[Floats, Floats]:
    """Mean (n, 5) and variance (5,) of each trait's normal score, given the planted features (n, 5) of all."""
    r = np.sqrt([getattr(strength, name) for name in TRAIT_TARGETS])
    crossed = _CORRELATION * r[None, :]  # Cov(z, f)
    covariance = r[:, None] * _CORRELATION * r[None, :] + np.diag(1 - r**2)
    weights = np.linalg.solve(covariance, crossed.T).T
    return features @ weights.T, np.asarray(1 - np.einsum("ij,ij->i", weights, crossed))


def expected_response_time(features: Floats, strength: Strength) -> Floats:
    """Best guess (s) of response times whose planted feature is known exactly; same shape as ``features``."""
    r2 = strength.response_time
    return _expect("response_time", np.sqrt(r2) * features, 1 - r2)


def _expect(target: str, mean: Floats, variance: float) -> Floats:
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    values = to_value(target, mean[:, None] + np.sqrt(max(variance, 0.0)) * nodes[None, :])
    return np.asarray(values @ weights / weights.sum())
