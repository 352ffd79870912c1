"""The manifest of a store: what belongs to it, in which version, and whether it is all there."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cerebro.errors import DataError
from cerebro.files import read_json, sha256_file

# 2: events carry onset_s; 3: checksums by page, compact events, segments
FORMAT_VERSION = 3
PAGE_CHECKSUMS = "crc32c.u4"
TABLES = (
    "index.npy",
    "events.npy",
    "offsets.npy",
    PAGE_CHECKSUMS,
    "recordings.parquet",
    "events.parquet",
    "segments.parquet",
    "participants.parquet",
    "findings.parquet",
    "build_report.json",
)


def read_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a sealed store, after its own checksum was verified.

    Raises
    ------
    DataError
        In one line: no store, an unfinished or damaged one, or one of another format.
    """
    file = path / "manifest.json"
    if not file.is_file():
        state = "is unfinished" if (path / "staging").is_dir() else "was not found"
        raise DataError(
            f"store {path} {state}; run `cerebro prepare CONFIG.yaml --out {path}`, or the command that makes it: for "
            "a primary data set `cerebro process-primary --config configs/processing.yaml`."
        )
    manifest = read_json(file)
    if not is_whole(file, manifest):
        raise DataError(f"store {path} is damaged: manifest.json; run the same `cerebro prepare` command again.")
    if manifest["version"] > FORMAT_VERSION:
        raise DataError(
            f"store {path} has format {manifest['version']}, this cerebro reads {FORMAT_VERSION}; update cerebro, or "
            "prepare into another folder."
        )
    if manifest["version"] < FORMAT_VERSION:
        raise DataError(
            f"store {path} has format {manifest['version']}, this cerebro reads {FORMAT_VERSION}; run the "
            "same `cerebro prepare` command again."
        )
    return dict(manifest)


def is_whole(file: Path, manifest: Any) -> bool:
    """Whether ``file`` is, letter by letter, what `manifest_text` writes of ``manifest``."""
    try:
        return isinstance(manifest, dict) and file.read_text() == manifest_text(manifest)
    except ValueError:  # a number beyond all bounds
        return False


def manifest_text(manifest: dict[str, Any]) -> str:
    """Canonical text of a manifest, with the checksum of all other entries under ``checksum``."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**rest, "checksum": digest}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def missing_or_damaged(path: Path, manifest: dict[str, Any], thorough: bool = False) -> list[str]:
    """One line per file of a store that is absent, of another size or of another content.

    The samples are known by their size here, and so are the checksums of their pages unless ``thorough``: a damaged
    one shows as soon as its page is read.
    """
    problems = []
    for name, entry in sorted(manifest["files"].items()):
        file = path / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry["bytes"]:
            problems.append(f"{name} has {file.stat().st_size:,} bytes instead of {entry['bytes']:,}")
        elif (thorough or name != PAGE_CHECKSUMS) and sha256_file(file) != entry["sha256"]:
            problems.append(f"{name}: checksum differs")
    for shard in manifest["shards"]:
        file = path / shard["name"]
        found = file.stat().st_size if file.is_file() else 0
        if found != shard["bytes"]:
            problems.append(f"{shard['name']} has {found:,} bytes instead of {shard['bytes']:,}")
    return problems


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet table and verify the checksum of each page; a damaged one raises DataError."""
    try:
        return pq.read_table(path, page_checksum_verification=True, memory_map=False, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({reason}); run the command that writes it again.") from None
