"""cerebro turns raw EEG into trained, evaluated and shareable models."""

__version__ = "0.1.0"
