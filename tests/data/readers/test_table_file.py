"""Continuous tables: microvolts by electrode, markers as events, timestamps as a check of the rate."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Event, Folder
from cerebro.data.readers.table_file import TableFormat, read_table_file, table_events
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError
from cerebro.montage import standard_1005

SFREQ, COUNT_UV = 256.0, 0.48828125
MUSE = TableFormat(SFREQ, COUNT_UV, "timestamp_ms", "ms", "marker")


def muse(n=5 * 256, offset=0, seed=0, rate=SFREQ):
    """Counts of a headband, timestamps in whole milliseconds, no marker."""
    rng = np.random.default_rng(seed)
    columns = {"timestamp_ms": 1_542_732_128_856 + (np.arange(n) * 1000 / rate).astype(np.int64)}
    columns |= {name: (offset + rng.normal(0, 60, n)).astype(np.int16) for name in ("TP9", "AF7", "AF8", "TP10")}
    return pd.DataFrame(columns | {"marker": np.zeros(n, np.int16)})


def write(path, frame):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pandas(frame), path, write_page_checksum=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def read(path, table=MUSE):
    return read_table_file(path, table, standard_1005(), "unknown", "key")


def refused(path, match, table=MUSE):
    with pytest.raises(DataError, match=match) as error:
        read(path, table)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz"])
def test_a_table_of_any_kind_gives_microvolts_in_the_montages_order(tmp_path, name):
    frame = muse().assign(**{"Right AUX": 1.5})
    recording = read(write(tmp_path / name, frame))
    assert (recording.channels, recording.sfreq) == (("AF7", "AF8", "TP9", "TP10"), SFREQ)
    assert recording.eeg.dtype == np.float32
    np.testing.assert_array_equal(recording.eeg, frame[list(recording.channels)].to_numpy().T * COUNT_UV)
    assert [(f.rule, f.detail) for f in recording.findings] == [
        ("no-electrode", "1 of 5 columns are no electrodes and were dropped: Right AUX")
    ]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_marker_is_an_event_where_it_begins(tmp_path, as_text):
    frame = muse()
    frame.loc[[100, 300, 301, 302], "marker"] = np.array([1, 22, 22, 1], np.int16)
    if as_text:
        frame["marker"] = frame["marker"].map(lambda value: {1: "left", 22: " right ", 0: ""}[value])
    names = ("left", "right") if as_text else ("1", "22")
    expected = (Event(100 / SFREQ, names[0]), Event(300 / SFREQ, names[1]), Event(302 / SFREQ, names[0]))
    assert table_events(write(tmp_path / "a.parquet", frame), MUSE) == expected
    assert table_events(write(tmp_path / "a.csv.gz", frame), MUSE) == expected
    assert table_events(tmp_path / "a.csv.gz", TableFormat(SFREQ)) == ()


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(200, 320), n=st.integers(300, 3000), jitter_ms=st.integers(0, 40))
def test_another_rate_than_the_stated_one_is_found_whatever_the_jitter(tmp_path_factory, rate, n, jitter_ms):
    path = tmp_path_factory.mktemp("table") / "a.parquet"
    frame = muse(n, rate=rate)
    packet = np.random.default_rng(n).integers(0, jitter_ms + 1, n // 12 + 1).repeat(12)[:n]
    frame["timestamp_ms"] += packet
    write(path, frame)
    loose = TableFormat(SFREQ, COUNT_UV, "timestamp_ms", "ms", rate_tolerance=0.03)
    apart = abs(rate / SFREQ - 1)
    if apart < 0.015:
        assert read(path, loose).eeg.shape == (4, n)
    elif apart > 0.05:
        refused(path, "samples a second by column timestamp_ms and 256 by table.sfreq", loose)


def test_250_for_256_hz_and_seconds_for_milliseconds_are_one_line(tmp_path):
    path = write(tmp_path / "a.parquet", muse())
    refused(path, r"has 256 samples a second .* and 250 by table\.sfreq", TableFormat(250.0, 1.0, "timestamp_ms", "ms"))
    refused(path, r"correct table\.sfreq or table\.time_unit", TableFormat(256.0, 1.0, "timestamp_ms", "us"))
    slow = TableFormat(256.0, 1.0, "timestamp_ms", "s", max_gap_s=100.0)
    refused(path, r"has 0\.256 samples a second", slow)


def test_the_longest_stretch_without_a_gap_is_kept_and_its_events_count_from_there(tmp_path):
    frame = muse(n=2000)
    frame.loc[700:, "timestamp_ms"] += 5_000
    frame.loc[1900:, "timestamp_ms"] += 300
    frame.loc[[10, 800, 1950], "marker"] = 1
    path = write(tmp_path / "a.parquet", frame)
    recording = read(path)
    np.testing.assert_array_equal(recording.eeg[0], frame["AF7"][700:1900] * COUNT_UV)
    assert [(f.rule, f.detail) for f in recording.findings] == [
        (
            "time-gap",
            "2 gaps of 5.31 s in all; the longest stretch without one is kept, 1200 of 2000 samples from row 701",
        )
    ]
    assert table_events(path, MUSE) == (Event(100 / SFREQ, "1"),)


def test_timestamps_that_step_back_a_little_are_counted_and_far_are_one_line(tmp_path):
    frame = muse()
    frame.loc[400, "timestamp_ms"] -= 40
    (finding,) = read(write(tmp_path / "a.parquet", frame)).findings
    assert (finding.rule, finding.detail) == (
        "time-jitter",
        "1 of 1280 timestamps step back, by 0.036 s at most; rows count as they stand",
    )
    frame.loc[400, "timestamp_ms"] -= 200
    refused(write(tmp_path / "a.parquet", frame), r"runs back by 0\.2\d+ s at row 401")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.assign(AF7=f["AF7"].astype(float).where(f.index != 7)),
            "column AF7 holds 1 values that are missing",
        ),
        (lambda f: f.assign(AF7="x"), "column AF7 holds (large_)?string, expected numbers"),
        (lambda f: f.assign(timestamp_ms=np.nan), "column timestamp_ms holds"),
        (lambda f: f.rename(columns={"timestamp_ms": "time"}), r"no column 'timestamp_ms' \(found time, .*time_column"),
        (lambda f: f.drop(columns="marker"), r"no column 'marker' .*set table\.marker_column"),
        (lambda f: f.assign(T3=f["AF7"], T7=f["AF7"]), "'T3' and 'T7' all mean electrode T7"),
        (lambda f: f[["timestamp_ms", "marker"]].assign(EOG=1), r"no channel that montage 10-05 knows \(columns EOG\)"),
        (lambda f: f[:0], "holds no sample"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(tmp_path, name, change, message):
    refused(write(tmp_path / name, change(muse())), message)


def test_infinity_dates_windows_and_a_column_twice_are_one_line(tmp_path):
    frame = muse()
    refused(
        write(tmp_path / "a.parquet", frame.assign(AF7=np.inf)), "AF7 holds 1280 values that are missing, NaN or inf"
    )
    dates = pd.to_datetime(frame["timestamp_ms"], unit="ms")
    refused(write(tmp_path / "a.parquet", frame.assign(timestamp_ms=dates)), "holds dates, expected numbers")
    windows = frame[:3].assign(AF7=[[1.0, 2.0]] * 3)
    refused(write(tmp_path / "a.parquet", windows), "these are windows, read them with ParquetWindows")
    (tmp_path / "b.csv").write_text("AF7,AF7\n1,2\n")
    refused(tmp_path / "b.csv", "has column AF7 twice", TableFormat(256.0))


def test_a_damaged_file_is_one_line(tmp_path):
    path = write(tmp_path / "a.parquet", muse())
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    refused(path, "cannot be read as a table")
    path.write_bytes(whole[:-9])
    refused(path, "cannot be read as a table")
    packed = write(tmp_path / "a.csv.gz", muse())
    text = packed.read_bytes()
    for damaged in (text[: len(text) // 2], text[:-4], b"no gzip", text[:500] + b"\0" * 40 + text[540:]):
        packed.write_bytes(damaged)
        refused(packed, "cannot be read as a table|no column")
    packed.write_bytes(gzip.compress(gzip.decompress(text)[:-7]))
    refused(packed, "cannot be read as a table")
    refused(tmp_path / "nothing.csv", "does not exist")


def test_an_offset_of_800_microvolts_costs_no_precision_and_is_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    near, far = muse(4096, 0, seed=1), muse(4096, 0, seed=1)
    for name in ("TP9", "AF7", "AF8", "TP10"):
        far[name] += 1638  # 800 microvolts
    for person, frame in (("1", near), ("2", far)):
        write(folder / f"sub-{person}.parquet", frame)
    mine = Folder(folder, "muse", pattern="*.parquet", table=MUSE)
    build(mine, Preprocessing(sfreq=100.0), tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert np.abs(store.samples(0).astype(int) - store.samples(1)).max() <= 1
    mean = near[["AF7", "AF8", "TP9", "TP10"]].to_numpy(float).mean(axis=0) * COUNT_UV
    np.testing.assert_allclose(store.offsets_uV(0), mean, atol=1e-3)
    np.testing.assert_allclose(store.offsets_uV(1), mean + 1638 * COUNT_UV, atol=1e-3)
    assert list(store.recordings["clipped"]) == [0, 0]


def test_a_folder_of_tables_without_their_columns_is_one_line(tmp_path):
    write(tmp_path / "sub-1.parquet", muse())
    with pytest.raises(ConfigError, match=r"sub-1\.parquet is a table .* set table: \{sfreq: 256\.0\}"):
        Folder(tmp_path, "muse", pattern="*.parquet").scan()


@pytest.mark.parametrize(
    ("wrong", "message"), [({"sfreq": 0.0}, "table.sfreq"), ({"rate_tolerance": 1.5}, "table.rate_tolerance")]
)
def test_a_wrong_key_is_one_line(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TableFormat(**({"sfreq": 256.0} | wrong))
