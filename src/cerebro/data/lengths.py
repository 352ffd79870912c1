"""Whether the length of a sample tells its class: then a model need not look at any EEG."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

TELLING_AUC = 0.9
FEWEST = 3  # samples of a class; fewer are in order by chance


def telling_lengths(
    n_valid: npt.NDArray[np.int64], labels: Mapping[str, npt.NDArray[np.float32]], samples: int
) -> list[str]:
    """A line for each target, of labels (N,) by name, that lengths tell; see `telling_length`."""
    lines = (telling_length(n_valid, label, target, samples) for target, label in labels.items())
    return [line for line in lines if line]


def telling_length(n_valid: npt.NDArray[np.int64], label: npt.NDArray[np.float32], target: str, samples: int) -> str:
    """What is to be said where samples of class 1 are longer, or shorter, than nearly all of class 0; empty otherwise.

    Parameters
    ----------
    n_valid : int64 array (N,)
        Samples in time of each training sample.
    label : float array (N,)
        Its class, NaN where it is missing; other targets than 0 and 1 are passed over.
    target : str
        Name of the target.
    samples : int
        Of a window.
    """
    known = np.isfinite(label)
    length, is_one = n_valid[known], label[known] == 1
    n_one, n_zero = int(is_one.sum()), int((label[known] == 0).sum())
    if n_one + n_zero < known.sum() or min(n_one, n_zero) < FEWEST:
        return ""
    auc = (rankdata(length)[is_one].sum() - n_one * (n_one + 1) / 2) / (n_one * n_zero)
    if max(auc, 1 - auc) < TELLING_AUC:
        return ""
    which = "longer" if auc > 0.5 else "shorter"
    return (
        f"LEAK: samples with {target} 1 are {which} than those with 0, and length alone tells them apart (AUC "
        f"{max(auc, 1 - auc):.2f}); set data.windows.init_args.max_windows to {max(int(length.min()) // samples, 1)}"
    )
