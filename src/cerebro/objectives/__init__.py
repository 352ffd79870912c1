"""Objectives: an encoder and a batch give a loss; one file each."""

from cerebro.objectives.base import FixedWindows, Loss, Objective
from cerebro.objectives.contrastive import Contrastive
from cerebro.objectives.masked_codes import FrozenTokenizer, MaskedCodes
from cerebro.objectives.supervised import Supervised
from cerebro.objectives.vqnsp import VQNSP
from cerebro.objectives.weighted_sum import WeightedSum

__all__ = [
    "VQNSP",
    "Contrastive",
    "FixedWindows",
    "FrozenTokenizer",
    "Loss",
    "MaskedCodes",
    "Objective",
    "Supervised",
    "WeightedSum",
]
