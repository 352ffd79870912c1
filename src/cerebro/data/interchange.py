"""A store as Zarr or HDF5 for other programs, and whether such an export is whole.

`cerebro.data.readers.Exported` reads an export back as a data set.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.export_files import RECORDINGS, ExportFiles, Layout
from cerebro.data.exports import (
    BOOLEAN,
    INTEGER,
    KIND,
    NUMBER,
    TEXT,
    VERSION,
    Export,
    crc32c_of,
    is_export,
    sha256_of,
)
from cerebro.data.hdf5_files import HDF5Files
from cerebro.data.store import FINDING_COLUMNS, Store
from cerebro.data.zarr_files import ZarrFiles
from cerebro.errors import ConfigError, DataError
from cerebro.files import free_bytes, lock_folder, sync_folder
from cerebro.progress import progress_bar

Format = Literal["zarr", "hdf5"]
Compression = Literal["none", "zstd", "gzip"]
COMPRESSIONS: dict[str, tuple[Compression, ...]] = {"zarr": ("none", "zstd"), "hdf5": ("none", "gzip")}
CHUNK_BYTES = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RECORDING_COLUMNS = ("key", "participant", "task", "run", "session", "release")


def export_store(store: Store, out: Path, form: Format, compression: Compression = "none") -> bool:
    """Write everything that a store holds to ``out``, which is whole or absent afterwards.

    Samples pass through in chunks of about a MiB, a whole number of seconds or of windows each.

    Parameters
    ----------
    store : Store
        Store to write; its checksums are verified on the way.
    out : Path
        New Zarr folder or HDF5 file.
    form : {"zarr", "hdf5"}
        Format.
    compression : {"none", "zstd", "gzip"}
        ``zstd`` for Zarr, ``gzip`` for HDF5.

    Returns
    -------
    bool
        False if ``out`` was there already, whole and of this very store.

    Raises
    ------
    ConfigError
        Another compression than the format's.
    CerebroError
        In one line: ``out`` is something else, another process writes it, the disk is full, the store is damaged.
    """
    if compression not in COMPRESSIONS[form]:
        raise ConfigError(
            f"compression {compression} is none of {form}'s; set --compression to {' or '.join(COMPRESSIONS[form])}."
        )
    if out.exists():
        _check_same(store, out, form)
        return False
    work = out.with_name(f".{out.name}.part")
    n_bytes = int((store.index["n_times"] * store.index["n_channels"]).sum()) * 2
    try:
        with lock_folder(work, "cerebro export"):
            _clear(work)
            if compression == "none" and free_bytes(work) < n_bytes:
                raise _disk_full(out, n_bytes)
            try:
                with _writer(work / "content", form, compression) as files:
                    _write(store, files)
                _flush(work / "content")
                if out.exists():
                    raise DataError(f"{out} was made by another program meanwhile; choose another --out, or remove it.")
                os.rename(work / "content", out)
                sync_folder(out.parent)
            except OSError as error:
                if error.errno in FULL:
                    raise _disk_full(out, n_bytes) from error
                raise
            finally:
                _clear(work)
    finally:
        with contextlib.suppress(OSError):  # another export holds it, or there never was one
            work.rmdir()
    return True


def verify_export(path: Path) -> list[str]:
    """Verify every byte of an export that matters; one line per damaged recording, empty if all is well.

    Raises
    ------
    DataError
        If there is no export, or its root cannot be read.
    """
    problems = []
    with Export(path) as export:
        groups = list(export.groups())
        with progress_bar("verify", "recording", total=len(groups)) as bar:
            for group, sha256, key in groups:
                try:
                    for _ in export.blocks(group, export.record(group, sha256, key)):
                        pass
                except DataError as error:
                    problems.append(str(error))
                bar.update()
    return problems


def _check_same(store: Store, out: Path, form: Format) -> None:
    """Raise unless ``out`` is a whole export of this store in this format."""
    if not is_export(out) or out.is_dir() != (form == "zarr"):
        raise DataError(f"{out} exists and is no {form} export; choose another --out, or remove it.")
    with Export(out) as export:
        if export.about["identity"] != store.manifest["identity"]:
            raise DataError(f"{out} is the export of another store; choose another --out, or remove it.")
    problems = verify_export(out)
    if problems:
        raise DataError(f"{problems[0]} Remove {out} first.")


def _writer(path: Path, form: Format, compression: Compression) -> ExportFiles:
    return ZarrFiles(path, compression) if form == "zarr" else HDF5Files(path, "w", compression)


def _write(store: Store, files: ExportFiles) -> None:
    width = max(6, len(str(len(store))))
    names = [f"{row:0{width}d}" for row in range(len(store))]
    events, segments = _by_recording(store.events, len(store)), _by_recording(store.segments, len(store))
    keys = store.recordings["key"].tolist()
    findings = _findings_by_key(store.findings)
    digests = []
    with progress_bar("export", "chunk", total=_n_chunks(store)) as bar:
        for row, name in enumerate(names):
            group = f"{RECORDINGS}/{name}"
            record = _record(store, row, events[row], segments[row], findings.get(keys[row], []))
            layout = Layout(
                group, len(record["channels"]), record["n_times"], record["samples_per_chunk"], record["scale_uV"]
            )
            checksums: list[int] = []
            blocks = _blocks(store.samples(row), layout, checksums, bar.update)
            record["array_sha256"] = files.write_counts(layout, blocks)
            record["chunk_crc32c"] = checksums
            files.write_about(group, record)
            digests.append(sha256_of(record))
    files.write_about(RECORDINGS, {"n_recordings": len(names)})
    about = _about(store, names, digests)
    files.write_about("", about | {"checksum": sha256_of(about)})


def _about(store: Store, names: list[str], digests: list[str]) -> dict[str, Any]:
    """What the root of an export says."""
    people = store.participants.reset_index()
    table = {column: store.recordings[column].tolist() for column in RECORDING_COLUMNS}
    return {
        "kind": KIND,
        "version": VERSION,
        "sfreq": store.sfreq,
        "lsb_uV": store.lsb_uV,
        "corpus": store.corpus,
        "reference": store.reference,
        "data_hash": store.data_hash,
        "identity": store.manifest["identity"],
        "montages": store.manifest["montages"],
        "recordings": {"name": names, **table, "sha256": digests},
        "participants": {str(name): _values(people[name]) for name in people},
        "participant_columns": [[str(name), _kind(people[name])] for name in people],
        "findings": {name: store.findings[name].tolist() for name in FINDING_COLUMNS},
    }


def _record(
    store: Store, row: int, events: pd.DataFrame, segments: pd.DataFrame, findings: list[list[str]]
) -> dict[str, Any]:
    """What a recording says of itself, but for the checksums of its samples."""
    index, table = store.index[row], store.recordings
    labels = {str(name): float(table[name].iloc[row]) for name in table if str(name).startswith("label/")}
    record: dict[str, Any] = {name: _plain(table[name].iloc[row]) for name in RECORDING_COLUMNS}
    return record | {
        "reference": str(table["reference"].iloc[row]),
        "clipped": int(table["clipped"].iloc[row]),
        "labels": {name.removeprefix("label/"): value for name, value in labels.items() if not np.isnan(value)},
        "channels": list(store.montages[index["montage"]].channels),
        "montage": int(index["montage"]),
        "offsets_uV": store.offsets_uV(row).astype(float).tolist(),
        "sfreq": store.sfreq,
        "scale_uV": store.lsb_uV,
        "n_times": int(index["n_times"]),
        "samples_per_chunk": _samples_per_chunk(store, row),
        "segment_samples": int(index["segment_samples"]),
        "events": {
            "onset_s": events["onset_s"].tolist(),
            "duration_s": (events["duration_samples"] / store.sfreq).tolist(),
            "name": events["name"].tolist(),
        },
        "findings": findings,
        "segments": {name: segments[name].tolist() for name in segments if name != "recording"},
    }


def _blocks(
    samples: Int16[ndarray, "T C"], layout: Layout, checksums: list[int], advance: Callable[[], object]
) -> Iterator[Int16[ndarray, "C t"]]:
    """Chunks of a recording; the checksum of each is appended to ``checksums``."""
    for start in layout.starts:
        block = np.ascontiguousarray(samples[start : start + layout.samples_per_chunk].T)
        checksums.append(crc32c_of(block))
        yield block
        advance()


def _samples_per_chunk(store: Store, row: int) -> int:
    """A whole number of windows or seconds in about a MiB; never more than there are samples."""
    index = store.index[row]
    unit = int(index["segment_samples"]) or store.sfreq
    n_units = max(1, round(CHUNK_BYTES / (2 * int(index["n_channels"]) * unit)))
    return min(max(1, round(n_units * unit)), int(index["n_times"]))


def _n_chunks(store: Store) -> int:
    return sum(-(-int(store.index["n_times"][row]) // _samples_per_chunk(store, row)) for row in range(len(store)))


def _by_recording(table: pd.DataFrame, n_recordings: int) -> list[pd.DataFrame]:
    """Rows of a sorted table, recording by recording."""
    bounds = np.searchsorted(table["recording"].to_numpy(), np.arange(n_recordings + 1))
    return [table.iloc[start:stop] for start, stop in pairwise(bounds)]


def _findings_by_key(table: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Rule, severity, where and detail of what was found in the samples of each recording."""
    found: dict[str, list[list[str]]] = {}
    for key, piece, *finding in table[list(FINDING_COLUMNS)].itertuples(index=False):
        if piece:
            found.setdefault(key, []).append(finding)
    return found


def _kind(column: "pd.Series[Any]") -> str:
    """What a column of participants holds."""
    if pd.api.types.is_bool_dtype(column):
        return BOOLEAN
    if pd.api.types.is_integer_dtype(column):
        return INTEGER
    if pd.api.types.is_float_dtype(column):
        return NUMBER
    if all(isinstance(value, str) for value in column.dropna()):
        return TEXT
    raise DataError(
        f"column {column.name} of participants holds neither numbers, text nor yes and no; an export cannot keep it: "
        "change the source table."
    )


def _values(column: "pd.Series[Any]") -> list[Any]:
    return [None if pd.isna(value) else _plain(value) for value in column]


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _flush(content: Path) -> None:
    """Bring every file to the disk, so that a rename never survives a power cut without them."""
    for folder, _, names in os.walk(content):
        for name in names:
            sync_folder(Path(folder) / name)
        sync_folder(Path(folder))
    if content.is_file():
        sync_folder(content)


def _disk_full(out: Path, n_bytes: int) -> DataError:
    return DataError(
        f"the disk is full: {out} needs about {n_bytes:,} bytes before compression and {free_bytes(out.parent):,} are "
        "left; free some space and run the same command again."
    )


def _clear(work: Path) -> None:
    """Remove what a killed export left."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(".lock"):
            path.unlink()
