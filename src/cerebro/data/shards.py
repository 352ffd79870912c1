"""Samples on their way into a store: staged pieces of one recording each, packed into flat shards."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.page_checksums import PAGE
from cerebro.data.readers.base import Event, Segment
from cerebro.data.store import ALIGNMENT
from cerebro.errors import DataError
from cerebro.files import free_bytes, read_json, write_atomically, write_json

MAX_SHARD_BYTES = 512_000_000 // ALIGNMENT * ALIGNMENT  # a longer recording gets a shard of its own
STAGING = "staging"
COPIED_AT_ONCE = 256 * PAGE  # bytes


@dataclass(frozen=True)
class Piece:
    """Quantised samples of one recording, wherever they lie: a staged file or a part of a shard.

    Parameters
    ----------
    path : Path
        File of little-endian int16, time-major, or channel-major where the recording has segments.
    byte_offset : int
        Where the recording starts in it.
    n_times, n_channels : int
        Shape.
    checksum : int
        CRC-32C of the bytes.
    """

    path: Path
    byte_offset: int
    n_times: int
    n_channels: int
    checksum: int

    @property
    def n_bytes(self) -> int:
        """Bytes without padding."""
        return self.n_times * self.n_channels * 2


@dataclass(frozen=True)
class StoredRecording:
    """One row of a store to be: what is known of a recording, and where its samples lie.

    Parameters
    ----------
    key, participant, task, run, session, release, events, labels
        As in `cerebro.data.readers.base.Entry`.
    channels : tuple of str
        Names in the order of the samples' columns.
    reference : str
        Reference electrode of the recording.
    offsets_uV : tuple of float
        Microvolts subtracted per channel before quantising.
    clipped : int
        Samples beyond the range of int16.
    source_sha256 : str
        SHA-256 of the source files.
    piece_key : str
        Content address of the piece: hash of source, plan and code.
    piece : Piece
        Samples.
    """

    key: str
    participant: str
    task: str
    channels: tuple[str, ...]
    piece: Piece
    offsets_uV: tuple[float, ...]
    run: int = 0
    session: str = ""
    release: str = ""
    reference: str = "unknown"
    clipped: int = 0
    source_sha256: str = ""
    piece_key: str = ""
    events: tuple[Event, ...] = ()
    labels: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()

    @property
    def segment_samples(self) -> int:
        """Samples of each segment; 0 for a continuous recording."""
        return self.piece.n_times // len(self.segments) if self.segments else 0


def write_sized(path: Path, n_bytes: int, write: Callable[[BinaryIO], None]) -> None:
    """`write_atomically` of a file whose size is known; a full disk gives one line with the bytes needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if free_bytes(path.parent) < n_bytes:
        raise _disk_full(path, n_bytes)
    with full_disk_in_one_line(path, n_bytes):
        write_atomically(path, write)


@contextlib.contextmanager
def full_disk_in_one_line(path: Path, n_bytes: int = 0) -> Iterator[None]:
    """Turn the system's error of a full disk, quota or file size limit into DataError.

    Parameters
    ----------
    path : Path
        What is being written.
    n_bytes : int
        Bytes needed; 0 where unknown.
    """
    try:
        yield
    except (DataError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        is_told = isinstance(error, DataError) and not n_bytes
        if not is_told and isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _disk_full(path, n_bytes) from error
        raise


def _disk_full(path: Path, n_bytes: int) -> DataError:
    needed = f"needs {n_bytes:,} bytes" if n_bytes else "needs more space"
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    return DataError(
        f"the disk is full: {path} {needed} and {free_bytes(folder):,} bytes are left; free some space and run the "
        "same command again, it continues where it stopped."
    )


def plan_shards(recordings: Sequence[StoredRecording]) -> list[list[StoredRecording]]:
    """Fill shards in the order of keys."""
    shards: list[list[StoredRecording]] = []
    filled = MAX_SHARD_BYTES + 1
    for recording in recordings:
        n_bytes = _aligned(recording.piece.n_bytes)
        if filled + n_bytes > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(recording)
        filled += n_bytes
    return shards


def pack_shard(work: Path, name: str, members: Sequence[StoredRecording], out: Path) -> dict[str, Any]:
    """Write one shard and its record, unless an earlier run has; then drop the staged pieces that it holds."""
    shard = work / name
    record_path = shard.with_suffix(".json")
    pieces = [recording.piece_key for recording in members]
    starts = np.cumsum([0] + [_aligned(recording.piece.n_bytes) for recording in members]).tolist()
    if not (record_path.is_file() and shard.is_file() and shard.stat().st_size == starts[-1]):
        checksums: list[int] = []
        write_sized(shard, starts[-1], lambda file: checksums.extend(_copy_pieces(file, members)))
        record = {"pieces": pieces, "starts": starts[:-1], "bytes": starts[-1], "crc32c": checksums}
        write_json(record_path, record)
    record = read_json(record_path)
    for recording in members:
        if recording.piece.path.parent == out / STAGING:
            recording.piece.path.unlink(missing_ok=True)
    return dict(record)


def packed_pieces(out: Path) -> dict[str, tuple[Path, int]]:
    """Pieces that an interrupted seal has packed already: piece key -> (shard file, byte offset)."""
    found: dict[str, tuple[Path, int]] = {}
    for record_path in sorted((out / STAGING).glob("seal-*/shards/*.json")):
        record = read_json(record_path)
        shard = record_path.with_suffix(".i16")
        if shard.is_file() and shard.stat().st_size == record["bytes"]:
            found.update({key: (shard, start) for key, start in zip(record["pieces"], record["starts"], strict=True)})
    return found


def pack_key(shards: Sequence[Sequence[StoredRecording]]) -> str:
    """Hash of which pieces lie in which shard."""
    members = [[[row.piece_key, row.piece.n_bytes, row.piece.checksum] for row in shard] for shard in shards]
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()[:16]


def _copy_pieces(file: BinaryIO, members: Sequence[StoredRecording]) -> list[int]:
    """Copy pieces one after another, padded to the alignment; CRC-32C of each page written."""
    checksums: list[int] = []
    for recording in members:
        for chunk in _padded_chunks(recording):
            file.write(chunk)
            checksums.extend(google_crc32c.value(chunk[at : at + PAGE]) for at in range(0, len(chunk), PAGE))
    return checksums


def _padded_chunks(recording: StoredRecording) -> Iterator[bytes]:
    """Bytes of a piece in whole pages; the last is filled up with zeros."""
    piece = recording.piece
    left, crc = piece.n_bytes, 0
    with open(piece.path, "rb") as source:
        source.seek(piece.byte_offset)
        while left:
            chunk = source.read(min(left, COPIED_AT_ONCE))
            if not chunk:
                break
            crc = google_crc32c.extend(crc, chunk)
            left -= len(chunk)
            yield chunk.ljust(_aligned(len(chunk)), b"\0")
    if left or crc != piece.checksum:
        raise DataError(
            f"{piece.path} is damaged where recording {recording.key} lies; remove that file and run the same command "
            "again."
        )


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def write_counts(path: Path, counts: Int16[ndarray, "A B"]) -> None:
    """Write the samples of one recording to a file of its own, atomically, row by row."""
    data = np.ascontiguousarray(counts, dtype="<i2").data
    write_sized(path, data.nbytes, lambda file: _write(file, data))


def _write(file: BinaryIO, data: memoryview) -> None:
    file.write(data)
