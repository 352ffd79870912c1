"""Scores: numbers in, numbers out."""
