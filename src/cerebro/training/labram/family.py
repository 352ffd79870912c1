"""LaBraM as a family of files."""

from cerebro.training.foreign_file import Family
from cerebro.training.labram.layout import LABELS, has_no_place, layout_of, our_name, their_name
from cerebro.training.labram.weights import fit_weights

LABRAM = Family("LaBraM", LABELS, layout_of, our_name, their_name, has_no_place, fit_weights)
