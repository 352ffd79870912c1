"""Readers -> store: crash-safe, resumable and parallel; the same bytes whatever happened on the way.

Recordings are independent: each is staged under a name made of its content (`cerebro.data.pieces`), by any process in
any order, here (`cerebro.data.spread`) or on a cluster, and `cerebro.data.seal` packs them sorted.
"""

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd

from cerebro.data.manifest import FORMAT_VERSION
from cerebro.data.names import with_plain_names
from cerebro.data.pace import Pace
from cerebro.data.participants import SAME_PERSON, with_names
from cerebro.data.pieces import PieceRecord, Recipe, code_version, sealed_records, staged_records
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Entry, Finding, Reader, Scan
from cerebro.data.report import BuildReport, count_rules
from cerebro.data.seal import make_tables, recover, seal
from cerebro.data.shards import STAGING, StoredRecording, full_disk_in_one_line, packed_pieces
from cerebro.data.source_checksums import count_verified, with_checksums
from cerebro.data.spread import Cluster, Work, remove_markers, spread_here
from cerebro.data.spread_tasks import end_tasks_of_killed_builds
from cerebro.data.store import FINDING_COLUMNS, Store
from cerebro.errors import DataError, check_positive
from cerebro.files import lock_folder, read_json, remove_orphans, write_json
from cerebro.progress import progress


@dataclass
class _Shelf:
    """Pieces that are there already, wherever they lie."""

    records: dict[str, tuple[PieceRecord, Path, int]] = field(default_factory=dict)  # piece key -> file, byte offset
    of_recording: dict[str, tuple[str, ...]] = field(default_factory=dict)  # recording -> piece keys
    channel_sets: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)  # each kept once

    def add(self, record: PieceRecord, path: Path, byte_offset: int) -> None:
        channels = self.channel_sets.setdefault(record.channels, record.channels)
        self.records[record.piece_key] = replace(record, channels=channels), path, byte_offset
        self.of_recording[record.recording] = (*self.of_recording.get(record.recording, ()), record.piece_key)


def build(
    reader: Reader,
    plan: Preprocessing,
    out: Path,
    lsb_uV: float = 0.05,
    jobs: int = 1,
    cluster: Cluster | None = None,
) -> BuildReport:
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
        Child processes that read and filter; tasks, where a cluster does the work.
    cluster : Cluster, optional
        Other machines that do the work, such as `cerebro.data.spread_slurm.Slurm`; without it this one does.

    Returns
    -------
    BuildReport
        Also written as ``build_report.json``. Without a single usable recording no store is sealed.

    Raises
    ------
    CerebroError
        In one line: another process builds here, the disk is full, the tree cannot be read, a newer cerebro wrote the
        store that is there.
    """
    check_positive("jobs", jobs)
    check_positive("lsb_uV", lsb_uV)
    if cluster is not None:
        cluster.check()
    _refuse_other_folders(out)
    _refuse_newer_stores(out)
    with full_disk_in_one_line(out), lock_folder(out, "cerebro prepare"):
        recover(out)
        staging = (out / STAGING).resolve()
        staging.mkdir(exist_ok=True)
        end_tasks_of_killed_builds(staging)
        remove_orphans(out)
        remove_orphans(staging, "**/.*.part")
        remove_markers(staging)
        old = _open_old(out)
        shelf = _shelf(out, old)
        scan = with_checksums(reader, with_plain_names(reader.scan()))
        recipe = Recipe(reader, plan, lsb_uV, code_version(reader))
        work = Work(recipe, tuple(scan.entries), shelf.of_recording, staging, staging)
        outcomes = spread_here(work, jobs) if cluster is None else cluster.spread(work, jobs)

        path_of = {entry.key: entry.path for entry in scan.entries}
        failures: list[Finding] = []
        chosen: dict[str, str] = {}  # recording -> piece key
        with contextlib.closing(outcomes), Pace(len(scan.entries)) as pace:
            for outcome in outcomes:
                eeg_s, read_bytes = 0.0, 0
                if outcome.failure is not None:
                    failures.append(outcome.failure)
                elif outcome.record is not None:
                    shelf.add(outcome.record, out / STAGING / f"{outcome.record.piece_key}.i16", 0)
                    chosen[outcome.recording] = outcome.record.piece_key
                    eeg_s, read_bytes = outcome.record.n_times / plan.sfreq, _n_bytes(path_of[outcome.recording])
                else:
                    chosen[outcome.recording] = outcome.known
                pace.step(eeg_s, read_bytes)
        remove_orphans(staging, "**/.*.part")
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
    failures = sorted((one.where, one.detail) for one in findings if one.severity == "failed")
    return BuildReport(
        read=len(recordings),
        repaired=concerned["repaired"],
        skipped=concerned["skipped"],
        failed=concerned["failed"],
        rules=count_rules(findings),
        tasks=dict(sorted(Counter(recording.task for recording in recordings).items())),
        n_participants=len({recording.participant for recording in recordings}),
        hours=sum(recording.piece.n_times for recording in recordings) / sfreq / 3600,
        samples=sum(recording.piece.n_bytes for recording in recordings) // 2,
        clipped_samples=sum(recording.clipped for recording in recordings),
        n_bytes=sum(recording.piece.n_bytes for recording in recordings),
        failed_share=concerned["failed"] / max(concerned["failed"] + len(recordings), 1),
        failures={
            where: "; ".join(dict.fromkeys(detail for _, detail in of))
            for where, of in groupby(failures, itemgetter(0))
        },
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


def _refuse_newer_stores(out: Path) -> None:
    """Refuse to replace a store whose format this cerebro does not know."""
    version = max(map(_version, (out / "manifest.json", *(out / STAGING).glob("seal-*/manifest.json"))))
    if version > FORMAT_VERSION:
        raise DataError(
            f"store {out} has format {version}, newer than {FORMAT_VERSION}, which this cerebro writes; update "
            "cerebro, or set --out to a new folder."
        )


def _version(manifest: Path) -> int:
    """Format that a manifest names; 0 where there is none, or a damaged one."""
    with contextlib.suppress(DataError):
        content = read_json(manifest) if manifest.is_file() else None
        version = content.get("version") if isinstance(content, dict) else None
        return version if isinstance(version, int) else 0
    return 0


def _shelf(out: Path, old: Store | None) -> _Shelf:
    """Find the pieces of earlier runs; `staged_records` says how many damaged ones are made again."""
    shelf = _Shelf()
    before = sum(len(path.stem) == 64 for path in (out / STAGING).glob("*.json"))  # named by a SHA-256
    staged = staged_records(out / STAGING, packed_pieces(out))
    for record, path, byte_offset in progress(staged, "check what is staged", "recording", before, stays=False):
        shelf.add(record, path, byte_offset)
    if old is not None:
        for record, path, byte_offset in sealed_records(old):
            shelf.add(record, path, byte_offset)
    return shelf


def _n_bytes(source: Path) -> int:
    with contextlib.suppress(OSError):
        return source.stat().st_size
    return 0
