"""Pure signal functions."""
