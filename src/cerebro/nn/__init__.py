"""Network parts that several files use, or that are hard enough to be tested alone."""
