"""Which files make one recording: those that hold its samples, and those that speak of them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cerebro.data.checksum_list import digests_of

EVENTS = "_events.tsv"
SIDECAR_KINDS = ("_channels.tsv", EVENTS, "_electrodes.tsv", "_coordsystem.json")
_VHDR_FILE = re.compile(rb"^[ \t]*(DataFile|MarkerFile)[ \t]*=[ \t]*(?P<name>[^\r\n]+?)[ \t]*$", re.MULTILINE)
VHDR_BYTES = 1 << 20  # a header is far shorter


@dataclass(frozen=True)
class Sources:
    """What the files of one recording hold, as hashes.

    Parameters
    ----------
    source : str
        SHA-256 of the samples (of the signal file itself where it stands alone).
    sidecars : str
        SHA-256 of what speaks of them; events apart, which no sample depends on.
    digests : mapping of Path to mapping of str to str
        Digests of each file, by algorithm.
    n_bytes : int
        Size of the files that hold samples.
    """

    source: str
    sidecars: str
    digests: Mapping[Path, Mapping[str, str]]
    n_bytes: int


def file_of(path: Path) -> Path:
    """``path``, or the file or folder in which it names a place, such as a group of an HDF5 file."""
    return next((part for part in (path, *path.parents) if part.exists()), path)


def known_digests_of(path: Path) -> Mapping[str, str]:
    """`digests_of` a file that holds several recordings, read once by each process while it does not change."""
    status = path.stat()
    return _digests_of_version(path, status.st_mtime_ns, status.st_size)


def bytes_of(path: Path) -> int:
    """Bytes of a signal's `data_files`, of the files in a folder, or of the file in which the path names a place."""
    held_by = file_of(path)
    files = held_by.rglob("*") if held_by.is_dir() else data_files(held_by)
    return sum(file.stat().st_size for file in files if file.is_file())


def hash_sources(path: Path, part: str = "", source_sha256: str = "") -> Sources:
    """Hash every file of a recording, each read once.

    Recordings that are parts of one file differ in ``part``; such a file is read once by each process. Where
    ``source_sha256`` is known, nothing is read.
    """
    if source_sha256:
        return Sources(source_sha256, "", {}, bytes_of(path))
    if part:
        digests = {path: known_digests_of(path)}
        source = hashlib.sha256(f"{digests[path]['sha256']}/{part}".encode()).hexdigest()
        return Sources(source, hashlib.sha256(b"").hexdigest(), digests, path.stat().st_size)
    data = data_files(path)
    sidecars = [sidecar for sidecar in sidecar_files(path) if not sidecar.name.endswith(EVENTS)]
    digests = {file: digests_of(file) for file in [*data, *sidecars]}
    parts = [digests[file]["sha256"] for file in data]
    source = parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()
    beside = "".join(digests[file]["sha256"] for file in sidecars)
    n_bytes = sum(file.stat().st_size for file in data)
    return Sources(source, hashlib.sha256(beside.encode()).hexdigest(), digests, n_bytes)


@lru_cache(maxsize=64)
def _digests_of_version(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    return digests_of(path)


def data_files(path: Path) -> list[Path]:
    """The signal file and others that hold its samples: ``.fdt``, the data file of a ``.vhdr``, parts of a ``.fif``.

    Files that are named but absent are left out.
    """
    suffix = path.suffix.lower()
    others: list[Path] = []
    if suffix == ".set":
        others = [path.with_suffix(".fdt")]
    elif suffix == ".vhdr":
        others = [path.with_suffix(".eeg"), *_named_in_vhdr(path, b"DataFile")]
    elif suffix == ".fif":
        parts = re.compile(rf"{re.escape(path.stem)}-[0-9]+\.fif")
        others = sorted(other for other in path.parent.glob("*.fif") if parts.fullmatch(other.name))
        others += sorted(path.parent.glob(path.name.replace("_split-01_", "_split-[0-9][0-9]_")))
    return _once(path, others)


def sidecar_files(path: Path) -> list[Path]:
    """Files beside a signal that say something about it, as far as they are there: markers, JSON, BIDS tables."""
    stem = path.stem.removesuffix("_eeg")
    others = [path.with_suffix(".json"), path.with_suffix(".vmrk")]
    if path.suffix.lower() == ".vhdr":
        others += _named_in_vhdr(path, b"MarkerFile")
    others += [path.with_name(stem + kind) for kind in SIDECAR_KINDS]
    return _once(path, others)[1:]


def _named_in_vhdr(path: Path, key: bytes) -> list[Path]:
    with open(path, "rb") as file:
        text = file.read(VHDR_BYTES)
    names = [match["name"] for match in _VHDR_FILE.finditer(text) if match[1] == key]
    decoded = [name.decode("utf-8", "replace").replace("$b", path.stem) for name in names]
    return [path.with_name(Path(name).name) for name in decoded if "\0" not in name and Path(name).name]


def _once(path: Path, others: list[Path]) -> list[Path]:
    """``path`` and those of the others that are files, each once."""
    return [path, *(other for other in dict.fromkeys(others) if other != path and _is_file(other))]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows
        return False
