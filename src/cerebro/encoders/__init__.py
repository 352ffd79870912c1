"""Encoders: batches give tokens (B, C, N, D); one file per family."""

from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.mamba2 import Mamba2
from cerebro.encoders.signal_jepa import SignalJEPA
from cerebro.encoders.transformer import Transformer

__all__ = ["AdaptedEncoder", "Encoder", "LaBraM", "Mamba2", "SignalJEPA", "Transformer"]
