"""Errors that a user can mend: what was found, what was expected, what to type next.

The command line prints such an error as one line and exits with code 2. Anything else is a fault of cerebro and keeps
its traceback.
"""

from collections.abc import Collection
from pathlib import Path


class CerebroError(Exception):
    """A mistake that the user can mend; the message is one line."""


class ConfigError(CerebroError):
    """A config or recipe says something that cannot be done."""


class DataError(CerebroError):
    """A recording, table or store is not what it should be."""


class CheckpointError(CerebroError):
    """A checkpoint does not fit, is damaged, or must not be used here."""


def check_between(name: str, value: float | int, low: float | int, high: float | int) -> None:
    """Raise ConfigError unless ``low < value < high``."""
    if not low < value < high:
        raise ConfigError(
            f"{name}={value} must lie between {low} and {high} (both excluded); set {name} in that range."
        )


def check_positive(name: str, value: float | int) -> None:
    """Raise ConfigError unless ``value > 0``."""
    if not value > 0:
        raise ConfigError(f"{name}={value} must be larger than 0; set {name} to a positive number.")


def check_one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown; set {name} to one of {', '.join(sorted(choices))}.")


def check_exists(path: Path, what: str, remedy: str) -> None:
    """Raise DataError unless ``path`` exists; ``remedy`` says what to type next."""
    if not path.exists():
        raise DataError(f"{what} not found at {path}; {remedy}")
