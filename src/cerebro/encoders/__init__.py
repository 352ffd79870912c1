"""Encoders: a batch gives tokens (B, C, N, D); one file per family."""
