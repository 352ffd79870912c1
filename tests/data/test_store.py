import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data import shards
from cerebro.data.arrays import write_store
from cerebro.data.manifest import FORMAT_VERSION, manifest_text, read_manifest
from cerebro.data.readers.base import Event, Segment
from cerebro.data.store import ALIGNMENT, EVENT_DTYPE, INDEX_DTYPE, Store
from cerebro.errors import DataError
from cerebro.montage import Montage

MONTAGE = Montage("cap", ("A", "B", "C"), np.array([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0], [np.nan] * 3]))


def make_store(path: Path, n: int = 4, n_times: int = 2500, **settings) -> tuple[Store, dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    eeg = {
        f"sub-{i}/rest": (generator.normal(size=(3, n_times + i)) * 20 + [[900], [0], [-7]]).astype(np.float32)
        for i in range(n)
    }
    participants = pd.DataFrame(
        {"age": [5.0, np.nan, 7.0, 8.0, 9.0][: n + 1], "sex": ["M", "F", None, "M", "F"][: n + 1]},
        index=[f"sub-{i}" for i in range(n + 1)],
    )
    store = write_store(
        path,
        eeg,
        MONTAGE,
        100.0,
        tasks=dict.fromkeys(eeg, "rest"),
        people={key: key[:5] for key in eeg},
        participants=participants,
        events={"sub-1/rest": (Event(1.0, "start"), Event(2.004, "stop", 0.5))},
        labels={"sub-0/rest": {"open": 1.0}},
        **settings,
    )
    return store, eeg


def test_samples_come_back_within_half_a_count(tmp_path):
    store, eeg = make_store(tmp_path / "store")
    for row, key in enumerate(store.recordings["key"]):
        back = store.samples(row).T * store.lsb_uV + store.offsets_uV(row)[:, None]
        assert np.abs(back - eeg[key]).max() <= 0.5 * store.lsb_uV + 1e-4


def test_samples_are_read_only_and_shards_are_aligned(tmp_path):
    store, _ = make_store(tmp_path / "store")
    with pytest.raises(ValueError, match="read-only"):
        store.samples(0)[0, 0] = 1
    assert (store.index["offset"] * 2 % ALIGNMENT == 0).all()
    row = store.index[2]
    flat = store.shard(int(row["shard"]))
    n = int(row["n_times"]) * 3
    assert (flat[int(row["offset"]) : int(row["offset"]) + n].numpy().reshape(-1, 3) == store.samples(2)).all()


def test_tables_keep_missing_values_events_and_labels(tmp_path):
    store, _ = make_store(tmp_path / "store")
    assert list(store.participants.index) == ["sub-0", "sub-1", "sub-2", "sub-3"]  # sub-4 has no recording
    assert store.participants["age"].isna().tolist() == [False, True, False, False]
    assert store.recordings["label/open"].isna().tolist() == [False, True, True, True]
    assert store.events.to_dict("list") == {
        "recording": [1, 1],
        "onset_sample": [100, 200],
        "onset_s": [1.0, 2.004],
        "duration_samples": [0, 50],
        "name": ["start", "stop"],
    }
    assert np.isnan(store.montages[0].positions[2]).all()
    assert store.montages[0].positions[0].tolist() == [0.0, 0.1, 0.0]


def test_an_index_row_has_64_bytes_and_an_event_8(tmp_path):
    store, _ = make_store(tmp_path / "store")
    assert (INDEX_DTYPE.itemsize, EVENT_DTYPE.itemsize) == (64, 8)
    bounds = [*store.index["event_row"].tolist(), len(store.event_index)]
    assert bounds == [0, 0, 2, 2, 2]
    events = store.event_index[bounds[1] : bounds[2]]
    assert events["onset"].tolist() == [10_000, 20_040]  # 0.1 ms
    assert [store.event_names[name] for name in events["name"]] == ["start", "stop"]


def test_windows_lie_channel_by_channel_and_keep_their_places(tmp_path):
    eeg = np.random.default_rng(0).normal(size=(3, 4 * 50)).astype(np.float32) * 20
    segments = tuple(Segment(i // 2, i % 2, 10.0 * i, 10.0 * i + 0.5, 50 if i < 3 else 31) for i in range(4))
    people = pd.DataFrame({"age": [1.0]}, index=["p"])
    store = write_store(
        tmp_path / "s", {"a": eeg}, MONTAGE, 100.0, {"a": "rest"}, {"a": "p"}, people, segments={"a": segments}
    )
    assert store.index[["layout", "segment_samples"]].tolist() == [(1, 50)]
    back = store.samples(0).T * store.lsb_uV + store.offsets_uV(0)[:, None]
    assert np.abs(back - eeg).max() <= 0.5 * store.lsb_uV + 1e-4
    start, n = int(store.index["offset"][0]), eeg.shape[1]
    assert (store.shard(0)[start + n : start + 2 * n].numpy() == store.samples(0)[:, 1]).all()
    assert [Segment(*row) for row in store.segments.drop(columns="recording").itertuples(index=False)] == [*segments]


def test_a_store_of_a_newer_version_asks_for_an_update(tmp_path):
    store, _ = make_store(tmp_path / "store", n=1)
    manifest = read_manifest(store.path) | {"version": FORMAT_VERSION + 1}
    (store.path / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(DataError, match="has format 4, this cerebro reads 3; update cerebro"):
        Store.open(store.path)


def test_recordings_with_fewer_channels_get_their_own_montage(tmp_path):
    eeg = {"a": np.ones((3, 400), np.float32), "b": np.ones((2, 400), np.float32)}
    people = pd.DataFrame({"age": [1.0]}, index=["p"])
    store = write_store(
        tmp_path / "store",
        eeg,
        MONTAGE,
        100.0,
        dict.fromkeys(eeg, "rest"),
        dict.fromkeys(eeg, "p"),
        people,
        channels={"b": ("A", "C")},
    )
    assert [montage.channels for montage in store.montages] == [("A", "B", "C"), ("A", "C")]
    assert store.index["montage"].tolist() == [0, 1]


def test_clipped_samples_are_counted(tmp_path):
    eeg = {"a": np.zeros((3, 1000), np.float32)}
    eeg["a"][0, :3] = 5000.0
    people = pd.DataFrame({"age": [1.0]}, index=["p"])
    store = write_store(tmp_path / "store", eeg, MONTAGE, 100.0, {"a": "rest"}, {"a": "p"}, people)
    assert store.recordings["clipped"].tolist() == [3]


def test_data_hash_depends_on_content_and_not_on_packing(tmp_path, monkeypatch):
    first, _ = make_store(tmp_path / "a")
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 2 * ALIGNMENT)
    second, _ = make_store(tmp_path / "b")
    assert len(second.manifest["shards"]) > len(first.manifest["shards"])
    assert first.data_hash == second.data_hash
    assert all((first.samples(row) == second.samples(row)).all() for row in range(len(first)))
    other, _ = make_store(tmp_path / "c", n_times=2501)
    assert other.data_hash != first.data_hash


def test_a_bit_flipped_anywhere_is_detected_by_name(tmp_path):
    store, _ = make_store(tmp_path / "store")
    files = sorted(path for path in store.path.rglob("*") if path.is_file())
    generator = random.Random(0)
    for path in files:
        whole = path.read_bytes()
        name = path.relative_to(store.path).as_posix()
        places = {0, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(12))}
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << generator.randrange(8)
            path.write_bytes(damaged)
            try:
                problems = Store.open(store.path).verify()
            except DataError as error:
                problems = [str(error)]
            assert any(name in problem for problem in problems), (name, place, problems)
            assert all("\n" not in problem for problem in problems)
        path.write_bytes(whole)
    assert Store.open(store.path).verify() == []


def test_a_flipped_sample_is_detected_on_first_touch(tmp_path):
    store, _ = make_store(tmp_path / "store", n_times=300_000)  # 1.8 MB each: many pages
    path = store.path / "shards/00000.i16"
    with open(path, "r+b") as file:
        file.seek(int(store.index["offset"][2]) * 2 + 1_500_000)
        file.write(b"\x55")
    fresh = Store.open(store.path)
    fresh.samples(0)
    start = 2 * fresh.index["offset"]
    fresh.touch(np.zeros(2, int), start[[2, 0]] + [0, 30], 600)  # another page of the same recording is whole
    with pytest.raises(DataError, match=r"shards/00000.i16: checksum of bytes"):
        fresh.samples(2)
    with pytest.raises(DataError, match=r"00000.i16"):
        fresh.touch(np.zeros(1, int), start[[2]] + 6 * 249_950, 600)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2499), st.integers(1, 400)), min_size=1, max_size=30))
def test_the_disk_is_asked_for_the_pages_of_all_windows_once_and_in_its_order(one_store, windows):
    store = Store.open(one_store.path)
    row, start, length = (np.array(column) for column in zip(*windows, strict=True))
    length = np.minimum(length, store.index["n_times"][row] - start)
    first = 2 * (store.index["offset"][row] + start * 3)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cerebro.data.store._fetch", lambda _, path, *runs: asked.extend(zip(*runs, strict=True)))
        store.will_need(store.index["shard"][row], first, 6 * length)
    pages = {page for a, n in zip(first, 6 * length, strict=True) for page in range(a // 4096, (a + n - 1) // 4096 + 1)}
    found = [page for begin, n in asked for page in range(begin // 4096, (begin + n) // 4096)]
    assert found == sorted(pages)


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("one") / "store")[0]


@pytest.mark.parametrize("name", ["index.npy", "shards/00000.i16", "events.parquet", "manifest.json", "crc32c.u4"])
def test_truncated_and_missing_files_are_named(tmp_path, name):
    store, _ = make_store(tmp_path / "store", n=2)
    whole = (store.path / name).read_bytes()
    (store.path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=name):
        Store.open(store.path)
    (store.path / name).unlink()
    with pytest.raises(DataError, match="was not found" if name == "manifest.json" else name):
        Store.open(store.path)


def test_absent_and_unfinished_stores_name_the_command(tmp_path):
    with pytest.raises(DataError, match="was not found; run `cerebro prepare"):
        Store.open(tmp_path / "none")
    (tmp_path / "half" / "staging").mkdir(parents=True)
    with pytest.raises(DataError, match="is unfinished; run `cerebro prepare"):
        Store.open(tmp_path / "half")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=8), st.integers(1, 6))
def test_any_lengths_and_shard_sizes_come_back(tmp_path_factory, lengths, pages):
    path = tmp_path_factory.mktemp("store")
    before, shards.MAX_SHARD_BYTES = shards.MAX_SHARD_BYTES, pages * ALIGNMENT
    try:
        eeg = {f"{i:02d}": np.arange(3 * n, dtype=np.float32).reshape(3, n) % 50 for i, n in enumerate(lengths)}
        people = pd.DataFrame({"age": [1.0]}, index=["p"])
        store = write_store(
            path / "s", eeg, MONTAGE, 100.0, dict.fromkeys(eeg, "rest"), dict.fromkeys(eeg, "p"), people
        )
    finally:
        shards.MAX_SHARD_BYTES = before
    assert store.index["n_times"].tolist() == lengths
    assert store.verify() == []
    for row, key in enumerate(sorted(eeg)):
        back = store.samples(row).T * store.lsb_uV + store.offsets_uV(row)[:, None]
        assert np.abs(back - eeg[key]).max() <= 0.5 * store.lsb_uV + 1e-4
