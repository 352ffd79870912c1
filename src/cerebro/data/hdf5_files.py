"""An export as one HDF5 file: Fletcher-32 on every chunk, the library's own checksums on all that leads to them.

Objects are written in the form of HDF5 1.10, whose headers and indexes carry checksums; those of the form that h5py
writes by default have none. Texts are chunks too, and attributes have a fixed length: texts of any length would lie in
HDF5's global heap, which has no checksum, and in which a damaged size makes the library loop for ever. So no byte that
matters is without a checksum.
"""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.export_files import ARRAY, DIMENSIONS, Damage, ExportFiles, Layout, canonical_json, reason_of

ABOUT = "about"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
GZIP_LEVEL = 4


class Sink(io.FileIO):
    """File that remembers its first error and takes what follows for written.

    HDF5 writes once more whenever it closes a file or a dataset; refused again, as by a full disk, it would leave
    objects that fail, one after another, until the process ends.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of ``data``, unless something went wrong before."""
        left = memoryview(data).cast("B")
        n_bytes = len(left)
        while len(left) and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return n_bytes

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, unless something went wrong before."""
        try:
            return self.tell() if self.error else super().truncate(size)
        except OSError as error:
            self.error = error
            return self.tell()


class HDF5Files(ExportFiles):
    """One HDF5 file; ``compression`` is ``gzip`` or ``none`` and matters for writing only.

    Raises
    ------
    Damage
        If the file cannot be opened as HDF5.
    """

    def __init__(self, path: Path, mode: Literal["r", "w"] = "r", compression: str = "none") -> None:
        import h5py  # here, because whoever reads no HDF5 needs none of it

        super().__init__(path)
        self.compression = compression
        self._sink = Sink(path, "w+") if mode == "w" else None
        try:
            self._file = h5py.File(self._sink or path, mode, libver=("v110", "v110"))
        except (OSError, RuntimeError, ValueError) as error:
            if mode == "w":
                raise
            raise Damage(path.name, f"does not open as HDF5 ({reason_of(error)})") from None

    def place(self, group: str) -> str:
        """Dataset that holds the text of a group."""
        return f"{group}/{ABOUT}".lstrip("/")

    def write_about(self, group: str, about: dict[str, Any]) -> None:
        """Write a text of JSON as dataset ``about``; `ExportFiles.write_about`."""
        text = canonical_json(about).encode()
        data = np.array([text], dtype=f"S{len(text)}")
        self._file.create_dataset(self.place(group), data=data, chunks=(1,), fletcher32=True)
        self._check()

    def read_about(self, group: str) -> dict[str, Any]:
        """Read dataset ``about``; `ExportFiles.read_about`."""
        place = self.place(group)
        try:
            return dict(json.loads(self._file[place][0]))
        except Exception as error:  # h5py raises nearly anything on a damaged file
            raise Damage(place, reason_of(error)) from None

    def write_counts(self, layout: Layout, blocks: Iterable[Int16[ndarray, "C t"]]) -> str:
        """Write an array; `ExportFiles.write_counts`."""
        dataset = self._file.create_dataset(
            f"{layout.group}/{ARRAY}",
            shape=(layout.n_channels, layout.n_times),
            chunks=(layout.n_channels, layout.samples_per_chunk),
            dtype="<i2",
            fletcher32=True,
            compression=None if self.compression == "none" else self.compression,
            compression_opts=None if self.compression == "none" else GZIP_LEVEL,
        )
        for name, value in _attributes(layout).items():
            dataset.attrs.create(name, value)
        for start, block in zip(layout.starts, blocks, strict=True):
            dataset[:, start : start + block.shape[1]] = block
            self._check()
        return ""

    def read_counts(self, layout: Layout, array_sha256: str) -> Iterator[tuple[str, Int16[ndarray, "C t"]]]:
        """Read chunk by chunk; `ExportFiles.read_counts`."""
        group = f"{layout.group}/{ARRAY}"
        try:
            dataset = self._file[group]
            says = all(np.array_equal(dataset.attrs[name], value) for name, value in _attributes(layout).items())
            found = (dataset.shape, dataset.chunks, dataset.dtype.str, says)
        except Exception as error:
            raise Damage(group, reason_of(error)) from None
        shape = (layout.n_channels, layout.n_times)
        if found != (shape, (layout.n_channels, layout.samples_per_chunk), "<i2", True):
            raise Damage(group, "is not as it was written")
        for start in layout.starts:
            stop = min(start + layout.samples_per_chunk, layout.n_times)
            place = f"{group}, samples {start:,} to {stop:,}"
            try:
                block = dataset[:, start:stop]
            except Exception as error:
                raise Damage(place, reason_of(error)) from None
            yield place, block

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()
        if self._sink is not None:
            error, self._sink.error = self._sink.error, None
            self._sink.close()
            if error is not None:
                raise error

    def _check(self) -> None:
        """Raise what went wrong while writing; the rest is closed in peace."""
        if self._sink is not None and self._sink.error is not None:
            raise self._sink.error


def _attributes(layout: Layout) -> dict[str, Any]:
    """What stands beside an array, texts at a fixed length."""
    values = layout.attributes | {"dimension_names": list(DIMENSIONS)}
    return {name: value if isinstance(value, float) else np.array(value, dtype="S") for name, value in values.items()}
