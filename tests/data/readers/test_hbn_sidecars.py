"""What stands beside a signal and contradicts it: rate, channel names, quality tables."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebro.data.readers import HBN, Skip
from cerebro.data.readers.bids_sidecar import rate_finding
from cerebro.errors import DataError
from cerebro.montage import hbn_129
from cerebro.simulate.writers import write_set

CHANNELS = hbn_129().channels


def noise(n_channels=129, n_times=1000):
    return (20 * np.random.default_rng(0).standard_normal((n_channels, n_times))).astype(np.float32)


@pytest.fixture
def one(release):
    """Reader, path and entry of a sound recording: 10 s at 100 Hz."""
    folder = release()
    folder.participants({"participant_id": "sub-A"})
    path = folder.recording("sub-A", "RestingState")
    reader = HBN(folder.folder)
    return reader, path, reader.scan().entries[0]


def rules_at_load(reader, entry):
    return [(finding.severity, finding.rule) for finding in reader.load(entry).findings]


def test_a_sidecar_that_kept_the_rate_of_the_original_is_counted_and_the_signal_used(one):
    reader, path, entry = one
    sidecar = json.loads(path.with_suffix(".json").read_text()) | {"SamplingFrequency": 500}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    (finding,) = reader.load(entry).findings
    assert (finding.rule, finding.severity) == ("sampling-rate-differs", "repaired")
    assert (
        finding.detail
        == "100 Hz in the signal, 500 Hz in the sidecar; the signal's rate gives the sidecar's 10.0 s and is used"
    )


@pytest.mark.parametrize("said_s", [10.0, "n/a"])
def test_a_signal_whose_rate_may_be_wrong_fails(one, said_s):
    reader, path, entry = one
    write_set(path, noise(), CHANNELS, 250.0)  # 10 s at 100 Hz, labelled 250 Hz
    sidecar = {"SamplingFrequency": 100, "RecordingDuration": said_s}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    with pytest.raises(Skip) as skip:
        HBN(reader.root, min_duration_s=1.0).load(entry)
    finding = skip.value.finding
    assert (finding.rule, finding.severity, finding.where) == ("sampling-rate-differs", "failed", entry.key)
    assert "250 Hz in the signal, 100 Hz in the sidecar" in finding.detail


@given(st.floats(50, 1000), st.floats(0.2, 5), st.floats(10, 1000))
def test_a_rate_is_never_taken_over_in_silence(signal_hz, factor, duration_s):
    said_hz = signal_hz * factor
    found = rate_finding("x", signal_hz, said_hz, duration_s, duration_s)
    assert (found is None) == (abs(said_hz - signal_hz) <= 1e-3 * signal_hz)
    assert found is None or found.severity == "repaired"
    wrong = rate_finding("x", signal_hz, said_hz, duration_s, duration_s / factor)
    is_told_apart = abs(duration_s - duration_s / factor) > 1.0
    assert found is None or wrong.severity == ("failed" if is_told_apart else "repaired")
    assert rate_finding("x", signal_hz, math.nan, duration_s, duration_s) is None


def test_swapped_and_unknown_channel_names_are_counted_by_name(one):
    reader, path, entry = one
    swapped = ("E1", "E3", "E2", *CHANNELS[3:])
    write_set(path, noise(), swapped, 100.0)
    (finding,) = reader.load(entry).findings
    assert (finding.rule, finding.severity) == ("channel-names-swapped", "repaired")
    assert finding.detail.startswith("2 names stand elsewhere than in ")
    assert finding.detail.endswith(": E3 for E2, E2 for E3")
    recording = reader.load(entry)
    assert recording.channels == CHANNELS
    np.testing.assert_allclose(recording.eeg[1], noise()[2], atol=1e-3)  # E2 is the file's third channel

    unknown = ("E1", "E2", "E3", "E4", "X5", *CHANNELS[5:])
    write_set(path, noise(), unknown, 100.0)
    found = {finding.rule: finding.detail for finding in reader.load(entry).findings}
    assert set(found) == {"no-electrode", "channel-names-differ", "electrodes-missing"}
    assert "not in the signal: E5; the other way round: X5" in found["channel-names-differ"]


def test_a_constant_reference_is_no_defect(one):
    from cerebro.data.preprocess import Preprocessing, preprocess

    reader, path, entry = one
    eeg = noise()
    eeg[CHANNELS.index("Cz")] = 0.0
    write_set(path, eeg, CHANNELS, 100.0)
    recording = reader.load(entry)
    assert recording.findings == []
    assert preprocess(recording, Preprocessing()).findings(entry.key) == []


def test_samples_in_an_fdt_file_are_read_and_a_missing_or_cut_one_is_one_line(one):
    from scipy.io import loadmat, savemat

    reader, path, entry = one
    eeg = noise()
    write_set(path, eeg, CHANNELS, 100.0)
    content = loadmat(path, squeeze_me=True)["EEG"]
    header = {name: content[name].item() for name in content.dtype.names}
    data = path.with_suffix(".fdt")
    eeg.T.astype("<f4").tofile(data)  # channels vary fastest
    savemat(path, {"EEG": header | {"data": data.name, "datfile": data.name}})
    np.testing.assert_allclose(reader.load(entry).eeg, eeg, atol=1e-3)
    assert [e.path for e in reader.scan().entries] == [path]
    whole = data.read_bytes()
    for cut in (4, 2, 129 * 4, len(whole)):
        data.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"\.(set|fdt)") as error:
            reader.load(entry)
        assert "\n" not in str(error.value)
    data.unlink()
    with pytest.raises(DataError) as error:
        reader.load(entry)
    assert "\n" not in str(error.value)


def quality(one, row):
    reader = one[0]
    folder = reader.root / "code"
    folder.mkdir(exist_ok=True)
    text = "Row,data_pnts,event_cnt,key_events_exist,quality_checks\n" + row
    (folder / "RestingState_quality_table.tsv").write_text(text)
    return [(finding.severity, finding.rule) for finding in reader.scan().findings]


@pytest.mark.parametrize(
    ("row", "rules"),
    [
        ("A,5000,3,1,n/a", []),
        ("B,1,1,0,n/a", []),  # another person
        ("A,NaN,NaN,1,n/a", []),
        ("A,5000,3,0,n/a", ["quality-key-events-missing"]),
        ("A,5000,3,1,Abnormal sampling rate of 250 Hz. Data is resampled", ["quality-remark"]),
        ("A,9000,3,1,n/a", ["quality-duration-differs"]),
        ("A,5000,4,1,n/a", ["quality-events-differ"]),  # events.tsv has three rows
    ],
)
def test_what_the_authors_saw_is_counted_where_it_says_something(one, row, rules):
    assert quality(one, row) == [("repaired", rule) for rule in rules]


@pytest.mark.parametrize("row", ["A,five,3,1,n/a", "A,1\n"])
def test_a_damaged_quality_table_is_not_used_and_counted(one, row):
    assert quality(one, row) == [("repaired", "quality-table-damaged")]


def test_people_whom_the_start_kit_lists_by_name_are_reached_by_rule(release):
    """One case of each kind of defect: what the start kit's list of nine participants stands for."""
    folder = release()
    kinds = {
        "sub-Sound": {},
        "sub-SixChannels": {"channels": CHANNELS[:6]},
        "sub-Hundredths": {"duration_s": 0.044},
        "sub-FourSamples": {"duration_s": 0.04},
        "sub-Short": {"duration_s": 3.99},
        "sub-NoSignal": {"signal": False},
        "sub-Unavailable": {},
        "sub-Absent": None,
    }
    events = (("1.0", "left_target"), ("2.5", "left_buttonPress"))
    cell = "contrastChangeDetection_1"
    state = {"sub-Unavailable": "unavailable"}
    folder.participants(*({"participant_id": person, cell: state.get(person, "available")} for person in kinds))
    for person, keys in kinds.items():
        if keys is not None:
            folder.recording(
                person, "contrastChangeDetection", 1, **({"events": events, "columns": ("feedback",)} | keys)
            )
    scan = HBN(folder.folder, mode="challenge1").scan()
    assert [entry.participant for entry in scan.entries] == ["sub-Sound"]
    skipped = {
        next(name for name in kinds if name in f.where): f.rule for f in scan.findings if f.severity == "skipped"
    }
    assert skipped == {
        "sub-SixChannels": "six-channel-recording",
        "sub-Hundredths": "too-short",
        "sub-FourSamples": "too-short",
        "sub-Short": "too-short",
        "sub-NoSignal": "signal-missing",
        "sub-Unavailable": "task-unavailable",
        "sub-Absent": "recording-absent",
    }
