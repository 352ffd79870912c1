"""The TUH reader: who, which reference, which electrodes; every rule meets its case."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from edf_files import noise, write_edf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerebro.cli.prepare import read_config
from cerebro.data.preprocess import Preprocessing, preprocess
from cerebro.data.readers import TUH, Skip
from cerebro.data.readers.edf import read_header, read_microvolts
from cerebro.data.readers.tuh_channels import choose_channels, settle_doubles
from cerebro.data.readers.tuh_people import read_patient_field
from cerebro.data.splits import ParticipantSplit
from cerebro.errors import ConfigError, DataError

SCALP = (
    "FP1",
    "FP2",
    "F3",
    "F4",
    "C3",
    "C4",
    "P3",
    "P4",
    "O1",
    "O2",
    "F7",
    "F8",
    "T3",
    "T4",
    "T5",
    "T6",
    "FZ",
    "CZ",
    "PZ",
)
NAMES = tuple(
    {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}.get(name, name.replace("FP", "Fp").replace("Z", "z"))
    for name in SCALP
)
OTHERS = (
    "EEG EKG1-REF", "PHOTIC-REF", "IBI", "BURSTS", "SUPPR", "EMG-REF", "EEG LOC-REF", "EEG SP1-REF", "EEG 20-REF",
    "DC4-DC", "ECG", "EEG F3-C3", "FP1-F7", "EEG C3P-REF", "PULSE RATE", "EEG ROC-REF", "EEG T1-REF", "EEG A2-A1",
    "RESP ABDOMEN-REF",
)  # fmt: skip
OLD = "edf/000/{0}/s001_2015_12_30/01_tcp_ar/{0}_s001_t000.edf"


def full(reference="REF", leave=(), **header):
    return [noise(f"EEG {name}-{reference}", **header) for name in SCALP if name not in leave]


def one(tmp_path, signals, **other):
    """Recording of a single file, and its reader."""
    write_edf(tmp_path / OLD.format("aaaaaaaa"), signals, **other)
    reader = TUH(tmp_path)
    (entry,) = reader.scan().entries
    return reader.load(entry)


def load_or_reason(reader, entry):
    """The recording, or the line that says why there is none."""
    try:
        return reader.load(entry)
    except (DataError, Skip) as error:
        return str(error)


def rules(findings):
    return [finding.rule for finding in findings]


def test_a_recording_has_its_electrodes_in_the_montages_order_and_spelling(tmp_path):
    signals = [*full(), *(noise(label) for label in OTHERS)]
    recording = one(tmp_path, signals)
    order = TUH(tmp_path).montage().channels
    assert set(recording.channels) == set(NAMES)
    assert list(recording.channels) == sorted(recording.channels, key=order.index)
    assert (recording.sfreq, recording.reference) == (250.0, "average")
    for label, name in zip(SCALP, NAMES, strict=True):
        row = recording.eeg[recording.channels.index(name)]
        np.testing.assert_allclose(row, noise(f"EEG {label}-REF").values(), atol=1e-3, err_msg=name)
    assert rules(recording.findings) == ["no-electrode"]
    assert f"{len(OTHERS)} of {len(OTHERS) + 19} channels are no electrodes" in recording.findings[0].detail


@pytest.mark.parametrize(
    ("labels", "folder", "reference", "counted"),
    [
        ("REF", "01_tcp_ar", "average", []),
        ("LE", "02_tcp_le", "linked-ears", []),
        ("REF", "03_tcp_ar_a", "average", []),
        ("LE", "01_tcp_ar", "linked-ears", ["reference-differs"]),
        ("REF", "04_tcp_le_a", "average", ["reference-differs"]),
        ("", "02_tcp_le", "linked-ears", []),
        ("LE", "elsewhere", "linked-ears", []),
        ("", "elsewhere", "unknown", []),
    ],
)
def test_labels_decide_the_reference_and_the_folder_where_they_do_not_say(tmp_path, labels, folder, reference, counted):
    signals = [noise(f"EEG {name}-{labels}".rstrip("-")) for name in SCALP]
    write_edf(tmp_path / f"edf/aaaaaaaa/s001_2015/{folder}/aaaaaaaa_s001_t000.edf", signals)
    reader = TUH(tmp_path)
    recording = reader.load(reader.scan().entries[0])
    assert recording.reference == reference
    assert rules(recording.findings) == counted


def test_electrodes_of_another_reference_or_rate_or_unit_are_dropped_and_counted(tmp_path):
    signals = [
        *full(leave=("CZ", "PZ", "FZ")),
        noise("EEG CZ-LE"),
        noise("EEG PZ-REF", n_samples=500),
        noise("EEG FZ-REF", unit="%"),
        noise("EEG EKG1-REF", n_samples=1000),
        noise("EEG OZ-REF", unit=""),
    ]
    recording = one(tmp_path, signals)
    assert set(recording.channels) == set(NAMES) - {"Cz", "Pz", "Fz"} | {"Oz"}
    assert recording.sfreq == 250.0
    assert rules(recording.findings) == [
        "no-electrode",
        "mixed-references",
        "unit-unknown",
        "unit-missing",
        "rate-differs",
    ]


def test_samples_are_read_in_the_montages_order_and_not_copied_to_get_it(tmp_path):
    path = write_edf(tmp_path / "a.edf", full()[::-1])
    header, montage = read_header(path), TUH(tmp_path).montage()
    choice = choose_channels(header, montage, "", "a")
    eeg = read_microvolts(header, choice.picks)
    settled, names, _ = settle_doubles(eeg, choice.names, montage, "a")
    assert settled is eeg
    assert list(names) == sorted(NAMES, key=montage.channels.index)


def test_two_labels_of_one_electrode(tmp_path):
    flat = noise("EEG FP2-REF")
    flat.counts[:] = 7
    signals = full()
    same, other, twin = noise("EEG T7-REF"), noise("EEG O1-REF", seed=1), noise("EEG FP2-REF", seed=2)
    same.counts = signals[SCALP.index("T3")].counts
    twin.counts = flat.counts
    recording = one(tmp_path, [*signals, same, other, flat, twin])
    assert set(recording.channels) == set(NAMES) - {"O1"}
    found = {finding.detail: finding.rule for finding in recording.findings}
    assert found == {
        "2 channels mean T7, one is kept": "electrode-twice",
        "2 channels mean O1, 2 of them differ; left out": "electrode-contradicts",
        "3 channels mean Fp2, one is kept": "electrode-twice",
    }
    row = recording.eeg[recording.channels.index("Fp2")]
    np.testing.assert_allclose(row, noise("EEG FP2-REF").values(), atol=1e-3)


def test_the_same_flat_electrode_twice_is_kept_once(tmp_path):
    signals = [*full(leave=("CZ",)), noise("EEG CZ-REF"), noise("EEG CZ-REF")]
    for signal in signals[-2:]:
        signal.counts[:] = 3
    recording = one(tmp_path, signals)
    assert np.ptp(recording.eeg[recording.channels.index("Cz")]) == 0
    assert rules(recording.findings) == ["electrode-twice"]


def test_too_few_electrodes_too_short_and_discontinuous_recordings_are_skipped(tmp_path):
    for signals, other, rule in [
        (full(leave=SCALP[:4]), {}, "too-few-electrodes"),
        ([noise("ECG")], {}, "too-few-electrodes"),
        ([*full(leave=SCALP[:3]), noise("EEG O2-REF", seed=4)], {}, "too-few-electrodes"),
        (full(n_records=3), {}, "too-short"),
        (full(), {"reserved": "EDF+D"}, "discontinuous"),
    ]:
        with pytest.raises(Skip) as skip:
            one(tmp_path, signals, **other)
        assert skip.value.finding.rule == rule


def test_a_damaged_file_is_one_line(tmp_path):
    path = write_edf(tmp_path / OLD.format("aaaaaaaa"), full())
    path.write_bytes(path.read_bytes()[:-3])
    reader = TUH(tmp_path)
    with pytest.raises(DataError, match="truncated") as error:
        reader.load(reader.scan().entries[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sfreq", [200, 250, 256, 400, 500, 512, 1000])
def test_every_rate_of_the_corpus_becomes_the_rate_of_the_store(tmp_path, sfreq):
    recording = one(tmp_path, full(n_samples=sfreq))
    assert recording.sfreq == sfreq
    assert preprocess(recording, Preprocessing()).eeg.shape == (19, 1000)


@pytest.mark.parametrize("record_s", ["9", "0.01"])
def test_a_rate_that_cannot_be_is_one_line(tmp_path, record_s):
    with pytest.raises(DataError, match=r"says a rate of .* Hz, expected 100 to 2000"):
        one(tmp_path, full(n_records=1000), record_s=record_s)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 256 * 20 - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_one_line_or_a_rule_or_finite_microvolts(tmp_path, changes):
    path = tmp_path / OLD.format("aaaaaaaa")
    content = bytearray(write_edf(path, full(n_records=5, n_samples=200)).read_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    reader = TUH(tmp_path, demographics="header")
    (entry,) = reader.scan().entries
    found = load_or_reason(reader, entry)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert np.isfinite(found.eeg).all()
        assert len(found.channels) == len(found.eeg) >= reader.min_electrodes


def test_a_label_with_a_line_break_stays_one_line(tmp_path):
    write_edf(tmp_path / OLD.format("aaaaaaaa"), [noise("EEG\nFP1-REF")])
    reader = TUH(tmp_path)
    assert "EEG?FP1-REF" in load_or_reason(reader, reader.scan().entries[0])


def test_paths_in_a_config_are_those_beside_it(tmp_path):
    write_edf(tmp_path / "tree" / OLD.format("aaaaaaaa"), full())
    (tmp_path / "people.tsv").write_text("participant_id\tage\naaaaaaaa\t40\n")
    places = {"LPA": (-80, 0, 0), "RPA": (80, 0, 0), "Nz": (0, 100, 0), "Fp1": (-30, 90, 30), "T7": (-85, 0, 30)}
    lines = [f"{name} : {x} {y} {z}" for name, (x, y, z) in places.items()]
    (tmp_path / "cap.elc").write_text("\n".join(["UnitPosition mm", "Positions", *lines]) + "\n")
    arguments = "root: tree, participants: people.tsv, montage: cap.elc, min_electrodes: 2"
    (tmp_path / "a.yaml").write_text(f"reader: {{class_path: TUH, init_args: {{{arguments}}}}}\n")
    reader = read_config(tmp_path / "a.yaml").reader
    scan = reader.scan()
    assert scan.participants["age"].tolist() == [40]
    assert reader.load(scan.entries[0]).channels == ("Fp1", "T7")


def test_paths_give_patient_session_part_and_labels_and_strangers_are_counted(tmp_path):
    for key in (
        "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf",
        "edf/000/aaaaaaaa/s002_2016_01_30/02_tcp_le/aaaaaaaa_s002_t001.EDF",
        "tuab/train/abnormal/01_tcp_ar/aaaaaaab_s001_t000.edf",
        "stray/thing.edf",
    ):
        write_edf(tmp_path / key, [noise("ECG")])
    (tmp_path / "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t001.edf").symlink_to(tmp_path / "gone")
    scan = TUH(tmp_path).scan()
    assert [(e.participant, e.session, e.run, e.task, e.release, dict(e.labels)) for e in scan.entries] == [
        ("aaaaaaaa", "s001_2015_12_30", 0, "clinical", "", {}),
        ("aaaaaaaa", "s002_2016_01_30", 1, "clinical", "", {}),
        ("aaaaaaab", "s001", 0, "clinical", "train", {"abnormal": 1.0}),
    ]
    assert sorted(rules(scan.findings)) == ["layout-unknown", "signal-missing"]
    assert len(TUH(tmp_path).scan(require_signals=False).entries) == 4
    assert list(scan.participants.columns) == ["release_number"]


def test_subsets_behind_links_are_read_too(tmp_path):
    write_edf(tmp_path / "disk" / OLD.format("aaaaaaab"), [noise("ECG")])
    write_edf(tmp_path / "tuh" / OLD.format("aaaaaaaa"), [noise("ECG")])
    (tmp_path / "tuh/subset").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "AAREADME").write_text("text")
    (tmp_path / "tuh/AAREADME").symlink_to(tmp_path / "AAREADME")
    (tmp_path / "tuh/unmounted").symlink_to(tmp_path / "other_disk", target_is_directory=True)
    scan = TUH(tmp_path / "tuh").scan()
    assert [entry.participant for entry in scan.entries] == ["aaaaaaaa", "aaaaaaab"]
    assert [(f.rule, f.where) for f in scan.findings] == [("signal-missing", "unmounted")]


def test_a_patient_of_train_and_eval_is_counted_and_held_out_with_all_recordings(tmp_path):
    for release, patient in (("train", "aaaaaaaa"), ("eval", "aaaaaaaa"), ("train", "aaaaaaab"), ("train", "aaaaaaac")):
        write_edf(tmp_path / f"edf/{release}/{patient}/s001_2015/01_tcp_ar/{patient}_s001_t000.edf", [noise("ECG")])
    scan = TUH(tmp_path).scan()
    assert len(scan.entries) == 4
    assert [(f.rule, f.where) for f in scan.findings] == [("participant-in-two-releases", "aaaaaaaa")]
    assert scan.participants.loc["aaaaaaaa", ["release_number", "also_in_releases"]].tolist() == ["train", "eval"]
    split = ParticipantSplit(val_ratio=0.3, test_releases=("eval",))
    # as if rule "same-signal-twice" had left the recording of eval out of the store
    kept = [entry for entry in scan.entries if entry.release == "train"]
    recordings = pd.DataFrame(
        {"participant": [e.participant for e in kept], "release": [e.release for e in kept], "source_sha256": ""}
    )
    sides = split.sides(scan.participants, recordings)
    assert sides.test == ("aaaaaaaa",)


@pytest.mark.parametrize(
    ("field", "age", "sex", "counted"),
    [
        ("aaaaaaaa M 01-JAN-1950 aaaaaaaa Age:51", 51, 0, []),
        ("00000258 F 01-JAN-1976 00000258 Age:37", 37, 1, []),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa  Age: 0", 0, 1, []),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:0.5", 0.5, 1, []),
        ("aaaaaaaa m 01-JAN-1976 aaaaaaaa age:120", 120, 0, []),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:-3", np.nan, 1, ["age-implausible"]),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:999", np.nan, 1, ["age-implausible"]),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:121", np.nan, 1, ["age-implausible"]),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:nan", np.nan, 1, ["age-implausible"]),
        ("aaaaaaaa F 01-JAN-1976 aaaaaaaa Age:old", np.nan, 1, ["age-implausible"]),
        ("aaaaaaaa Q 01-JAN-1976 aaaaaaaa Age:40", 40, np.nan, ["sex-implausible"]),
        ("aaaaaaaa Q 01-JAN-1976 aaaaaaaa Age:-1", np.nan, np.nan, ["sex-implausible", "age-implausible"]),
        ("aaaaaaaa X X aaaaaaaa Age:40", 40, np.nan, ["demographics-missing"]),
        ("X X X X", np.nan, np.nan, ["demographics-missing"]),
        ("", np.nan, np.nan, ["demographics-missing"]),
        ("12 M 01-JAN-1993 Subject2", np.nan, 0, ["demographics-missing"]),
    ],
)
def test_ages_and_sexes_of_headers_are_true_or_missing_and_counted(field, age, sex, counted):
    found_age, found_sex, findings = read_patient_field(field, "key")
    np.testing.assert_array_equal([found_age, found_sex], [age, sex])
    assert rules(findings) == counted


def test_demographics_come_from_headers_only_when_asked_for(tmp_path):
    patients = {"aaaaaaaa": "M", "aaaaaaab": "F"}
    for patient, sex in patients.items():
        for session, age in (("s001", 30), ("s002", 32)):
            key = f"edf/{patient}/{session}_2015/01_tcp_ar/{patient}_{session}_t000.edf"
            letter = "F" if session == "s002" else sex
            write_edf(tmp_path / key, [noise("ECG")], patient=f"{patient} {letter} 01-JAN-1980 {patient} Age:{age}")
    assert list(TUH(tmp_path).scan().participants.columns) == []
    scan = TUH(tmp_path, demographics="header").scan()
    assert scan.participants["age"].tolist() == [30, 30]
    np.testing.assert_array_equal(scan.participants["sex"], [np.nan, 1])
    assert Counter(rules(scan.findings)) == {"sex-contradicts": 1}


def test_a_table_may_say_who_was_recorded(tmp_path):
    for patient in ("aaaaaaaa", "aaaaaaab"):
        write_edf(tmp_path / OLD.format(patient), [noise("ECG")])
    table = tmp_path / "people.tsv"
    table.write_text("who\tAge\taaa\naaaaaaaa\t40\t1\nother\t50\t2\n")
    scan = TUH(tmp_path, participants=table, participant_column="who").scan()
    np.testing.assert_array_equal(scan.participants["age"], [40, np.nan])
    assert [(f.rule, f.where) for f in scan.findings] == [("participant-not-listed", "aaaaaaab")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_electrodes": 0}, "min_electrodes"),
        ({"min_duration_s": -1.0}, "min_duration_s"),
        ({"montage": "10-20"}, "montage='10-20' is unknown"),
        ({"participants": Path("x.tsv"), "demographics": "header"}, "keep one of them"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message) as error:
        TUH(tmp_path, **wrong)
    assert "\n" not in str(error.value)


def test_a_tree_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match="TUH folder not found"):
        TUH(tmp_path / "gone").scan()
    with pytest.raises(DataError, match=r"holds no \.edf file"):
        TUH(tmp_path).scan()
    for suffix in ("edf", "EDF"):
        write_edf(tmp_path / f"aaaaaaaa_s001_t000.{suffix}", [noise("ECG")])
    with pytest.raises(DataError, match=r"as \.edf and \.EDF"):
        TUH(tmp_path).scan()
