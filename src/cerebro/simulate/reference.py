"""How well planted features can be measured in the noisy signals, and how well targets follow from them.

The spatial filter is the best linear one for the known sources in the known background (minimum variance, Van Veen et
al. 1997, doi:10.1109/10.623056), so that these references say what is there, not what a naive look would find. They use
the simulation's own source patterns, which no model is given.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import welch
from sklearn.model_selection import GroupKFold

from cerebro.simulate.events import Timeline
from cerebro.simulate.forward import Head
from cerebro.simulate.signals import BURST_START_S, BURST_STOP_S, erp_template

Floats = npt.NDArray[np.float64]

FEATURES = ("theta", "beta", "alpha_asymmetry", "exponent", "alpha_hz", "alpha", "beta_hz")
N_FOLDS = 5
_PENALTIES = 10.0 ** np.arange(-3.0, 4.0)


@dataclass(frozen=True)
class Measurement:
    """What one recording shows: features of the whole (empty where not measured) and of each trial's window.

    ``features`` follow FEATURES. ``trials`` holds per trial: parietal potential (in units of the background's size)
    and log theta power from +0.5 to +2.5 s after the target.
    """

    features: tuple[float, ...]
    trials: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Filter:
    """Weights that bring out each source and leave the rest; rows follow the head's source names."""

    names: tuple[str, ...]
    weights: Floats  # (K, C)
    patterns: Floats  # (C, K), average reference


def source_filter(head: Head) -> Filter:
    """Minimum-variance filter of a head's sources for average-referenced signals."""
    patterns = head.patterns - head.patterns.mean(axis=0)
    background = head.background - head.background.mean(axis=0)
    covariance = 36.0 * background @ background.T + np.eye(len(head.channels))  # microvolts squared
    solved = np.linalg.solve(covariance, patterns)
    return Filter(head.names, np.linalg.solve(patterns.T @ solved, solved.T), patterns)


def measure(filters: Filter, eeg: npt.NDArray[np.float32], timeline: Timeline, sfreq: float) -> Measurement:
    """Measure the planted features in one recording of shape (C, T), microvolts."""
    x = eeg.astype(np.float64)
    x -= x.mean(axis=0)
    sources = filters.weights @ x
    rest = x - filters.patterns @ sources
    if timeline.trials:
        return Measurement((), _trials(filters, sources, timeline, sfreq, float(rest.std())))
    return Measurement(_spectral(filters, sources, rest, sfreq), ())


def _spectral(filters: Filter, sources: Floats, rest: Floats, sfreq: float) -> tuple[float, ...]:
    hz, power = welch(sources, sfreq, nperseg=round(2 * sfreq))
    _, background = welch(rest, sfreq, nperseg=round(2 * sfreq))
    of = dict(zip(filters.names, power, strict=True))
    level = np.log(background.mean(axis=0))
    fit = (hz >= 2) & (hz <= 20)
    slope, _ = np.polyfit(np.log(hz[fit]), level[fit], 1)
    size = float(level[fit].mean())

    def log_power(spectrum: Floats, low: float, high: float) -> float:
        return float(np.log(spectrum[(hz >= low) & (hz <= high)].mean()))

    def centre(spectrum: Floats, low: float, high: float) -> float:
        inside = (hz >= low) & (hz <= high)
        flat = spectrum[inside] * hz[inside] ** -slope
        excess = np.maximum(flat - np.median(flat), 0)
        return float((excess * hz[inside]).sum() / excess.sum())

    alpha = of["alpha_left"] + of["alpha_right"]
    beta = of["beta_left"] + of["beta_right"]
    return (
        log_power(of["theta"], 5.0, 7.0) - size,
        log_power(beta, 14.0, 27.0) - size,
        log_power(of["frontal_alpha_right"], 7.0, 12.0) - log_power(of["frontal_alpha_left"], 7.0, 12.0),
        float(-slope),
        centre(alpha, 6.0, 13.5),
        log_power(alpha, 7.0, 12.0) - size,
        centre(beta, 13.0, 29.0),
    )


def _trials(
    filters: Filter, sources: Floats, timeline: Timeline, sfreq: float, size: float
) -> tuple[tuple[float, float], ...]:
    length = round((BURST_STOP_S - BURST_START_S) * sfreq)
    template = erp_template(BURST_START_S + np.arange(length) / sfreq)
    template = template - template.mean()
    template /= template @ template
    parietal, theta = (sources[filters.names.index(name)] for name in ("p300", "theta"))
    hz = np.fft.rfftfreq(length, 1 / sfreq)
    measured = []
    for trial in timeline.trials:
        start = round((trial.target_s + BURST_START_S) * sfreq)
        window = slice(start, start + length)
        spectrum = np.abs(np.fft.rfft(theta[window] * np.hanning(length))) ** 2
        power = float(np.log(spectrum[(hz >= 5) & (hz <= 7)].sum() / size**2))
        measured.append((float(parietal[window] @ template) / size, power))
    return tuple(measured)


def nrmse(target: Floats, prediction: Floats) -> float:
    """Root mean squared error over the standard deviation of the target; 1 for the mean."""
    return float(np.sqrt(np.mean((target - prediction) ** 2)) / target.std())


def cross_validated(features: Floats, target: Floats, people: npt.NDArray[np.int64]) -> Floats:
    """Ridge predictions for left-out people, five folds; the penalty is chosen within the training people.

    Parameters
    ----------
    features : array (n, F)
    target : array (n,)
    people : int64 array (n,)
        Rows of one person stay in one fold.

    Returns
    -------
    array (n,)
    """
    prediction = np.empty_like(target)
    for train, test in GroupKFold(N_FOLDS).split(features, target, people):
        penalty = _best_penalty(features[train], target[train], people[train])
        prediction[test] = _ridge(features[train], target[train], features[test], penalty)
    return prediction


def held_out(features: Floats, target: Floats, people: npt.NDArray[np.int64], is_test: npt.NDArray[np.bool_]) -> Floats:
    """Ridge predictions for the rows of ``is_test``, learned on the others."""
    train = ~is_test
    penalty = _best_penalty(features[train], target[train], people[train])
    return _ridge(features[train], target[train], features[is_test], penalty)


def _best_penalty(features: Floats, target: Floats, people: npt.NDArray[np.int64]) -> float:
    """Penalty with the smallest squared error on left-out people; the largest is nearly the mean."""
    errors = np.zeros(len(_PENALTIES))
    for train, test in GroupKFold(N_FOLDS).split(features, target, people):
        for k, penalty in enumerate(_PENALTIES):
            guess = _ridge(features[train], target[train], features[test], penalty)
            errors[k] += ((target[test] - guess) ** 2).sum()
    return float(_PENALTIES[errors.argmin()])


def _ridge(features: Floats, target: Floats, others: Floats, penalty: float) -> Floats:
    """Predictions for ``others`` of a ridge fit on standardised features, penalty relative to the number of rows."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    x = (features - middle) / spread
    weights = np.linalg.solve(x.T @ x / len(x) + penalty * np.eye(x.shape[1]), x.T @ (target - target.mean()) / len(x))
    return np.asarray(target.mean() + (others - middle) / spread @ weights)
