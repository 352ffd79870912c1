"""Damaged tables of samples and of windows, and HDF5 files: as `test_mutations`, by the readers that users name.

A build looks into these before it opens a signal (for markers, participants, groups), and meets damage there too.
"""

import gzip
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import CHANNELS, N_TIMES, SFREQ, in_this_process, mutate, signal

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder, LaBraMHDF5, ParquetWindows
from cerebro.data.readers.base import Reader
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.source_checksums import freeze
from cerebro.data.store import Store

PLAN = Preprocessing(sfreq=50.0, lowpass_hz=20.0)
WINDOW = 50  # samples
N_FEW, N_MANY = 25, 500
TABLE = TableFormat(sfreq=SFREQ, time_column="ms", time_unit="ms", marker_column="marker")


def windows(path: Path) -> bytes:
    """Ten windows of the person after whom the file is named, with a label, without checksums of pages."""
    n = N_TIMES // WINDOW
    start = np.arange(n) * WINDOW / PLAN.sfreq
    ids = {"participant": path.stem, "run": 1, "parent_window_id": np.arange(n) // 2, "sub_window_id": np.arange(n) % 2}
    table = pd.DataFrame(ids | {"window_start": start, "window_end": start + WINDOW / PLAN.sfreq, "remission": 1})
    for name, samples in zip(CHANNELS, signal(), strict=True):
        table[name.upper()] = list(samples.reshape(n, WINDOW))
    return parquet(table)


def parquet(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table), out)
    return out.getvalue()


def table(path: Path) -> pd.DataFrame:
    marker = (np.arange(N_TIMES) == 100).astype(int)
    named = dict(zip(CHANNELS, signal(), strict=True))
    return pd.DataFrame({"ms": np.arange(N_TIMES) * 1e3 / SFREQ, **named, "marker": marker})


def hdf5(path: Path) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        dataset = file.create_group(f"{path.stem}_a").create_dataset("eeg", data=signal(), chunks=(len(CHANNELS), 100))
        dataset.attrs.update({"rsFreq": int(SFREQ), "chOrder": list(CHANNELS)})
    return out.getvalue()


def folder_of_tables(root: Path) -> Folder:
    return Folder(root, "mine", participant_from=r"^(m\d+)", tasks={".": "rest"}, pattern="m*", table=TABLE)


@dataclass(frozen=True)
class Format:
    suffix: str
    content: Callable[[Path], bytes]
    reader: Callable[[Path], Reader]
    key: str  # of the recording in a file, by the file's stem


FORMATS = {
    "Parquet windows": Format(
        ".parquet", windows, lambda root: ParquetWindows(root, "mine", sfreq=50.0, window_length=WINDOW), "{}_run-1"
    ),
    "Parquet table": Format(".parquet", lambda path: parquet(table(path)), folder_of_tables, "{}"),
    "CSV table": Format(".csv", lambda path: table(path).to_csv(index=False).encode(), folder_of_tables, "{}"),
    "CSV table, gzip": Format(
        ".csv.gz",
        lambda path: gzip.compress(table(path).to_csv(index=False).encode(), mtime=0),
        folder_of_tables,
        "{}",
    ),
    "LaBraM HDF5": Format(".h5", hdf5, lambda root: LaBraMHDF5(root, "mine"), "{0}/{0}_a"),
}


def check(name: str, n: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Build with a list of checksums, which finds every mutant, and without; what became of each mutant then.

    All mutants lie in one data set, so that none may take others down with it.
    """
    form = FORMATS[name]
    root = folder / "recordings"
    root.mkdir()
    stems = [f"m{number:03}" for number in range(n + 1)]
    files = {stem: root / f"{stem}{form.suffix}" for stem in stems}
    for stem in stems:
        files[stem].write_bytes(form.content(Path(stem)))
    reader = form.reader(root)
    freeze(reader)
    draw = np.random.default_rng(len(name))
    for stem in stems[1:]:
        files[stem].write_bytes(mutate(files[stem].read_bytes(), draw))
    monkeypatch.setattr("cerebro.data.spread.run_in_children", in_this_process)

    report = build(reader, PLAN, folder / "with")
    assert (report.read, report.verified) == (1, 1)
    assert Store.open(folder / "with").recordings["key"].tolist() == [form.key.format("m000")]
    lines = [f"{where}: {detail}" for where, detail in report.failures.items()]
    assert all(line.isprintable() for line in lines)
    for stem in stems[1:]:
        assert any(files[stem].name in line for line in lines), stem

    (root / "SHA256SUMS").unlink()
    report = build(reader, PLAN, folder / "without")
    store = Store.open(folder / "without")
    assert store.verify() == []
    assert form.key.format("m000") in set(store.recordings["key"])
    assert all(np.isfinite(store.offsets_uV(row)).all() for row in range(len(store)))
    assert not {"reader-error", "reader-hung", "reader-crashed"} & set(store.findings["rule"])
    lines = [f"{where}: {detail}" for where, detail in report.failures.items()]
    assert all(line.isprintable() for line in lines)
    refused = {stem for stem in stems[1:] if any(stem in line for line in lines)}
    whole = store.samples(store.recordings["key"].tolist().index(form.key.format("m000")))
    count = Counter({"refused": len(refused)})
    samples = {key: store.samples(row) for row, key in enumerate(store.recordings["key"])}
    twins = set(store.findings[store.findings["rule"] == "same-signal-twice"]["where"])
    for stem in set(stems[1:]) - refused:
        key = form.key.format(stem)
        is_same = key in twins or (key in samples and np.array_equal(samples[key], whole))
        count["same samples" if is_same else "other"] += 1
    return count


@pytest.mark.parametrize("name", FORMATS)
def test_every_mutation_is_found_with_checksums_and_none_ends_the_build_without(name, tmp_path, monkeypatch):
    assert check(name, N_FEW, tmp_path, monkeypatch)["refused"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_500_mutations_of_each_format(name, tmp_path, monkeypatch):
    count = check(name, N_MANY, tmp_path, monkeypatch)
    print(f"\n| {name} | {N_MANY} | {count['refused']} | {count['same samples']} | {count['other']} |")
