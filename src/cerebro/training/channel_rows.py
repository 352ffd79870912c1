"""Rows of a table of channels for the channels of another cap: by name where there is one, else between neighbours."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cerebro.errors import CheckpointError
from cerebro.training.electrodes import Electrodes, apart_mm, same_names, some

Rows = Literal["by_name", "nearest", "initial", "interpolated"]
"""``initial``: the table starts anew. ``interpolated``: see `interpolated_rows`. The others: see `Transfer`."""

N_NEIGHBOURS = 4
OTHER_PLACE_MM = 30.0  # two electrodes of one name farther apart than this are two electrodes
_SAME_PLACE_MM = 1.0


def interpolated_rows(
    table: Tensor, theirs: Electrodes, ours: Electrodes, path: Path
) -> tuple[Tensor, tuple[str, ...]]:
    """Rows (C, D) for the channels of ours, and lines that count them.

    A channel takes the row of its name, unless that stands for a place more than `OTHER_PLACE_MM` away (nets number
    their electrodes alike). Any other is a mean of the rows of the `N_NEIGHBOURS` nearest electrodes, weighted by the
    inverse square of their distance on the head; within a millimetre it is the row of that electrode.

    Parameters
    ----------
    table : tensor (K, D)
        A row per electrode of ``theirs``.
    theirs, ours : Electrodes
    path : Path
        File of the weights, for messages.

    Raises
    ------
    CheckpointError
        In one line: a channel has neither a name nor a place to go by.
    """
    found = same_names(ours.channels, theirs.channels)
    away_mm = apart_mm(ours.directions(), theirs.directions())  # (C, K), NaN where a place is unknown
    strays = [at for at, row in enumerate(found) if row is not None and away_mm[at, row] > OTHER_PLACE_MM]
    for at in strays:
        found[at] = None
    between = [at for at, row in enumerate(found) if row is None]
    lost = [ours.channels[at] for at in between if not np.isfinite(away_mm[at]).any()]
    if lost:
        raise CheckpointError(
            f"{path}: {len(lost)} of {len(ours.channels)} channels have no row by name and no place to interpolate "
            f"from ({some(lost)}); nothing was loaded; prepare the store with a montage that places them, or write "
            "rows: initial into this entry of model.init."
        )
    rows = table[[0 if row is None else row for row in found]].clone()
    nearest_mm = []
    for at in between:
        order = np.argsort(away_mm[at])[:N_NEIGHBOURS]  # unknown places are last
        order = order[np.isfinite(away_mm[at, order])]
        distance = away_mm[at, order]
        nearest_mm.append(float(distance[0]))
        if distance[0] < _SAME_PLACE_MM:
            rows[at] = table[int(order[0])]
            continue
        weight = torch.from_numpy(distance**-2.0 / (distance**-2.0).sum())
        rows[at] = (weight[:, None] * table[torch.from_numpy(order)].double()).sum(dim=0).to(table.dtype)
    lines = [f"channel rows: {len(found) - len(between)} of {len(found)} channels by name"]
    if between:
        far = ours.channels[between[int(np.argmax(nearest_mm))]]
        lines.append(
            f"channel rows: {len(between)} of {len(found)} channels interpolated from the {N_NEIGHBOURS} nearest of "
            f"{int(theirs.is_placed.sum())}; distance to the nearest: median {np.median(nearest_mm):.1f} mm, largest "
            f"{max(nearest_mm):.1f} mm ({far})"
        )
    if strays:
        lines.append(
            f"channel rows: {len(strays)} of these have a name that stands for a place more than {OTHER_PLACE_MM:g} mm "
            f"away there ({some([ours.channels[at] for at in strays])})"
        )
    return rows, tuple(lines)
