"""Readouts: tokens of an encoder give a prediction."""
