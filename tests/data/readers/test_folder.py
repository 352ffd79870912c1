"""The folder reader: names say what was recorded, a table says who."""

import json

import mne
import numpy as np
import pytest

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Event, Folder, Skip
from cerebro.errors import ConfigError, DataError
from cerebro.simulate.writers import write_bdf

CHANNELS = ("EEG Fp1", "EEG T3", "EEG Cz", "EEG A2-A1", "ECG ECG")


def signal(n_times=1000, n_channels=5, seed=0):
    return (50 * np.random.default_rng(seed).standard_normal((n_channels, n_times))).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Two people of whom one is in the table, one person without recordings, two states each."""
    root = tmp_path / "recordings"
    for person in ("P01", "P02"):
        for state in (1, 2):
            write_bdf(root / f"{person}_{state}.bdf", signal(seed=state), CHANNELS, 100.0)
    (tmp_path / "people.csv").write_text("Subject,Age,Gender,Note\nP01,19,F,\nP03,,M,x\n")
    return tmp_path


def reader(folder, **other):
    arguments = {
        "root": folder / "recordings",
        "name": "mine",
        "participants": folder / "people.csv",
        "participant_column": "Subject",
        "participant_from": r"^(P\d+)_",
        "tasks": {"_1$": "rest", "_2$": "arithmetic"},
        "pattern": "*.bdf",
        "labels": {"arithmetic": {"_1$": 0.0, "_2$": 1.0}},
    }
    return Folder(**(arguments | other))


def test_names_give_participant_task_and_label(folder):
    scan = reader(folder).scan()
    assert [(e.key, e.participant, e.task, dict(e.labels)) for e in scan.entries] == [
        ("P01_1", "P01", "rest", {"arithmetic": 0.0}),
        ("P01_2", "P01", "arithmetic", {"arithmetic": 1.0}),
        ("P02_1", "P02", "rest", {"arithmetic": 0.0}),
        ("P02_2", "P02", "arithmetic", {"arithmetic": 1.0}),
    ]


def test_people_without_a_row_have_missing_labels_and_people_without_recordings_are_counted(folder):
    scan = reader(folder).scan()
    assert [(f.rule, f.where) for f in scan.findings] == [
        ("participant-not-listed", "P02"),
        ("participant-without-recording", "P03"),
    ]
    assert list(scan.participants.index) == ["P01", "P02"]
    assert (scan.participants.loc["P01", "age"], scan.participants.loc["P01", "sex"]) == (19.0, 1.0)
    assert scan.participants.loc["P02", ["age", "sex"]].isna().all()


def test_only_electrodes_are_loaded_in_the_montages_order_and_spelling(folder):
    mine = reader(folder)
    recording = mine.load(mine.scan().entries[0])
    assert recording.channels == tuple(sorted(recording.channels, key=mine.montage().channels.index))
    assert set(recording.channels) == {"Fp1", "Cz", "T7"}
    expected = signal(seed=1)[[CHANNELS.index("EEG T3")]]
    np.testing.assert_allclose(recording.eeg[[recording.channels.index("T7")]], expected, atol=0.02)
    assert [(f.rule, f.where) for f in recording.findings] == [("no-electrode", "P01_1")]
    assert "EEG A2-A1, ECG ECG" in recording.findings[0].detail


def test_names_that_say_nothing_are_skipped_and_missing_labels_counted(folder):
    scan = reader(folder, tasks={"_1$": "rest"}, labels={"open": {"P01": 1.0}}).scan()
    counted = [(f.rule, f.where) for f in scan.findings if not f.rule.startswith("participant")]
    assert counted == [("task-unknown", "P01_2"), ("label-missing", "P02_1"), ("task-unknown", "P02_2")]
    assert reader(folder, participant_from="^(X)").scan().entries == []


@pytest.mark.parametrize("cut", [1, 300, 5000])
def test_a_truncated_file_is_refused(folder, cut):
    mine = reader(folder)
    entry = mine.scan().entries[0]
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[:-cut])
    with pytest.raises(DataError, match=r"is truncated: [\d,]+ bytes where its header announces [\d,]+") as error:
        mine.load(entry)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole + b"12", "longer than its header says"),
        (lambda whole: whole[:236] + b"-1      " + whole[244:], "never closed"),
        (lambda whole: whole[:184] + b"999     " + whole[192:], "contradict each other"),
        (lambda whole: b"no recording at all", "has no BDF header"),
        (lambda whole: b"", "has no BDF header"),
        (lambda whole: b"\0" * len(whole), "has no BDF header"),
    ],
)
def test_a_file_whose_header_and_size_disagree_or_that_is_no_recording_is_one_line(folder, change, message):
    mine = reader(folder)
    entry = mine.scan().entries[0]
    entry.path.write_bytes(change(entry.path.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        mine.load(entry)
    assert "\n" not in str(error.value)
    assert entry.path.name in str(error.value)


def test_a_recording_without_known_channels_is_one_line(folder):
    mine = reader(folder)
    entry = mine.scan().entries[0]
    write_bdf(entry.path, signal(n_channels=2), ("ECG ECG", "EEG A2-A1"), 100.0)
    with pytest.raises(DataError, match=r"no channel that montage 10-05 knows \(found ECG ECG, EEG A2-A1\)"):
        mine.load(entry)


def test_a_file_of_text_with_a_signals_name_is_one_line(folder):
    (folder / "recordings" / "P01_1.fif").write_text("hello\nworld")
    mine = reader(folder, pattern="*.fif")
    with pytest.raises(DataError, match=r"P01_1\.fif cannot be read as a recording") as error:
        mine.load(mine.scan().entries[0])
    assert "\n" not in str(error.value)


def test_short_recordings_are_skipped_by_rule(folder):
    mine = reader(folder, min_duration_s=20.0)
    with pytest.raises(Skip, match="too-short"):
        mine.load(mine.scan().entries[0])


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"name": "a/b"}, ConfigError, "plain word"),
        ({"participant_from": "("}, ConfigError, "no regular expression"),
        ({"participant_from": "P01"}, ConfigError, "has no group"),
        ({"participant_from": ""}, ConfigError, "participant_from='' has no group"),
        ({"session_from": "ses"}, ConfigError, "session_from='ses' has no group"),
        ({"run_from": "run"}, ConfigError, "run_from='run' has no group"),
        ({"min_duration_s": 0.0}, ConfigError, "min_duration_s"),
    ],
)
def test_a_wrong_argument_is_one_line(folder, wrong, kind, message):
    with pytest.raises(kind, match=message) as error:
        reader(folder, **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pattern": "*.edf"}, "holds no file"),
        ({"participant_column": "Person"}, "no column 'Person'"),
        ({"tasks": {"_1": "rest", "P01": "other"}}, "matched by tasks"),
        ({"labels": {"arithmetic": {"_1": 0.0, "P01": 1.0}}}, r"matched by labels\.arithmetic"),
        ({"run_from": "^(P)"}, r"run_from='\^\(P\)' finds 'P' in P01_1, no whole number"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(folder, wrong, message):
    with pytest.raises(DataError, match=message) as error:
        reader(folder, **wrong).scan()
    assert "\n" not in str(error.value)


def test_a_missing_folder_or_table_is_one_line(folder):
    with pytest.raises(DataError, match="not found"):
        reader(folder, root=folder / "nothing").scan()
    with pytest.raises(DataError, match=r"people\.tsv does not exist"):
        reader(folder, participants=folder / "people.tsv").scan()


def test_without_a_table_people_come_from_names_and_are_counted(folder):
    scan = reader(folder, participants=None, labels={}).scan()
    assert list(scan.participants.index) == ["P01", "P02"]
    assert list(scan.participants.columns) == []
    (finding,) = scan.findings
    assert (finding.rule, finding.severity, finding.where) == ("no-participants-table", "repaired", "mine")
    assert finding.detail.startswith("2 people are known by names alone")


def test_names_in_bids_need_no_expression_and_give_session_and_run_where_asked(tmp_path):
    write_bdf(tmp_path / "sub-A1_ses-2_run-03_eeg.bdf", signal(), CHANNELS, 100.0)
    (entry,) = (
        Folder(tmp_path, "mine", pattern="*.bdf", session_from="_ses-([0-9]+)", run_from=r"_run-(\d+)").scan().entries
    )
    assert (entry.participant, entry.task, entry.session, entry.run) == ("A1", "recording", "2", 3)
    (entry,) = Folder(tmp_path, "mine", pattern="*.bdf").scan().entries
    assert (entry.session, entry.run) == ("", 0)


def bids(tmp_path, text):
    write_bdf(tmp_path / "sub-A_task-x_eeg.bdf", signal(), CHANNELS, 100.0)
    if text:
        (tmp_path / "sub-A_task-x_events.tsv").write_text(text)
    return Folder(tmp_path, "mine", pattern="*.bdf", events="bids").scan()


def test_events_of_a_table_beside_the_file_are_read_sorted_and_blank_ones_counted(tmp_path):
    scan = bids(tmp_path, "onset\tduration\ttrial_type\n3.5\t0.5\tclose\n1.25\tn/a\topen\nn/a\t0\tx\n2\t0\tn/a\n")
    assert scan.entries[0].events == (Event(1.25, "open"), Event(3.5, "close", 0.5))
    assert [(f.rule, f.detail) for f in scan.findings if f.rule.startswith("event")] == [
        ("events-dropped", "2 rows without onset or name dropped")
    ]
    scan = bids(tmp_path, "onset\tvalue\n1\tgo\n")
    assert scan.entries[0].events == (Event(1.0, "go"),)


def test_a_missing_events_table_is_counted_and_a_damaged_one_fails_its_recording(tmp_path):
    scan = bids(tmp_path, "")
    assert scan.entries[0].events == ()
    assert "events-missing" in {finding.rule for finding in scan.findings}
    for text, message in (
        ("onset\tduration\n1\t0\n", "needs columns onset and trial_type or value"),
        ("onset\tvalue\nsoon\tgo\n", "has an onset or duration 'soon'"),
        ("onset\tvalue\n1\n", "line 2 has 1 cells under a header of 2"),
    ):
        scan = bids(tmp_path, text)
        assert scan.entries == []
        (finding,) = [finding for finding in scan.findings if finding.severity == "failed"]
        assert message in finding.detail
        assert "\n" not in finding.detail


def test_a_rate_that_contradicts_the_sidecar_fails_and_one_that_only_differs_is_counted(tmp_path):
    (entry,) = bids(tmp_path, "").entries
    reader, n_times = Folder(tmp_path, "mine", pattern="*.bdf"), signal().shape[1]
    sidecar = tmp_path / "sub-A_task-x_eeg.json"
    sidecar.write_text(json.dumps({"SamplingFrequency": 500, "RecordingDuration": n_times / 100}))
    assert [(f.severity, f.rule) for f in reader.load(entry).findings][1:] == [("repaired", "sampling-rate-differs")]
    sidecar.write_text(json.dumps({"SamplingFrequency": 25, "RecordingDuration": n_times / 25}))
    with pytest.raises(Skip, match="100 Hz in the signal, 25 Hz in the sidecar") as skip:
        reader.load(entry)
    assert skip.value.finding.severity == "failed"
    sidecar.write_text("[]")
    with pytest.raises(DataError, match="holds no JSON object"):
        reader.load(entry)


def test_annotations_of_a_file_are_events_and_a_file_that_cannot_be_opened_fails_alone(tmp_path):
    info = mne.create_info(["Fp1", "Cz"], 100.0, "eeg")
    raw = mne.io.RawArray(signal(n_channels=2) * 1e-6, info, verbose="error")
    raw.set_annotations(mne.Annotations([3.5, 1.25], [0.5, 0.0], ["close", "open"]))
    raw.save(tmp_path / "sub-A_raw.fif", verbose="error")
    raw.crop(1.0, 8.0).save(tmp_path / "sub-B_raw.fif", verbose="error")
    (tmp_path / "sub-C_raw.fif").write_text("hello")
    scan = Folder(tmp_path, "mine", pattern="*.fif", events="annotations").scan()
    assert [(entry.participant, entry.events) for entry in scan.entries] == [
        ("A", (Event(1.25, "open"), Event(3.5, "close", 0.5))),
        ("B", (Event(0.25, "open"), Event(2.5, "close", 0.5))),
    ]
    (finding,) = [finding for finding in scan.findings if finding.severity == "failed"]
    assert (finding.rule, finding.where) == ("unusable-events", "sub-C_raw")
    assert "\n" not in finding.detail
    assert all(not entry.events for entry in Folder(tmp_path, "mine", pattern="*.fif").scan().entries)


def test_a_link_that_leads_nowhere_is_skipped_by_rule_and_listed_with_a_plan(folder):
    (folder / "recordings/P01_2.bdf").unlink()
    (folder / "recordings/P01_2.bdf").symlink_to(folder / "not_fetched")
    scan = reader(folder).scan()
    assert [entry.key for entry in scan.entries] == ["P01_1", "P02_1", "P02_2"]
    assert ("signal-missing", "skipped", "P01_2") in [(f.rule, f.severity, f.where) for f in scan.findings]
    for events in ("none", "annotations"):
        assert len(reader(folder, events=events).scan(require_signals=False).entries) == 4


def test_other_people_tasks_and_labels_need_no_signal_again(folder, opened):
    plan = Preprocessing(sfreq=50.0, lowpass_hz=20.0)
    for person in ("P01", "P02"):
        write_bdf(folder / f"recordings/{person}_1.bdf", signal(seed=10 + int(person[1:])), CHANNELS, 100.0)
    (folder / "recordings/P02_2.bdf").unlink()
    build(reader(folder, participants=None, tasks={}, labels={}), plan, folder / "store")
    assert opened == ["P01_1", "P01_2", "P02_1"]
    report = build(reader(folder, events="annotations"), plan, folder / "store")
    assert (report.failed, report.tasks) == (0, {"arithmetic": 1, "rest": 2})
    assert len(opened) == 3
    build(reader(folder, reference="average"), plan, folder / "store")
    assert len(opened) == 6


def test_what_a_scan_finds_unusable_is_listed_by_name_with_its_reason(folder):
    (folder / "recordings/P01_1_events.tsv").write_text("onset\tduration\n1\t0\n")
    (folder / "recordings/P01_1.bdf").rename(folder / "recordings/P01_1_eeg.bdf")
    write_bdf(folder / "recordings/P02_1.bdf", signal(seed=5), CHANNELS, 100.0)
    (folder / "recordings/P02_2.bdf").unlink()
    mine = reader(folder, tasks={"_1": "rest", "_2": "arithmetic"}, labels={}, events="bids")
    report = build(mine, Preprocessing(sfreq=50.0, lowpass_hz=20.0), folder / "store")
    assert (report.read, report.failed) == (2, 1)
    assert "needs columns onset and trial_type or value" in report.failures["P01_1_eeg"]
    assert "failed    P01_1_eeg: " in report.table()
