"""Readers -> store: crash-safe, resumable and parallel; the same bytes whatever happened on the way.

Recordings are independent: each is staged under a name made of its content (`cerebro.data.pieces`), by any process in
any order, and `cerebro.data.seal` packs them sorted. Readers run in child processes, so that a file that crashes its
parser costs one recording and not the build.
"""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from joblib.externals.loky import FIRST_COMPLETED, wait
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from cerebro.data.participants import SAME_PERSON, with_names
from cerebro.data.pieces import Outcome, PieceRecord, Recipe, code_version, make_piece, sealed_records, staged_records
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Entry, Finding, Reader, Scan
from cerebro.data.report import BuildReport, count_rules
from cerebro.data.seal import make_tables, recover, seal
from cerebro.data.shards import STAGING, StoredRecording, full_disk_in_one_line, packed_pieces
from cerebro.data.source_checksums import count_verified, with_checksums
from cerebro.data.store import FINDING_COLUMNS, Store
from cerebro.errors import CerebroError, DataError, check_positive
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.progress import progress_bar

N_QUEUED_PER_JOB = 4


@dataclass
class _Shelf:
    """Pieces that are there already, wherever they lie."""

    records: dict[str, tuple[PieceRecord, Path, int]]  # piece key -> record, file, byte offset
    of_recording: dict[str, tuple[str, ...]]  # recording -> piece keys

    def add(self, record: PieceRecord, path: Path, byte_offset: int) -> None:
        self.records[record.piece_key] = record, path, byte_offset
        self.of_recording[record.recording] = (*self.of_recording.get(record.recording, ()), record.piece_key)


def build(reader: Reader, plan: Preprocessing, out: Path, lsb_uV: float = 0.05, jobs: int = 1) -> BuildReport:
    """Make ``out`` a sealed store of everything that ``reader`` lists; only what is missing or has changed is done.

    Parameters
    ----------
    reader : Reader
        Corpus to read; it must survive pickling.
    plan : Preprocessing
        What is done to each recording.
    out : Path
        Folder of the store.
    lsb_uV : float
        Microvolts per count.
    jobs : int
        Child processes that read and filter.

    Returns
    -------
    BuildReport
        Also written as ``build_report.json``. Without a single usable recording no store is sealed.

    Raises
    ------
    CerebroError
        In one line: another process builds here, the disk is full, the tree cannot be read.
    """
    check_positive("jobs", jobs)
    check_positive("lsb_uV", lsb_uV)
    _refuse_other_folders(out)
    with full_disk_in_one_line(out), lock_folder(out, "cerebro prepare"):
        recover(out)
        staging = out / STAGING
        staging.mkdir(exist_ok=True)
        remove_orphans(out)
        _remove_leftovers(staging)
        old = _open_old(out)
        shelf = _shelf(out, old)
        scan = with_checksums(reader, reader.scan())
        recipe = Recipe(reader, plan, lsb_uV, code_version(reader))

        failures: list[Finding] = []
        chosen: dict[str, str] = {}  # recording -> piece key
        with progress_bar("prepare", "recording", total=len(scan.entries)) as bar:
            for outcome in _make_pieces(recipe, scan.entries, shelf.of_recording, staging, jobs):
                bar.update()
                if outcome.failure is not None:
                    failures.append(outcome.failure)
                elif outcome.record is not None:
                    shelf.add(outcome.record, staging / f"{outcome.record.piece_key}.i16", 0)
                    chosen[outcome.recording] = outcome.record.piece_key
                else:
                    chosen[outcome.recording] = outcome.known
        return _seal_if_changed(out, old, reader, recipe, scan, shelf, chosen, failures)


def _seal_if_changed(
    out: Path,
    old: Store | None,
    reader: Reader,
    recipe: Recipe,
    scan: Scan,
    shelf: _Shelf,
    chosen: Mapping[str, str],
    failures: Sequence[Finding],
) -> BuildReport:
    recordings: list[StoredRecording] = []
    found = [("", "", finding) for finding in scan.findings] + [(finding.where, "", finding) for finding in failures]
    first_of: dict[str, Entry] = {}  # SHA-256 of a source -> the first recording that has it
    same: dict[str, set[str]] = {}  # participant -> others with a byte-identical recording
    for entry in scan.entries:
        if entry.key not in chosen:
            continue
        record, path, byte_offset = shelf.records[chosen[entry.key]]
        found += [(entry.key, record.piece_key, finding) for finding in record.findings]
        if record.n_times == 0:
            continue
        twin = first_of.setdefault(record.source_sha256, entry)
        if twin is not entry:
            detail = f"same bytes as {twin.key}"
            if twin.participant != entry.participant:
                same.setdefault(entry.participant, set()).add(twin.participant)
                detail += f": {entry.participant} and {twin.participant} count as one person"
            found.append((entry.key, "", Finding("same-signal-twice", "skipped", entry.key, detail)))
            continue
        recordings.append(record.stored(entry, path, byte_offset))

    report = _report(recordings, [finding for _, _, finding in found], recipe.plan.sfreq)
    stored = {recording.key for recording in recordings}
    report = replace(report, verified=count_verified(reader, [entry for entry in scan.entries if entry.key in stored]))
    if not recordings:
        write_json(out / STAGING / "build_report.json", report.content())
        return report
    rows = [[recording, piece, *vars(finding).values()] for recording, piece, finding in found]  # as FINDING_COLUMNS
    findings = pd.DataFrame(sorted(rows), columns=list(FINDING_COLUMNS), dtype=str)
    tables = make_tables(
        recordings,
        reader.montage(),
        with_names(scan.participants, SAME_PERSON, same),
        findings,
        report.content(),
        recipe.plan.sfreq,
        recipe.lsb_uV,
        reader.corpus,
    )
    if old is not None and old.manifest["identity"] == tables.identity:
        shutil.rmtree(out / STAGING)
    else:
        seal(out, tables)
    return report


def _report(recordings: Sequence[StoredRecording], findings: Sequence[Finding], sfreq: float) -> BuildReport:
    concerned = {
        severity: len({finding.where for finding in findings if finding.severity == severity})
        for severity in ("repaired", "skipped", "failed")
    }
    tasks = sorted({recording.task for recording in recordings})
    return BuildReport(
        read=len(recordings),
        repaired=concerned["repaired"],
        skipped=concerned["skipped"],
        failed=concerned["failed"],
        rules=count_rules(findings),
        tasks={task: sum(recording.task == task for recording in recordings) for task in tasks},
        n_participants=len({recording.participant for recording in recordings}),
        hours=sum(recording.piece.n_times for recording in recordings) / sfreq / 3600,
        samples=sum(recording.piece.n_bytes for recording in recordings) // 2,
        clipped_samples=sum(recording.clipped for recording in recordings),
        n_bytes=sum(recording.piece.n_bytes for recording in recordings),
        failed_share=concerned["failed"] / max(concerned["failed"] + len(recordings), 1),
    )


def _open_old(out: Path) -> Store | None:
    """The store that is there, if it is whole; a damaged one is made anew from its sources."""
    if not (out / "manifest.json").is_file():
        return None
    try:
        return Store.open(out)
    except DataError as error:
        logging.getLogger(__name__).warning("%s It is made anew from its sources.", error)
        return None


def _refuse_other_folders(out: Path) -> None:
    """Refuse a folder that holds anything but a store, finished or not."""
    other = sorted(path.name for path in out.iterdir() if not path.name.startswith(".lock")) if out.is_dir() else []
    if other and not {"manifest.json", STAGING} & set(other):
        raise DataError(f"{out} holds other files ({', '.join(other[:3])}); set --out to a new folder or a store.")


def _shelf(out: Path, old: Store | None) -> _Shelf:
    shelf = _Shelf({}, {})
    for record, path, byte_offset in staged_records(out / STAGING, packed_pieces(out)):
        shelf.add(record, path, byte_offset)
    if old is not None:
        for record, path, byte_offset in sealed_records(old):
            shelf.add(record, path, byte_offset)
    return shelf


def _remove_leftovers(staging: Path) -> None:
    remove_orphans(staging, "**/.*.part")
    for marker in staging.glob("*.began"):
        marker.unlink(missing_ok=True)


def _make_pieces(
    recipe: Recipe, entries: Sequence[Entry], available: Mapping[str, tuple[str, ...]], staging: Path, jobs: int
) -> Iterator[Outcome]:
    """Outcome of each entry, in any order; after a crash the recordings that were open are tried one at a time."""
    left = {entry.key: entry for entry in entries}
    while left:
        try:
            for outcome in _run(recipe, list(left.values()), available, staging, jobs):
                del left[outcome.recording]
                yield outcome
        except BrokenProcessPool as error:
            suspects = [marker.read_text() for marker in sorted(staging.glob("*.began"))]
            suspects = [key for key in suspects if key in left]
            _remove_leftovers(staging)
            if not suspects:
                raise CerebroError(
                    f"a child process ended before it opened a recording ({str(error).splitlines()[0]}); is there "
                    "enough memory? Try fewer jobs."
                ) from error
            for key in suspects:
                yield _run_alone(recipe, left.pop(key), available, staging)


def _run_alone(recipe: Recipe, entry: Entry, available: Mapping[str, tuple[str, ...]], staging: Path) -> Outcome:
    try:
        return next(_run(recipe, [entry], available, staging, 1))
    except BrokenProcessPool:
        detail = "the process that read it was ended by the system: a damaged file, or not enough memory"
        return Outcome(entry.key, failure=Finding("reader-crashed", "failed", entry.key, detail))


def _run(
    recipe: Recipe, entries: Sequence[Entry], available: Mapping[str, tuple[str, ...]], staging: Path, jobs: int
) -> Iterator[Outcome]:
    """Work on entries in child processes, a few queued at a time."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    pool = ProcessPoolExecutor(
        min(jobs, len(entries)), env=one_thread, initializer=_end_with_parent, initargs=(os.getpid(),)
    )
    waiting = deque(entries)
    queued: set[Future[Outcome]] = set()
    try:
        while waiting or queued:
            while waiting and len(queued) < N_QUEUED_PER_JOB * jobs:
                entry = waiting.popleft()
                queued.add(pool.submit(_work, recipe, entry, available.get(entry.key, ()), staging))
            done, queued = wait(queued, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _work(recipe: Recipe, entry: Entry, available: tuple[str, ...], staging: Path) -> Outcome:
    """`make_piece` with a marker beside the pieces that tells, after a crash, which recording was open."""
    marker = staging / f"{hashlib.sha256(entry.key.encode()).hexdigest()}.began"
    marker.write_text(entry.key)
    try:
        return make_piece(recipe, entry, available, staging)
    finally:
        marker.unlink(missing_ok=True)


def _end_with_parent(parent: int) -> None:
    """End this child within moments of a killed parent, so that it writes nothing beside its successor."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
