"""The HBN reader on small trees, each with one defect of the real data."""

import json
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from cerebro.data.readers import HBN, Skip
from cerebro.data.splits import ParticipantSplit
from cerebro.errors import ConfigError, DataError
from cerebro.montage import hbn_129
from cerebro.simulate.writers import write_bdf, write_set


def rules(scan):
    return {f"{finding.severity}:{finding.rule}" for finding in scan.findings}


def one(release, task="RestingState", cell="available", **recording):
    """A release of one person and one recording."""
    folder = release()
    folder.participants({"participant_id": "sub-A", "sex": "F", "age": "9.5", "p_factor": "-0.5", task: cell})
    path = folder.recording("sub-A", task, **recording)
    return HBN(folder.folder), path


def test_a_sound_recording_has_no_findings_and_carries_events_and_labels(release):
    reader, path = one(release)
    scan = reader.scan()
    (entry,) = scan.entries
    assert rules(scan) == set()
    assert (entry.key, entry.participant, entry.task, entry.run) == (
        "R1/sub-A/eeg/sub-A_task-RestingState",
        "sub-A",
        "RestingState",
        0,
    )
    assert entry.path == path
    assert entry.release == "R1"
    assert [(event.onset_s, event.name) for event in entry.events][1] == (2.0, "instructed_toOpenEyes")
    person = scan.participants.loc["sub-A"]
    assert (person.sex, person.age, person.p_factor) == (1.0, 9.5, -0.5)
    assert np.isnan(person.attention)
    assert "RestingState" not in scan.participants.columns


def test_keys_are_the_same_below_one_release_and_below_a_folder_of_releases(release):
    one(release)
    second = release("ds2", "R2")
    second.participants({"participant_id": "sub-B", "contrastChangeDetection_2": "available"})
    second.recording(
        "sub-B",
        "contrastChangeDetection",
        run=2,
        events=(("1.5", "left_target"), ("2.9", "left_buttonPress")),
        columns=("feedback",),
    )
    both = HBN(second.folder.parent).scan()
    alone = HBN(second.folder).scan()
    assert [entry.release for entry in both.entries] == ["R1", "R2"]
    assert [entry.key for entry in alone.entries] == [both.entries[1].key]
    assert both.entries[1].run == 2
    assert list(both.participants.release_number) == ["R1", "R2"]
    only = HBN(second.folder.parent, releases=("R2",)).scan()
    assert [entry.participant for entry in only.entries] == ["sub-B"]
    assert list(only.participants.index) == ["sub-B"]


def test_a_person_of_two_releases_is_held_out_with_either(release):
    one(release)
    second = release("ds2", "R2")
    second.participants({"participant_id": "sub-A"}, {"participant_id": "sub-B"})
    scan = HBN(second.folder.parent).scan()
    assert [finding.where for finding in scan.findings if finding.rule == "participant-in-two-releases"] == ["sub-A"]
    people = pd.concat([scan.participants, pd.DataFrame({"release_number": "R3"}, index=["sub-C", "sub-D", "sub-E"])])
    recordings = pd.DataFrame({"participant": people.index, "release": people["release_number"], "source_sha256": ""})
    for seed in range(20):
        sides = ParticipantSplit(0.3, seed=seed, test_releases=("R2",)).sides(people, recordings)
        assert sides.test == ("sub-A", "sub-B")


def test_reader_and_entry_cross_process_borders(release):
    reader, _ = one(release)
    entry = reader.scan().entries[0]
    assert pickle.loads(pickle.dumps((reader, entry)))[1] == entry


@pytest.mark.parametrize(
    ("rule", "recording"),
    [
        ("repaired:channel-count-missing", {"sidecar": {"EEGChannelCount": None}}),
        ("repaired:channel-count-missing", {"sidecar": {"EEGChannelCount": "n/a"}}),
        ("repaired:channel-count-differs", {"sidecar": {"EEGChannelCount": 128}}),
        ("repaired:channel-types-missing", {"types": "n/a"}),
        ("repaired:channel-units-missing", {"units": "n/a"}),
        ("repaired:sampling-rate-missing", {"sidecar": {"SamplingFrequency": "n/a"}}),
        ("repaired:resting-without-cues", {"events": (("1.0", "resting_start"),)}),
        ("repaired:resting-runs-on", {"events": (("1", "instructed_toOpenEyes"), ("5", "seqLearning_start"))}),
        ("repaired:event-without-onset", {"events": (("1", "instructed_toOpenEyes"), ("n/a", "boundary"))}),
        ("repaired:event-without-name", {"events": (("1", "instructed_toOpenEyes"), ("2", "n/a"))}),
        ("repaired:event-outside", {"events": (("1", "instructed_toOpenEyes"), ("11", "boundary"))}),
        ("repaired:task-caution", {"cell": "caution"}),
    ],
)
def test_a_repaired_recording_is_kept_and_counted(release, rule, recording):
    scan = one(release, **recording)[0].scan()
    assert rules(scan) == {rule}
    assert len(scan.entries) == 1


@pytest.mark.parametrize(
    ("rule", "recording"),
    [
        ("skipped:task-unavailable", {"cell": "unavailable"}),
        ("skipped:six-channel-recording", {"channels": ("E1", "E2", "E3", "E4", "E5", "E6")}),
        ("skipped:too-short", {"duration_s": 0.044}),
        ("skipped:too-short", {"duration_s": 3.9}),
        ("skipped:signal-missing", {"signal": False}),
    ],
)
def test_a_skipped_recording_is_left_out_and_counted(release, rule, recording):
    scan = one(release, **recording)[0].scan()
    assert scan.entries == []
    assert rule in rules(scan)


def test_caution_is_skipped_when_asked_for(release):
    reader, _ = one(release, cell="caution")
    scan = HBN(reader.root, use_caution=False).scan()
    assert scan.entries == []
    assert rules(scan) == {"skipped:task-caution"}


def test_a_plan_lists_recordings_without_signals(release):
    reader, path = one(release, signal=False)
    scan = reader.scan(require_signals=False)
    assert [entry.path for entry in scan.entries] == [path]
    assert rules(scan) == set()


def test_missing_sidecars_are_repaired_and_damaged_ones_fail(release):
    reader, path = one(release)
    path.with_name("sub-A_task-RestingState_events.tsv").unlink()
    path.with_name("sub-A_task-RestingState_channels.tsv").unlink()
    path.with_name("sub-A_task-RestingState_eeg.json").unlink()
    scan = reader.scan()
    assert rules(scan) == {
        "repaired:events-missing",
        "repaired:channels-missing",
        "repaired:sidecar-missing",
        "repaired:resting-without-cues",
    }
    assert len(scan.entries) == 1
    path.with_name("sub-A_task-RestingState_eeg.json").write_text("{")
    scan = reader.scan()
    assert "failed:sidecar-damaged" in rules(scan)
    assert scan.entries == []


@pytest.mark.parametrize("text", ["onset\tvalue\nabc\tboundary\n", "onset\tvalue\n1\n", "when\tvalue\n1\tx\n", ""])
def test_a_damaged_events_file_fails_its_recording(release, text):
    reader, path = one(release)
    path.with_name("sub-A_task-RestingState_events.tsv").write_text(text)
    scan = reader.scan()
    assert rules(scan) == {"failed:sidecar-damaged"}
    assert "events.tsv" in scan.findings[0].detail
    assert "\n" not in scan.findings[0].detail


def test_values_of_a_task_sidecar_are_inherited(release):
    reader, _ = one(release, sidecar={"SamplingFrequency": None})
    (reader.root / "task-RestingState_eeg.json").write_text(json.dumps({"SamplingFrequency": 100}))
    assert rules(reader.scan()) == set()


def film(release, *marks, film="DespicableMe", duration_s=400.0):
    reader, _ = one(release, task=film, events=tuple((str(at), name) for at, name in marks), duration_s=duration_s)
    scan = reader.scan()
    (entry,) = scan.entries
    return rules(scan), [(event.onset_s, event.name) for event in entry.events]


A, Z = "video_start", "video_stop"


def test_a_film_that_runs_its_length_is_trusted(release):
    assert film(release, (1.0, A), (171.55, Z)) == (set(), [(1.0, A), (171.55, Z)])


def test_of_several_films_the_one_of_the_right_length_is_kept(release):
    found = film(release, (1.0, A), (118.4, Z), (200.0, A), (370.5, Z))
    assert found == ({"repaired:film-several-starts"}, [(200.0, A), (370.5, Z)])


def test_a_film_of_another_length_gives_no_pairs(release):
    assert film(release, (1.0, A), (164.0, Z), film="ThePresent") == ({"repaired:film-length"}, [])
    assert film(release, (6.6, A), (91.5, A), (208.9, Z), film="ThePresent") == ({"repaired:film-length"}, [])


def test_a_film_cut_off_by_the_end_keeps_its_start_and_one_broken_off_gives_no_pairs(release):
    cut = film(release, (1.0, A), duration_s=100.0)
    assert cut == ({"repaired:film-without-stop"}, [(1.0, A)])  # a stop at 100 s would be a film of another length
    assert film(release, (1.0, A), duration_s=300.0) == ({"repaired:film-length"}, [])


def test_a_film_without_start_is_kept_without_pairs(release):
    assert film(release, (171.0, Z), (180.0, "boundary")) == (
        {"repaired:film-without-start"},
        [(180.0, "boundary")],
    )


def test_contrast_change_without_feedback_column_or_targets_is_counted(release):
    scan = one(
        release, task="contrastChangeDetection", run=1, events=(("1", "left_target"), ("2", "left_buttonPress"))
    )[0].scan()
    assert rules(scan) == {"repaired:ccd-without-feedback"}
    scan = one(release, task="contrastChangeDetection", run=1, events=(("1", "boundary"),), columns=("feedback",))[0]
    assert rules(scan.scan()) == {"repaired:ccd-without-targets"}


def test_people_in_the_tree_but_not_in_the_table_keep_their_recordings_with_missing_labels(release):
    reader, _ = one(release)
    folder = release()
    folder.recording("sub-Z", "RestingState")
    scan = reader.scan()
    assert rules(scan) == {"repaired:participant-not-listed"}
    assert [entry.participant for entry in scan.entries] == ["sub-A", "sub-Z"]
    assert np.isnan(scan.participants.loc["sub-Z", "age"])
    assert scan.participants.loc["sub-Z", "release_number"] == "R1"  # that of the others in the folder


def test_a_person_in_two_releases_is_read_from_the_first_only(release):
    one(release)
    again = release("ds2", "R2")
    again.participants({"participant_id": "sub-A", "RestingState": "available"})
    again.recording("sub-A", "RestingState")
    scan = HBN(again.folder.parent).scan()
    assert [entry.release for entry in scan.entries] == ["R1"]
    assert rules(scan) == {"skipped:participant-in-two-releases"}


def test_cells_without_a_recording_are_counted(release):
    reader, _ = one(release)
    table = reader.root / "participants.tsv"
    row = table.read_text().splitlines()[1].split("\t")
    row[12], row[13] = "available", "unavailable"
    table.write_text("\n".join([table.read_text().splitlines()[0], "\t".join(row)]) + "\n")
    counted = Counter((finding.rule, finding.where) for finding in reader.scan().findings)
    assert counted == {
        ("recording-absent", "R1/sub-A/DespicableMe"): 1,
        ("task-unavailable", "R1/sub-A/FunwithFractals"): 1,
    }


def test_a_tree_that_is_none_is_one_line(tmp_path):
    with pytest.raises(DataError, match="not found") as absent:
        HBN(tmp_path / "nothing").scan()
    with pytest.raises(DataError, match=r"no participants\.tsv") as empty:
        HBN(tmp_path).scan()
    assert all("\n" not in str(error.value) for error in (absent, empty))
    with pytest.raises(ConfigError, match="no task Resting"):
        HBN(tmp_path, tasks=("Resting",))


def test_equal_rows_of_a_participant_count_once_and_contradicting_ones_refuse_the_table(release):
    folder = release()
    folder.participants({"participant_id": "sub-A", "age": "9"}, {"participant_id": "sub-A", "age": "9"})
    scan = HBN(folder.folder).scan()
    assert rules(scan) == {"repaired:participant-row-twice"}
    assert list(scan.participants.index) == ["sub-A"]
    folder.participants({"participant_id": "sub-A", "age": "9"}, {"participant_id": "sub-A", "age": "10"})
    with pytest.raises(DataError, match="more than once, with another age"):
        HBN(folder.folder).scan()
    folder.participants({"participant_id": "sub-A"}, {"participant_id": "A"})
    with pytest.raises(DataError, match="lists sub-A with and without sub-"):
        HBN(folder.folder).scan()


def test_microvolts_survive_set_and_bdf(release):
    reader, path = one(release)
    eeg = 50 * np.sin(2 * np.pi * np.arange(1000) / 50, dtype=np.float32)[None] * np.linspace(1, 2, 129)[:, None]
    shuffled = np.random.default_rng(1).permutation(129)
    channels = tuple(hbn_129().channels[place] for place in shuffled)
    write_set(path, eeg[shuffled].astype(np.float32), channels, 100.0)
    recording = reader.load(reader.scan().entries[0])
    assert recording.channels == hbn_129().channels
    assert (recording.sfreq, recording.reference, recording.eeg.dtype) == (100.0, "Cz", np.float32)
    np.testing.assert_allclose(recording.eeg, eeg, atol=1e-3)
    path.unlink()
    write_bdf(path.with_suffix(".bdf"), eeg.astype(np.float32), hbn_129().channels, 100.0)
    entry = reader.scan().entries[0]
    assert entry.path.suffix == ".bdf"
    np.testing.assert_allclose(reader.load(entry).eeg, eeg, atol=0.02)


@pytest.mark.parametrize(
    ("rule", "n_channels", "n_times"),
    [("six-channel-recording", 6, 1000), ("too-short", 129, 22), ("too-short", 129, 4)],
)
def test_a_defect_found_only_in_the_signal_is_skipped_by_rule(release, rule, n_channels, n_times):
    reader, path = one(release)
    entry = reader.scan().entries[0]
    noise = np.random.default_rng(0).standard_normal((n_channels, n_times)).astype(np.float32)
    write_set(path, noise, hbn_129().channels[:n_channels], 500.0)
    with pytest.raises(Skip) as skip:
        reader.load(entry)
    assert (skip.value.finding.rule, skip.value.finding.where) == (rule, entry.key)
    assert pickle.loads(pickle.dumps(skip.value)).finding == skip.value.finding


def test_a_signal_of_another_length_than_its_sidecar_says_is_counted(release):
    reader, path = one(release)
    write_set(path, np.random.default_rng(0).standard_normal((129, 700)).astype(np.float32), hbn_129().channels, 100.0)
    findings = reader.load(reader.scan().entries[0]).findings
    assert [finding.rule for finding in findings] == ["duration-differs"]


def test_a_set_file_that_is_damaged_is_one_line(release):
    reader, path = one(release)
    entry = reader.scan().entries[0]
    whole = path.read_bytes()
    for content in (b"", b"hello\nworld", whole[:1000], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name) as error:
            reader.load(entry)
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        reader.load(entry)


def test_a_recording_without_known_channels_is_one_line(release):
    reader, path = one(release)
    entry = reader.scan().entries[0]
    write_set(path, np.ones((2, 1000), dtype=np.float32), ("foo", "bar"), 100.0)
    with pytest.raises(DataError, match=r"no channel that montage GSN-HydroCel-129 knows \(found foo, bar\)"):
        reader.load(entry)


def test_a_nan_names_its_channel(release):
    from scipy.io import loadmat, savemat

    reader, path = one(release)
    content = loadmat(path, squeeze_me=True)
    content["EEG"]["data"].item()[16, 100] = np.nan
    header = {name: content["EEG"][name].item() for name in content["EEG"].dtype.names}
    savemat(path, {"EEG": header})
    with pytest.raises(DataError, match="NaN or infinite samples in channel E17"):
        reader.load(reader.scan().entries[0])


def test_tasks_narrow_what_is_scanned(release):
    reader, _ = one(release)
    narrow = HBN(reader.root, tasks=("ThePresent",)).scan()
    assert (narrow.entries, narrow.findings) == ([], [])
    assert list(narrow.participants.index) == ["sub-A"]
