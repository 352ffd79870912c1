"""Features of the shape of windows in time: Hjorth parameters, statistics, complexity."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from numpy import ndarray
from scipy import stats

from cerebro.compiled import compiled

TOLERANCE = 0.2  # of sample entropy, in standard deviations
ORDER = 4  # of permutation entropy: samples whose order is looked at


def shape_features(eeg: Float64[ndarray, "N L"], sfreq: float) -> dict[str, Float64[ndarray, " N"]]:
    """Features of one channel by the end of their name (``hjorth_mobility``).

    Parameters
    ----------
    eeg : array (N, L)
        Windows without offset, microvolts; none of them constant.
    sfreq : float
        Hz.
    """
    import antropy  # here: it compiles its loops when it is imported, which takes ten seconds

    duration_s = eeg.shape[1] / sfreq
    deviation = eeg.std(axis=1)
    mobility, complexity = antropy.hjorth_params(eeg, float(sfreq))
    is_high = eeg > np.median(eeg, axis=1, keepdims=True)
    return {
        "hjorth_activity": deviation**2,
        "hjorth_mobility": mobility,
        "hjorth_complexity": complexity,
        "sd": deviation,
        "skewness": stats.skew(eeg, axis=1),
        "kurtosis": stats.kurtosis(eeg, axis=1),
        "peak_to_peak": np.ptp(eeg, axis=1),
        "line_length": np.abs(np.diff(eeg, axis=1)).sum(axis=1) / duration_s,
        "zero_crossings": antropy.num_zerocross(eeg, axis=1) / duration_s,
        "permutation_entropy": antropy.perm_entropy(eeg, ORDER, normalize=True),
        "sample_entropy": sample_entropy(eeg),
        "higuchi_dimension": np.array([antropy.higuchi_fd(window) for window in eeg]),
        "petrosian_dimension": antropy.petrosian_fd(eeg, axis=1),
        "lempel_ziv": np.array([antropy.lziv_complexity(window, normalize=True) for window in is_high]),
    }


def sample_entropy(eeg: Float64[ndarray, "N L"]) -> Float64[ndarray, " N"]:
    """Sample entropy of each window, templates of 2 samples; NaN where nothing matches.

    As ``antropy.sample_entropy``, which takes fifteen times longer.
    """
    matches = _matches(eeg.astype(np.float32), (TOLERANCE * eeg.std(axis=1)).astype(np.float32))
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.log(matches[:, 1] / matches[:, 0])
    return np.asarray(np.where(np.isfinite(entropy), entropy, np.nan))


@compiled
def _matches(eeg: npt.NDArray[np.float32], radius: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Pairs of templates that match with 2 samples and with 3, (N, 2); in float32 two loops that run in vectors."""
    n_windows, length = eeg.shape
    found = np.zeros((n_windows, 2), np.int64)
    is_near = np.zeros(length, np.int32)
    for number in range(n_windows):
        window, limit = eeg[number], radius[number]
        for offset in range(1, length - 2):
            for i in range(length - offset):
                is_near[i] = np.int32(abs(window[i] - window[i + offset]) < limit)
            two, three = np.int32(0), np.int32(0)
            for i in range(length - offset - 2):
                both = is_near[i] & is_near[i + 1]
                two = np.int32(two + both)
                three = np.int32(three + (both & is_near[i + 2]))
            found[number, 0] += two
            found[number, 1] += three
    return found
