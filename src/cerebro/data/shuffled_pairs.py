"""A control for pairs: every pair keeps its people, and loses its moment."""

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Ints
from cerebro.data.mixture import Mixture
from cerebro.data.store import Store
from cerebro.data.windows import WindowTable
from cerebro.errors import ConfigError
from cerebro.randomness import sample_keys

_SHUFFLES = 1 << 61  # epoch that never comes: the keys of its samples are nobody else's random numbers


def without_moments(store: Store, table: WindowTable, rows: Ints, has_few_pairs: bool, seed: int) -> Ints:
    """Pair id of every window of the table (W,), those of the training windows ``rows`` dealt out anew.

    Moments are dealt out within each recording: times of a film swap, films do not. Classes (``has_few_pairs``), of
    which a recording may hold one only, are dealt out among all windows of a person in one source and montage.

    Raises
    ------
    ConfigError
        As `shuffled_pairs`.
    """
    pair = table.pair[:].copy()
    recording = table.recording[rows]
    group = recording.astype(np.int64)
    if has_few_pairs:
        source = store.member if isinstance(store, Mixture) else np.zeros(len(store.index), np.int64)
        kinds = np.stack([store.index["participant"], store.index["montage"], source]).astype(np.int64)
        group = np.unique(kinds, axis=1, return_inverse=True)[1].reshape(-1)[recording]
    pair[rows] = shuffled_pairs(rows, pair[rows], group, seed)
    return pair


def shuffled_pairs(
    rows: Ints, pair: npt.NDArray[np.int64], group: npt.NDArray[np.integer], seed: int
) -> npt.NDArray[np.int64]:
    """Pair ids dealt out anew among the windows of each group.

    With a recording as the group, a person's windows of a film swap their times: each person keeps the same pair ids,
    and each pair id its people, but who has the same id no longer saw the same. A window draws its own id again as
    often as chance has it, once in as many times as the group has windows.

    Parameters
    ----------
    rows : int64 (N,)
        Rows of the window table: what is drawn depends on them and the seed alone.
    pair : int64 (N,)
        Pair ids; -1 = none, and stays.
    group : int (N,)
        Windows of equal number swap their ids.
    seed : int
        Seed of the shuffle.

    Raises
    ------
    ConfigError
        If no id changes: there are no pairs, or every group has one id only.
    """
    has_pair = np.flatnonzero(pair >= 0)
    mine, of_group = rows[has_pair], group[has_pair]
    draw = sample_keys(seed, _SHUFFLES, mine)
    shuffled = pair.copy()
    shuffled[has_pair[np.lexsort((mine, of_group))]] = pair[has_pair[np.lexsort((draw, of_group))]]
    if np.array_equal(shuffled, pair):
        raise ConfigError(
            f"shuffle_pairs changes none of the {len(has_pair):,} windows with a pair: nobody has two different pairs; "
            "set data.shuffle_pairs to false, or data.windows to FilmWindows, EyesWindows or TaskPairs with more tasks."
        )
    return shuffled
