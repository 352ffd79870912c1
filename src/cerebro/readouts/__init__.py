"""Readouts: tokens of an encoder give a prediction."""

from cerebro.readouts.base import Readout
from cerebro.readouts.linear import LinearReadout
from cerebro.readouts.mlp import MLPReadout
from cerebro.readouts.power import PowerReadout
from cerebro.readouts.signal_jepa import Contextual, PostLocal, PreLocal

__all__ = ["Contextual", "LinearReadout", "MLPReadout", "PostLocal", "PowerReadout", "PreLocal", "Readout"]
