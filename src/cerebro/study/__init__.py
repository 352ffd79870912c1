"""Studies: a recipe becomes a list of plain `cerebro fit` commands, their runs become one table."""
