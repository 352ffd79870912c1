"""Where windows come from: one class per way of cutting recordings; its constructor is its schema."""

from cerebro.data.film_windows import FilmWindows
from cerebro.data.recording_windows import RecordingWindows
from cerebro.data.sliding_windows import RandomCrops, SlidingWindows, TaskPairs, TaskWindows
from cerebro.data.state_windows import EyesWindows
from cerebro.data.stimulus_windows import StimulusWindows
from cerebro.data.window_source import WindowSource

__all__ = [
    "EyesWindows",
    "FilmWindows",
    "RandomCrops",
    "RecordingWindows",
    "SlidingWindows",
    "StimulusWindows",
    "TaskPairs",
    "TaskWindows",
    "WindowSource",
]
