"""An export read back: what it says of itself, verified, and its samples, verified chunk by chunk.

The root of an export says ``checksum``, a SHA-256 of all that it says besides, and lists the SHA-256 of what each
recording says of itself; that lists the CRC-32C of each chunk of samples. So a chunk that is absent, changed, cut short
or in the place of another never passes for data, whatever the format can or cannot tell.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.export_files import RECORDINGS, Damage, ExportFiles, Layout, canonical_json
from cerebro.data.hdf5_files import SIGNATURE, HDF5Files
from cerebro.data.zarr_files import METADATA, ZarrFiles
from cerebro.errors import DataError

KIND = "cerebro export"
VERSION = 1
TEXT, NUMBER, INTEGER, BOOLEAN = "text", "number", "integer", "boolean"


class Export:
    """A verified export, open for reading; a context manager.

    Attributes
    ----------
    path : Path
        Zarr folder or HDF5 file.
    about : dict
        What the root says: ``sfreq``, ``lsb_uV``, ``corpus``, ``reference``, ``data_hash``, ``montages``, and the
        tables ``recordings``, ``participants`` and ``findings`` by column.

    Raises
    ------
    DataError
        In one line if there is nothing at ``path``, or a file that does not open as HDF5.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _files(path)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the root says; read and verified when it is first asked for.

        Raises
        ------
        DataError
            In one line if it is absent, damaged, no export of cerebro or of a newer version.
        """
        try:
            about = self._files.read_about("")
            self._check_root(about)
        except Damage as damage:
            raise self._damaged(damage.place, damage.reason) from None
        return about

    def __enter__(self) -> "Export":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def record(self, group: str, sha256: str, key: str) -> dict[str, Any]:
        """What a recording says of itself, of which ``sha256`` is known.

        Raises
        ------
        DataError
            If it is absent or another.
        """
        try:
            record = self._files.read_about(group)
        except Damage as damage:
            raise self._damaged(f"recording {key}, {damage.place}", damage.reason) from None
        if sha256_of(record) != sha256:
            raise self._damaged(f"recording {key}, {self._files.place(group)}", "is not as it was written")
        return record

    def blocks(self, group: str, record: dict[str, Any]) -> Iterator[Int16[ndarray, "C t"]]:
        """Counts of a recording, chunk by chunk, each verified.

        Raises
        ------
        DataError
            If a chunk is absent or damaged: recording and file.
        """
        layout = layout_of(group, record)
        expected = record["chunk_crc32c"]
        try:
            for (place, block), checksum in zip(
                self._files.read_counts(layout, record["array_sha256"]), expected, strict=True
            ):
                if crc32c_of(block) != checksum:
                    raise Damage(place, "holds other samples than were written")
                yield block
        except Damage as damage:
            raise self._damaged(f"recording {record['key']}, {damage.place}", damage.reason) from None

    def counts(self, group: str, record: dict[str, Any]) -> Int16[ndarray, "C T"]:
        """All counts of a recording."""
        counts = np.empty((len(record["channels"]), record["n_times"]), np.int16)
        start = 0
        for block in self.blocks(group, record):
            counts[:, start : start + block.shape[1]] = block
            start += block.shape[1]
        return counts

    def groups(self) -> Iterator[tuple[str, str, str]]:
        """(Group, SHA-256, key) of each recording, in the order of the store."""
        table = self.about["recordings"]
        for name, sha256, key in zip(table["name"], table["sha256"], table["key"], strict=True):
            yield f"{RECORDINGS}/{name}", sha256, key

    def _check_root(self, about: dict[str, Any]) -> None:
        if about.get("kind") != KIND:
            raise DataError(
                f"{self.path} was not written by `cerebro export`; give a Zarr folder or HDF5 file that was "
                "(class_path: LaBraMHDF5 reads HDF5 files in LaBraM's form)."
            )
        rest = {name: value for name, value in about.items() if name != "checksum"}
        if sha256_of(rest) != about.get("checksum"):
            raise Damage(self._files.place(""), "is not as it was written")
        if about["version"] > VERSION:
            raise DataError(
                f"export {self.path} has version {about['version']}, this cerebro reads {VERSION}; update cerebro."
            )
        self._files.read_about(RECORDINGS)

    def _damaged(self, place: str, reason: str) -> DataError:
        return DataError(f"export {self.path} is damaged: {place}: {reason}; fetch a whole copy or export again.")


def is_export(path: Path) -> bool:
    """Whether ``path`` is a Zarr folder or an HDF5 file, of whatever content."""
    if path.is_dir():
        return (path / METADATA).is_file()
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def layout_of(group: str, record: dict[str, Any]) -> Layout:
    """Shape and chunks of a recording's array."""
    return Layout(group, len(record["channels"]), record["n_times"], record["samples_per_chunk"], record["scale_uV"])


def sha256_of(content: Any) -> str:
    """SHA-256 of JSON content, the same for equal content."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def crc32c_of(block: Int16[ndarray, "C t"]) -> int:
    """CRC-32C of counts as little-endian int16, channel by channel."""
    return int(google_crc32c.value(np.ascontiguousarray(block, dtype="<i2").reshape(-1).view(np.uint8)))


def table_of(columns: dict[str, list[Any]], kinds: list[list[str]]) -> pd.DataFrame:
    """Table of columns as an export keeps them, in the order of ``kinds`` (name, kind); what is missing is NaN."""
    return pd.DataFrame({name: _column(columns[name], kind) for name, kind in kinds})


def _column(values: list[Any], kind: str) -> npt.NDArray[Any]:
    if kind == TEXT:
        return np.array([np.nan if value is None else value for value in values], dtype=object)
    if kind == NUMBER:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype=np.int64 if kind == INTEGER else bool)


def _files(path: Path) -> ExportFiles:
    if not path.exists():
        raise DataError(f"export {path} was not found; `cerebro export STORE --format zarr --out {path}` writes one.")
    if path.is_dir():
        return ZarrFiles(path)
    try:
        return HDF5Files(path)
    except Damage as damage:
        raise DataError(f"{path} {damage.reason}; fetch a whole copy or export again.") from None
