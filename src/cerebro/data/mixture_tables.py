"""Tables of several stores as one table: columns that one lacks are missing there, never an error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cerebro.data.participants import ALSO_IN, SAME_PERSON


def stack(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all frames below each other, with the columns of all; what a frame lacks is NaN in its rows.

    A column stays numeric where every frame that has it is; whole numbers become floats where one frame lacks them.
    """
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    return pd.DataFrame({name: _column([frame.get(name) for frame in frames], frames) for name in names})


def merge_people(tables: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One row per person of several tables, sorted by ``participant_id``, and a line per column that disagrees.

    The first table that knows a value gives it. Names of other participants and of releases are gathered from all.
    """
    table = stack(tables).sort_values("participant_id", kind="stable", ignore_index=True)
    again = table["participant_id"].duplicated(keep=False)
    if not again.any():
        return table, ()
    notes = []
    groups = table[again].groupby("participant_id", sort=True)
    rows: dict[Any, pd.Series] = {}
    for name in table.columns.drop("participant_id"):
        if name in (SAME_PERSON, ALSO_IN):
            rows[name] = groups[name].agg(_union)
            continue
        n_differ = int((groups[name].nunique() > 1).sum())
        if n_differ:
            notes.append(f"members differ in {name} of {n_differ} people: the first member's value counts")
        rows[name] = groups[name].first()
    merged = pd.DataFrame(rows).rename_axis("participant_id").reset_index()
    both = stack([table[~again], merged])
    return both.sort_values("participant_id", kind="stable", ignore_index=True), tuple(notes)


def _column(columns: Sequence[Any], frames: Sequence[pd.DataFrame]) -> npt.NDArray[Any]:
    there = [column for column in columns if column is not None]
    is_numeric = all(pd.api.types.is_numeric_dtype(column) for column in there)
    kind: Any = np.result_type(*(column.dtype for column in there)) if is_numeric else object
    if is_numeric and len(there) < len(columns):
        kind = np.float64
    parts = [
        np.full(len(frame), np.nan, kind) if column is None else column.to_numpy(dtype=kind)
        for column, frame in zip(columns, frames, strict=True)
    ]
    return np.concatenate(parts)


def _union(cells: pd.Series) -> Any:
    names = {name for cell in cells.dropna() for name in str(cell).split("/")}
    return "/".join(sorted(names)) if names else np.nan
