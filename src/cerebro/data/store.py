"""The recording store: continuous int16 recordings in flat shards, with tables beside them, every byte checksummed.

A store is a folder::

    manifest.json        written last; settings, montages, SHA-256 of every table, sizes of the shards, data_hash
    index.npy            one row of `INDEX_DTYPE` per recording, sorted by key
    offsets.npy          float32 microvolts that were subtracted from each channel of each recording
    crc32c.npy           uint32 CRC-32C of every MiB of every shard
    recordings.parquet   key, participant, task, run, session, release, reference, ... and ``label/<name>`` columns
    events.parquet       recording (row), onset_sample, onset_s (as the source says), duration_samples, name
    participants.parquet participant_id (index), age, sex, ...
    findings.parquet     what was repaired, skipped or failed, by which rule
    build_report.json    the same, counted
    shards/00000.i16     little-endian int16, time-major (T, C), each recording at a multiple of 4 KiB

Samples are ``counts * lsb_uV`` microvolts after the offset of the channel was removed. Windows are arithmetic on the
index: any length, stride or crop without a rebuild. `cerebro.data.seal` writes this format.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16
from numpy import ndarray

from cerebro.errors import DataError
from cerebro.files import read_json, sha256_file
from cerebro.montage import Montage

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2  # 2: events carry onset_s
ALIGNMENT = 4096  # bytes
BLOCK = 1 << 20  # bytes under one CRC-32C
TIME_MAJOR = 0  # layouts of the index; 1 is kept for channel-major sequences of one channel

INDEX_DTYPE = np.dtype(
    [
        ("shard", "<i4"),
        ("montage", "<i4"),  # number in Store.montages
        ("participant", "<i4"),  # row of Store.participants
        ("n_channels", "<i4"),
        ("offset", "<i8"),  # int16 elements from the start of the shard
        ("n_times", "<i8"),
        ("offset_row", "<i8"),  # first of n_channels entries in offsets.npy
        ("scale", "<f4"),  # microvolts per count
        ("checksum", "<u4"),  # CRC-32C of the recording's own bytes
        ("segment_samples", "<i4"),  # 0 = continuous
        ("layout", "<i4"),  # TIME_MAJOR
    ]
)
TABLES = (
    "index.npy",
    "offsets.npy",
    "crc32c.npy",
    "recordings.parquet",
    "events.parquet",
    "participants.parquet",
    "findings.parquet",
    "build_report.json",
)
# piece is empty for what a scan found; recording too where a finding speaks of no recording that was opened
FINDING_COLUMNS = ("recording", "piece", "rule", "severity", "where", "detail")


class Store:
    """Read-only view of a sealed store; open one with `Store.open`.

    Attributes
    ----------
    path : Path
        Folder of the store.
    sfreq, lsb_uV : float
        Sampling rate in Hz and microvolts per count, of all recordings.
    corpus, reference : str
        Namespace of the participants; the common reference (``mixed`` where recordings differ, see the column
        ``reference`` of ``recordings``).
    data_hash : str
        SHA-256 of the content: the same for equal recordings, tables and settings wherever the store lies.
    montages : tuple of Montage
        Channel sets that occur, with positions; ``index["montage"]`` counts in it.
    index : structured array (R,)
        Rows of `INDEX_DTYPE`.
    recordings, events, participants, findings : pandas.DataFrame
        Tables; ``recordings`` has R rows in the order of ``index``, ``participants`` is indexed by participant_id.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.sfreq = float(manifest["sfreq"])
        self.lsb_uV = float(manifest["lsb_uV"])
        self.corpus = str(manifest["corpus"])
        self.reference = str(manifest["reference"])
        self.data_hash = str(manifest["data_hash"])
        self.montages = tuple(_montage(entry) for entry in manifest["montages"])
        self.index: npt.NDArray[Any] = np.load(path / "index.npy", allow_pickle=False)
        self.recordings = read_parquet(path / "recordings.parquet").to_pandas()
        self.events = read_parquet(path / "events.parquet").to_pandas()
        self.participants = read_parquet(path / "participants.parquet").to_pandas().set_index("participant_id")
        self.findings = read_parquet(path / "findings.parquet").to_pandas()
        self._offsets: npt.NDArray[np.float32] = np.load(path / "offsets.npy", allow_pickle=False)
        self._crc: npt.NDArray[np.uint32] = np.load(path / "crc32c.npy", allow_pickle=False)
        sizes = [int(shard["bytes"]) for shard in manifest["shards"]]
        n_blocks = [-(-size // BLOCK) for size in sizes]
        self._first_block = np.concatenate([[0], np.cumsum(n_blocks)]).astype(np.int64)  # shard -> row of crc32c.npy
        self._is_checked = np.zeros(len(self._crc), dtype=bool)
        # Private mappings: torch asks for writable memory, and nothing written there ever reaches the file.
        self._maps = [np.memmap(path / shard["name"], dtype="<i2", mode="c") for shard in manifest["shards"]]

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a sealed store; its tables are verified now, its samples when they are first touched.

        Raises
        ------
        DataError
            In one line if the store is absent, unfinished or damaged, naming the file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        problems = _table_problems(path, manifest) + _shard_size_problems(path, manifest)
        if problems:
            raise DataError(
                f"store {path} is damaged: {problems[0]}"
                + (f" (and {len(problems) - 1} more)" * (len(problems) > 1))
                + "; run the same `cerebro prepare` command again."
            )
        return cls(path, manifest)

    def __len__(self) -> int:
        return len(self.index)

    def samples(self, recording: int) -> Int16[ndarray, "T C"]:
        """Counts of one recording: a read-only view of the memory map, verified on first touch.

        Raises
        ------
        DataError
            If a checksum does not agree.
        """
        row = self.index[recording]
        n_times, n_channels = int(row["n_times"]), int(row["n_channels"])
        self.touch(np.array([recording]), np.array([0]), n_times)
        start = int(row["offset"])
        view = np.asarray(self._maps[row["shard"]])[start : start + n_times * n_channels].reshape(n_times, n_channels)
        view.flags.writeable = False
        return view

    def offsets_uV(self, recording: int) -> npt.NDArray[np.float32]:
        """Microvolts (C,) that were subtracted from each channel before quantising."""
        row = self.index[recording]
        return self._offsets[row["offset_row"] : row["offset_row"] + row["n_channels"]]

    def shard(self, number: int) -> "torch.Tensor":
        """Flat int16 tensor (L,) over the memory map of a shard; call `touch` before reading a range."""
        import torch  # here, because the children that read signals never need it and would wait seconds for it

        return torch.from_numpy(np.asarray(self._maps[number]))

    def touch(self, recording: npt.NDArray[np.integer], start: npt.NDArray[np.integer], n_times: int) -> None:
        """Verify the MiBs below windows ``start .. start + n_times`` of ``recording`` that were not verified yet.

        Costs one look at a bitmap once everything was seen.

        Raises
        ------
        DataError
            If a checksum does not agree: the shard and the MiB.
        """
        if self._is_checked.all():
            return
        rows = self.index[recording]
        first = (rows["offset"] + np.asarray(start, np.int64) * rows["n_channels"]) * 2
        last = np.maximum(first + rows["n_channels"].astype(np.int64) * n_times * 2 - 1, first)
        base = self._first_block[rows["shard"]]
        low, high = base + first // BLOCK, base + last // BLOCK
        for reach in range(int((high - low).max(initial=-1)) + 1):
            block = np.minimum(low + reach, high)
            for missing in np.unique(block[~self._is_checked[block]]):
                self._check_block(int(missing))

    def verify(self) -> list[str]:
        """Verify every byte of the store; one line per damaged file or MiB, empty if all is well."""
        problems = _table_problems(self.path, self.manifest) + _shard_size_problems(self.path, self.manifest)
        for block in range(len(self._crc)):
            problem = self._block_problem(block)
            if problem:
                problems.append(problem)
        for recording, row in enumerate(self.index):
            start, n = int(row["offset"]), int(row["n_times"]) * int(row["n_channels"])
            if crc32c(self._maps[row["shard"]][start : start + n]) != int(row["checksum"]):
                problems.append(f"recording {self.recordings['key'].iloc[recording]}: its checksum does not agree")
        return problems

    def _check_block(self, block: int) -> None:
        problem = self._block_problem(block)
        if problem:
            raise DataError(f"store {self.path} is damaged: {problem}; delete it and run `cerebro prepare` again.")
        self._is_checked[block] = True

    def _block_problem(self, block: int) -> str:
        number = int(np.searchsorted(self._first_block, block, side="right")) - 1
        start = (block - int(self._first_block[number])) * BLOCK
        part = self._maps[number][start // 2 : (start + BLOCK) // 2]
        if crc32c(part) == int(self._crc[block]):
            return ""
        return f"{self.manifest['shards'][number]['name']}: checksum of bytes {start:,} to {start + BLOCK:,} differs"


def crc32c(counts: npt.NDArray[np.int16]) -> int:
    """CRC-32C (Castagnoli) of an array's bytes."""
    return int(google_crc32c.value(np.ascontiguousarray(counts).reshape(-1).view(np.uint8)))


def read_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a sealed store, after its own checksum was verified."""
    file = path / "manifest.json"
    if not file.is_file():
        state = "is unfinished" if (path / "staging").is_dir() else "was not found"
        raise DataError(f"store {path} {state}; run `cerebro prepare CONFIG.yaml --out {path}`.")
    manifest = read_json(file)
    is_whole = isinstance(manifest, dict) and file.read_text() == manifest_text(manifest)
    if not is_whole:
        raise DataError(f"store {path} is damaged: manifest.json; run the same `cerebro prepare` command again.")
    if manifest["version"] != FORMAT_VERSION:
        raise DataError(
            f"store {path} has format {manifest['version']}, this cerebro reads {FORMAT_VERSION}; run the "
            "same `cerebro prepare` command again."
        )
    return dict(manifest)


def manifest_text(manifest: dict[str, Any]) -> str:
    """Canonical text of a manifest, with the checksum of all other entries under ``checksum``."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**rest, "checksum": digest}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet table and verify the checksum of each page; a damaged one raises DataError."""
    try:
        return pq.read_table(path, page_checksum_verification=True, memory_map=False, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({reason}); run the command that writes it again.") from None


def _table_problems(path: Path, manifest: dict[str, Any]) -> list[str]:
    problems = []
    for name, entry in sorted(manifest["files"].items()):
        file = path / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry["bytes"]:
            problems.append(f"{name} has {file.stat().st_size:,} bytes instead of {entry['bytes']:,}")
        elif sha256_file(file) != entry["sha256"]:
            problems.append(f"{name}: checksum differs")
    return problems


def _shard_size_problems(path: Path, manifest: dict[str, Any]) -> list[str]:
    problems = []
    for shard in manifest["shards"]:
        file = path / shard["name"]
        found = file.stat().st_size if file.is_file() else 0
        if found != shard["bytes"]:
            problems.append(f"{shard['name']} has {found:,} bytes instead of {shard['bytes']:,}")
    return problems


def _montage(entry: dict[str, Any]) -> Montage:
    positions = np.array([[np.nan] * 3 if xyz is None else xyz for xyz in entry["positions"]], dtype=np.float64)
    return Montage(entry["name"], tuple(entry["channels"]), positions.reshape(-1, 3))
