"""Numbers in, numbers out: scores of predictions, and intervals over participants."""
