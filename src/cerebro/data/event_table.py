"""Events of a store as arrays: millions of them without a table of Python objects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cerebro.data.store import EVENT_TICKS_PER_S, Store


@dataclass(frozen=True)
class EventTable:
    """Events by recording, then time.

    Parameters
    ----------
    recording : int32 (E,)
        Row of the store's index.
    onset : int64 (E,)
        Units of 0.1 ms from the first sample, as the source says them.
    name : uint32 (E,)
        Row of ``names``.
    names : tuple of str
        Names that occur in the store.
    """

    recording: npt.NDArray[np.int32]
    onset: npt.NDArray[np.int64]
    name: npt.NDArray[np.uint32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.recording)

    def onset_sample(self, sfreq: float) -> npt.NDArray[np.int64]:
        """Nearest sample of each onset."""
        return np.asarray(np.rint(self.onset * (sfreq / EVENT_TICKS_PER_S)), np.int64)

    def is_one_of(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Which events have one of these names; (E,)."""
        wanted = set(names)
        return self.matches(lambda name: name in wanted)

    def matches(self, is_wanted: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """Which events have a name that ``is_wanted`` accepts; it is asked once per name; (E,)."""
        accepted = np.array([is_wanted(name) for name in self.names], dtype=bool)
        return accepted[self.name] if len(self.names) else np.zeros(len(self), bool)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "EventTable":
        """The events that are ``chosen`` (E,)."""
        return EventTable(self.recording[chosen], self.onset[chosen], self.name[chosen], self.names)


def events_of(store: Store) -> EventTable:
    """All events of a store, 16 bytes each in memory."""
    first = store.index["event_row"].astype(np.int64)
    n_events = np.diff(first, append=len(store.event_index))
    recording = np.repeat(np.arange(len(store.index), dtype=np.int32), n_events)
    onset = store.event_index["onset"].astype(np.int64)
    name = np.asarray(store.event_index["name"])
    back = (np.diff(onset) < 0) & (np.diff(recording) == 0)
    if back.any():  # a source that did not sort its events
        order = np.lexsort((onset, recording))
        onset, name = onset[order], name[order]
    return EventTable(recording, onset, name, store.event_names)


def single_event(store: Store, events: EventTable, name: str) -> npt.NDArray[np.int64]:
    """Sample of the event ``name`` of each recording that has exactly one, else -1; (R,)."""
    found = events.only(events.is_one_of([name]))
    onset = np.full(len(store.index), -1, np.int64)
    onset[found.recording] = found.onset_sample(store.sfreq)
    onset[np.bincount(found.recording, minlength=len(store.index)) != 1] = -1
    return onset
