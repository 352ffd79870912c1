"""Labels of recordings from a table with rows for each of them, such as trials: the label is the median of its rows."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cerebro.data.readers.base import Entry, Finding
from cerebro.data.tables import is_missing, number, read_table
from cerebro.errors import ConfigError, DataError, check_exists


@dataclass(frozen=True)
class LabelTable:
    """Where a label of recordings stands.

    Parameters
    ----------
    table : Path
        ``.csv`` or ``.tsv`` with a header, one row or more per recording.
    column : str
        Column of the numbers; the label is their median.
    file_column : str
        Column that names the recording: its file, as a path relative to the folder of the table.
    scale : float
        What numbers are multiplied by, such as 0.001 for seconds of milliseconds.
    lowest, highest : float
        Rows below or above are left out and counted (``label-outlier``), in the unit of the label.
    """

    table: Path
    column: str
    file_column: str = "file"
    scale: float = 1.0
    lowest: float = -math.inf
    highest: float = math.inf

    def __post_init__(self) -> None:
        if not self.lowest < self.highest:
            raise ConfigError(f"lowest={self.lowest:g} is not below highest={self.highest:g}; set lowest to less.")
        if not (math.isfinite(self.scale) and self.scale):
            raise ConfigError(f"scale={self.scale:g} makes no label; set scale to a number other than 0.")


def with_labels(name: str, label: LabelTable, entries: Sequence[Entry], findings: list[Finding]) -> list[Entry]:
    """Entries with the label ``name`` where their recording has rows; what is odd is added to ``findings``.

    Raises
    ------
    DataError
        In one line: no table, no such column, a cell that is neither a number nor missing.
    """
    of_file = _values(name, label)
    labelled = []
    for entry in entries:
        values = of_file.pop(os.path.abspath(entry.path), [])
        kept = [value for value in values if label.lowest <= value <= label.highest]
        if len(kept) < len(values):
            detail = (
                f"{len(values) - len(kept)} of {len(values)} rows of {name} outside {label.lowest:g} to "
                f"{label.highest:g} left out"
            )
            findings.append(Finding("label-outlier", "repaired", entry.key, detail))
        if kept:
            entry = replace(entry, labels={**entry.labels, name: statistics.median(kept)})
        else:
            findings.append(Finding("label-missing", "repaired", entry.key, f"no row of {name} in {label.table.name}"))
        labelled.append(entry)
    if of_file:
        first = os.path.relpath(min(of_file), label.table.parent)
        detail = f"{len(of_file)} recordings of {label.table.name} are not here, such as {first}"
        findings.append(Finding("label-without-recording", "skipped", name, detail))
    return labelled


def _values(name: str, label: LabelTable) -> dict[str, list[float]]:
    """Known values of each file, by its absolute path, in the unit of the label."""
    check_exists(label.table, f"table of label {name}", f"set label_tables.{name}.table to it.")
    table = read_table(label.table)
    for key in ("column", "file_column"):
        if getattr(label, key) not in table.columns:
            raise DataError(
                f"{label.table} has no column {getattr(label, key)!r} (found {', '.join(table.columns[:9])}); set "
                f"label_tables.{name}.{key} to one of its own."
            )
    found: dict[str, list[float]] = {}
    folder = os.path.abspath(label.table.parent)
    for file, cell in zip(table.column(label.file_column), table.column(label.column), strict=True):
        try:
            value = number(cell) * label.scale
        except ValueError as error:
            raise DataError(f"{label.table} column {label.column}: {error}; write a number or n/a.") from None
        if not is_missing(file):
            values = found.setdefault(os.path.normpath(os.path.join(folder, file)), [])
            values += [] if math.isnan(value) else [value]
    return found
