"""One recording on its way into a store: load, preprocess, quantise, and stage under the name of its content.

The name of a staged piece is a hash of the source's bytes, the preprocessing plan, the reader's settings and the code
that did the work; a piece that fits no more is never found again. The record that names a piece is written after it.
"""

import ast
import hashlib
import inspect
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import cerebro.data.cut_windows
import cerebro.data.plausible
import cerebro.data.preprocess
import cerebro.data.readers
import cerebro.dsp
import cerebro.montage
from cerebro.data.cut_windows import cut_windows
from cerebro.data.preprocess import Preprocessing, keep_as_is, preprocess, quantise
from cerebro.data.readers.base import Entry, Finding, Reader, Segment, Skip
from cerebro.data.shards import Piece, StoredRecording, full_disk_in_one_line, write_counts
from cerebro.data.source_checksums import RULE_DIFFERS, recording_problem
from cerebro.data.source_files import hash_sources
from cerebro.data.store import FINDING_COLUMNS, Store, crc32c
from cerebro.data.watchdog import limited, was_ended
from cerebro.errors import DataError
from cerebro.files import read_checked_json, write_checked_json


@dataclass(frozen=True)
class Recipe:
    """What the samples of a piece depend on, besides their source."""

    reader: Reader
    plan: Preprocessing
    lsb_uV: float
    code: str  # `code_version` of the reader

    def piece_key(self, key: str, source_sha256: str, sidecars_sha256: str) -> str:
        """Content address of a recording's piece."""
        reader = type(self.reader)
        content = [
            [key, source_sha256, sidecars_sha256],
            [f"{reader.__module__}.{reader.__qualname__}", reader_settings(self.reader)],
            [asdict(self.plan), self.lsb_uV, self.code],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def make(self, entry: Entry, available: tuple[str, ...], staging: Path) -> "Outcome":
        """`make_piece` of this recipe."""
        return make_piece(self, entry, available, staging)


@dataclass(frozen=True)
class PieceRecord:
    """What is known of a piece, or of a recording that a rule left out after a look at its signal (``n_times`` 0)."""

    recording: str  # key of the entry
    piece_key: str
    source_sha256: str
    channels: tuple[str, ...]
    reference: str
    offsets_uV: tuple[float, ...]
    clipped: int
    n_times: int
    checksum: int
    findings: tuple[Finding, ...]
    segments: tuple[Segment, ...] = ()

    def stored(self, entry: Entry, path: Path, byte_offset: int) -> StoredRecording:
        """Row of a store whose samples lie at ``byte_offset`` in ``path``."""
        return StoredRecording(
            key=entry.key,
            participant=entry.participant,
            task=entry.task,
            channels=self.channels,
            piece=Piece(path, byte_offset, self.n_times, len(self.channels), self.checksum),
            offsets_uV=self.offsets_uV,
            run=entry.run,
            session=entry.session,
            release=entry.release,
            reference=self.reference,
            clipped=self.clipped,
            source_sha256=self.source_sha256,
            piece_key=self.piece_key,
            events=entry.events,
            labels=entry.labels,
            segments=self.segments,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one recording: a new record, the key of one that was there (``known``), or a failure."""

    recording: str
    known: str = ""
    record: PieceRecord | None = None
    failure: Finding | None = None


def make_piece(recipe: Recipe, entry: Entry, available: tuple[str, ...], staging: Path) -> Outcome:
    """Turn one recording into a staged piece, unless its piece is among ``available``.

    A recording that cannot be read, that differs from its checksum, or on which a reader hangs is an outcome; a full
    disk is an error. A hanging reader ends this process (`cerebro.data.watchdog`) and leaves a note, by which the next
    call knows the recording.
    """
    try:
        sources = hash_sources(entry.path, entry.part, entry.source_sha256)
        piece_key = recipe.piece_key(entry.key, sources.source, sources.sidecars)
        note = staging / f"{piece_key}.hung"
        if was_ended(note):
            detail = f"{entry.path} kept its reader busy beyond every limit; replace it by a whole copy or take it out"
            return Outcome(entry.key, failure=Finding("reader-hung", "failed", entry.key, detail))
        problem = recording_problem(entry.path, getattr(recipe.reader, "root", None), sources.digests)
        if problem:
            return Outcome(entry.key, failure=Finding(RULE_DIFFERS, "failed", entry.key, problem))
        if piece_key in available:
            return Outcome(entry.key, known=piece_key)
        _check_events(entry)
        with limited(sources.n_bytes, note):
            recording = recipe.reader.load(entry)
            done = (keep_as_is if recording.is_ready else preprocess)(recording, recipe.plan)
            cut = cut_windows(entry.key, recording, done, recipe.plan)
            counts, clipped = quantise(cut.eeg, recipe.lsb_uV, is_by_channel=bool(cut.segments))
            laid = counts.T if cut.segments else counts
    except Skip as skip:
        record = PieceRecord(entry.key, piece_key, sources.source, (), "", (), 0, 0, 0, (skip.finding,))
        write_record(staging, record)
        return Outcome(entry.key, record=record)
    except DataError as error:
        detail = line_of(error) if entry.path.name in str(error) else f"{entry.path}: {line_of(error)}"
        return Outcome(entry.key, failure=Finding("unusable-recording", "failed", entry.key, detail))
    except MemoryError as error:
        detail = (
            f"{entry.path} asks for too much memory, as damaged headers do ({line_of(error)}); replace it or take it "
            "out"
        )
        return Outcome(entry.key, failure=Finding("memory-exceeded", "failed", entry.key, detail))
    except Exception as error:  # one damaged file must not end a build of days; the report names it
        detail = f"{entry.path}: {type(error).__name__}: {line_of(error)}"
        return Outcome(entry.key, failure=Finding("reader-error", "failed", entry.key, detail))
    record = PieceRecord(
        recording=entry.key,
        piece_key=piece_key,
        source_sha256=sources.source,
        channels=tuple(recording.channels),
        reference=done.reference,
        offsets_uV=tuple(map(float, done.offset)),
        clipped=clipped + recording.n_clipped,
        n_times=len(counts),
        checksum=crc32c(laid),
        findings=(*recording.findings, *done.findings(entry.key), *cut.findings),
        segments=cut.segments,
    )
    write_counts(staging / f"{piece_key}.i16", laid)
    write_record(staging, record)
    return Outcome(entry.key, record=record)


def write_record(staging: Path, record: PieceRecord) -> None:
    """Write the JSON that makes a piece count, with a checksum of its own; always after the piece itself."""
    path = staging / f"{record.piece_key}.json"
    content = {  # asdict would copy each number
        **vars(record),
        "findings": [vars(finding) for finding in record.findings],
        "segments": [vars(segment) for segment in record.segments],
    }
    with full_disk_in_one_line(path, len(json.dumps(content, indent=1)) + 1):
        write_checked_json(path, content)


def record_from(content: dict[str, Any]) -> PieceRecord:
    """Record of its plain content, as JSON gives it; TypeError or KeyError if that is something else."""
    findings = tuple(Finding(**finding) for finding in content["findings"])
    segments = tuple(Segment(**segment) for segment in content["segments"])
    lists = {name: tuple(content[name]) for name in ("channels", "offsets_uV")}
    return PieceRecord(**{**content, **lists, "findings": findings, "segments": segments})


def staged_records(staging: Path, packed: dict[str, tuple[Path, int]]) -> Iterator[tuple[PieceRecord, Path, int]]:
    """Records of earlier runs that are whole, with samples that are: file and byte offset.

    Damaged ones are removed, so that their recordings are read again, and counted in a warning at the end.

    Parameters
    ----------
    staging : Path
        Folder of pieces and records.
    packed : dict
        Pieces that an interrupted seal has moved into a shard.
    """
    damaged = []
    for path in sorted(staging.glob("*.json")):
        record = _read_record(path)
        file, byte_offset = packed.get(path.stem, (path.with_suffix(".i16"), 0))
        if record is not None and (record.n_times == 0 or _is_whole(record, file, byte_offset)):
            yield record, file, byte_offset
        else:
            damaged.append(path.name)
            path.unlink()
            path.with_suffix(".i16").unlink(missing_ok=True)
    if damaged:
        logging.getLogger(__name__).warning(
            "%d of the recordings that an earlier run had staged are damaged (%s) and are made again.",
            len(damaged),
            damaged[0],
        )


def sealed_records(store: Store) -> Iterator[tuple[PieceRecord, Path, int]]:
    """Records of a sealed store, so that what has not changed is copied and not read from its source again."""
    findings: dict[str, tuple[Finding, ...]] = {}
    recording_of: dict[str, str] = {}
    for recording, piece, *finding in store.findings[list(FINDING_COLUMNS)].itertuples(index=False):
        if piece:
            findings[piece] = (*findings.get(piece, ()), Finding(*finding))
            recording_of[piece] = recording
    segments: dict[int, list[Segment]] = {}
    for recording_row, *segment in store.segments.itertuples(index=False):
        segments.setdefault(int(recording_row), []).append(Segment(*segment))
    shards = [store.path / shard["name"] for shard in store.manifest["shards"]]
    names = ("piece", "key", "source_sha256", "reference", "clipped")
    rows = {name: store.recordings[name].tolist() for name in names}  # a look-up in a table costs as much as a record
    for number, row in enumerate(store.index):
        piece_key = str(rows["piece"][number])
        record = PieceRecord(
            recording=str(rows["key"][number]),
            piece_key=piece_key,
            source_sha256=str(rows["source_sha256"][number]),
            channels=store.montages[row["montage"]].channels,
            reference=str(rows["reference"][number]),
            offsets_uV=tuple(map(float, store.offsets_uV(number))),
            clipped=int(rows["clipped"][number]),
            n_times=int(row["n_times"]),
            checksum=int(row["checksum"]),
            findings=findings.pop(piece_key, ()),
            segments=tuple(segments.get(number, ())),
        )
        yield record, shards[row["shard"]], int(row["offset"]) * 2
    for piece_key, left_out in findings.items():  # pieces without samples
        yield PieceRecord(recording_of[piece_key], piece_key, "", (), "", (), 0, 0, 0, left_out), store.path, 0


def code_version(reader: Reader) -> str:
    """Hash of the code that turns a file into counts, its comments and docstrings left out."""
    modules = (cerebro.data.cut_windows, cerebro.data.plausible, cerebro.data.preprocess, cerebro.montage)
    files = {Path(str(module.__file__)) for module in modules}
    for package in (cerebro.dsp, cerebro.data.readers):
        files |= set(Path(str(package.__file__)).parent.glob("*.py"))
    own = inspect.getsourcefile(type(reader))
    if own is not None and Path(own).exists():
        files.add(Path(own))
    return code_hash(files)


def code_hash(files: Iterable[Path]) -> str:
    """Hash of Python files, their comments and docstrings left out, whatever their order."""
    digests = sorted(_code_digest(file, file.stat().st_mtime_ns) for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def reader_settings(reader: Reader) -> dict[str, Any]:
    """Attributes of a reader that `load` depends on, but its paths: a tree may move, its bytes are hashed."""
    named = {name: value for name, value in vars(reader).items() if name not in reader.scan_only}
    settings = {name: value for name, value in named.items() if not isinstance(value, Path)}
    return {name: repr(value) for name, value in sorted(settings.items())}


@lru_cache(maxsize=256)
def _code_digest(file: Path, version_ns: int) -> str:
    """SHA-256 of a file's code; it takes a second for all of them, and is asked for at every step of a command."""
    return hashlib.sha256(_code_of(file).encode()).hexdigest()


def _code_of(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return ast.dump(tree)


def _read_record(path: Path) -> PieceRecord | None:
    """Record of a staged piece; ``None`` if it is not to the letter what `write_record` wrote under this name."""
    try:
        record = record_from(read_checked_json(path))
    except (DataError, TypeError, KeyError):  # the last two: a record of another version
        return None
    return record if record.piece_key == path.stem else None


def _is_whole(record: PieceRecord, file: Path, byte_offset: int) -> bool:
    n_values = record.n_times * len(record.channels)
    if not file.is_file() or file.stat().st_size < byte_offset + n_values * 2:
        return False
    return crc32c(np.fromfile(file, dtype="<i2", count=n_values, offset=byte_offset)) == record.checksum


def _check_events(entry: Entry) -> None:
    for event in entry.events:
        if not np.isfinite([event.onset_s, event.duration_s]).all():
            raise DataError(f"event {event.name} has onset {event.onset_s} s, duration {event.duration_s} s; mend it.")


def line_of(error: Exception) -> str:
    """Message in one line that any terminal can show; damaged files put their bytes into it."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(error).split()))[:500]
