"""Readers: recordings, events and participants of one corpus; strangers to each other."""

from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan, Segment, Skip
from cerebro.data.readers.folder import Folder
from cerebro.data.readers.hbn import HBN
from cerebro.data.readers.tuh import TUH

__all__ = ["HBN", "TUH", "Entry", "Event", "Finding", "Folder", "Reader", "Recording", "Scan", "Segment", "Skip"]
