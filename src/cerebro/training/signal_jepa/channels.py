"""Channels of braindecode's published Signal-JEPA weights, and the row that each channel of a store starts from."""

from pathlib import Path

import numpy as np
from torch import Tensor

from cerebro.errors import CheckpointError
from cerebro.montage import standard_1005
from cerebro.signal import SignalSpec
from cerebro.training.channel_rows import Rows, interpolated_rows
from cerebro.training.electrodes import Electrodes, same_names, some
from cerebro.training.foreign_file import ForeignFile

# EEG channels of Lee2019 (doi:10.1093/gigascience/giz002) in the order of the rows of the published weights, as in
# `_PRETRAIN_CHS_INFO` of braindecode/models/signal_jepa.py.
_NAMES = """
Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8 PO9 O1 Oz O2 PO10
FC3 FC4 C5 C1 C2 C6 CP3 CPz CP4 P1 P2 POz FT9 FTT9h TTP7h TP7 TPP9h FT10 FTT10h TPP8h TP8 TPP10h F9 F10
AF7 AF3 AF4 AF8 PO3 PO4
"""
PUBLISHED_CHANNELS: tuple[str, ...] = tuple(_NAMES.split())
PUBLISHED_SFREQ = 128.0  # Hz


def published_electrodes() -> Electrodes:
    """The 62 channels of the published weights at their places in the 10-05 system."""
    cap = standard_1005()
    at = {name: row for row, name in enumerate(cap.channels)}
    return Electrodes(PUBLISHED_CHANNELS, np.array([cap.positions[at[name]] for name in PUBLISHED_CHANNELS]))


def fit_table(
    table: Tensor, file: ForeignFile, signal: SignalSpec, rows: Rows, path: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Rows (C, E) for the channels of a signal and lines for the user; no tensor where the table starts anew.

    A file says which channels its rows are if cerebro exported it as safetensors. Else 62 rows are taken as the
    channels of the published weights, and as many rows as the signal has channels as those, in their order, which a
    line says.

    Parameters
    ----------
    table : tensor (K, E)
        Table of the file.
    file : ForeignFile
        The file.
    signal : SignalSpec
        Channels of the store.
    rows : {"by_name", "initial", "interpolated"}
    path : Path
        The file, for messages.

    Raises
    ------
    CheckpointError
        In one line: another rule, channels without a row, or rows of channels that nobody knows.
    """
    if rows == "initial":
        return None, ("channel rows: all start anew, as rows: initial says",)
    theirs, told = _electrodes(table, file)
    if theirs is None:
        return _in_order(table, signal, rows, path)
    ours = Electrodes.of(signal)
    if rows == "interpolated":
        fitted, lines = interpolated_rows(table, theirs, ours, path)
        return fitted, (*told, *lines)
    found = same_names(ours.channels, theirs.channels)
    lost = [name for name, row in zip(ours.channels, found, strict=True) if row is None]
    if lost:
        raise CheckpointError(
            f"{path}: {len(lost)} of {len(found)} channels of this store are not among the {len(theirs.channels)} of "
            f"the file ({some(lost)}); nothing was loaded; {remedy(path)}."
        )
    line = f"channel rows: {len(found)} of {len(found)} channels by name"
    return table[[row for row in found if row is not None]], (*told, line)


def remedy(path: Path) -> str:
    """What to type where channels have no row of their own."""
    return (
        f"write model.init: [{{source: {path}, rows: interpolated}}] for rows between those of the nearest channels, "
        "or rows: initial for a table that starts anew"
    )


def _electrodes(table: Tensor, file: ForeignFile) -> tuple[Electrodes | None, tuple[str, ...]]:
    """Whose rows they are, if that is known, and a line where it is taken for granted."""
    if file.signal and len(file.signal["channels"]) == len(table):
        return Electrodes.of(file.signal), ()
    if len(table) == len(PUBLISHED_CHANNELS):
        return published_electrodes(), ("channel rows: 62, taken as the channels of braindecode's published weights",)
    return None, ()


def _in_order(table: Tensor, signal: SignalSpec, rows: Rows, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    n_channels = len(signal.channels)
    if rows == "by_name" and len(table) == n_channels:
        line = f"channel rows: {n_channels}, taken in the order of this store's channels: the file does not name them"
        return table, (line,)
    raise CheckpointError(
        f"{path} has rows for {len(table)} channels and does not name them, and this store has {n_channels}; nothing "
        f"was loaded; write model.init: [{{source: {path}, rows: initial}}] for a table that starts anew"
        + (", or leave rows out if they are this store's in its order." if len(table) == n_channels else ".")
    )
