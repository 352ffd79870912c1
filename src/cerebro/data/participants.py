"""The participants table of a corpus: one row per person, missing values as NaN."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cerebro.data.tables import Table, is_missing, number, read_table
from cerebro.errors import DataError

# Columns that are numbers or nothing, whatever else a table holds.
NUMERIC = ("age", "ehq_total", "p_factor", "attention", "internalizing", "externalizing")
NAMES = ("release_number",)  # never numbers, even where all look like one
# Columns that readers and the build add where they know of it; names in a cell are separated by a slash.
SAME_PERSON = "same_person_as"  # participants with a byte-identical recording
ALSO_IN = "also_in_releases"  # releases that list the person too, and whose recordings are left out
SEX_NAMES = ("sex", "gender")
# BIDS participants.tsv allows "other"; the target is binary, so it counts as missing.
SEX_CODES = {"m": 0.0, "male": 0.0, "f": 1.0, "female": 1.0, "o": np.nan, "other": np.nan}


def read_participants(path: Path, participant_column: str = "participant_id") -> pd.DataFrame:
    """Read a participants table with one row per person.

    Parameters
    ----------
    path : Path
        ``.tsv`` or ``.csv`` file.
    participant_column : str
        Column that names the person.

    Returns
    -------
    pandas.DataFrame
        Index ``participant_id``, sorted. ``sex`` (also from a column ``gender``) is 0 for male, 1 for female; ``age``
        and the questionnaire factors are floats; every other column is float if all its known values are numbers, else
        text. Missing cells (blank, ``n/a``) are NaN.

    Raises
    ------
    DataError
        In one line, if the table cannot be read, a person is named twice or not at all, or a value is none.
    """
    table, repeated = read_people(path, participant_column)
    if repeated:
        raise DataError(
            f"{path} lists {len(repeated)} participants more than once ({', '.join(repeated[:3])}); keep one row of "
            "each."
        )
    return table


def read_people(path: Path, participant_column: str = "participant_id") -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a participants table that may hold a row twice; gives the table and the people whose row was repeated.

    Rows of one person that say the same count once. Rows that contradict each other are refused: nothing tells which
    age, label or release is that of the person.

    Parameters
    ----------
    path, participant_column
        As for `read_participants`, whose table this gives.

    Raises
    ------
    DataError
        In one line, as `read_participants`, but for rows that are the same.
    """
    table = read_table(path)
    if participant_column not in table.columns:
        raise DataError(
            f"{path} has no column {participant_column!r} that names the participants; its columns are "
            f"{', '.join(table.columns)}."
        )
    place = table.columns.index(participant_column)
    rows: dict[str, tuple[str, ...]] = {}
    spelled: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for at, row in enumerate(table.rows):
        person = row[place]
        if is_missing(person):
            raise DataError(f"{path} data row {at + 1} names no participant; fill or remove the row.")
        if (other := spelled.setdefault(person.casefold(), person)) != person:
            raise DataError(f"{path} lists {other} and {person}, one name in two spellings; keep one of them.")
        first = rows.setdefault(person, row)
        if first is not row:
            repeated[person] = None
        differs = [name for name, a, b in zip(table.columns, first, row, strict=True) if not _is_same(a, b)]
        if differs:
            raise DataError(
                f"{path} lists {person} more than once, with another {', '.join(differs[:3])} each time; keep one row."
            )
    table = Table(table.columns, list(rows.values()))
    columns = {_canonical(name): _values(table, name, path) for name in table.columns if name != participant_column}
    if len(columns) != len(table.columns) - 1:
        raise DataError(f"{path} has columns that mean the same (age, sex or gender twice); keep one of each.")
    index = pd.Index(list(rows), name="participant_id", dtype=object)
    return pd.DataFrame(columns, index=index).sort_index(), tuple(sorted(repeated))


def _is_same(one: str, two: str) -> bool:
    return one == two or (is_missing(one) and is_missing(two))


def _canonical(name: str) -> str:
    lower = name.lower()
    if lower in SEX_NAMES:
        return "sex"
    return lower if lower in NUMERIC else name


def _values(table: Table, name: str, path: Path) -> npt.NDArray[np.float64] | npt.NDArray[np.object_]:
    cells = table.column(name)
    canonical = _canonical(name)
    if canonical == "sex":
        unknown = sorted({cell for cell in cells if not is_missing(cell) and cell.lower() not in SEX_CODES})
        if unknown:
            raise DataError(f"{path} column {name} holds {unknown[0]!r}; write M, F or n/a.")
        return np.array([np.nan if is_missing(cell) else SEX_CODES[cell.lower()] for cell in cells], dtype=np.float64)
    try:
        if name not in NAMES:
            return np.array([number(cell) for cell in cells], dtype=np.float64)
    except ValueError as error:
        if canonical in NUMERIC:
            raise DataError(f"{path} column {name} should hold numbers or n/a ({error}); mend the cell.") from None
    return np.array([np.nan if is_missing(cell) else cell for cell in cells], dtype=object)


def with_names(table: pd.DataFrame, column: str, names: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """A participants table with a column of names for some people; the same table where there is nobody to name."""
    if not names:
        return table
    cells = {person: "/".join(sorted(found)) for person, found in names.items()}
    return table.assign(**{column: pd.Series(cells, dtype=object).reindex(table.index)})


def names_in(table: pd.DataFrame, column: str) -> Iterator[tuple[str, str]]:
    """Each (person, name) of such a column."""
    if column in table.columns:
        for person, cell in table[column].dropna().items():
            for name in str(cell).split("/"):
                yield str(person), name
