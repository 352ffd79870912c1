"""Where an export keeps its texts and its samples; `zarr_files` and `hdf5_files` are the two ways.

An export is a tree of groups: the root, and ``recordings/NNNNNN`` for each recording. Every group says what it is about
as one JSON object; the group of a recording also holds the array ``eeg``, int16 counts (C, T) in chunks that span all
channels.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int16
from numpy import ndarray

from cerebro.errors import DataError

RECORDINGS = "recordings"
ARRAY = "eeg"
DIMENSIONS = ("channel", "time")


@dataclass(frozen=True)
class Layout:
    """Shape of one recording's array, how it is cut into chunks, and what a count means.

    Parameters
    ----------
    group : str
        Group of the recording, such as ``recordings/000000``.
    n_channels, n_times : int
        Shape.
    samples_per_chunk : int
        Samples of every chunk but the last, which may be shorter.
    scale_uV : float
        Microvolts per count.
    """

    group: str
    n_channels: int
    n_times: int
    samples_per_chunk: int
    scale_uV: float

    @property
    def starts(self) -> range:
        """First sample of each chunk."""
        return range(0, self.n_times, self.samples_per_chunk)

    @property
    def attributes(self) -> dict[str, Any]:
        """What stands beside the array, in the words of the CF conventions that xarray reads."""
        return {"scale_factor": self.scale_uV, "units": "microvolt"}


class Damage(DataError):
    """A part of an export cannot be read: where, and why."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class ExportFiles(ABC):
    """One export on disk, open for writing or for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def place(self, group: str) -> str:
        """Name, within the export, of what says what a group is about."""

    @abstractmethod
    def write_about(self, group: str, about: dict[str, Any]) -> None:
        """Say what a group is about; ``""`` is the root."""

    @abstractmethod
    def read_about(self, group: str) -> dict[str, Any]:
        """What a group says of itself.

        Raises
        ------
        Damage
            If it is absent or no JSON.
        """

    @abstractmethod
    def write_counts(self, layout: Layout, blocks: Iterable[Int16[ndarray, "C t"]]) -> str:
        """Write the array of a recording, one block per chunk; SHA-256 of what describes it, or "" where that is safe.

        The description needs no SHA-256 where the format checks it by itself.
        """

    @abstractmethod
    def read_counts(self, layout: Layout, array_sha256: str) -> Iterator[tuple[str, Int16[ndarray, "C t"]]]:
        """Each chunk in order with the place where it lies; every chunk must be there.

        Raises
        ------
        Damage
            If a chunk is absent or the format's own checksum does not agree, or the array is another one.
        """

    @abstractmethod
    def close(self) -> None:
        """Flush and close."""

    def __enter__(self) -> "ExportFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def canonical_json(content: Any) -> str:
    """One text for equal content: sorted keys, plain ASCII.

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    """
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False)
    except ValueError:
        raise DataError("a table holds an infinite value, which JSON cannot say; mend the source table.") from None


def reason_of(error: Exception) -> str:
    """An error of another library on one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
