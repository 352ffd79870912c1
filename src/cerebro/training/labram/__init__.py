"""LaBraM in the layouts of other programs: their names and shapes, their channels, in and out."""
