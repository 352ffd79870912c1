"""What stands beside an HBN-EEG signal: JSON sidecars, channels.tsv, events.tsv and the authors' quality tables."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cerebro.data.readers.base import Event, Finding
from cerebro.data.readers.bids_sidecar import DURATION_TOLERANCE_S, read_json
from cerebro.data.tables import is_missing, number, parse_table, read_table
from cerebro.errors import DataError
from cerebro.montage import canonical_names, hbn_129

ORIGINAL_SFREQ = 500.0  # Hz; the quality tables count samples at this rate
_QUALITY = re.compile(r"(?P<cell>[A-Za-z0-9]+(?:_[0-9]+)?)_quality_table\.tsv")


@dataclass(frozen=True)
class Channels:
    """What channels.tsv says."""

    names: tuple[str, ...]
    n_electrodes: int
    has_missing_types: bool
    has_missing_units: bool


@dataclass(frozen=True)
class Quality:
    """What the authors' quality table says of one recording; NaN where it says nothing."""

    duration_s: float
    n_events: float
    has_key_events: bool
    remark: str

    def findings(self, where: str, duration_s: float, n_events: int) -> list[Finding]:
        """Remarks of the authors, and where the files at hand disagree with what they saw; all are used."""
        found = []
        if self.remark:
            found.append(Finding("quality-remark", "repaired", where, f"{self.remark}; used"))
        if not self.has_key_events:
            detail = "the authors found its key events missing; used with the events that are there"
            found.append(Finding("quality-key-events-missing", "repaired", where, detail))
        if abs(self.duration_s - duration_s) > DURATION_TOLERANCE_S:  # False where unknown
            detail = f"{self.duration_s:.1f} s in the quality table, {duration_s:.1f} s in the sidecar; used"
            found.append(Finding("quality-duration-differs", "repaired", where, detail))
        if abs(self.n_events - n_events) > 0:
            detail = f"{self.n_events:g} events in the quality table, {n_events} in events.tsv; used"
            found.append(Finding("quality-events-differ", "repaired", where, detail))
        return found


@dataclass(frozen=True)
class EventsFile:
    """What events.tsv holds: events sorted by onset, its columns and rows, and rows dropped by rule."""

    events: tuple[Event, ...]
    columns: tuple[str, ...]
    n_rows: int
    dropped: dict[str, int]


def task_sidecar(folder: Path, task: str) -> dict[str, object]:
    """Sidecar of all recordings of a task; empty where there is none."""
    path = folder / f"task-{task}_eeg.json"
    return read_json(path) if path.exists() else {}


def read_channels(path: Path) -> Channels:
    """Read channels.tsv; DataError in one line if it is no table with names."""
    try:
        return _judge_channels(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); replace it by a whole copy.") from None


@lru_cache(maxsize=64)  # nearly all recordings have the same table
def _judge_channels(text: str) -> Channels:
    table = parse_table(text, "\t", Path("channels.tsv"))
    if "name" not in table.columns:
        raise DataError(f"channels.tsv has no column name (found {', '.join(table.columns)}).")
    names = table.column("name")
    types = table.column("type") if "type" in table.columns else ["n/a"]
    units = table.column("units") if "units" in table.columns else ["n/a"]
    return Channels(
        names=tuple(names),
        n_electrodes=sum(name is not None for name in canonical_names(names, hbn_129())),
        has_missing_types=any(is_missing(cell) for cell in types),
        has_missing_units=any(is_missing(cell) for cell in units),
    )


def read_events(path: Path, duration_s: float) -> EventsFile:
    """Read events.tsv.

    Parameters
    ----------
    path : Path
        The file.
    duration_s : float
        Length of the recording; NaN if unknown.

    Raises
    ------
    DataError
        In one line, if it is no table, lacks a column, or holds an onset that is no number.
    """
    table = read_table(path)
    if not {"onset", "value"} <= set(table.columns):
        raise DataError(f"{path} has no column onset or value (found {', '.join(table.columns)}).")
    onsets, names = table.column("onset"), table.column("value")
    durations = table.column("duration") if "duration" in table.columns else ["n/a"] * len(onsets)
    kept, dropped = [], {"event-without-onset": 0, "event-without-name": 0, "event-outside": 0}
    for onset, name, duration in zip(onsets, names, durations, strict=True):
        onset_s, length_s = _seconds(onset, path), _seconds(duration, path)
        if math.isnan(onset_s):
            dropped["event-without-onset"] += 1
        elif is_missing(name):
            dropped["event-without-name"] += 1
        elif onset_s < 0 or onset_s > duration_s:
            dropped["event-outside"] += 1
        else:
            kept.append(Event(onset_s, name, 0.0 if math.isnan(length_s) else length_s))
    events = tuple(sorted(kept, key=lambda event: event.onset_s))
    return EventsFile(events, table.columns, len(onsets), dropped)


def quality_tables(folder: Path) -> tuple[dict[tuple[str, str], Quality], list[Finding]]:
    """Quality of each (participant, cell of participants.tsv) from ``*_quality_table.tsv``; releases may have none.

    The files end in ``.tsv`` and are separated by commas. One that cannot be read is a finding and is not used.
    """
    found: dict[tuple[str, str], Quality] = {}
    findings: list[Finding] = []
    for path in sorted(folder.glob("*_quality_table.tsv")):
        match = _QUALITY.fullmatch(path.name)
        if match is None:
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            table = parse_table(text, "," if "," in text.partition("\n")[0] else "\t", path)
            columns = [table.column(name) for name in ("Row", "data_pnts", "event_cnt", "key_events_exist")]
            remarks = table.column("quality_checks") if "quality_checks" in table.columns else ["n/a"] * len(columns[0])
            for row, points, events, key_events, remark in zip(*columns, remarks, strict=True):
                found[f"sub-{row.removeprefix('sub-')}", match["cell"]] = Quality(
                    duration_s=number(points) / ORIGINAL_SFREQ,
                    n_events=number(events),
                    has_key_events=number(key_events) != 0,
                    remark="" if is_missing(remark) else remark,
                )
        except (DataError, OSError, ValueError) as error:
            where, detail = f"{folder.parent.name}/{folder.name}/{path.name}", f"not used: {error}"
            findings.append(Finding("quality-table-damaged", "repaired", where, " ".join(detail.split())))
    return found, findings


def _seconds(cell: str, path: Path) -> float:
    try:
        return number(cell)
    except ValueError:
        raise DataError(f"{path} has an onset or duration {cell!r}, expected seconds or n/a.") from None
