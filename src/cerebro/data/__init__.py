"""Recordings, the store and batches; never imports a model."""
