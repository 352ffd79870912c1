"""Mamba-2 as a family of files."""

from cerebro.training.foreign_file import Family
from cerebro.training.mamba_ssm.layout import LABELS, has_no_place, layout_of, our_name, their_name
from cerebro.training.mamba_ssm.weights import fit_weights

MAMBA_SSM = Family("Mamba2", LABELS, layout_of, our_name, their_name, has_no_place, fit_weights)
