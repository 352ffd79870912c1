"""Corpora, the recording store, windows, splits by participant, batches.

Names are imported when they are first asked for: the children that read signals need neither torch nor Lightning, whose
import takes longer than reading a recording.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cerebro.data.channels import AsPrepared, AsRecorded, ChannelSpace, MapChannels
    from cerebro.data.module import EEGData
    from cerebro.data.sequences import ChannelSequences
    from cerebro.data.sources import (
        EyesWindows,
        FilmWindows,
        RandomCrops,
        RecordingWindows,
        SlidingWindows,
        StimulusWindows,
        TaskPairs,
        TaskWindows,
        WindowSource,
    )
    from cerebro.data.splits import ParticipantSplit

__all__ = [
    "AsPrepared",
    "AsRecorded",
    "ChannelSequences",
    "ChannelSpace",
    "EEGData",
    "EyesWindows",
    "FilmWindows",
    "MapChannels",
    "ParticipantSplit",
    "RandomCrops",
    "RecordingWindows",
    "SlidingWindows",
    "StimulusWindows",
    "TaskPairs",
    "TaskWindows",
    "WindowSource",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"ChannelSequences": "sequences", "EEGData": "module", "ParticipantSplit": "splits"} | dict.fromkeys(
        ("AsPrepared", "AsRecorded", "ChannelSpace", "MapChannels"), "channels"
    )
    home = homes.get(name, "sources")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
