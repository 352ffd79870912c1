"""One continuous recording as a table: a column per electrode, a row per sample; Parquet or CSV, as headsets export.

A row's time is its number over the rate. Timestamps, where there are any, are a check of that: they come from another
clock and jitter, so they are never used to move a sample.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cerebro.data.readers.base import Event, Finding, Recording
from cerebro.errors import DataError, check_between, check_positive
from cerebro.montage import Montage, canonical_names

SUFFIXES = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
SHORTEST_JUDGED_S = 1.0  # of less, timestamps do not tell the rate
LISTED = 9  # columns named in an error


@dataclass(frozen=True)
class TableFormat:
    """What the columns of a continuous table mean.

    Parameters
    ----------
    sfreq : float
        Rate in Hz.
    microvolts_per_count : float
        Microvolts of one unit of the electrodes' columns.
    time_column : str
        Column of timestamps; empty = there is none, and nothing is checked.
    time_unit : {"s", "ms", "us"}
        Unit of the timestamps.
    marker_column : str
        Column of markers: 0, blank or missing is none, another value is an event of that name at the first row that
        bears it. Empty = there is none.
    rate_tolerance : float
        Share by which the rate that timestamps show may differ from ``sfreq``.
    max_gap_s : float
        Timestamps may step on by at most this much; a longer step is a gap, and the longest stretch without one is
        kept. They may also step back by as much: Bluetooth delivers packets, whose timestamps jitter.
    """

    sfreq: float
    microvolts_per_count: float = 1.0
    time_column: str = ""
    time_unit: Literal["s", "ms", "us"] = "s"
    marker_column: str = ""
    rate_tolerance: float = 0.005
    max_gap_s: float = 0.1

    def __post_init__(self) -> None:
        check_positive("table.sfreq", self.sfreq)
        check_positive("table.microvolts_per_count", self.microvolts_per_count)
        check_between("table.rate_tolerance", self.rate_tolerance, 0, 1)
        check_positive("table.max_gap_s", self.max_gap_s)


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a table."""
    return path.name.lower().endswith(SUFFIXES)


def read_table_file(path: Path, table: TableFormat, montage: Montage, reference: str, key: str) -> Recording:
    """Read a continuous recording.

    Columns that are no electrode of the montage are dropped and counted (``no-electrode``), as are gaps (``time-gap``)
    and timestamps that step back (``time-jitter``).

    Raises
    ------
    DataError
        In one line: a damaged file, no known electrode, two columns of one, cells that are no finite number, timestamps
        that run back or show another rate.
    """
    names = _column_names(path)
    _check_named(names, table, path)
    labels = [name for name in names if name not in (table.time_column, table.marker_column)]
    try:
        electrodes = canonical_names(labels, montage)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    order = {name: number for number, name in enumerate(montage.channels)}
    chosen = {str(name): label for name, label in zip(electrodes, labels, strict=True) if name is not None}
    channels = sorted(chosen, key=order.__getitem__)
    if not channels:
        raise DataError(
            f"{path} has no channel that montage {montage.name} knows (columns {', '.join(labels[:LISTED])}); choose "
            "another montage or take the file out of the data set."
        )
    time = [table.time_column] if table.time_column else []
    content = _read(path, [*time, *(chosen[name] for name in channels)])
    kept, findings = _stretch(content, table, path, key)
    eeg = np.empty((len(channels), kept.stop - kept.start), np.float32)
    for row, name in zip(eeg, channels, strict=True):
        row[:] = _numbers(content, chosen[name], path)[kept] * table.microvolts_per_count
    dropped = [label for label, name in zip(labels, electrodes, strict=True) if name is None]
    if dropped:
        detail = f"{len(dropped)} of {len(labels)} columns are no electrodes and were dropped: {', '.join(dropped[:8])}"
        findings.append(Finding("no-electrode", "repaired", key, detail))
    return Recording(eeg, tuple(channels), float(table.sfreq), reference, findings)


def table_electrodes(path: Path, table: TableFormat, montage: Montage) -> tuple[str, ...]:
    """Electrodes among a table's columns in the montage's order and spelling; DataError as `read_table_file`."""
    names = _column_names(path)
    _check_named(names, table, path)
    try:
        found = set(canonical_names(names, montage))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return tuple(name for name in montage.channels if name in found)


def table_events(path: Path, table: TableFormat) -> tuple[Event, ...]:
    """Markers of a table, in seconds from the first row that `read_table_file` keeps; none without a marker column.

    Raises
    ------
    DataError
        As `read_table_file`, for the columns of time and markers.
    """
    if not table.marker_column:
        return ()
    _check_named(_column_names(path), table, path)
    content = _read(path, [table.marker_column, *([table.time_column] if table.time_column else [])])
    kept, _ = _stretch(content, table, path, "")
    cells = content.column(table.marker_column).combine_chunks()
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        names = np.array([(text or "").strip() for text in cells.to_pylist()], dtype=object)
        names[names == "0"] = ""
    elif _is_number(cells.type):
        values = np.nan_to_num(np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False)), copy=True)
        names = np.full(len(values), "", dtype=object)
        for row in np.flatnonzero(values):
            names[row] = f"{values[row]:.15g}"
    else:
        raise DataError(f"{path} column {table.marker_column} holds {cells.type}, expected numbers or text.")
    names = names[kept]
    before = np.concatenate([[""], names[:-1]])
    return tuple(
        Event(int(row) / table.sfreq, str(names[row])) for row in np.flatnonzero((names != "") & (names != before))
    )


def _stretch(content: Any, table: TableFormat, path: Path, key: str) -> tuple[slice, list[Finding]]:
    """Rows of the longest stretch without a gap, after a look at the timestamps."""
    n_rows = content.num_rows
    if n_rows == 0:
        raise DataError(f"{path} holds no sample; take it out of the data set.")
    if not table.time_column:
        return slice(0, n_rows), []
    time_s = _numbers(content, table.time_column, path) * SECONDS[table.time_unit]
    steps_s = np.diff(time_s)
    back = np.flatnonzero(steps_s < -table.max_gap_s)
    if len(back):
        raise DataError(
            f"{path} column {table.time_column} runs back by {-steps_s[back[0]]:.3g} s at row {back[0] + 2}; sort the "
            "rows, or take the file out of the data set."
        )
    findings = []
    n_jitter = int((steps_s < 0).sum())
    if n_jitter:
        detail = (
            f"{n_jitter} of {n_rows} timestamps step back, by {-steps_s.min():.3g} s at most; rows count as they stand"
        )
        findings.append(Finding("time-jitter", "repaired", key, detail))
    gaps = np.flatnonzero(steps_s > table.max_gap_s)
    edges = np.concatenate([[0], gaps + 1, [n_rows]])
    longest = int(np.diff(edges).argmax())
    kept = slice(int(edges[longest]), int(edges[longest + 1]))
    if len(gaps):
        detail = (
            f"{len(gaps)} gap{'s' * (len(gaps) > 1)} of {steps_s[gaps].sum():.3g} s in all; the longest stretch "
            f"without one is kept, {kept.stop - kept.start} of {n_rows} samples from row {kept.start + 1}"
        )
        findings.append(Finding("time-gap", "repaired", key, detail))
    n = kept.stop - kept.start
    if n / table.sfreq >= SHORTEST_JUDGED_S:
        number = np.arange(n) - (n - 1) / 2
        rate = float(number @ number / (number @ (time_s[kept] - time_s[kept].mean())))  # least squares
        if not abs(rate / table.sfreq - 1) <= table.rate_tolerance:
            raise DataError(
                f"{path} has {rate:.4g} samples a second by column {table.time_column} and {table.sfreq:g} by "
                "table.sfreq; correct table.sfreq or table.time_unit."
            )
    return kept, findings


def _column_names(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".parquet":
            names = list(pq.read_schema(path).names)
        else:
            with pyarrow.csv.open_csv(path, parse_options=_delimiter(path)) as reader:
                names = list(reader.schema.names)
    except FileNotFoundError:
        raise DataError(f"signal file {path} does not exist; fetch it or take it out of the data set.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has column {', '.join(twice)} twice; rename or remove one of each.")
    return names


def _check_named(names: list[str], table: TableFormat, path: Path) -> None:
    for key in ("time_column", "marker_column"):
        name = getattr(table, key)
        if name and name not in names:
            raise DataError(f"{path} has no column {name!r} (found {', '.join(names[:LISTED])}); set table.{key}.")


def _read(path: Path, columns: list[str]) -> Any:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
        options = pyarrow.csv.ConvertOptions(include_columns=columns)
        return pyarrow.csv.read_csv(path, parse_options=_delimiter(path), convert_options=options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _delimiter(path: Path) -> Any:
    return pyarrow.csv.ParseOptions(delimiter="\t" if ".tsv" in path.name.lower()[-7:] else ",")


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path} cannot be read as a table ({reason}); replace it by a whole copy or take it out.")


def _numbers(content: Any, column: str, path: Path) -> npt.NDArray[np.float64]:
    """Values of a column (T,); DataError where one is no finite number."""
    cells = content.column(column).combine_chunks()
    if pa.types.is_timestamp(cells.type):
        raise DataError(f"{path} column {column} holds dates, expected numbers; write seconds or milliseconds.")
    if not _is_number(cells.type):
        hint = ": these are windows, read them with ParquetWindows" * bool(pa.types.is_nested(cells.type))
        raise DataError(f"{path} column {column} holds {cells.type}, expected numbers{hint}.")
    values = np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"{path} column {column} holds {len(wrong)} values that are missing, NaN or infinite, the first in row "
            f"{wrong[0] + 1}; mend the file or take it out."
        )
    return values


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
