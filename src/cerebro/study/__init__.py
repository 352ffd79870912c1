"""Studies: a recipe becomes plain commands, the commands become runs, the runs become a table."""
