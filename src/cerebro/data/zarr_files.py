"""An export as a Zarr folder (format 3): a checksum on every chunk, one file per chunk.

The ``crc32c`` codec catches a changed chunk, but a chunk that is absent reads as zeros, in every implementation: the
format says so. Hence each chunk's file is looked for, and `cerebro.data.exports` keeps its own list of checksums.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.export_files import ARRAY, DIMENSIONS, Damage, ExportFiles, Layout, canonical_json, reason_of
from cerebro.errors import DataError
from cerebro.files import sha256_file

METADATA = "zarr.json"
ZSTD_LEVEL = 3


class ZarrFiles(ExportFiles):
    """A folder of Zarr groups and arrays; ``compression`` is ``zstd`` or ``none`` and matters for writing only."""

    def __init__(self, path: Path, compression: str = "none") -> None:
        super().__init__(path)
        self.compression = compression

    def place(self, group: str) -> str:
        """Metadata file of a group."""
        return f"{group}/{METADATA}".lstrip("/")

    def write_about(self, group: str, about: dict[str, Any]) -> None:
        """Write the metadata file of a group; `ExportFiles.write_about`."""
        file = self.path / self.place(group)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_group_text(about))

    def read_about(self, group: str) -> dict[str, Any]:
        """Read the metadata file of a group, which must be as it was written; `ExportFiles.read_about`."""
        place = self.place(group)
        try:
            text = (self.path / place).read_text(encoding="ascii")
            about = json.loads(text)["attributes"]
            is_whole = text == _group_text(about)
        except FileNotFoundError:
            raise Damage(place, "is missing") from None
        except (ValueError, KeyError, TypeError, OSError, RecursionError, DataError) as error:
            raise Damage(place, reason_of(error)) from None
        if not is_whole:
            raise Damage(place, "is not as it was written")
        return dict(about)

    def write_counts(self, layout: Layout, blocks: Iterable[Int16[ndarray, "C t"]]) -> str:
        """Write an array, chunks of zeros too; `ExportFiles.write_counts`."""
        import zarr  # here, because it takes half a second
        from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

        folder = self.path / layout.group / ARRAY
        array = zarr.create_array(
            store=str(folder),
            shape=(layout.n_channels, layout.n_times),
            chunks=(layout.n_channels, layout.samples_per_chunk),
            dtype="int16",
            fill_value=0,
            filters=None,
            serializer=BytesCodec(endian="little"),
            compressors=[*[ZstdCodec(level=ZSTD_LEVEL)] * (self.compression == "zstd"), Crc32cCodec()],
            dimension_names=DIMENSIONS,
            attributes=layout.attributes,
            config={"write_empty_chunks": True},
        )
        for start, block in zip(layout.starts, blocks, strict=True):
            array[:, start : start + block.shape[1]] = block
        return sha256_file(folder / METADATA)

    def read_counts(self, layout: Layout, array_sha256: str) -> Iterator[tuple[str, Int16[ndarray, "C t"]]]:
        """Read chunk by chunk, each from its own file; `ExportFiles.read_counts`."""
        import zarr

        group = f"{layout.group}/{ARRAY}"
        place = self.place(group)
        try:
            found = hashlib.sha256((self.path / place).read_bytes()).hexdigest()
        except OSError as error:
            raise Damage(place, reason_of(error)) from None
        if found != array_sha256:
            raise Damage(place, "is not as it was written")
        array = zarr.open_array(store=str(self.path / group), mode="r")
        for number, start in enumerate(layout.starts):
            place = f"{group}/c/0/{number}"
            if not (self.path / place).is_file():
                raise Damage(place, "is missing")
            try:
                block = array[:, start : min(start + layout.samples_per_chunk, layout.n_times)]
            except Exception as error:  # each codec has errors of its own
                raise Damage(place, reason_of(error)) from None
            yield place, np.asarray(block)

    def close(self) -> None:
        """Nothing stays open."""


def _group_text(about: dict[str, Any]) -> str:
    """Metadata of a group as the Zarr 3 specification writes it."""
    return canonical_json({"zarr_format": 3, "node_type": "group", "attributes": about})
