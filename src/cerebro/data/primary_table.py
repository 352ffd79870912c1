"""The primary data set: windows of all recordings in one Parquet file, in a verified order, a row group per recording.

Columns: ``Participant, Remission, run, parent_window_id, sub_window_id, window_start, window_end``, then labels of
recordings by their names, then a list of samples per channel in upper case. Rows are sorted by participant (as text),
run, parent and sub-window; the file as it lies on the disk is read back and checked before it gets its name.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cerebro.data.window_files import METADATA, damaged, read_columns
from cerebro.errors import DataError
from cerebro.files import write_atomically
from cerebro.progress import progress

IDS = ("Participant", "run", "parent_window_id", "sub_window_id")
# Floats neither in dictionaries nor squeezed, which costs time and gains nothing; pages with checksums.
OPTIONS: dict[str, Any] = {
    "use_dictionary": False,
    "compression": "none",
    "write_page_checksum": True,
    "write_statistics": False,
}
FIXED = ("Participant", "Remission", "run", "parent_window_id", "sub_window_id", "window_start", "window_end")


@dataclass(frozen=True)
class Run:
    """One recording of a primary data set: a participant's run, in a file of its own so far.

    Parameters
    ----------
    participant : str
        As in the column ``Participant``.
    number : int
        Column ``run``.
    key : str
        Recording that it is.
    piece : Path
        File with its windows or their features.
    piece_key : str
        Hash of what they depend on.
    remission : int or None
        0, 1, or nothing where the data set has no label.
    labels : mapping of str to float
        Labels of this recording; missing where it has none.
    """

    participant: str
    number: int
    key: str
    piece: Path
    piece_key: str
    remission: int | None
    labels: Mapping[str, float]


def identity(runs: Sequence[Run], content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a data set's bytes depend on: what its runs are, and what its metadata say."""
    rows = [
        [run.participant, run.number, run.key, run.piece_key, run.remission, sorted(run.labels.items())] for run in runs
    ]
    return hashlib.sha256(json.dumps([rows, content], sort_keys=True).encode()).hexdigest()


def write_table(
    path: Path,
    runs: Sequence[Run],
    columns: Sequence[str],
    labels: Sequence[str],
    content: Mapping[str, Any],
    what: str,
) -> str:
    """Write ``path`` unless it is there with the same identity, and verify its order; gives the identity.

    Parameters
    ----------
    path : Path
        The file.
    runs : sequence of Run
        Sorted by participant and number.
    columns : sequence of str
        Columns to take from the files of the runs, behind those that every data set has.
    labels : sequence of str
        Names of labels of recordings.
    content : mapping
        Plain types for the schema's metadata.
    what : str
        Word for the progress bar.

    Raises
    ------
    DataError
        A damaged file of a run, a full disk, or a file that does not read back in order.
    """
    digest = identity(runs, content)
    if path.is_file() and _identity_of(path) == digest:
        verify_order(path)
        return digest
    metadata = {METADATA: json.dumps({**content, "identity": digest}, sort_keys=True).encode()}

    def write(file: BinaryIO) -> None:
        with contextlib.ExitStack() as stack:  # closes the writer before its file, also after an error
            writer = None
            for run in progress(runs, what, "recording"):
                table = _with_ids(run, columns, labels).replace_schema_metadata(metadata)
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(file, table.schema, **OPTIONS))
                writer.write_table(table, row_group_size=max(1, len(table)))
        file.flush()
        verify_order(Path(file.name))

    write_atomically(path, write, sum(run.piece.stat().st_size for run in runs))
    return digest


def read_content(path: Path) -> dict[str, Any]:
    """What the schema's metadata say: ``processing, label, recording_labels, channels, identity``."""
    try:
        content = json.loads((pq.read_schema(path).metadata or {})[METADATA])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged(path, error) from None
    return dict(content)


def verify_order(path: Path) -> int:
    """Read a data set's ids back; gives its number of windows.

    Raises
    ------
    DataError
        If rows are not sorted by participant, run, parent and sub-window, a window stands there twice, or a row group
        holds more than one run or a part of one.
    """
    last: tuple[str, int, int, int] | None = None
    n_windows = 0
    for rows in _ids_by_group(path):
        for row in rows:
            if last is not None and row <= last:
                raise DataError(
                    f"{path}: window {row} (participant, run, parent, sub) stands behind {last}; remove the file and "
                    "run the same command again."
                )
            last = row
        if len({row[:2] for row in rows}) != 1:
            raise DataError(f"{path}: a row group holds several runs, first {rows[0][:2]}; remove the file.")
        n_windows += len(rows)
    return n_windows


def _ids_by_group(path: Path) -> Iterator[list[tuple[str, int, int, int]]]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for number in range(file.metadata.num_row_groups):
            table = file.read_row_group(number, columns=list(IDS))
            yield list(zip(*(table.column(name).to_pylist() for name in IDS), strict=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from None


def _with_ids(run: Run, columns: Sequence[str], labels: Sequence[str]) -> Any:
    """Table of one run with every column of the data set."""
    windows = read_columns(run.piece)
    n = len(windows)
    found: dict[str, Any] = {
        "Participant": pa.array([run.participant] * n, pa.string()),
        "Remission": pa.array([run.remission] * n, pa.int8()),
        "run": pa.array(np.full(n, run.number, np.int64)),
    }
    found |= {name: windows.column(name) for name in FIXED[3:]}
    found |= {name: pa.array([run.labels.get(name)] * n, pa.float64()) for name in labels}
    found |= {name: windows.column(name) for name in columns}
    return pa.table(found)


def _identity_of(path: Path) -> str:
    try:
        return str(read_content(path).get("identity", ""))
    except DataError:
        return ""
