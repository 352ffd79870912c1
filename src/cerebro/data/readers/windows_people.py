"""Who was recorded in files of windows, and with which label: from the rows, and from a table of participants."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cerebro.data.participants import read_participants
from cerebro.data.readers.base import Finding
from cerebro.data.readers.windows_file import LABEL
from cerebro.errors import DataError


def read_table_of_people(path: Path, participant_column: str) -> pd.DataFrame:
    """Participants table whose column of the label, in whatever case, is called `LABEL` and holds 0, 1 or NaN.

    Raises
    ------
    DataError
        In one line, as `read_participants`, and for two such columns or another value.
    """
    table = read_participants(path, participant_column)
    columns = [name for name in table.columns if name.lower() == LABEL]
    if len(columns) > 1:
        raise DataError(f"{path} has columns {' and '.join(columns)}, which mean the same; keep one of them.")
    for name in columns:
        wrong = [value for value in table[name].dropna() if value not in (0.0, 1.0)]
        if wrong:
            raise DataError(f"{path} column {name} holds {wrong[0]!r}, expected 0, 1 or n/a.")
    return table.rename(columns=dict.fromkeys(columns, LABEL))


def people_of(
    rows: Mapping[str, set[float]], has_labels: bool, table: pd.DataFrame | None, table_name: str
) -> tuple[pd.DataFrame, set[str], list[Finding]]:
    """Table of the people recorded, who has two labels, and what was counted on the way.

    Parameters
    ----------
    rows : mapping of str to set of float
        Participant -> labels that its rows bear.
    has_labels : bool
        Whether any file has a column of labels.
    table : pandas.DataFrame, optional
        Table of `read_table_of_people`.
    table_name : str
        Its file in findings.
    """
    people = sorted(rows)
    listed = pd.DataFrame(index=pd.Index([], dtype=object)) if table is None else table
    findings = []
    if table is not None:
        findings += [
            Finding("participant-without-recording", "skipped", person, f"in {table_name}, no windows")
            for person in sorted(set(table.index) - set(people))
        ]
        findings += [
            Finding("participant-not-listed", "repaired", person, f"no row in {table_name}: labels missing")
            for person in sorted(set(people) - set(table.index))
        ]
    participants = listed.reindex(pd.Index(people, name="participant_id", dtype=object))
    if LABEL not in participants.columns:
        if not has_labels:
            return participants, set(), findings
        participants[LABEL] = np.nan
    contradicted = set()
    for person in people:
        own, said = rows[person], float(participants[LABEL][person])
        if len(own) > 1:
            detail = f"{LABEL} is 0 and 1 in rows of participant {person}; make them agree"
        elif own and not np.isnan(said) and said not in own:
            detail = f"{LABEL} is {next(iter(own)):g} in rows of participant {person} and {said:g} in {table_name}"
            detail += "; make them agree"
        else:
            if own:
                participants.loc[person, LABEL] = next(iter(own))
            continue
        contradicted.add(person)
        participants.loc[person, LABEL] = np.nan
        findings.append(Finding("label-contradiction", "failed", person, detail))
    return participants, contradicted, findings
