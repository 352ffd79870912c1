"""Corpora, the recording store, windows, splits by participant, batches."""

from cerebro.data.module import EEGData
from cerebro.data.sources import FilmWindows, RandomCrops, SlidingWindows, StimulusWindows, TaskWindows, WindowSource
from cerebro.data.splits import ParticipantSplit

__all__ = [
    "EEGData",
    "FilmWindows",
    "ParticipantSplit",
    "RandomCrops",
    "SlidingWindows",
    "StimulusWindows",
    "TaskWindows",
    "WindowSource",
]
