import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data import build as building
from cerebro.data.arrays import write_store
from cerebro.data.build import build
from cerebro.data.interchange import COMPRESSIONS, export_store
from cerebro.data.pieces import make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Exported
from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan
from cerebro.data.readers.exported import whole_montage
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.montage import Montage

PLAN = Preprocessing()


@pytest.fixture(autouse=True)
def in_process():
    """Work in this process, without seconds of imports in children and of parsing the code for its version."""

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    here = mock.patch("cerebro.data.spread.run_in_children", run)
    with here, mock.patch.object(building, "code_version", return_value="1"):
        yield


def rebuilt(store: Store, folder: Path, form: str = "zarr", plan: Preprocessing = PLAN) -> Store:
    export_store(store, folder / f"export.{form}", form)
    build(Exported(folder / f"export.{form}"), plan, folder / "rebuilt", store.lsb_uV)
    return Store.open(folder / "rebuilt")


@pytest.mark.parametrize("form", COMPRESSIONS)
def test_a_store_rebuilt_from_its_export_is_the_same(make_varied_store, tmp_path, form):
    store = make_varied_store(tmp_path / "store")
    back = rebuilt(store, tmp_path, form)
    assert back.data_hash == store.data_hash
    assert (back.index == store.index).all()
    for row in range(len(store)):
        assert np.array_equal(back.samples(row), store.samples(row))
        assert np.array_equal(back.offsets_uV(row), store.offsets_uV(row))
    own = ["source_sha256", "piece"]
    pd.testing.assert_frame_equal(back.recordings.drop(columns=own), store.recordings.drop(columns=own))
    for table in ("events", "segments", "participants"):
        pd.testing.assert_frame_equal(getattr(back, table), getattr(store, table))
    assert (back.corpus, back.reference, back.sfreq) == (store.corpus, store.reference, store.sfreq)
    assert [(m.name, m.channels) for m in back.montages] == [(m.name, m.channels) for m in store.montages]
    assert all(
        np.array_equal(m.positions, n.positions, equal_nan=True)
        for m, n in zip(back.montages, store.montages, strict=True)
    )
    assert back.findings["rule"].tolist() == ["flat-channel"]


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=3),
    offset_uV=st.floats(-2e5, 2e5, width=32),
    amplitude_uV=st.floats(1, 5000),
    lsb_uV=st.sampled_from([0.01, 0.05, 0.1, 0.488]),
    sfreq=st.sampled_from([100.0, 128.0, 250.5]),
    form=st.sampled_from(sorted(COMPRESSIONS)),
)
def test_any_offset_scale_rate_and_length_come_back_to_the_bit(
    tmp_path_factory, lengths, offset_uV, amplitude_uV, lsb_uV, sfreq, form
):
    folder = tmp_path_factory.mktemp("any")
    draw = np.random.default_rng(0)
    eeg = {f"{i}": (draw.normal(0, amplitude_uV, (2, n)) + offset_uV).astype(np.float32) for i, n in enumerate(lengths)}
    montage = Montage("cap", ("A", "B"), np.eye(2, 3) * 0.1)
    rest, people = dict.fromkeys(eeg, "rest"), dict.fromkeys(eeg, "p")
    table = pd.DataFrame({"age": [offset_uV]}, index=["p"])
    store = write_store(folder / "s", eeg, montage, sfreq, rest, people, table, lsb_uV=lsb_uV)
    back = rebuilt(store, folder, form, Preprocessing(sfreq=sfreq))
    assert back.data_hash == store.data_hash
    assert all(np.array_equal(back.samples(row), store.samples(row)) for row in range(len(store)))
    shutil.rmtree(folder)


class Sets(Reader):
    """Two recordings of other channels each, of a montage that has more; with findings of every kind."""

    corpus = "sets"

    def __init__(self, root: Path) -> None:
        self.root = root

    def montage(self) -> Montage:
        return Montage("big", ("A", "B", "C", "D", "E"), np.eye(5, 3) * 0.1)

    def scan(self, require_signals: bool = True) -> Scan:
        entries = []
        for key in ("a", "b", "nan"):
            (self.root / f"{key}.bin").write_text(key)
            entries.append(Entry(key, key, "rest", self.root / f"{key}.bin"))
        people = pd.DataFrame({"age": [1.0, 2.0, 3.0]}, index=["a", "b", "nan"])
        return Scan(entries, [Finding("unlisted", "skipped", "z", "not there")], people)

    def load(self, entry: Entry) -> Recording:
        eeg = np.random.default_rng(len(entry.key)).normal(0, 20, (2, 3000)).astype(np.float32)
        eeg[1] = 7.0 if entry.key == "b" else eeg[1]
        eeg[0, 5] = np.nan if entry.key == "nan" else eeg[0, 5]
        channels = ("A", "B") if entry.key == "a" else ("B", "D")
        found = [Finding("no-electrode", "repaired", entry.key, "ECG dropped")]
        return Recording(eeg, channels, 250.0, "average", found)


def test_channel_sets_and_findings_of_a_built_store_come_back(tmp_path):
    (tmp_path / "source").mkdir()
    build(Sets(tmp_path / "source"), PLAN, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert [montage.name for montage in store.montages] == ["big, set 1", "big, set 2"]
    back = rebuilt(store, tmp_path)
    assert back.data_hash == store.data_hash
    told = ["recording", "rule", "severity", "where", "detail"]
    old = store.findings[told].assign(recording=[name if name != "nan" else "" for name in store.findings["recording"]])
    pd.testing.assert_frame_equal(
        back.findings[told].sort_values(told, ignore_index=True), old.sort_values(told, ignore_index=True)
    )
    assert {"no-electrode", "flat-channel", "unlisted", "unusable-recording"} == set(old["rule"])


def test_an_export_of_a_rebuilt_store_rebuilds_again(make_varied_store, tmp_path):
    first = rebuilt(make_varied_store(tmp_path / "store"), tmp_path)
    (tmp_path / "again").mkdir()
    assert rebuilt(first, tmp_path / "again", "hdf5").data_hash == first.data_hash


def test_a_second_build_reads_no_sample_again(make_varied_store, tmp_path, monkeypatch):
    back = rebuilt(make_varied_store(tmp_path / "store"), tmp_path)
    monkeypatch.setattr(Exported, "load", None)
    build(Exported(tmp_path / "export.zarr"), PLAN, tmp_path / "rebuilt")
    assert Store.open(tmp_path / "rebuilt").data_hash == back.data_hash


def test_only_the_damaged_recording_fails_and_the_report_names_the_file(make_varied_store, tmp_path):
    export_store(make_varied_store(tmp_path / "store"), tmp_path / "out", "zarr")
    (tmp_path / "out/recordings/000001/eeg/c/0/0").unlink()
    report = build(Exported(tmp_path / "out"), PLAN, tmp_path / "rebuilt")
    assert (report.read, report.failed) == (3, 1)
    (rule,) = (rule for rule in report.rules if rule.severity == "failed")
    assert "recording sub-1/rest, recordings/000001/eeg/c/0/0: is missing" in rule.examples[0]


def test_another_rate_is_refused_with_the_key_to_set(make_varied_store, tmp_path):
    export_store(make_varied_store(tmp_path / "store"), tmp_path / "out", "hdf5")
    report = build(Exported(tmp_path / "out"), Preprocessing(sfreq=200.0), tmp_path / "rebuilt")
    assert report.failed == 4
    assert "set preprocessing.sfreq to 100" in report.rules[0].examples[0]


def test_a_missing_or_damaged_export_is_known_when_the_reader_is_made(make_varied_store, tmp_path):
    with pytest.raises(DataError, match="was not found"):
        Exported(tmp_path / "none")
    export_store(make_varied_store(tmp_path / "store"), tmp_path / "out", "zarr")
    root = tmp_path / "out/zarr.json"
    root.write_text(root.read_text().replace("varied", "variex"))
    with pytest.raises(DataError, match=r"^[^\n]*out is damaged: zarr.json: is not as it was written[^\n]*$"):
        Exported(tmp_path / "out")


def test_events_of_any_name_and_a_montage_of_one_electrode_survive(tmp_path):
    eeg = {"k/ü": np.random.default_rng(0).normal(0, 20, (1, 500)).astype(np.float32)}
    montage = Montage("one", ("Oz",), np.array([[0.0, -0.1, 0.0]]))
    events = {"k/ü": (Event(0.0, 'a "b"\n\\'), Event(1 / 3, "日本", 0.25))}
    store = write_store(
        tmp_path / "s", eeg, montage, 100.0, {"k/ü": "x"}, {"k/ü": "p"}, pd.DataFrame(index=["p"]), events
    )
    assert rebuilt(store, tmp_path).data_hash == store.data_hash
    only = [{"name": "big, set 1", "channels": ["Oz"], "positions": [None]}]
    assert whole_montage(only).name == "big"
    assert whole_montage(only).channels[:-1] == ("Oz",)
