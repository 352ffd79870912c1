"""The windowed intermediate: one Arrow file per recording, found again by a hash of all that it depends on.

A file is named after its recording and a hash of the source's bytes, the processing, the reader's settings and the code
that did the work. It bears a row per window: ``parent_window_id, sub_window_id, window_start, window_end`` and a list
per channel. A recording that a rule left out after a look at its signal leaves a file without rows that says why.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import cerebro.data.primary
import cerebro.data.processing
from cerebro.data.pieces import Outcome, code_hash, code_version, line_of, reader_settings
from cerebro.data.primary import Windowed, windowed
from cerebro.data.processing import Processing
from cerebro.data.readers.base import Entry, Finding, Reader, Skip
from cerebro.data.source_checksums import RULE_DIFFERS, recording_problem
from cerebro.data.source_files import hash_sources
from cerebro.data.watchdog import limited, was_ended
from cerebro.data.window_files import SUFFIX, damaged, list_column, read_content, write_columns
from cerebro.errors import CerebroError, DataError

NAME_LETTERS, KEY_LETTERS = 80, 16  # of a recording and of its hash in the name of a file


@dataclass(frozen=True)
class WindowedRecord:
    """What the file of one recording says of it.

    Parameters
    ----------
    recording : str
        Key of the recording.
    piece_key : str
        Hash of all that its windows depend on.
    source_sha256 : str
        SHA-256 of the source.
    reference : str
        Reference of the windows.
    n_windows, n_cut : int
        Windows in the file, and before some were left out.
    channels : tuple of str
        In upper case.
    findings : tuple of Finding
        What was repaired or left out.
    """

    recording: str
    piece_key: str
    source_sha256: str
    reference: str
    n_windows: int
    n_cut: int
    channels: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class WindowedRecipe:
    """What the windows of a recording depend on, besides their source; makes the file of one recording."""

    reader: Reader
    plan: Processing
    code: str  # `windowed_code` of the reader

    def piece_key(self, key: str, source_sha256: str, sidecars_sha256: str) -> str:
        """Content address of a recording's windows."""
        reader = type(self.reader)
        content = [
            [key, source_sha256, sidecars_sha256],
            [f"{reader.__module__}.{reader.__qualname__}", reader_settings(self.reader)],
            [self.plan.plain() | {"asa_path": ""}, self.code],  # the reader's settings have the electrodes
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def make(self, entry: Entry, available: tuple[str, ...], staging: Path) -> Outcome:
        """Write the file of one recording unless it is there; a recording that cannot be used is an outcome.

        ``known`` of the outcome is the file's name. A full disk is an error.
        """
        try:
            sources = hash_sources(entry.path, entry.part, entry.source_sha256)
            piece_key = self.piece_key(entry.key, sources.source, sources.sidecars)
            path = staging / _file_name(entry.key, piece_key)
            note = staging / f"{piece_key}.hung"
            if was_ended(note):
                detail = f"{entry.path} kept its reader busy beyond every limit; replace it by a whole copy"
                return Outcome(entry.key, failure=Finding("reader-hung", "failed", entry.key, detail))
            problem = recording_problem(entry.path, getattr(self.reader, "root", None), sources.digests)
            if problem:
                return Outcome(entry.key, failure=Finding(RULE_DIFFERS, "failed", entry.key, problem))
            if path.is_file() and _is_of(path, piece_key):
                return Outcome(entry.key, known=path.name)
            with limited(sources.n_bytes, note):
                done = windowed(self.reader.load(entry), self.plan, entry.key)  # the recording is let go of in it
        except Skip as skip:
            record = WindowedRecord(entry.key, piece_key, sources.source, "", 0, 0, (), (skip.finding,))
            _write(path, record, None)
            return Outcome(entry.key, known=path.name)
        except CerebroError as error:
            detail = line_of(error) if entry.path.name in str(error) else f"{entry.path}: {line_of(error)}"
            return Outcome(entry.key, failure=Finding("unusable-recording", "failed", entry.key, detail))
        except MemoryError as error:
            detail = f"{entry.path} asks for too much memory ({line_of(error)}); replace it or take it out"
            return Outcome(entry.key, failure=Finding("memory-exceeded", "failed", entry.key, detail))
        except Exception as error:  # one damaged file must not end the command; the report names it
            detail = f"{entry.path}: {type(error).__name__}: {line_of(error)}"
            return Outcome(entry.key, failure=Finding("reader-error", "failed", entry.key, detail))
        record = WindowedRecord(
            recording=entry.key,
            piece_key=piece_key,
            source_sha256=sources.source,
            reference=done.reference,
            n_windows=len(done.eeg),
            n_cut=done.n_cut,
            channels=done.channels,
            findings=done.findings,
        )
        _write(path, record, done)
        return Outcome(entry.key, known=path.name)


def windowed_code(reader: Reader) -> str:
    """Hash of the code that turns a file into windows."""
    modules = (cerebro.data.primary, cerebro.data.processing)
    own = code_hash(Path(str(module.__file__)) for module in (*modules, __import__(__name__, fromlist=["_"])))
    return hashlib.sha256(f"{code_version(reader)}{own}".encode()).hexdigest()


def read_record(path: Path) -> WindowedRecord:
    """What a file of the windowed intermediate says of its recording.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        content = read_content(path)
        findings = tuple(Finding(**finding) for finding in content["findings"])
        return WindowedRecord(**{**content, "channels": tuple(content["channels"]), "findings": findings})
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from None


def remove_stale(folder: Path, kept: Sequence[str]) -> int:
    """Remove files of the recordings in ``kept`` that another processing, or another state of the source, left."""
    recordings = {name[: -KEY_LETTERS - len(f"_{SUFFIX}")] for name in kept}
    stale = [
        path
        for path in folder.glob(f"*{SUFFIX}")
        if path.name not in kept and path.name[: -KEY_LETTERS - len(f"_{SUFFIX}")] in recordings
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _file_name(key: str, piece_key: str) -> str:
    """``<recording>_<hash>.arrow``; of a long name the end is kept, which tells recordings apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", key)[-NAME_LETTERS:].lstrip(".")
    return f"{plain}_{piece_key[:KEY_LETTERS]}{SUFFIX}"


def _is_of(path: Path, piece_key: str) -> bool:
    try:
        return read_record(path).piece_key == piece_key
    except DataError:
        return False


def _write(path: Path, record: WindowedRecord, done: Windowed | None) -> None:
    columns: dict[str, Any] = {"parent_window_id": pa.array([], pa.int64())}
    if done is not None:
        columns = {
            "parent_window_id": pa.array(done.parent),
            "sub_window_id": pa.array(done.sub),
            "window_start": pa.array(done.start_s),
            "window_end": pa.array(done.end_s),
        }
        for number, name in enumerate(done.channels):
            columns[name] = list_column(done.eeg[:, number])
    write_columns(path, columns, asdict(record))
