"""Recordings that a store keeps as windows, channel by channel: what every source of samples made of them asks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cerebro.data.columns import Ints
from cerebro.data.sliding_windows import LABEL_PREFIX
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.data.window_source import counted
from cerebro.data.windows import Omission
from cerebro.errors import ConfigError, DataError


def windowed_recordings(store: Store, tasks: Sequence[str], source: str) -> tuple[Ints, int, list[Omission]]:
    """Rows of the recordings of ``tasks`` (empty = all) that are windows, and the samples of a window.

    Parameters
    ----------
    source : str
        Name of the window source, for messages.

    Raises
    ------
    DataError
        If there is none, or windows have different lengths.
    """
    index = store.index
    is_used = (index["layout"] == CHANNEL_MAJOR) & (index["segment_samples"] > 0)
    left_out = counted(int((~is_used).sum()), "recordings", "continuous, no windows side by side")
    if tasks:
        task = store.recordings["task"].astype(str).to_numpy()
        is_used &= np.isin(task, tasks)
        absent = sorted(set(tasks) - set(task.tolist()))
        left_out += [Omission(0, "recordings", f"task {name} is not in the store") for name in absent]
    chosen = np.flatnonzero(is_used).astype(np.int64)
    if not len(chosen):
        what = "sequence" if source == "ChannelSequences" else "window"
        reasons = "; ".join(map(str, left_out)) or "it holds no recordings"
        raise DataError(
            f"{source} finds no {what} in {store.path} ({reasons}); prepare it with ParquetWindows or with "
            "preprocessing.window_s, or cut continuous recordings with SlidingWindows."
        )
    samples = np.unique(index["segment_samples"][chosen])
    if len(samples) > 1:
        raise DataError(
            f"windows of {store.path} have {' and '.join(map(str, samples[:3]))} samples; prepare them as separate "
            "stores."
        )
    return chosen, int(samples[0]), left_out


def labels_of_recordings(store: Store, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Values (R,) of the labels of recordings that are named, NaN where a recording has none.

    Raises
    ------
    ConfigError
        If the store has no such label.
    """
    known = [str(name).removeprefix(LABEL_PREFIX) for name in store.recordings if str(name).startswith(LABEL_PREFIX)]
    absent = sorted(set(names) - set(known))
    if absent:
        raise ConfigError(
            f"recordings of {store.path} have no label {', '.join(absent)}; set labels to some of "
            f"{', '.join(known) or 'none'}."
        )
    return {name: store.recordings[LABEL_PREFIX + name].to_numpy(np.float32) for name in names}


def columns_of_channels(store: Store, names: Sequence[str]) -> tuple[Ints, ...]:
    """By montage of the store: its channels that are named, ascending; all where none is.

    Raises
    ------
    ConfigError
        If no montage has a name.
    """
    montages = [montage.channels for montage in store.montages]
    absent = sorted(set(names) - {name for montage in montages for name in montage})
    if absent:
        raise ConfigError(f"{store.path} has no channel {', '.join(absent)}; set channels to some of its own.")
    return tuple(
        np.array([at for at, name in enumerate(montage) if not names or name in names], np.int64)
        for montage in montages
    )


def first_segments(store: Store) -> Ints:
    """Row of the first segment of each recording (R,)."""
    recording = store.segments["recording"].to_numpy(np.int64)
    return np.searchsorted(recording, np.arange(len(store.index))).astype(np.int64)


def short_inside(n: int) -> list[Omission]:
    """The remark on ``n`` windows that were shorter than others and are not the last of their sample."""
    why = f"{n:,} windows inside sequences end in zeros: they were shorter than the others"
    return [Omission(0, "windows", why)] if n else []
