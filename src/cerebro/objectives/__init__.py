"""Objectives: an encoder and a batch give a loss; one file each."""
