"""Seal recordings into a store: the same bytes for any order of work, number of workers or kills between.

`seal` writes everything into a folder below ``staging`` and moves it into place only when it is complete; a kill at any
moment leaves either the old store, or a folder from which `recover` finishes the move.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cerebro.data.manifest import FORMAT_VERSION, PAGE_CHECKSUMS, TABLES, manifest_text, read_manifest
from cerebro.data.readers.base import Segment
from cerebro.data.shards import STAGING, StoredRecording, pack_key, pack_shard, plan_shards, write_sized
from cerebro.data.store import CHANNEL_MAJOR, EVENT_DTYPE, EVENT_TICKS_PER_S, INDEX_DTYPE, TIME_MAJOR, Store
from cerebro.errors import DataError
from cerebro.files import sha256_file, sync_folder, write_json
from cerebro.montage import Montage
from cerebro.progress import progress_bar


@dataclass(frozen=True)
class Tables:
    """Everything of a store but the samples.

    ``identity`` is a hash of all of it, with the checksums of the samples: two stores of equal identity are equal.
    """

    recordings: tuple[StoredRecording, ...]  # sorted by key
    montages: tuple[Montage, ...]
    participants: pd.DataFrame
    findings: pd.DataFrame
    report: dict[str, Any]
    sfreq: float
    lsb_uV: float
    corpus: str
    data_hash: str
    identity: str


def make_tables(
    recordings: Sequence[StoredRecording],
    montage: Montage,
    participants: pd.DataFrame,
    findings: pd.DataFrame,
    report: dict[str, Any],
    sfreq: float,
    lsb_uV: float,
    corpus: str,
) -> Tables:
    """Sort, name the channel sets and hash; ``participants`` is cut to those who have a recording."""
    recordings = tuple(sorted(recordings, key=lambda recording: recording.key))
    if not recordings:
        raise DataError("no recording is left to store; the build report says which rules skipped them.")
    present = sorted({recording.participant for recording in recordings})
    people = participants.reindex(present).rename_axis("participant_id")
    montages = _channel_sets(recordings, montage)
    content = {
        "version": FORMAT_VERSION,
        "sfreq": sfreq,
        "lsb_uV": lsb_uV,
        "corpus": corpus,
        "montages": [_montage_entry(entry) for entry in montages],
        "participants": json.loads(people.reset_index().to_json(orient="split", double_precision=15)),
        "recordings": [_content_of(recording) for recording in recordings],
    }
    data_hash = _sha256_json(content)
    identity = _sha256_json(
        [data_hash, findings.to_numpy().tolist(), report, [recording.piece_key for recording in recordings]]
    )
    return Tables(recordings, montages, people, findings, report, sfreq, lsb_uV, corpus, data_hash, identity)


def seal(out: Path, tables: Tables) -> Store:
    """Pack the samples, write the tables and move everything into place; staged pieces go as they are packed.

    Raises
    ------
    DataError
        If a piece is damaged or the disk is full.
    """
    shards = plan_shards(tables.recordings)
    work = out / STAGING / f"seal-{pack_key(shards)}"
    places: dict[str, tuple[int, int]] = {}  # key of a recording -> shard, byte offset
    entries, checksums = [], []
    with progress_bar("seal", "shard", total=len(shards)) as bar:
        for number, members in enumerate(shards):
            name = f"shards/{number:05d}.i16"
            record = pack_shard(work, name, members, out)
            entries.append({"name": name, "bytes": record["bytes"]})
            checksums.extend(record["crc32c"])
            for recording, start in zip(members, record["starts"], strict=True):
                places[recording.key] = number, start
            bar.update()

    _write_tables(work, tables, places, np.array(checksums, dtype="<u4"))
    manifest = {
        "version": FORMAT_VERSION,
        "sfreq": tables.sfreq,
        "lsb_uV": tables.lsb_uV,
        "corpus": tables.corpus,
        "reference": _common_reference(tables.recordings),
        "montages": [_montage_entry(entry) for entry in tables.montages],
        "event_names": _event_names(tables),
        "shards": entries,
        "files": {name: {"bytes": (work / name).stat().st_size, "sha256": sha256_file(work / name)} for name in TABLES},
        "data_hash": tables.data_hash,
        "identity": tables.identity,
    }
    text = manifest_text(manifest).encode()
    write_sized(work / "manifest.json", len(text), lambda file: _write_bytes(file, text))
    recover(out)
    return Store.open(out)


def recover(out: Path) -> None:
    """Finish a move that a kill interrupted, and remove the staging of a store that is complete."""
    staging = out / STAGING
    for work in sorted(staging.glob("seal-*")):
        if not (work / "manifest.json").is_file():
            continue
        try:
            manifest = read_manifest(work)
            _check_tables(work, manifest)
        except DataError as error:
            (work / "manifest.json").unlink()  # written last: what it speaks of is packed, and sealed once more
            logging.getLogger(__name__).warning("%s It is made again.", error)
            continue
        (out / "manifest.json").unlink(missing_ok=True)
        names = [shard["name"] for shard in manifest["shards"]]
        (out / "shards").mkdir(exist_ok=True)
        for name in [*names, *manifest["files"]]:
            if (work / name).exists():
                os.replace(work / name, out / name)
        for stale in (out / "shards").iterdir():
            if f"shards/{stale.name}" not in names:
                stale.unlink()
        sync_folder(out / "shards")
        os.replace(work / "manifest.json", out / "manifest.json")
        sync_folder(out)
        shutil.rmtree(staging)
        return


def _check_tables(work: Path, manifest: Mapping[str, Any]) -> None:
    """Raise DataError if a table that waits for its move is not what the manifest says; others have moved already."""
    for name, entry in manifest["files"].items():
        if (work / name).exists() and sha256_file(work / name) != entry["sha256"]:
            raise DataError(f"{work / name} is damaged.")


def _write_tables(
    work: Path, tables: Tables, places: Mapping[str, tuple[int, int]], checksums: npt.NDArray[np.uint32]
) -> None:
    rows = tables.recordings
    index = np.zeros(len(rows), dtype=INDEX_DTYPE)
    number_of = {montage.channels: number for number, montage in enumerate(tables.montages)}
    index["shard"] = [places[row.key][0] for row in rows]
    index["offset"] = [places[row.key][1] // 2 for row in rows]
    index["montage"] = [number_of[row.channels] for row in rows]
    index["participant"] = tables.participants.index.get_indexer(pd.Index([row.participant for row in rows]))
    index["n_channels"] = [row.piece.n_channels for row in rows]
    index["n_times"] = [row.piece.n_times for row in rows]
    index["offset_row"] = np.cumsum([0] + [row.piece.n_channels for row in rows])[:-1]
    index["scale"] = tables.lsb_uV
    index["checksum"] = [row.piece.checksum for row in rows]
    index["event_row"] = np.cumsum([0] + [len(row.events) for row in rows])[:-1]
    index["segment_samples"] = [row.segment_samples for row in rows]
    index["layout"] = [CHANNEL_MAJOR if row.segments else TIME_MAJOR for row in rows]
    offsets = np.array([offset for row in rows for offset in row.offsets_uV], dtype="<f4")

    write_sized(work / PAGE_CHECKSUMS, checksums.nbytes, lambda file: _write_bytes(file, checksums.tobytes()))
    arrays = {"index.npy": index, "events.npy": _event_index(tables), "offsets.npy": offsets}
    for name, array in arrays.items():
        write_sized(work / name, array.nbytes, lambda file, array=array: np.save(file, array))  # type: ignore[misc]
    fields = ("key", "participant", "task", "run", "session", "release", "reference", "clipped")
    recordings = pd.DataFrame({name: [getattr(row, name) for row in rows] for name in fields})
    recordings["source_sha256"] = [row.source_sha256 for row in rows]
    recordings["piece"] = [row.piece_key for row in rows]
    for label in sorted({label for row in rows for label in row.labels}):
        recordings[f"label/{label}"] = np.array([row.labels.get(label, np.nan) for row in rows], dtype=np.float64)
    _write_parquet(work / "recordings.parquet", recordings)
    _write_parquet(work / "events.parquet", _events(tables))
    _write_parquet(work / "segments.parquet", _segments(tables))
    _write_parquet(work / "participants.parquet", tables.participants.reset_index())
    _write_parquet(work / "findings.parquet", tables.findings)
    write_json(work / "build_report.json", tables.report)


def _events(tables: Tables) -> pd.DataFrame:
    triples = [(row, event) for row, recording in enumerate(tables.recordings) for event in recording.events]
    return pd.DataFrame(
        {
            "recording": np.array([row for row, _ in triples], dtype=np.int32),
            "onset_sample": np.array([round(e.onset_s * tables.sfreq) for _, e in triples], dtype=np.int64),
            "onset_s": np.array([event.onset_s for _, event in triples], dtype=np.float64),
            "duration_samples": np.array([round(e.duration_s * tables.sfreq) for _, e in triples], dtype=np.int64),
            "name": pd.Series([event.name for _, event in triples], dtype=str),
        }
    )


def _event_names(tables: Tables) -> list[str]:
    return sorted({event.name for recording in tables.recordings for event in recording.events})


def _event_index(tables: Tables) -> npt.NDArray[Any]:
    row_of = {name: row for row, name in enumerate(_event_names(tables))}
    events = [event for recording in tables.recordings for event in recording.events]
    onset = np.rint(np.array([event.onset_s for event in events]) * EVENT_TICKS_PER_S)
    outside = np.flatnonzero((onset < 0) | (onset > np.iinfo(np.uint32).max))
    if len(outside):
        event = events[int(outside[0])]
        raise DataError(
            f"event {event.name} begins at {event.onset_s:g} s; a store holds events from 0 to "
            f"{np.iinfo(np.uint32).max / EVENT_TICKS_PER_S:,.0f} s: mend the events of the recording."
        )
    index = np.zeros(len(events), dtype=EVENT_DTYPE)
    index["onset"] = onset
    index["name"] = [row_of[event.name] for event in events]
    return index


def _segments(tables: Tables) -> pd.DataFrame:
    rows = [(row, *astuple(one)) for row, recording in enumerate(tables.recordings) for one in recording.segments]
    columns = {"recording": np.int32} | {field.name: field.type for field in fields(Segment)}
    table = pd.DataFrame(rows, columns=list(columns))
    return table.astype({name: kind if kind in (np.int32, float) else np.int64 for name, kind in columns.items()})


def _write_parquet(path: Path, frame: pd.DataFrame) -> None:
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"table {path.name} holds a column of mixed types ({reason}); mend the source table.") from None
    write_sized(path, table.nbytes, lambda file: pq.write_table(table, file, write_page_checksum=True))


def _channel_sets(recordings: Sequence[StoredRecording], montage: Montage) -> tuple[Montage, ...]:
    """Distinct channel sets in the order in which sorted recordings show them, with the montage's positions."""
    position = dict(zip(montage.channels, montage.positions, strict=True))
    sets = list(dict.fromkeys(recording.channels for recording in recordings))
    montages: list[Montage] = []
    for channels in sets:
        unknown = [channel for channel in channels if channel not in position]
        if unknown:
            raise DataError(f"channels {', '.join(unknown[:5])} are no electrodes of montage {montage.name}.")
        name = montage.name if channels == montage.channels else f"{montage.name}, set {len(montages) + 1}"
        montages.append(Montage(name, channels, np.array([position[channel] for channel in channels])))
    return tuple(montages)


def _montage_entry(montage: Montage) -> dict[str, Any]:
    positions = [None if np.isnan(xyz).any() else [float(value) for value in xyz] for xyz in montage.positions]
    return {"name": montage.name, "channels": list(montage.channels), "positions": positions}


def _common_reference(recordings: Sequence[StoredRecording]) -> str:
    references = {recording.reference for recording in recordings}
    return references.pop() if len(references) == 1 else "mixed"


def _content_of(recording: StoredRecording) -> list[Any]:
    """What of a recording enters the data hash: everything that training can see."""
    return [
        [recording.key, recording.participant, recording.task, recording.run, recording.session, recording.release],
        [recording.reference, recording.channels, recording.offsets_uV],
        [recording.piece.n_times, recording.piece.n_channels, recording.piece.checksum],
        [[event.onset_s, event.name, event.duration_s] for event in recording.events],
        [astuple(segment) for segment in recording.segments],
        {name: None if np.isnan(value) else float(value) for name, value in sorted(recording.labels.items())},
    ]


def _sha256_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_bytes(file: BinaryIO, content: bytes) -> None:
    file.write(content)
