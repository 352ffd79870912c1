"""Encoders: batches give tokens (B, C, N, D); one file per family."""

from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.signal_jepa import SignalJEPA

__all__ = ["AdaptedEncoder", "Encoder", "LaBraM", "SignalJEPA"]
