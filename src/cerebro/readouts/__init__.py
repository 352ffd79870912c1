"""Readouts: tokens of an encoder give a prediction."""

from cerebro.readouts.base import Readout
from cerebro.readouts.linear import LinearReadout
from cerebro.readouts.mlp import MLPReadout

__all__ = ["LinearReadout", "MLPReadout", "Readout"]
