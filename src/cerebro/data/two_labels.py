"""A table that says which of two labels each participant has, such as remission and non-remission."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cerebro.data.readers.base import Finding
from cerebro.data.tables import is_missing, number, read_table
from cerebro.errors import ConfigError, DataError, check_exists

LISTED = 5  # names in an error


@dataclass(frozen=True)
class Label:
    """Where the label stands.

    Parameters
    ----------
    table : Path
        ``.csv`` or ``.tsv`` with a header, one row or more per participant.
    column : str
        Column of the label.
    values : tuple of two
        What the column says for label 0 and for label 1; numbers are compared as numbers, texts to the letter.
    participant_column : str
        Column of the participant, as the names of the recordings have it.

    Raises
    ------
    ConfigError
        If ``values`` are not two different ones.
    """

    table: Path
    column: str
    values: tuple[str | int | float, str | int | float]
    participant_column: str = "participant_id"

    def __post_init__(self) -> None:
        wrong = [value for value in self.values if isinstance(value, bool)]
        if wrong:
            raise ConfigError(
                f"label.values holds {wrong[0]}, as YAML reads no, yes, off and on; put quotes around them."
            )
        if self.names[0] == self.names[1] or "" in self.names:
            raise ConfigError(
                f"label.values={list(self.values)} must be two different values; set what column {self.column} says "
                "for 0 and for 1."
            )

    @property
    def names(self) -> tuple[str, str]:
        """What stands in the table for label 0 and for label 1, as text."""
        zero, one = (f"{value:g}" if isinstance(value, float) else str(value).strip() for value in self.values)
        return zero, one


def read_labels(label: Label, recorded: Collection[str]) -> tuple[dict[str, int], list[Finding]]:
    """Participant -> 0 or 1 for those of ``recorded`` that the table labels, and what was counted on the way.

    Raises
    ------
    DataError
        In one line: no table or column, a value that is neither of the two, a participant with both, nobody of
        ``recorded`` in the table, or one label only among them.
    """
    check_exists(label.table, "label table", "set label.table to the table of the participants.")
    table = read_table(label.table)
    for key, name in (("participant_column", label.participant_column), ("column", label.column)):
        if name not in table.columns:
            raise DataError(
                f"{label.table} has no column {name!r} (found {', '.join(table.columns[:9])}); set label.{key} to one "
                "of its own."
            )
    zero, one = (_comparable(name) for name in label.names)
    found: dict[str, dict[int, int]] = {}  # participant -> label -> first row
    cells = zip(table.column(label.participant_column), table.column(label.column), strict=True)
    for row, (person, cell) in enumerate(cells, start=1):
        if is_missing(person):
            raise DataError(f"{label.table} data row {row} names no participant; fill or remove the row.")
        rows = found.setdefault(person, {})
        value = _comparable(cell)
        if value in (zero, one):
            rows.setdefault(int(value == one), row)
        elif not is_missing(cell):
            others = sorted({text for text in table.column(label.column) if not is_missing(text)})
            raise DataError(
                f"{label.table} column {label.column} holds {cell!r} in data row {row}, expected {label.names[0]!r} or "
                f"{label.names[1]!r} (found {', '.join(others[:LISTED])}{', ...' if len(others) > LISTED else ''}); "
                "correct the table or set label.values."
            )
    both = sorted(person for person, rows in found.items() if len(rows) > 1)
    if both:
        rows = found[both[0]]
        raise DataError(
            f"{label.table} gives participant {both[0]} both labels ({label.names[0]} in data row {rows[0]}, "
            f"{label.names[1]} in data row {rows[1]}; {len(both)} such participants); keep one label of each."
        )
    known = {person: next(iter(found[person])) for person in sorted(recorded) if found.get(person)}
    if not set(found) & set(recorded):
        raise DataError(
            f"none of the {len(recorded)} participants of the recordings ({_few(recorded)}) stands in {label.table} "
            f"column {label.participant_column} ({_few(found)}); set participant_from so that it finds them in the "
            "names, or label.participant_column."
        )
    if len(set(known.values())) < 2:
        there = label.names[next(iter(known.values()))] if known else "none"
        raise DataError(
            f"{len(known)} participants with recordings have a label and all of them the same ({there}); two labels "
            f"are needed, {label.names[0]} and {label.names[1]}: add recordings, or set label.column or label.values."
        )
    return known, _findings(label, found, recorded)


def _findings(label: Label, found: dict[str, dict[int, int]], recorded: Collection[str]) -> list[Finding]:
    findings = [
        Finding("participant-without-recording", "skipped", person, f"in {label.table.name}, no recording")
        for person in sorted(set(found) - set(recorded))
    ]
    for person in sorted(recorded):
        if person not in found:
            detail = f"no row in {label.table.name}: recordings left out"
            findings.append(Finding("participant-not-listed", "skipped", person, detail))
        elif not found[person]:
            detail = f"no {label.column} in {label.table.name}: recordings left out"
            findings.append(Finding("label-missing", "skipped", person, detail))
    return findings


def _comparable(text: str) -> str | float:
    try:
        value = number(text)
    except ValueError:
        return text.strip()
    return value if value == value else ""  # NaN: missing


def _few(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:LISTED]) + (", ..." if len(names) > LISTED else "")
