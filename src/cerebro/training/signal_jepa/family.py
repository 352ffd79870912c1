"""Signal-JEPA as a family of files."""

from cerebro.training.foreign_file import Family
from cerebro.training.signal_jepa.layout import LABELS, has_no_place, layout_of, our_name, their_name
from cerebro.training.signal_jepa.weights import fit_weights

SIGNAL_JEPA = Family("SignalJEPA", LABELS, layout_of, our_name, their_name, has_no_place, fit_weights)
