"""Training: the only model-side layer that knows Lightning."""
