"""Events of a recording that stand beside its samples: in a BIDS events table, or as annotations of the file."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from cerebro.data.readers.apart import each_apart
from cerebro.data.readers.base import Event
from cerebro.data.tables import is_missing, number, read_table
from cerebro.errors import DataError

NAME_COLUMNS = ("trial_type", "value")  # the first that a table has


def bids_events(path: Path) -> tuple[tuple[Event, ...], int] | None:
    """Events of the table ``<name>_events.tsv`` beside ``<name>_eeg.*``, and how many rows without onset or name.

    Gives None where there is no such table.

    Raises
    ------
    DataError
        In one line, if the table cannot be read, or lacks a column of onsets or of names.
    """
    stem = path.name.split(".")[0]
    file = path.with_name(f"{stem.rpartition('_')[0] or stem}_events.tsv")
    if not file.is_file():
        return None
    table = read_table(file)
    named = [column for column in NAME_COLUMNS if column in table.columns]
    if "onset" not in table.columns or not named:
        raise DataError(
            f"{file} needs columns onset and {' or '.join(NAME_COLUMNS)} (found {', '.join(table.columns[:9])})."
        )
    durations = table.column("duration") if "duration" in table.columns else ["n/a"] * len(table.rows)
    events = []
    for onset, duration, name in zip(table.column("onset"), durations, table.column(named[0]), strict=True):
        try:
            onset_s, duration_s = number(onset), number(duration)
        except ValueError:
            raise DataError(f"{file} has an onset or duration {onset!r}, {duration!r}; expected seconds.") from None
        if not is_missing(name) and onset_s >= 0:  # NaN is not
            events.append(Event(onset_s, name, duration_s if duration_s >= 0 else 0.0))
    return tuple(sorted(events, key=lambda event: event.onset_s)), len(table.rows) - len(events)


def annotations(paths: Sequence[Path]) -> Iterator[tuple[tuple[Event, ...], str]]:
    """Annotations of each file as MNE-Python reads them, or why they cannot be read."""
    for events, problem in each_apart(_annotations_of, paths):
        yield events or (), problem


def _annotations_of(path: Path) -> tuple[Event, ...]:
    import mne  # imported here because it takes a second

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `Reader.load` counts them
            raw = mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # MNE and scipy raise nearly anything on a damaged file
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a recording ({type(error).__name__}: {reason}).") from None
    marks = raw.annotations
    found = zip(marks.onset - raw.first_time, marks.duration, marks.description, strict=True)
    events = [Event(float(onset), str(name), float(duration)) for onset, duration, name in found if onset >= 0]
    return tuple(sorted(events, key=lambda event: event.onset_s))
