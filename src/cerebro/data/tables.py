"""Small text tables (TSV, CSV) as people write them: ``n/a``, blanks, byte-order marks, ragged rows."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from cerebro.errors import DataError

DELIMITERS = {".tsv": "\t", ".csv": ","}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufffd]")  # no table has them; damaged ones do
MISSING = frozenset({"", "n/a", "na", "nan", "null", "none"})  # compared in lower case


@dataclass(frozen=True)
class Table:
    """Column names and rows of text, all rows as long as the header."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def column(self, name: str) -> list[str]:
        """Values of one column, top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def is_missing(text: str) -> bool:
    """Whether a cell says nothing: blank, ``n/a``, ``NaN`` and the like."""
    return text.strip().lower() in MISSING


def number(text: str) -> float:
    """Value of a cell; NaN where it is missing.

    Raises
    ------
    ValueError
        If it is neither missing nor a finite number.
    """
    if is_missing(text):
        return math.nan
    if not _NUMBER.fullmatch(text.strip()):  # float() takes 1_0, full-width digits and infinity too
        raise ValueError(f"{text!r} is no number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def read_table(path: Path) -> Table:
    """Read a ``.tsv`` or ``.csv`` file; blank lines are passed over, cells are stripped.

    Raises
    ------
    DataError
        In one line, if the file is absent, of another kind, no text, without a header, or has a row that is longer or
        shorter than the header or a column twice.
    """
    delimiter = DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise DataError(f"{path} is no table that can be read here; give a .tsv or .csv file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"table {path} does not exist; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); replace it by a whole copy.") from None
    return parse_table(text, delimiter, path)


def parse_table(text: str, delimiter: str, path: Path) -> Table:
    """Take a table apart; ``path`` is named in errors, which are those of `read_table`."""
    control = _CONTROL.search(text.replace("\r\n", "\n").replace("\r", "\n"))
    if control is not None:
        at = text.count("\n", 0, control.start()) + 1
        raise DataError(f"{path} line {at} holds the control character {control[0]!a}; replace it by a whole copy.")
    try:
        lines = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table ({error}); replace it by a whole copy.") from None
    numbered = [(at, [cell.strip() for cell in line]) for at, line in enumerate(lines, start=1) if any(line)]
    if not numbered:
        raise DataError(f"table {path} is empty; replace it by a whole copy.")
    columns = tuple(numbered[0][1])
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path} has column {', '.join(twice)} twice; rename or remove one of each.")
    for at, cells in numbered[1:]:
        if len(cells) != len(columns):
            raise DataError(
                f"{path} line {at} has {len(cells)} cells under a header of {len(columns)}; mend the line (columns: "
                f"{', '.join(columns[:6])}{', ...' if len(columns) > 6 else ''})."
            )
    return Table(columns=columns, rows=[tuple(cells) for _, cells in numbered[1:]])
