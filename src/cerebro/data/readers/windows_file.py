"""One Parquet file of windows: its fixed columns, the recordings that it holds, and its lists of samples in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cerebro.errors import DataError

FIXED = ("participant", "run", "parent_window_id", "sub_window_id", "window_start", "window_end")
LABEL = "remission"
BYTES_AT_ONCE = 16_000_000  # of decoded samples

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recordings:
    """Recordings of a file: rows of each (participant, run), ascending, what its label says, and columns of lists.

    ``numbers`` are the values of other columns that were asked for, by (participant, run) and name.
    """

    rows: dict[tuple[str, str], Rows]
    labels: dict[tuple[str, str], set[float]]
    has_labels: bool
    list_columns: tuple[str, ...]
    numbers: dict[tuple[str, str], dict[str, set[float]]]


def open_parquet(path: Path) -> Any:
    """Open a Parquet file whose pages are verified as they are read; DataError in one line where it is none."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20)
        _ = file.schema_arrow  # decoded now, so that a damaged one is met here
        return file
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; fetch it or take it out of the data set.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or no Parquet file ({' '.join(str(error).split())}); replace it by a copy.")


def read_columns(file: Any, columns: list[str], path: Path) -> Any:
    """Whole columns as one table; DataError in one line where a page is damaged."""
    try:
        return file.read(columns=columns).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def batches(file: Any, columns: list[str], place: Rows, length: int, path: Path) -> Iterator[tuple[int, Any]]:
    """First row and content of parts of a file, of those row groups that hold a window wanted."""
    at_once = max(1, BYTES_AT_ONCE // (len(columns) * length * 8))
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    bounds = np.cumsum([0, *sizes]).tolist()
    for number, (first, end) in enumerate(pairwise(bounds)):
        wanted = np.flatnonzero(place[first:end] >= 0)
        if not len(wanted):
            continue
        try:
            for batch in file.iter_batches(at_once, row_groups=[number], columns=columns):
                if (place[first : first + batch.num_rows] >= 0).any():
                    yield first, batch
                first += batch.num_rows
                if first > bounds[number] + int(wanted[-1]):
                    break
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(path, error) from None


def fixed_columns(file: Any, path: Path) -> dict[str, str]:
    """Canonical name -> name in the file, of the columns that are no channels."""
    found: dict[str, list[str]] = {}
    for name in file.schema_arrow.names:
        found.setdefault(name.strip().lower(), []).append(name)
    for name in (*FIXED, LABEL):
        if len(found.get(name, [])) > 1:
            raise DataError(f"{path} has columns {' and '.join(found[name])}, which mean the same; keep one of them.")
    missing = [name for name in FIXED if name not in found]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)} (found {', '.join(file.schema_arrow.names[:9])}); windows need "
            f"{', '.join(FIXED)}."
        )
    return {name: found[name][0] for name in (*FIXED, LABEL) if name in found}


def recordings_of(path: Path, labels_of_recordings: Sequence[str] = ()) -> Recordings:
    """Recordings that a file holds, from its columns of participant, run and label, and of labels of recordings."""
    file = open_parquet(path)
    columns = fixed_columns(file, path)
    absent = [name for name in labels_of_recordings if name not in file.schema_arrow.names]
    if absent:
        raise DataError(
            f"{path} has no column {', '.join(absent)}, which labels names (found "
            f"{', '.join(file.schema_arrow.names[:9])}); set labels to columns of the files."
        )
    if file.metadata.num_rows == 0:
        raise DataError(f"{path} holds no window; take it out of the data set.")
    names = [columns[name] for name in ("participant", "run", LABEL) if name in columns]
    table = read_columns(file, [*names, *labels_of_recordings], path)
    others = {name: floats(table, name, path, "numbers or nothing") for name in labels_of_recordings}
    people, runs = (_texts(table, columns[name], path) for name in ("participant", "run"))
    labels = _labels(table, columns[LABEL], path) if LABEL in columns else np.full(len(table), np.nan)
    number = people[0] * len(runs[1]) + runs[0]
    order = np.argsort(number, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    rows, values, found = {}, {}, {}
    for piece in pieces:
        key = people[1][people[0][piece[0]]], runs[1][runs[0][piece[0]]]
        rows[key] = piece
        values[key] = _distinct(labels[piece])
        found[key] = {name: _distinct(column[piece]) for name, column in others.items()}
    list_columns = tuple(field.name for field in file.schema_arrow if is_list(field.type))
    return Recordings(rows, values, LABEL in columns, list_columns, found)


def _distinct(values: npt.NDArray[np.float64]) -> set[float]:
    return {float(value) for value in np.unique(values) if np.isfinite(value)}


def _texts(table: Any, column: str, path: Path) -> tuple[Rows, list[str]]:
    """Code of each row, and the text of each code; numbers without a fraction become their digits."""
    cells = table.column(column).combine_chunks()
    if cells.null_count:
        row = pc.index(pc.is_null(cells), True).as_py()
        raise DataError(f"{path} row {row + 1} has no {column}; fill the cell or remove the row.")
    try:
        encoded = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        texts = [_text(value) for value in encoded.dictionary.to_pylist()]
    except (pa.ArrowException, TypeError, ValueError):
        raise DataError(f"{path} column {column} holds {cells.type}, expected text or whole numbers.") from None
    if "" in texts:
        raise DataError(f"{path} column {column} has blank cells; fill them or remove their rows.")
    distinct = sorted(set(texts))
    code = {text: number for number, text in enumerate(distinct)}
    codes = np.array([code[text] for text in texts], np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
    return codes, distinct


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int):
        raise TypeError(f"{value!r} is neither text nor a whole number")
    return str(value).strip()


def _labels(table: Any, column: str, path: Path) -> npt.NDArray[np.float64]:
    """0, 1 or NaN of each row."""
    values = floats(table, column, path, "0, 1 or nothing")
    wrong = values[np.isfinite(values) & (values != 0) & (values != 1)]
    if len(wrong) or np.isinf(values).any():
        raise DataError(f"{path} column {column} holds {(wrong.tolist() or [np.inf])[0]:g}, expected 0 or 1.")
    return values


def floats(table: Any, column: str, path: Path, expected: str) -> npt.NDArray[np.float64]:
    """Numbers of a column, NaN where a cell has none; DataError where it holds something else than ``expected``."""
    cells = table.column(column).combine_chunks()
    if not (is_number(cells.type) or pa.types.is_boolean(cells.type) or pa.types.is_null(cells.type)):
        raise DataError(f"{path} column {column} holds {cells.type}, expected {expected}.")
    return np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def numbers(table: Any, column: str, path: Path) -> npt.NDArray[np.float64]:
    """Finite numbers of a column; DataError where a cell is none."""
    values = floats(table, column, path, "numbers")
    if not np.isfinite(values).all():
        raise DataError(f"{path} column {column} has a missing or infinite value; fill the cell or remove the row.")
    return values


def integers(table: Any, column: str, path: Path) -> Rows:
    """Whole numbers of a column; DataError where a cell is none."""
    values = numbers(table, column, path)
    if (values != np.rint(values)).any():
        raise DataError(f"{path} column {column} holds {values[values != np.rint(values)][0]:g}, no whole number.")
    return values.astype(np.int64)


def lists(cells: Any, column: str, names: Sequence[str], path: Path) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Length of each list and all samples one after another."""
    n_samples = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    empty = np.flatnonzero(n_samples == 0)
    if len(empty):
        raise DataError(f"{path} window {names[int(empty[0])]}: channel {column} has no samples; remove the window.")
    values = cells.flatten()
    if values.null_count:
        first = pc.index(pc.is_null(values), True).as_py()
        window = int(np.searchsorted(np.cumsum(n_samples), first, side="right"))
        raise DataError(f"{path} window {names[window]}: channel {column} has missing samples; mend the window.")
    return n_samples, values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)


def is_list(kind: Any) -> bool:
    """Whether a type is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_number(kind: Any) -> bool:
    """Whether a type is a number."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
