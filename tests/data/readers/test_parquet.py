"""Parquet files of windows: a recording is a participant's run, whatever files and order it comes in."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing, keep_as_is, quantise
from cerebro.data.readers import ParquetWindows, windows_file
from cerebro.data.store import CHANNEL_MAJOR, Store
from cerebro.errors import ConfigError, DataError

LENGTH, SFREQ = 64, 32.0
CHANNELS = ("TP9", "AF7", "AF8", "TP10")
IN_ORDER = ("AF7", "AF8", "TP9", "TP10")  # as the montage has them
PLAN = Preprocessing(sfreq=SFREQ, highpass_hz=0.0, lowpass_hz=15.0)


def windows(person="P1", run=1, n=6, seed=0, per_parent=2, offset_uV=0.0, lengths=None):
    """Rows of one recording: ``n`` windows, ``per_parent`` sub-windows to a parent."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        size = LENGTH if lengths is None else lengths[i]
        row = {
            "participant": person,
            "run": run,
            "parent_window_id": i // per_parent,
            "sub_window_id": i % per_parent,
            "window_start": i * LENGTH / SFREQ,
            "window_end": (i + 1) * LENGTH / SFREQ,
        }
        rows.append(row | {name: (offset_uV + rng.normal(0, 30, size)).astype(np.float32) for name in CHANNELS})
    return rows


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), path, write_page_checksum=True, **options)
    return path


def reader(folder, **other):
    return ParquetWindows(**({"root": folder, "name": "win", "sfreq": SFREQ, "window_length": LENGTH} | other))


def load(folder, **other):
    mine = reader(folder, **other)
    (entry,) = mine.scan().entries
    return mine.load(entry)


def refused(folder, match, **other):
    """The one line with which the only recording is refused."""
    with pytest.raises(DataError, match=match) as error:
        load(folder, **other)
    assert "\n" not in str(error.value)


def test_a_recording_is_its_windows_side_by_side_in_the_montages_order(tmp_path):
    rows = windows()
    write(tmp_path / "P1_1.parquet", rows)
    recording = load(tmp_path)
    assert (recording.channels, recording.sfreq, recording.is_ready) == (IN_ORDER, SFREQ, True)
    for name, samples in zip(recording.channels, recording.eeg, strict=True):
        np.testing.assert_array_equal(samples, np.concatenate([row[name] for row in rows]))
    assert [(s.parent_window_id, s.sub_window_id, s.start_s, s.stop_s, s.n_valid) for s in recording.segments] == [
        (i // 2, i % 2, 2.0 * i, 2.0 * i + 2.0, LENGTH) for i in range(6)
    ]
    assert recording.findings == []


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    group=st.integers(1, 13),
    split=st.booleans(),
    width=st.sampled_from(["float16", "float32", "float64", "int16", "fixed"]),
    bytes_at_once=st.sampled_from([1, 4_000, 16_000_000]),
)
def test_any_files_order_row_groups_and_number_type_give_the_same_recordings(
    tmp_path_factory, order, group, split, width, bytes_at_once
):
    folder = tmp_path_factory.mktemp("windows")
    rows = windows("P1", 1, seed=1) + windows("P1", 2, seed=2)
    for row in rows:
        row.update({name: np.rint(row[name]).astype("float32" if width == "fixed" else width) for name in CHANNELS})
    mixed = [rows[i] for i in order]
    for run in (1, 2) if split else (0,):
        table = pa.Table.from_pandas(pd.DataFrame([row for row in mixed if not split or row["run"] == run]))
        if width == "fixed":
            for name in CHANNELS:
                kind = pa.list_(pa.float32(), LENGTH)
                table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
        pq.write_table(table, folder / f"{run}.parquet", row_group_size=group)
    mine = reader(folder)
    entries = mine.scan().entries
    assert [(e.key, e.participant, e.run) for e in entries] == [("P1_run-1", "P1", 1), ("P1_run-2", "P1", 2)]
    for entry, whole in zip(entries, (rows[:6], rows[6:]), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows_file, "BYTES_AT_ONCE", bytes_at_once)  # rows come one by one, a few, or all together
            recording = mine.load(entry)
        for name, samples in zip(recording.channels, recording.eeg, strict=True):
            np.testing.assert_array_equal(samples, np.concatenate([row[name] for row in whole]).astype(np.float32))
        mixed_up = [i % 6 for i in order if (i < 6) == (entry.run == 1)]
        counted = [f.detail for f in recording.findings if f.rule == "windows-unsorted"]
        n_off = sum(i != place for place, i in enumerate(mixed_up))
        assert counted == (
            [f"{n_off} of 6 windows stood out of order; sorted by parent, then sub-window"] * (n_off > 0)
        )


def test_rows_of_recordings_that_alternate_are_counted(tmp_path):
    one, two = windows("P1"), windows("P2")
    write(tmp_path / "all.parquet", [row for both in zip(one, two, strict=True) for row in both])
    (finding,) = reader(tmp_path).scan().findings
    assert (finding.rule, finding.where) == ("rows-unsorted", "all.parquet")
    assert "2 of 2 recordings" in finding.detail


def test_columns_are_known_in_any_case(tmp_path):
    names = {name: name.title() for name in windows()[0] if name not in CHANNELS}
    frame = pd.DataFrame(windows(), dtype=object).rename(columns=names)
    frame["Remission"] = 1
    write(tmp_path / "a.parquet", frame.infer_objects())
    scan = reader(tmp_path).scan()
    assert dict(scan.entries[0].labels) == {"remission": 1.0}
    assert scan.participants.loc["P1", "remission"] == 1.0
    assert load(tmp_path).eeg.shape == (4, 6 * LENGTH)


def test_two_spellings_of_a_column_are_one_line_and_the_other_files_go_on(tmp_path):
    frame = pd.DataFrame(windows("P2"))
    frame["Participant"] = "P2"
    write(tmp_path / "b.parquet", frame)
    write(tmp_path / "a.parquet", windows("P1"))
    scan = reader(tmp_path).scan()
    assert [entry.participant for entry in scan.entries] == ["P1"]
    (finding,) = scan.findings
    assert (finding.rule, finding.severity, finding.where) == ("unusable-file", "failed", "b.parquet")
    assert "columns participant and Participant, which mean the same" in finding.detail


@pytest.mark.parametrize("name", ["participant", "run", "parent_window_id", "window_end"])
def test_a_missing_column_is_one_line(tmp_path, name):
    write(tmp_path / "a.parquet", pd.DataFrame(windows()).drop(columns=name))
    (finding,) = reader(tmp_path).scan().findings
    assert f"has no column {name} (found " in finding.detail
    assert "\n" not in finding.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(participant=None), "row 3 has no participant"),
        (lambda row: row.update(run=1.5), "column run holds double, expected text or whole numbers"),
        (lambda row: row.update(Remission=2), "column Remission holds 2, expected 0 or 1"),
        (lambda row: row.update(Remission=np.inf), "column Remission holds inf, expected 0 or 1"),
    ],
)
def test_a_wrong_cell_of_a_recordings_name_is_one_line(tmp_path, change, message):
    rows = windows()
    change(rows[2])
    write(tmp_path / "a.parquet", rows)
    (finding,) = reader(tmp_path).scan().findings
    assert message in finding.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(AF7=None), r"window 1/0: channel AF7 has no samples"),
        (lambda row: row.update(AF7=[]), r"window 1/0: channel AF7 has no samples"),
        (lambda row: row.update(AF7=[1.0, None] * 32), r"window 1/0: channel AF7 has missing samples"),
        (lambda row: row.update(AF7=np.full(LENGTH, np.nan, "f4")), r"window 1/0: channel AF7 has missing"),
        (lambda row: row.update(AF7=[np.inf] + [0.0] * 63), r"window 1/0: channel AF7 holds NaN or infinite"),
        (lambda row: row.update(TP10=row["TP10"][:-1]), r"window 1/0: channel TP10 has another number of samples"),
        (
            lambda row: row.update(parent_window_id=0),
            r"window 0/0 \(parent/sub\) of P1_run-1 more than once \(1 rows too many\)",
        ),
        (lambda row: row.update(sub_window_id=0.5), r"column sub_window_id holds 0\.5, no whole number"),
        (lambda row: row.update(window_start=None), r"column window_start has a missing or infinite value"),
    ],
)
def test_a_wrong_cell_of_a_window_is_one_line(tmp_path, change, message):
    rows = windows()
    change(rows[2])
    write(tmp_path / "a.parquet", rows)
    refused(tmp_path, message)


def test_columns_that_are_no_lists_of_an_electrode_are_one_line(tmp_path):
    frame = pd.DataFrame(windows())
    write(tmp_path / "a.parquet", frame.assign(EOG=frame["AF7"]))
    refused(tmp_path, "channel EOG that montage 10-05 does not know")
    assert load(tmp_path, ignore_columns=("EOG",)).channels == IN_ORDER
    write(tmp_path / "a.parquet", frame.assign(AF7=1.0, site="x"))
    refused(tmp_path, "column AF7 holds double, expected lists of numbers")
    write(tmp_path / "a.parquet", frame.assign(T3=frame["AF7"], T7=frame["AF7"]))
    refused(tmp_path, "'T3' and 'T7' all mean electrode T7")
    write(tmp_path / "a.parquet", frame.drop(columns=list(CHANNELS)))
    refused(tmp_path, "has no channel")


def test_units_are_converted_and_times_in_samples_understood(tmp_path):
    rows = windows()
    expected = np.concatenate([row["AF7"] for row in rows])
    for row in rows:
        row.update({name: (row[name] * 1e-6).astype(np.float32) for name in CHANNELS})
        row.update(window_start=row["window_start"] * SFREQ, window_end=row["window_end"] * SFREQ)
    write(tmp_path / "a.parquet", rows)
    recording = load(tmp_path, unit="V", window_times="samples")
    np.testing.assert_allclose(recording.eeg[0], expected, rtol=1e-5)
    assert (recording.segments[1].start_s, recording.segments[1].stop_s) == (2.0, 4.0)
    refused(tmp_path, r"last 64 s by window_start and window_end and hold 64 samples.*set sfreq, or window_times")


def test_a_rate_that_contradicts_the_windows_is_one_line(tmp_path):
    write(tmp_path / "a.parquet", windows())
    refused(tmp_path, r"last 2 s .* at sfreq=31 last 2\.06452 s; set sfreq", sfreq=31.0)


def test_short_windows_are_padded_and_long_ones_cut(tmp_path):
    rows = windows(lengths=[LENGTH, 40, LENGTH, LENGTH + 9, LENGTH, 1])
    write(tmp_path / "a.parquet", rows)
    recording = load(tmp_path)
    assert [segment.n_valid for segment in recording.segments] == [LENGTH, 40, LENGTH, LENGTH, LENGTH, 1]
    assert [(f.rule, f.detail) for f in recording.findings] == [
        ("window-padded", f"2 of 6 windows do not have {LENGTH} samples"),
        ("window-cut", f"1 of 6 windows do not have {LENGTH} samples"),
    ]
    for name, samples in zip(recording.channels, recording.eeg.reshape(4, 6, LENGTH), strict=True):
        for row, window in zip(rows, samples, strict=True):
            n = min(len(row[name]), LENGTH)
            np.testing.assert_array_equal(window[:n], row[name][:n])


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, LENGTH), min_size=2, max_size=6),
    offset=st.floats(-3e5, 3e5),
    seed=st.integers(0, 100),
)
def test_padding_is_zero_in_the_store_whatever_the_offset(tmp_path_factory, lengths, offset, seed):
    folder = tmp_path_factory.mktemp("windows")
    lengths = [LENGTH, *lengths]
    write(folder / "a.parquet", windows(n=len(lengths), lengths=lengths, offset_uV=offset, seed=seed))
    mine = reader(folder)
    (entry,) = mine.scan().entries
    recording = mine.load(entry)
    done = keep_as_is(recording, PLAN)
    counts = quantise(done.eeg, 0.05)[0].T.reshape(4, len(lengths), LENGTH)
    is_padded = np.arange(LENGTH) >= np.array(lengths)[:, None]
    assert (counts[:, is_padded] == 0).all()
    rows = windows(n=len(lengths), lengths=lengths, offset_uV=offset, seed=seed)
    mean = [np.concatenate([row[name] for row in rows]).mean(dtype=np.float64) for name in IN_ORDER]
    np.testing.assert_allclose(done.offset, mean, atol=0.03)


def test_a_build_keeps_windows_channel_by_channel_with_their_table_labels_and_offsets(tmp_path):
    rows = [
        row | {"Remission": int(person == "P2")}
        for person in ("P1", "P2")
        for run in (1, 2)
        for row in windows(person, run, seed=run, offset_uV=800.0, lengths=[LENGTH] * 5 + [30])
    ]
    write(tmp_path / "in" / "8s_primary_dataset.parquet", rows)  # one file, four recordings, two people
    report = build(reader(tmp_path / "in"), PLAN, tmp_path / "store")
    assert (report.read, report.failed, report.n_participants) == (4, 0, 2)
    store = Store.open(tmp_path / "store")
    assert store.verify() == []
    assert (store.index["layout"] == CHANNEL_MAJOR).all()
    assert (store.index["segment_samples"] == LENGTH).all()
    assert list(store.recordings["label/remission"]) == [0.0, 0.0, 1.0, 1.0]
    assert list(store.participants["remission"]) == [0.0, 1.0]
    assert len(store.segments) == 24
    assert list(store.segments["n_valid"][:6]) == [LENGTH] * 5 + [30]
    assert len(set(store.recordings["source_sha256"])) == 4  # parts of one file are no copies of each other
    for number, (_, run) in enumerate([("P1", 1), ("P1", 2), ("P2", 1), ("P2", 2)]):
        whole = windows("", run, seed=run, offset_uV=800.0, lengths=[LENGTH] * 5 + [30])
        for column, name in enumerate(IN_ORDER):
            samples = np.concatenate([row[name] for row in whole]).astype(np.float64)
            stored = store.samples(number)[: len(samples), column] * 0.05 + store.offsets_uV(number)[column]
            np.testing.assert_allclose(stored, samples, atol=0.0255)
            assert not store.samples(number)[len(samples) :, column].any()
    again = build(reader(tmp_path / "in"), PLAN, tmp_path / "store")
    assert again == report


def test_the_same_file_twice_is_found_and_a_recording_in_two_files_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", windows("P1"))
    write(tmp_path / "c.parquet", windows("P2", seed=3))
    (tmp_path / "b.parquet").write_bytes(path.read_bytes())
    scan = reader(tmp_path).scan()
    assert [entry.participant for entry in scan.entries] == ["P2"]
    (finding,) = scan.findings
    assert (finding.rule, finding.severity, finding.where) == ("recording-in-two-files", "failed", "P1_run-1")
    assert finding.detail == "its windows stand in a.parquet and b.parquet"


def test_labels_that_contradict_each_other_fail_their_participant_and_missing_ones_are_counted(tmp_path):
    labels = {("P1", 1): 0, ("P1", 2): 1, ("P2", 1): 1, ("P2", 2): None, ("P3", 1): None}
    for (person, run), label in labels.items():
        rows = [row | {"remission": label} for row in windows(person, run)]
        write(tmp_path / f"{person}_{run}.parquet", rows)
    scan = reader(tmp_path).scan()
    assert [(entry.key, dict(entry.labels)) for entry in scan.entries] == [
        ("P2_run-1", {"remission": 1.0}),
        ("P2_run-2", {}),
        ("P3_run-1", {}),
    ]
    assert [(f.rule, f.severity, f.where) for f in scan.findings] == [
        ("label-contradiction", "failed", "P1"),
        ("label-missing", "repaired", "P2_run-2"),
        ("label-missing", "repaired", "P3_run-1"),
    ]
    assert scan.participants["remission"].isna().tolist() == [True, False, True]


def test_a_table_of_participants_gives_labels_of_people(tmp_path):
    for person in ("P1", "P2"):
        write(tmp_path / f"{person}.parquet", windows(person))
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tRemission\tage\tsex\nP1\t1\t30\tF\nP3\t0\t50\tM\n")
    scan = reader(tmp_path, participants=table).scan()
    assert [(f.rule, f.severity, f.where) for f in scan.findings] == [
        ("participant-not-listed", "repaired", "P2"),
        ("participant-without-recording", "skipped", "P3"),
    ]
    assert list(scan.participants.columns) == ["remission", "age", "sex"]
    np.testing.assert_array_equal(scan.participants.loc["P1"], [1, 30, 1])
    assert scan.participants.loc["P2"].isna().all()
    assert [dict(entry.labels) for entry in scan.entries] == [{}, {}]


def test_a_table_and_rows_that_disagree_fail_their_participant(tmp_path):
    for person, label in (("P1", 0), ("P2", 1), ("P3", 1), ("P4", None)):
        write(tmp_path / f"{person}.parquet", [row | {"remission": label} for row in windows(person)])
    table = tmp_path / "people.csv"
    table.write_text("who,remission\nP1,1\nP2,1\nP3,n/a\nP4,0\n")
    scan = reader(tmp_path, participants=table, participant_column="who").scan()
    failed = [finding for finding in scan.findings if finding.severity == "failed"]
    assert [(f.rule, f.where) for f in failed] == [("label-contradiction", "P1")]
    assert failed[0].detail == "remission is 0 in rows of participant P1 and 1 in people.csv; make them agree"
    assert [entry.participant for entry in scan.entries] == ["P2", "P3", "P4"]
    np.testing.assert_array_equal(scan.participants["remission"], [np.nan, 1, 1, 0])


@pytest.mark.parametrize(
    ("head", "cells", "message"),
    [
        ("id,remission", "P1,2", "column remission holds 2.0, expected 0, 1 or n/a"),
        ("id,remission", "P1,yes", "column remission holds 'yes', expected 0, 1 or n/a"),
        ("id,remission,Remission", "P1,1,1", "columns remission and Remission, which mean the same"),
        ("who,remission", "P1,1", "has no column 'id'"),
    ],
)
def test_a_table_of_participants_that_does_not_fit_is_one_line(tmp_path, head, cells, message):
    write(tmp_path / "a.parquet", windows())
    (tmp_path / "people.csv").write_text(f"{head}\n{cells}\n")
    with pytest.raises(DataError, match=message) as error:
        reader(tmp_path, participants=tmp_path / "people.csv", participant_column="id").scan()
    assert "\n" not in str(error.value)


def test_a_file_without_channels_that_the_others_have_is_counted(tmp_path):
    for person in ("P1", "P2", "P3"):
        frame = pd.DataFrame(windows(person))
        write(tmp_path / f"{person}.parquet", frame.drop(columns="AF8") if person == "P2" else frame)
    (finding,) = reader(tmp_path).scan().findings
    assert (finding.rule, finding.severity, finding.where) == ("channels-differ", "repaired", "P2.parquet")
    assert finding.detail == "has no AF8, unlike 2 of 3 files; kept with its own"
    assert reader(tmp_path).scan().entries[1].participant == "P2"
    (finding,) = reader(tmp_path, ignore_columns=("tp10",), pattern="P[23].parquet").scan().findings
    assert finding.detail == "has no AF8, unlike 1 of 2 files; kept with its own"
    frame = pd.DataFrame(windows("P2")).rename(columns={"AF7": "af7"})
    write(tmp_path / "P2.parquet", frame.assign(T3=frame["af7"]))
    (finding,) = reader(tmp_path).scan().findings
    assert finding.detail == "has also T7, unlike 2 of 3 files; kept with its own"


def test_times_that_run_back_or_do_not_fit_the_samples_are_counted(tmp_path):
    rows = windows(lengths=[LENGTH] * 5 + [40])
    rows[2].update(window_start=1.0, window_end=3.0)
    rows[4].update(window_end=rows[4]["window_end"] + 9)
    write(tmp_path / "a.parquet", rows)
    recording = load(tmp_path)
    (finding,) = [finding for finding in recording.findings if finding.rule == "window-times"]
    assert finding.severity == "repaired"
    assert finding.detail == (
        "of 6 windows 1 start before the one before them and 1 do not last as long as their samples; kept in the order "
        "of their ids"
    )
    np.testing.assert_array_equal(recording.eeg[0, 2 * LENGTH : 3 * LENGTH], rows[2]["AF7"])
    assert [segment.start_s for segment in recording.segments] == [0.0, 2.0, 1.0, 6.0, 8.0, 10.0]


def test_windows_that_overlap_or_leave_gaps_keep_their_times_and_are_no_finding(tmp_path):
    rows = windows()
    for number, row in enumerate(rows):
        start = number * 1.0 + 60 * (number > 3)  # half of each window is that of the one before; then a minute's gap
        row.update(window_start=start, window_end=start + LENGTH / SFREQ)
    write(tmp_path / "a.parquet", rows)
    recording = load(tmp_path)
    assert recording.findings == []
    assert [segment.start_s for segment in recording.segments] == [0.0, 1.0, 2.0, 3.0, 64.0, 65.0]
    np.testing.assert_array_equal(recording.eeg[0], np.concatenate([row["AF7"] for row in rows]))


def test_labels_of_a_table_need_no_samples_again_and_a_failed_file_is_listed_with_its_reason(tmp_path, opened):
    write(tmp_path / "in/P1.parquet", windows("P1"))
    write(tmp_path / "in/P2.parquet", [row | {"Remission": 7} for row in windows("P2")])
    report = build(reader(tmp_path / "in"), PLAN, tmp_path / "store")
    assert (report.read, report.failed) == (1, 1)
    assert "column Remission holds 7, expected 0 or 1" in report.failures["P2.parquet"]
    assert "failed    P2.parquet: " in report.table()
    (tmp_path / "people.csv").write_text("participant_id,remission\nP1,1\n")
    report = build(reader(tmp_path / "in", participants=tmp_path / "people.csv"), PLAN, tmp_path / "store")
    assert (report.read, report.failed) == (1, 1)
    assert list(Store.open(tmp_path / "store").participants["remission"]) == [1.0]
    assert opened == ["P1_run-1"]


def test_runs_and_participants_may_be_text_or_numbers(tmp_path):
    for run in ("run-3", "2018-11-20"):
        write(tmp_path / f"{run}.parquet", windows(person=7, run=run))
    entries = reader(tmp_path).scan().entries
    assert [(e.key, e.participant, e.run) for e in entries] == [("7_run-2018-11-20", "7", 0), ("7_run-3", "7", 3)]
    assert reader(tmp_path).load(entries[1]).eeg.shape == (4, 6 * LENGTH)


def test_a_flipped_bit_of_the_samples_is_one_line(tmp_path):
    path = write(tmp_path / "a.parquet", windows(n=20), compression="none", use_dictionary=False)
    whole = path.read_bytes()
    start = whole.index(windows(n=20)[7]["AF8"].tobytes())
    path.write_bytes(whole[: start + 11] + bytes([whole[start + 11] ^ 1]) + whole[start + 12 :])
    refused(tmp_path, "is damaged or no Parquet file .*CRC")


def test_random_damage_is_one_line_or_changes_nothing_that_is_read(tmp_path):
    path = write(tmp_path / "a.parquet", windows(n=8))
    whole, good = path.read_bytes(), load(tmp_path)
    rng = np.random.default_rng(0)
    end = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8  # the footer behind it has no checksum
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: rng.integers(0, len(whole))]
        else:
            damaged[rng.integers(0, end)] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            scan = reader(tmp_path).scan()
            if not scan.entries:
                assert [finding.severity for finding in scan.findings] == ["failed"]
                assert "\n" not in scan.findings[0].detail
                continue
            recording = reader(tmp_path).load(scan.entries[0])
        except DataError as error:
            n_lines = str(error).count("\n") + 1
        else:
            n_lines = 1
            np.testing.assert_array_equal(recording.eeg, good.eeg)
            assert recording.segments == good.segments
        assert n_lines == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "a/b"}, "plain word"),
        ({"sfreq": 0.0}, "sfreq"),
        ({"window_length": 0}, "window_length"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message):
        reader(tmp_path, **wrong)


def test_a_folder_without_files_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"holds no file \*\*/\*\.parquet"):
        reader(tmp_path).scan()
    with pytest.raises(DataError, match="not found"):
        reader(tmp_path / "nothing").scan()
    (tmp_path / "a.parquet").write_text("hello")
    (finding,) = reader(tmp_path).scan().findings
    assert "is damaged or no Parquet file" in finding.detail
    write(tmp_path / "a.parquet", pd.DataFrame(windows())[:0])
    (finding,) = reader(tmp_path).scan().findings
    assert "holds no window" in finding.detail
