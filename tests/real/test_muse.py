"""Muse headbands: tables through the folder reader, windows through the Parquet reader, the same samples in both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cerebro.cli.prepare import read_config
from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder, ParquetWindows
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.store import Store

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "data" / "muse.yaml"
LENGTH, SFREQ = 2048, 256.0
ELECTRODES = ("AF7", "AF8", "TP9", "TP10")


@pytest.fixture(scope="module")
def cueing(shared_data):
    reader = read_config(CONFIG).reader
    reader.root = shared_data / "muse" / "cueing"
    return reader


def test_every_run_is_listed_with_its_person_session_and_markers(cueing, shared_data):
    scan = cueing.scan()
    assert len(scan.entries) == 104
    assert len(scan.participants) == 53
    assert {(e.task, e.session) for e in scan.entries} == {("cueing", "1"), ("cueing", "2")}
    assert [(f.rule, f.where) for f in scan.findings] == [("no-participants-table", "muse")]
    index = pd.read_csv(shared_data / "muse" / "index.tsv", sep="\t").set_index("file")
    whole = [entry for entry in scan.entries if "sub-1311_ses-1" not in entry.key]  # that one has a gap
    assert [len(e.events) for e in whole] == [index.loc[f"cueing/{e.path.name}", "n_markers"] for e in whole]
    trials = pd.read_csv(shared_data / "muse" / "cueing_trials.tsv", sep="\t")
    for entry in whole[:5]:
        own = trials[trials["file"] == f"cueing/{entry.path.name}"]
        found = {(round(event.onset_s * SFREQ), event.name) for event in entry.events}
        assert {(sample, str(marker)) for sample, marker in zip(own["sample"], own["marker"], strict=True)} <= found


def test_the_run_with_a_gap_of_a_quarter_of_an_hour_is_kept_up_to_it(cueing):
    (entry,) = [entry for entry in cueing.scan().entries if "sub-1311_ses-1" in entry.key]
    recording = cueing.load(entry)
    assert recording.eeg.shape == (4, 26436)
    assert [finding.rule for finding in recording.findings] == ["time-gap"]


@pytest.mark.parametrize("task", ["N170", "P300"])
def test_the_other_tasks_load_with_their_jitter_counted(shared_data, cueing, task):
    reader = Folder(
        shared_data / "muse" / task, "muse", participant_from=r"^sub-(\d+)_", pattern="*.parquet", table=cueing.table
    )
    recordings = [reader.load(entry) for entry in reader.scan().entries]
    assert all(20 < recording.eeg.shape[1] / SFREQ < 300 for recording in recordings)
    rules = {finding.rule for recording in recordings for finding in recording.findings}
    assert rules <= {"time-jitter"}


def test_a_wrong_rate_is_caught_in_each_run(cueing):
    reader = Folder(
        cueing.root,
        "muse",
        participant_from=r"^sub-(\d+)_",
        pattern="sub-10[1-3]*.parquet",
        table=replace(cueing.table, sfreq=250.0),
    )
    scan = reader.scan()
    assert scan.entries == []
    failed = [finding for finding in scan.findings if finding.severity == "failed"]
    assert len(failed) == 6
    assert all("256 samples a second by column timestamp_ms and 250 by table.sfreq" in f.detail for f in failed)


def test_the_text_as_recorded_holds_the_same_microvolts(cueing, shared_data):
    texts = Folder(
        shared_data / "muse" / "original_csv",
        "muse",
        participant_from=r"^subject(\d+)_",
        session_from=r"_session(\d)_",
        pattern="*.csv.gz",
        table=TableFormat(SFREQ, time_column="timestamps", marker_column="Marker0"),
    )
    by_name = {(e.participant, e.session): e for e in cueing.scan().entries}
    entries = texts.scan().entries
    assert len(entries) == 4
    for entry in entries:
        twin = by_name[entry.participant, entry.session]
        assert entry.events == twin.events
        text, parquet = texts.load(entry), cueing.load(twin)
        assert text.channels == parquet.channels == ELECTRODES
        np.testing.assert_allclose(text.eeg, parquet.eeg, atol=0.00051)
        assert [f.detail for f in text.findings] == ["1 of 5 columns are no electrodes and were dropped: Right AUX"]


def test_a_few_runs_make_a_store_at_100_hz_without_their_offsets(cueing, tmp_path):
    reader = Folder(
        cueing.root, "muse", participant_from=r"^sub-(\d+)_", pattern="sub-10[12]_*.parquet", table=cueing.table
    )
    report = build(reader, Preprocessing(sfreq=100.0), tmp_path / "store")
    assert (report.read, report.failed, report.n_participants) == (4, 0, 2)
    store = Store.open(tmp_path / "store")
    for number, entry in enumerate(reader.scan().entries):
        mean = reader.load(entry).eeg.mean(axis=1, dtype=np.float64)
        np.testing.assert_allclose(store.offsets_uV(number), mean, atol=1e-3)
        assert abs(store.samples(number).mean(axis=0) * store.lsb_uV).max() < 0.5
        assert store.recordings["clipped"].iloc[number] == 0


def test_windows_of_8_seconds_hold_the_samples_of_the_runs(cueing, tmp_path):
    """The same runs, unfiltered, as tables and as Parquet windows: the same store but for its layout and offsets."""
    entries = cueing.scan().entries[:4]
    whole = {}
    for number, entry in enumerate(entries):
        recording = cueing.load(entry)
        n = recording.eeg.shape[1] // LENGTH
        whole[f"{entry.participant}_run-{entry.session}"] = recording.eeg[:, : n * LENGTH]
        cut = recording.eeg[:, : n * LENGTH].reshape(4, n, LENGTH)
        rows = [
            {
                "Participant": entry.participant,
                "Run": int(entry.session),
                "parent_window_id": window,
                "sub_window_id": 0,
                "window_start": 8.0 * window,
                "window_end": 8.0 * window + 8.0,
                **{name: cut[channel, window] for channel, name in enumerate(recording.channels)},
            }
            for window in range(n)
        ]
        table = pa.Table.from_pandas(pd.DataFrame(rows))
        pq.write_table(table, tmp_path / f"run{number}.parquet", write_page_checksum=True)
    plan = Preprocessing(sfreq=SFREQ, highpass_hz=0.0, lowpass_hz=100.0)
    report = build(ParquetWindows(tmp_path, "muse", pattern="*.parquet"), plan, tmp_path / "store")
    assert (report.read, report.failed, report.clipped_samples) == (4, 0, 0)
    store = Store.open(tmp_path / "store")
    assert store.verify() == []
    assert list(store.recordings["key"]) == sorted(whole)
    for number, key in enumerate(sorted(whole)):
        stored = store.samples(number).T * store.lsb_uV + store.offsets_uV(number)[:, None]
        np.testing.assert_allclose(stored, whole[key], atol=store.lsb_uV / 2 + 1e-3)
