"""Readers: recordings, events and participants of one corpus; strangers to each other."""
