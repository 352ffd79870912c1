"""Encoders: batches give tokens (B, C, N, D); one file per family."""

from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM

__all__ = ["AdaptedEncoder", "Encoder", "LaBraM"]
