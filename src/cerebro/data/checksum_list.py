"""Lists of SHA-256 sums (``SHA256SUMS``) and git-annex keys: what the bytes of a file were when somebody looked last.

The list has the format of coreutils' ``sha256sum``, which verifies it too (``sha256sum -c SHA256SUMS``).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cerebro.errors import DataError
from cerebro.files import write_atomically
from cerebro.progress import progress

CHECKSUMS = "SHA256SUMS"
CHUNK = 1 << 20  # bytes hashed at a time
_LINE = re.compile(r"(?P<escape>\\?)(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")
_TAGGED = re.compile(r"(?P<escape>\\?)SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-f]{64})")
_OWN = re.compile(r"# (\d+) files; SHA-256 of the lines below: ([0-9a-f]{64})")
_KINDS = re.compile(r"_(eeg|events|channels|electrodes|coordsystem)$")
_ANNEX = re.compile(r"(?P<algorithm>SHA256|SHA512|SHA1|MD5)E?-s(?P<n_bytes>\d+)--(?P<digest>[0-9a-f]+)(\..*)?")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


@dataclass(frozen=True)
class Checksums:
    """A list of checksums.

    Parameters
    ----------
    file : Path
        The list itself; names in it are relative to its folder.
    digests : mapping of str to str
        Name with ``/`` -> SHA-256 in hex.
    of_recording : mapping of str to tuple of str
        What `recording_of` gives -> names that share it.
    """

    file: Path
    digests: Mapping[str, str]
    of_recording: Mapping[str, tuple[str, ...]]

    def name_of(self, path: Path) -> str:
        """Name under which the list would hold ``path``."""
        return Path(os.path.relpath(path, self.file.parent)).as_posix()

    def path_of(self, name: str) -> Path:
        """File that a name stands for."""
        return self.file.parent / name


@dataclass(frozen=True)
class AnnexKey:
    """What git-annex knows of a file's content from the name that its link leads to."""

    algorithm: str
    n_bytes: int
    digest: str


def read_checksums(file: Path) -> Checksums:
    """Read a list of checksums; read once while the file does not change.

    Raises
    ------
    DataError
        In one line that names file and line: not the format of ``sha256sum``, a name twice with different sums, or a
        first line of `write_checksums` that the rest contradicts.
    """
    stat = file.stat()
    return _read_checksums(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read_checksums(file: Path, mtime_ns: int, n_bytes: int) -> Checksums:
    content = file.read_bytes()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text ({error}); replace it by a whole copy, or {_again(file)}") from None
    own = _OWN.fullmatch(lines[0])
    if own is not None:
        below = content.split(b"\n", 1)[1]
        if hashlib.sha256(below).hexdigest() != own[2] or below.count(b"\n") != int(own[1]):
            raise DataError(
                f"{file} is damaged: its lines are not those that its first line speaks of; replace it by a whole copy "
                f"(if you changed it by hand, remove the first line), or {_again(file)}"
            )
    digests: dict[str, str] = {}
    for at, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line) or _TAGGED.fullmatch(line)
        if match is None:
            raise DataError(
                f"{file} line {at} is no line of sha256sum (64 hex digits, two spaces, a name); mend it, or "
                f"{_again(file)}"
            )
        name = _unescape(match["name"]) if match["escape"] else match["name"]
        name = PurePosixPath(name).as_posix()  # "./a" is "a"
        if digests.setdefault(name, match["digest"]) != match["digest"]:
            raise DataError(f"{file} line {at} gives {name} a second, different checksum; remove one of the two lines.")
    groups: dict[str, list[str]] = {}
    for name in digests:
        groups.setdefault(recording_of(name), []).append(name)
    return Checksums(file, digests, {key: tuple(names) for key, names in groups.items()})


def recording_of(name: str) -> str:
    """Name without suffix and BIDS kind: equal for all files of one recording (``a_eeg.set`` and ``a_events.tsv``)."""
    folder, _, last = name.rpartition("/")
    stem = _KINDS.sub("", PurePosixPath(last).stem)
    return f"{folder}/{stem}" if folder else stem


def write_checksums(root: Path, files: Iterable[Path]) -> Path:
    """Write ``root/SHA256SUMS`` over ``files``, atomically and sorted by name.

    Its first line, a comment to ``sha256sum``, holds the number and the SHA-256 of the other lines, so that a damaged
    or shortened list is noticed too.

    Returns
    -------
    Path
        The list.

    Raises
    ------
    DataError
        If a name is no UTF-8 text.
    """
    file = root / CHECKSUMS
    names = {Path(os.path.relpath(path, root)).as_posix(): path for path in files}
    for name in sorted(names):
        if name != name.encode("utf-8", "replace").decode():
            raise DataError(f"file {name!a} below {root} has a name that is no UTF-8 text; rename it.")
    lines = []
    for name in progress(sorted(names), "checksums", "file", len(names)):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "" if escaped == name else "\\"
        lines.append(f"{mark}{digests_of(names[name])['sha256']}  {escaped}\n")
    text = "".join(lines).encode()
    head = f"# {len(lines)} files; SHA-256 of the lines below: {hashlib.sha256(text).hexdigest()}\n".encode()
    write_atomically(file, lambda out: _write(out, head + text))
    return file


def digests_of(path: Path) -> dict[str, str]:
    """Digests of a file by algorithm, read once: ``sha256``, and what its git-annex key asks for."""
    annex = annex_key(path)
    hashes = {name: hashlib.new(name) for name in {"sha256", *([annex.algorithm] if annex else [])}}
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            for digest in hashes.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def annex_key(path: Path) -> AnnexKey | None:
    """Key of a file that git-annex (DataLad) manages, a link to ``.git/annex/objects/``; ``None`` for others."""
    if not path.is_symlink():
        return None
    target = PurePosixPath(os.readlink(path))
    match = _ANNEX.fullmatch(target.name) if "annex" in target.parts else None
    return AnnexKey(match["algorithm"].lower(), int(match["n_bytes"]), match["digest"]) if match else None


def _unescape(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)


def _again(file: Path) -> str:
    return f"remove it and run `cerebro check CONFIG.yaml --freeze` once you trust the files below {file.parent}."


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
