"""What a window is to predict: a value and whether it is known.

A label of a single window (response time, a recording's condition) comes with the window table; a label of a person
(p_factor, age) is looked up in the participants table. A missing label is masked and counted, never filled in.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cerebro.data.columns import Column
from cerebro.data.windows import WindowTable
from cerebro.errors import ConfigError, DataError

SEX_CODES = {"M": 0.0, "F": 1.0}


@dataclass(frozen=True)
class Labels:
    """Targets of windows by row.

    Parameters
    ----------
    of_window : dict of columns (W,)
        Window-level labels, NaN where missing.
    of_participant : dict of float32 (P,)
        Participant-level labels by row of the participants table, NaN where missing or not to be used.
    names : tuple of str
        Targets in the order asked for.
    """

    of_window: dict[str, Column[np.float32]]
    of_participant: dict[str, npt.NDArray[np.float32]]
    names: tuple[str, ...]

    def values(
        self, name: str, rows: npt.NDArray[np.int64], participant: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Values of a target for window ``rows`` (B,) of ``participant`` (B,); NaN where missing."""
        if name in self.of_window:
            return self.of_window[name][rows]
        return self.of_participant[name][participant]

    def n_missing(self, name: str, rows: Column[np.int64], participant: npt.NDArray[np.int64]) -> int:
        """Windows among ``rows`` without a label; that of a run is that of its first window, of ``participant``."""
        return int(rows.runs.sizes[np.isnan(self.values(name, rows.first, participant))].sum())

    def batch(
        self, rows: npt.NDArray[np.int64], participant: npt.NDArray[np.int64]
    ) -> tuple[dict[str, Float[Tensor, " B"]], dict[str, Bool[Tensor, " B"]]]:
        """Values and known masks of a batch; a missing value is NaN, so that a forgotten mask cannot go unnoticed."""
        targets, known = {}, {}
        for name in self.names:
            values = self.values(name, rows, participant)
            targets[name] = torch.from_numpy(values)
            known[name] = torch.from_numpy(np.isfinite(values))
        return targets, known


def participant_values(participants: pd.DataFrame, name: str) -> npt.NDArray[np.float32]:
    """Column ``name`` as float32 (P,), NaN where missing; sex is coded M = 0, F = 1.

    Raises
    ------
    DataError
        If a value is neither a number nor missing.
    """
    column = participants[name]
    if not pd.api.types.is_numeric_dtype(column):
        text = column.astype("string").str.strip()
        text = text.mask(text.str.lower().isin(["n/a", "", "nan", "na"]))
        numbers = text.map(SEX_CODES) if name == "sex" else pd.to_numeric(text, errors="coerce")
        if name == "sex":
            numbers = numbers.fillna(pd.to_numeric(text, errors="coerce"))
        wrong = text[text.notna() & numbers.isna()]
        if len(wrong):
            raise DataError(
                f"{len(wrong)} participants have a {name} that is no number, such as {wrong.iloc[0]!r} of "
                f"{wrong.index[0]}; correct the participants table and run `cerebro prepare` again."
            )
        column = numbers.astype("Float64")
    values = column.to_numpy(dtype=np.float32, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def resolve(
    names: tuple[str, ...], table: WindowTable, participants: pd.DataFrame, may_use: npt.NDArray[np.bool_]
) -> Labels:
    """Find each target among the window-level labels, then among the participants' columns.

    Parameters
    ----------
    names : tuple of str
        Targets asked for.
    table : WindowTable
        Windows with their own labels.
    participants : DataFrame
        One row per participant (P).
    may_use : bool (P,)
        False where a person's labels are not to be used.

    Raises
    ------
    ConfigError
        If a target is found in neither.
    """
    numeric = [str(name) for name in participants.columns]
    of_participant = {}
    for name in names:
        if name in table.targets:
            continue
        if name not in participants.columns:
            have = ", ".join(sorted(set(table.targets) | set(numeric))) or "none"
            raise ConfigError(
                f"target {name!r} is unknown; set data.targets (of a probe: --targets) to some of: {have}."
            )
        of_participant[name] = np.where(may_use, participant_values(participants, name), np.float32(np.nan))
    return Labels({name: table.targets[name] for name in names if name in table.targets}, of_participant, names)
