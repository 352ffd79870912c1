"""Parts that several models use, or that are hard enough to be tested alone."""
