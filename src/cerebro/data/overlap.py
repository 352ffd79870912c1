"""Windows of one recording that overlap in time: what a model is to guess of one can be read off the next."""

import numpy as np
import numpy.typing as npt

from cerebro.data.store import Store
from cerebro.data.windows import Omission

Ints = npt.NDArray[np.int64]


def overlap_of_windows(store: Store, chosen: Ints, n_used: Ints) -> list[Omission]:
    """One remark if windows of recordings overlap in time, else nothing; gaps between windows hide nothing.

    Parameters
    ----------
    store : Store
        Its segments have ``start_s`` and ``stop_s``.
    chosen : int64 (Q,)
        Rows of the recordings to look at.
    n_used : int64 (R,)
        Windows of each recording that are used, from the first one on.
    """
    segments = store.segments
    recording = segments["recording"].to_numpy(np.int64)
    first = np.searchsorted(recording, np.arange(len(store.index) + 1))  # row of each recording's first segment
    start, stop = segments["start_s"].to_numpy(np.float64), segments["stop_s"].to_numpy(np.float64)
    shares = []
    for number in chosen.tolist():
        mine = slice(int(first[number]), int(first[number] + n_used[number]))
        shares.append(_largest_share(start[mine], stop[mine], 0.5 / store.sfreq))
    n_overlapping = int(np.count_nonzero(shares))
    if not n_overlapping:
        return []
    why = (
        f"windows of {n_overlapping:,} recordings overlap their neighbours by up to {max(shares):.0%}: hidden windows "
        "can be read off visible ones (leak); write windows without overlap, or trust no masked loss"
    )
    return [Omission(0, "windows", why)]


def _largest_share(start: npt.NDArray[np.float64], stop: npt.NDArray[np.float64], tolerance_s: float) -> float:
    """Largest share of a window that lies in windows which begin before it; 0 where they overlap by rounding alone."""
    order = np.argsort(start, kind="stable")
    start, stop = start[order], stop[order]
    until = np.minimum(np.maximum.accumulate(stop)[:-1], stop[1:])
    overlap = until - start[1:]
    overlap[overlap <= tolerance_s] = 0
    duration = np.maximum(stop - start, tolerance_s)[1:]
    return float((overlap / duration).max(initial=0))
