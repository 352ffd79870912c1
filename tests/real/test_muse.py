"""Muse headbands: tables through the folder reader, windows through the Parquet reader, the same samples in both."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mne.filter import filter_data

from cerebro.cli.main import main
from cerebro.cli.prepare import read_config
from cerebro.data import ChannelSequences, EEGData, ParticipantSplit
from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.sequences import SequenceReader
from cerebro.data.store import Store
from cerebro.study.probes import band_powers
from cerebro.training.prober import Prober

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "data" / "muse.yaml"
WINDOWS = CONFIG.with_name("parquet_windows.yaml")
LENGTH, SFREQ, UV_PER_COUNT = 2048, 256.0, 0.48828125
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


@pytest.fixture(scope="module")
def windows_store(shared_data, tmp_path_factory):
    """Every run as windows, through the config that is shipped."""
    path = tmp_path_factory.mktemp("muse") / "store"
    assert main(["prepare", str(CONFIG.with_name("muse_windows.yaml")), "--out", str(path)]) == 0
    return Store.open(path)


def test_windows_that_touch_a_known_rail_are_left_out_and_no_others(windows_store, shared_data):
    kept = windows_store.segments.groupby("recording")["parent_window_id"].apply(list)
    n_windows = n_kept = n_wrong = 0
    missed = []
    for number, key in enumerate(windows_store.recordings["key"]):
        counts = pd.read_parquet(shared_data / "muse" / "cueing" / f"{key}.parquet", columns=list(ELECTRODES))
        n = len(counts) // LENGTH
        windows = counts.to_numpy()[: n * LENGTH].reshape(n, LENGTH, 4)
        touches = (windows <= -2048) | (windows >= 2047)
        is_kept = np.isin(np.arange(n), kept[number])
        n_windows, n_kept = n_windows + n, n_kept + int(is_kept.sum())
        n_wrong += int((~is_kept & ~touches.any(axis=(1, 2))).sum())
        missed += touches.sum(axis=(1, 2))[is_kept & touches.any(axis=(1, 2))].tolist()
    assert n_wrong == 0
    assert len(missed) <= 5
    assert max(missed) <= 2  # samples
    assert (n_windows, n_kept) == (2958, 2831)
    gone = windows_store.findings[windows_store.findings["rule"] == "no-window-left"]["recording"].tolist()
    assert [key.split("_exp")[0] for key in gone] == ["sub-1103_ses-2", "sub-1311_ses-1"]


def test_a_sequence_of_windows_is_the_run_filtered_by_mne(windows_store, shared_data):
    key = "sub-101_ses-1_exp-cueing_run-2018-11-20-16.42.02"
    number = windows_store.recordings["key"].tolist().index(key)
    segments = windows_store.segments[windows_store.segments["recording"] == number]["parent_window_id"].tolist()
    assert 0 < 29 - len(segments) <= 3
    table, left_out = ChannelSequences(labels=("session", "response_time")).table(windows_store)
    assert left_out == []
    counts = pd.read_parquet(shared_data / "muse" / "cueing" / f"{key}.parquet", columns=list(ELECTRODES)).to_numpy()
    raw = counts.T * UV_PER_COUNT
    filtered = filter_data(raw - raw.mean(axis=1, keepdims=True), SFREQ, 1.0, 45.0, verbose="error")
    expected = np.concatenate([filtered[:, k * LENGTH : (k + 1) * LENGTH] for k in segments], axis=1)
    rows = np.flatnonzero(table.recording[:] == number)
    got = SequenceReader(windows_store, table).read(rows, rows).numpy()[:, :, 0] * windows_store.lsb_uV
    np.testing.assert_allclose(got, expected, atol=windows_store.lsb_uV / 2 + 1e-3)
    np.testing.assert_allclose(table.deviation_uV[rows], expected.std(axis=1), rtol=1e-4)


def test_labels_of_runs_are_the_session_and_the_median_response_time(windows_store, shared_data):
    trials = pd.read_csv(shared_data / "muse" / "cueing_trials.tsv", sep="\t")
    trials = trials[trials["rt_ms"].between(150, 2000)]
    median = trials.groupby("file")["rt_ms"].median() / 1000
    table = windows_store.recordings
    files = "cueing/" + table["key"] + ".parquet"
    np.testing.assert_allclose(table["label/response_time"], median.reindex(files), rtol=1e-9)
    np.testing.assert_array_equal(table["label/session"], table["session"].astype(int) - 1)


def test_windows_of_8_seconds_of_every_run_become_sequences_with_the_samples_of_its_file(shared_data, tmp_path):
    """Every run of 8 s or more as Parquet windows, unfiltered, against the counts that pandas reads from its file."""
    whole, people = {}, {}
    (tmp_path / "windows").mkdir()
    for number, path in enumerate(sorted((shared_data / "muse").glob("*/*.parquet"))):
        task, (person, run) = path.parent.name, re.findall(r"^sub-(\d+)_.*_run-(.*)$", path.stem)[0]
        counts = pd.read_parquet(path, columns=list(ELECTRODES)).to_numpy()
        n = len(counts) // LENGTH
        person, run = f"{task}{person}", f"{path.stem[-30:]}"
        whole[f"{person}_run-{run}"] = counts[: n * LENGTH].T * UV_PER_COUNT
        people[person] = float(int(re.sub(r"\D", "", person)) % 2)
        names = ("Participant", "Run") if number % 2 else ("participant", "run")
        columns = {
            names[0]: [person] * n,
            names[1]: [run] * n,
            "parent_window_id": np.arange(n) // 4,
            "sub_window_id": np.arange(n) % 4,
            "window_start": 8.0 * np.arange(n),
            "window_end": 8.0 * np.arange(n) + 8.0,
        }
        for name, samples in zip(ELECTRODES, whole[f"{person}_run-{run}"], strict=True):
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(samples), LENGTH)
        table = pa.table(columns).take(np.roll(np.arange(n), number % 3))  # some in order, some not
        pq.write_table(table, tmp_path / "windows" / f"{number}.parquet", write_page_checksum=True)
    table = tmp_path / "people.tsv"
    table.write_text("participant_id\tremission\n" + "".join(f"{person}\t{x:g}\n" for person, x in people.items()))
    typed = {"root": tmp_path / "windows", "participants": table}
    overrides = [word for key, value in typed.items() for word in (f"--reader.init_args.{key}", str(value))]
    assert main(["prepare", str(WINDOWS), "--out", str(tmp_path / "store"), *overrides]) == 0

    store = Store.open(tmp_path / "store")
    assert store.verify() == []
    assert sorted(store.recordings["key"]) == sorted(whole)
    assert len(whole) == len(list((shared_data / "muse").glob("*/*.parquet"))) > 120
    assert store.participants["remission"].to_dict() == people
    sequences, _ = ChannelSequences().table(store)
    rows = SequenceReader(store, sequences)
    where = {key: number for number, key in enumerate(store.recordings["key"])}
    for key, samples in whole.items():
        own = np.flatnonzero(sequences.recording[:] == where[key])
        assert [store.montages[0].channels[channel] for channel in sequences.channel[own]] == list(ELECTRODES)
        counts = rows.read(own, np.zeros(len(own), np.int64)).numpy()[:, :, 0]
        assert (sequences.n_valid[own] == samples.shape[1]).all()
        kept = counts * store.lsb_uV + store.offsets_uV(where[key])[:, None]
        np.testing.assert_allclose(kept, samples, atol=store.lsb_uV / 2 + 1e-3, err_msg=key)


def test_band_power_of_a_run_names_its_person_among_the_held_out_people_of_a_fold(windows_store):
    """Rows of recordings as `recipes/muse.yaml` probes them, without an encoder."""
    split = ParticipantSplit(val_ratio=0.15, n_folds=5, fold=0)
    sequences = ChannelSequences(labels=("session", "response_time"))
    data = EEGData(windows_store.path, sequences, split=split, targets=("session", "response_time"), batch_size=16)
    data.setup("fit")
    train, test = (band_powers(data, side, "recording") for side in ("train", "test"))
    assert np.isfinite(train.feature).all()  # every run has its four channels
    assert train.feature.shape[1] == 4 * 4
    assert len(train) > 60
    assert not set(train.participant.tolist()) & set(test.participant.tolist())
    label = windows_store.recordings["label/response_time"].to_numpy(np.float64)
    np.testing.assert_allclose(test.targets["response_time"], label[test.recording], rtol=1e-6)
    prober = Prober(data, train, test, level="recording")
    person = prober.by_row("participant")
    assert person.n_scored >= 10
    assert person.ci95[0] > person.constant
