import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.data import interchange
from cerebro.data.arrays import write_store
from cerebro.data.exports import Export
from cerebro.data.interchange import COMPRESSIONS, export_store, verify_export
from cerebro.data.store import Store
from cerebro.errors import CerebroError, ConfigError, DataError
from cerebro.files import lock_folder
from cerebro.montage import Montage

FORMS = [(form, compression) for form, known in COMPRESSIONS.items() for compression in known]
MONTAGE = Montage("cap", ("A", "B"), np.eye(2, 3) * 0.1)


@pytest.fixture(scope="module")
def store(make_varied_store: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_varied_store(tmp_path_factory.mktemp("varied") / "store")


@pytest.fixture(scope="module")
def small_chunks():
    """Several chunks per recording, so that one can be absent or in another's place."""
    before, interchange.CHUNK_BYTES = interchange.CHUNK_BYTES, 4096
    yield
    interchange.CHUNK_BYTES = before


@pytest.fixture(scope="module")
def exports(store, small_chunks, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for form, compression in FORMS:
        export_store(store, folder / f"{form}-{compression}", form, compression)
    return {f"{form}-{compression}": folder / f"{form}-{compression}" for form, compression in FORMS}


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def bytes_of(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files_of(path)}


def content(path: Path) -> tuple[dict, list[dict], list[bytes]]:
    """Everything that an export says, and all counts."""
    with Export(path) as export:
        records = [(group, export.record(group, sha256, key)) for group, sha256, key in export.groups()]
        return export.about, [record for _, record in records], [export.counts(*one).tobytes() for one in records]


def copy_of(path: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    to.unlink(missing_ok=True)
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copyfile(path, to)
    return to


def problems_of(path: Path) -> list[str]:
    try:
        return verify_export(path)
    except DataError as error:
        return [str(error)]


# ------------------------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize("name", [f"{form}-{compression}" for form, compression in FORMS])
def test_an_export_holds_what_the_store_holds(store, exports, name):
    about, records, counts = content(exports[name])
    assert verify_export(exports[name]) == []
    assert about["data_hash"] == store.data_hash
    assert [record["key"] for record in records] == store.recordings["key"].tolist()
    for row, (record, data) in enumerate(zip(records, counts, strict=True)):
        assert data == np.ascontiguousarray(store.samples(row).T).tobytes()
        assert np.array_equal(np.float32(record["offsets_uV"]), store.offsets_uV(row))
        assert record["channels"] == [*store.montages[store.index["montage"][row]].channels]
    assert records[1]["events"] == {"onset_s": [1.0, 2.00437], "duration_s": [0.0, 0.5], "name": ["start", "größer"]}
    assert records[2]["labels"] == {"open": 0.0, "speed": 0.1}
    assert records[2]["clipped"] == 3
    assert records[3]["segments"]["n_valid"] == [50, 50, 50, 50, 50, 31]
    assert about["participants"]["age"] == [5.1, None, 7.0, 8.0]
    assert about["participants"]["site"] == ["RU", None, "CBIC", "n:a"]
    assert about["montages"][0]["positions"] == [[0.0, 0.1, 0.0], [0.1, 0.0, 0.0], None]


def test_zarr_reads_without_cerebro_and_every_chunk_has_a_checksum(store, exports):
    import zarr

    for compression in COMPRESSIONS["zarr"]:
        root = zarr.open_group(exports[f"zarr-{compression}"], mode="r")
        assert sorted(root["recordings"].group_keys()) == [f"{row:06d}" for row in range(4)]
        array = root["recordings/000001/eeg"]
        assert array.metadata.codecs[-1].to_dict()["name"] == "crc32c"
        assert array.metadata.dimension_names == ("channel", "time")
        assert np.array_equal(array[:], store.samples(1).T)
        assert array.attrs["scale_factor"] == store.lsb_uV
        assert root.attrs["sfreq"] == 100.0


def test_hdf5_reads_without_cerebro_and_every_chunk_has_a_checksum(store, exports):
    import h5py

    for compression in COMPRESSIONS["hdf5"]:
        with h5py.File(exports[f"hdf5-{compression}"]) as file:
            dataset = file["recordings/000002/eeg"]
            assert dataset.fletcher32
            assert file["about"].fletcher32
            assert dataset.compression == (None if compression == "none" else compression)
            assert np.array_equal(dataset[:], store.samples(2).T)
            assert json.loads(file["recordings/000002/about"][0])["key"] == "sub-2/rest"


def test_no_text_of_an_hdf5_export_lies_where_a_damaged_size_holds_up_whoever_reads_it(exports):
    """In the global heap, of which no byte is under a checksum."""
    import h5py

    content = exports["hdf5-none"].read_bytes()
    assert b"microvolt" in content
    assert b"GCOL" not in content
    with h5py.File(exports["hdf5-none"]) as file:
        attributes = file["recordings/000000/eeg"].attrs
        assert attributes["units"] == b"microvolt"
        assert attributes["dimension_names"].tolist() == [b"channel", b"time"]


@pytest.mark.parametrize("form", COMPRESSIONS)
def test_chunks_are_about_a_mebibyte_and_whole_seconds_or_windows(tmp_path, store, monkeypatch, form):
    monkeypatch.setattr(interchange, "CHUNK_BYTES", 2**20)
    eeg = {"long": np.random.default_rng(0).normal(0, 20, (2, 700_000)).astype(np.float32)}
    long = write_store(tmp_path / "s", eeg, MONTAGE, 100.0, {"long": "rest"}, {"long": "p"}, pd.DataFrame(index=["p"]))
    export_store(long, tmp_path / "out", form)
    (record,) = content(tmp_path / "out")[1]
    assert record["samples_per_chunk"] % 100 == 0
    assert record["samples_per_chunk"] * 2 * 2 == pytest.approx(2**20, rel=0.01)
    assert len(record["chunk_crc32c"]) == 3
    monkeypatch.setattr(interchange, "CHUNK_BYTES", 300)
    assert interchange._samples_per_chunk(store, 3) == 100  # two windows of 50 in two channels
    assert interchange._samples_per_chunk(store, 0) == 100


@pytest.mark.parametrize(("form", "compression"), FORMS)
def test_the_same_store_gives_the_same_bytes(store, exports, small_chunks, tmp_path, form, compression):
    export_store(store, tmp_path / "again", form, compression)
    assert bytes_of(tmp_path / "again") == bytes_of(exports[f"{form}-{compression}"])


# ------------------------------------------------------------------------------------------------ whole or absent


@pytest.mark.parametrize("form", COMPRESSIONS)
def test_a_second_export_verifies_the_first_and_refuses_anything_else(store, tmp_path, form):
    out = tmp_path / "out"
    assert export_store(store, out, form)
    before = bytes_of(out)
    assert not export_store(store, out, form)
    assert bytes_of(out) == before
    eeg = {"a": np.random.default_rng(1).normal(0, 20, (2, 500)).astype(np.float32)}
    other = write_store(tmp_path / "s", eeg, MONTAGE, 100.0, {"a": "rest"}, {"a": "p"}, pd.DataFrame(index=["p"]))
    with pytest.raises(DataError, match=r"out is the export of another store; choose another --out"):
        export_store(other, out, form)
    with pytest.raises(DataError, match=r"out exists and is no (zarr|hdf5) export"):
        export_store(store, out, "hdf5" if form == "zarr" else "zarr")
    file = out if form == "hdf5" else out / "recordings/000000/eeg/c/0/0"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"is damaged: recording .* Remove .*out first"):
        export_store(store, out, form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s"]


@pytest.mark.parametrize(("form", "compression"), FORMS)
def test_a_full_disk_at_any_size_is_one_line_and_leaves_nothing(store, tmp_path, monkeypatch, form, compression):
    monkeypatch.setattr(interchange, "free_bytes", lambda folder: 10**9)  # or it would be seen beforehand
    whole = max(file.stat().st_size for file in files_of(_export(store, tmp_path / "whole", form, compression)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    draw = random.Random(0)
    for _ in range(20):
        resource.setrlimit(resource.RLIMIT_FSIZE, (draw.randrange(300, whole - 1), hard))  # as a disk that fills up
        try:
            with pytest.raises(
                DataError, match=r"^the disk is full: \S+ needs about 46,218 bytes [^\n]*same command again.$"
            ):
                export_store(store, tmp_path / "out", form, compression)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def _export(store: Store, out: Path, form: str, compression: str) -> Path:
    export_store(store, out, form, compression)
    return out


def test_too_little_space_is_seen_before_a_byte_is_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr(interchange, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr(interchange, "_write", None)
    with pytest.raises(DataError, match=r"needs about 46,218 bytes .* and 1,000 are left"):
        export_store(store, tmp_path / "out", "zarr")


@pytest.mark.parametrize("form", COMPRESSIONS)
def test_a_damaged_store_leaves_no_export(make_varied_store, tmp_path, form):
    store = make_varied_store(tmp_path / "store")
    with open(store.path / "shards/00000.i16", "r+b") as file:
        file.seek(int(store.index["offset"][2]) * 2 + 5000)
        file.write(b"\x55\x55\x55")
    with pytest.raises(DataError, match=r"shards/00000.i16: checksum"):
        export_store(Store.open(store.path), tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_two_exports_to_one_place_at_once_are_refused(store, tmp_path):
    with lock_folder(tmp_path / ".out.part", "cerebro export"):
        with pytest.raises(CerebroError, match=r"is being written by process \d+"):
            export_store(store, tmp_path / "out", "zarr")
        assert (tmp_path / ".out.part" / ".lock").is_file()


def test_what_a_killed_export_left_goes_with_the_next(store, tmp_path):
    left = tmp_path / ".out.part" / "content" / "recordings"
    left.mkdir(parents=True)
    (left / "zarr.json").write_text("{")
    (tmp_path / ".out.part" / "other").write_text("")
    export_store(store, tmp_path / "out", "zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert verify_export(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("form", COMPRESSIONS)
def test_killed_at_any_moment_an_export_is_whole_or_absent(store, tmp_path, form):
    code = (
        "import sys; from pathlib import Path; from cerebro.data.store import Store; "
        "from cerebro.data import interchange; interchange.CHUNK_BYTES = 300; print('go', flush=True); "
        f"interchange.export_store(Store.open(Path({str(store.path)!r})), Path({str(tmp_path / 'out')!r}), {form!r})"
    )
    draw, n_whole, whole_s = random.Random(0), 0, 0.0
    for attempt in range(16):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        began = time.monotonic()
        if attempt == 0:  # how long it takes on this machine, now
            process.wait()
            whole_s = time.monotonic() - began
        time.sleep(draw.uniform(0, whole_s))
        process.kill()
        process.wait()
        process.stdout.close()
        if (tmp_path / "out").exists():
            assert verify_export(tmp_path / "out") == []
            n_whole += 1
            (shutil.rmtree if form == "zarr" else os.unlink)(tmp_path / "out")
    export_store(store, tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert n_whole < 16


def test_wrong_settings_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="compression gzip is none of zarr's; set --compression to none or zstd"):
        export_store(store, tmp_path / "out", "zarr", "gzip")


# ------------------------------------------------------------------------------------------------ damage


def test_an_absent_chunk_is_named_even_where_all_samples_are_zero(tmp_path, small_chunks):
    eeg = {"a": np.zeros((2, 4000), np.float32)}
    eeg["a"][0, :100] = np.tile([10, -10], 50)
    flat = write_store(tmp_path / "s", eeg, MONTAGE, 100.0, {"a": "rest"}, {"a": "p"}, pd.DataFrame(index=["p"]))
    export_store(flat, tmp_path / "out", "zarr")
    assert not content(tmp_path / "out")[2][0][200:].strip(b"\0")
    chunk = tmp_path / "out/recordings/000000/eeg/c/0/3"
    assert chunk.is_file()
    chunk.unlink()
    (problem,) = verify_export(tmp_path / "out")
    assert "recording a, recordings/000000/eeg/c/0/3: is missing" in problem


def test_chunks_in_each_others_place_are_named(exports, tmp_path):
    """Both are whole for the codec."""
    out = copy_of(exports["zarr-zstd"], tmp_path / "out")
    first, second = (out / "recordings/000000/eeg/c/0" / name for name in ("0", "1"))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    (problem,) = verify_export(out)
    assert "recording sub-0/rest, recordings/000000/eeg/c/0/0: holds other samples than were written" in problem


def test_recordings_in_each_others_place_are_named(exports, tmp_path):
    out = copy_of(exports["zarr-none"], tmp_path / "out")
    one, other = out / "recordings/000000", out / "recordings/000001"
    one.rename(out / "aside")
    other.rename(one)
    (out / "aside").rename(other)
    assert ["recording sub-0/rest, recordings/000000/zarr.json" in problem for problem in verify_export(out)] == [
        True,
        False,
    ]


def test_an_hdf5_file_cut_short_does_not_open_and_says_so(exports, tmp_path):
    whole = exports["hdf5-none"].read_bytes()
    for n in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:n])
        with pytest.raises(DataError, match=r"^[^\n]*cut.h5 does not open as HDF5 [^\n]*fetch a whole copy[^\n]*$"):
            verify_export(tmp_path / "cut.h5")


def test_h5py_alone_refuses_a_changed_scale(exports, store, tmp_path):
    """Headers have checksums of their own, which the form that h5py writes by default has not."""
    import h5py

    out = copy_of(exports["hdf5-none"], tmp_path / "out.h5")
    changed = bytearray(out.read_bytes())
    changed[changed.index(np.float64(store.lsb_uV).tobytes())] ^= 1
    out.write_bytes(changed)
    with h5py.File(out) as file, pytest.raises(KeyError, match="checksum"):
        _ = file["recordings/000000/eeg"].attrs["scale_factor"]


def test_a_newer_export_and_another_programs_files_are_refused(exports, tmp_path):
    import h5py
    import zarr

    with pytest.raises(DataError, match="was not found; `cerebro export STORE"):
        verify_export(tmp_path / "none")
    zarr.create_group(tmp_path / "foreign.zarr", attributes={"kind": "other"})
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x/eeg"] = np.zeros((2, 10))
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "empty").mkdir()
    for name in ("foreign.zarr", "foreign.h5", "text.h5", "empty"):
        with pytest.raises(DataError, match=rf"^[^\n]*{name}[^\n]*$"):
            verify_export(tmp_path / name)
    out = copy_of(exports["zarr-none"], tmp_path / "newer")
    about = json.loads((out / "zarr.json").read_text())["attributes"]
    about["version"] += 1
    del about["checksum"]
    interchange.ZarrFiles(out).write_about("", about | {"checksum": interchange.sha256_of(about)})
    with pytest.raises(DataError, match="has version 2, this cerebro reads 1; update cerebro"):
        verify_export(out)


def damage(path: Path, draw: random.Random) -> tuple[str, Path, bytes]:
    """Change one thing of an export as a disk, a network or a person might; what, and the file as it was."""
    file = draw.choice(files_of(path))
    whole = file.read_bytes()
    changed = bytearray(whole)
    kinds = ["bit", "bit", "truncate", "zeros", "noise", "swap"] + ["drop", "exchange"] * path.is_dir()
    while bytes(changed) == whole:
        kind = draw.choice(kinds)
        at, other = draw.randrange(len(whole)), draw.randrange(len(whole))
        if path.is_file() and draw.random() < 0.5:  # where objects and texts lie, not samples
            at = draw.choice([draw.randrange(6000), len(whole) - 1 - draw.randrange(6000)])
        n = min(len(whole) - max(at, other), draw.choice([1, 64, 512]))
        if kind == "bit":
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "truncate":
            del changed[at:]
        elif kind == "zeros":
            changed[at : at + n] = bytes(n)
        elif kind == "noise":
            changed[at : at + n] = draw.randbytes(n)
        elif kind == "swap":
            changed[at : at + n], changed[other : other + n] = whole[other : other + n], whole[at : at + n]
        elif kind == "drop":
            file.unlink()
            return f"{file} dropped", file, whole
        else:
            changed = bytearray(draw.choice(files_of(path)).read_bytes())
    file.write_bytes(changed)
    return f"{kind} in {file} at {at} ({n} bytes, {other})", file, whole


def check_mutations(whole: Path, n: int, seed: int, work: Path) -> tuple[int, int]:
    """(Detected, harmless) of ``n`` mutations; fails on any other."""
    expected, draw = content(whole), random.Random(seed)
    n_detected = 0
    path = copy_of(whole, work / whole.name)
    for _ in range(n):
        what, file, before = damage(path, draw)
        problems = problems_of(path)
        if problems:
            n_detected += 1
            assert all("\n" not in problem and str(path) in problem for problem in problems), (what, problems)
        else:
            assert content(path) == expected, what
        file.write_bytes(before)
    return n_detected, n - n_detected


@pytest.mark.parametrize("name", ["zarr-none", "hdf5-gzip"])
def test_a_mutation_is_detected_or_changes_nothing(exports, tmp_path, name):
    n_detected, n_harmless = check_mutations(exports[name], 40, 0, tmp_path)
    assert n_detected > n_harmless


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{form}-{compression}" for form, compression in FORMS])
def test_of_200_mutations_none_passes_for_data(exports, tmp_path, name):
    n_detected, n_harmless = check_mutations(exports[name], 200, 1, tmp_path)
    print(f"{name}: {n_detected} detected, {n_harmless} harmless")
    assert n_detected > n_harmless
