"""Objectives: an encoder and a batch give a loss; one file each."""

from cerebro.objectives.base import FixedWindows, Loss, Objective
from cerebro.objectives.block_masks import BlockMask, DiskMask, ManyContexts, Masking
from cerebro.objectives.contrastive import Contrastive
from cerebro.objectives.jepa import JEPA
from cerebro.objectives.masked_codes import FrozenTokenizer, MaskedCodes
from cerebro.objectives.masked_windows import MaskedWindows
from cerebro.objectives.supervised import Supervised
from cerebro.objectives.vqnsp import VQNSP
from cerebro.objectives.weighted_sum import WeightedSum

__all__ = [
    "JEPA",
    "VQNSP",
    "BlockMask",
    "Contrastive",
    "DiskMask",
    "FixedWindows",
    "FrozenTokenizer",
    "Loss",
    "ManyContexts",
    "MaskedCodes",
    "MaskedWindows",
    "Masking",
    "Objective",
    "Supervised",
    "WeightedSum",
]
