"""Labels of recordings out of a table of trials: the median of a recording's rows, and what is odd counted."""

import numpy as np
import pytest

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder
from cerebro.data.readers.label_table import LabelTable
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError

TRIALS = """file\ttrial\trt_ms
runs/sub-a.csv\t1\t300
runs/sub-a.csv\t2\t500
runs/sub-a.csv\t3\tn/a
runs/sub-a.csv\t4\t600
runs/sub-b.csv\t1\t50
runs/sub-b.csv\t2\t9000
runs/../runs/sub-c.csv\t1\t400
runs/sub-c.csv\t2\t60000
runs/sub-x.csv\t1\t400
\t2\t400
"""
SECONDS = {"column": "rt_ms", "scale": 0.001, "lowest": 0.15, "highest": 2.0}


@pytest.fixture
def folder(tmp_path):
    """Four runs below ``runs`` and a table of trials above them."""
    rng = np.random.default_rng(0)
    (tmp_path / "runs").mkdir()
    for person in "abcd":
        rows = "\n".join(f"{one:.2f},{two:.2f}" for one, two in rng.normal(0, 30, (640, 2)).tolist())
        (tmp_path / "runs" / f"sub-{person}.csv").write_text(f"AF7,TP9\n{rows}\n")
    (tmp_path / "trials.tsv").write_text(TRIALS)
    return tmp_path


def reader(folder, label=SECONDS, **other):
    tables = {"response_time": LabelTable(folder / "trials.tsv", **label)}
    return Folder(
        folder / "runs", "mine", pattern="*.csv", table=TableFormat(64.0), **({"label_tables": tables} | other)
    )


def test_a_label_is_the_median_of_its_recordings_rows_within_bounds(folder):
    scan = reader(folder).scan()
    assert {e.key: dict(e.labels) for e in scan.entries} == {
        "sub-a": {"response_time": 0.5},
        "sub-b": {},
        "sub-c": {"response_time": 0.4},
        "sub-d": {},
    }
    found = [(f.rule, f.severity, f.where, f.detail) for f in scan.findings if f.rule.startswith("label-")]
    assert found == [
        ("label-without-recording", "skipped", "response_time", f"1 recordings of trials.tsv are not here, such as {x}")
        for x in ["runs/sub-x.csv"]
    ] + [
        ("label-missing", "repaired", "sub-b", "no row of response_time in trials.tsv"),
        ("label-outlier", "repaired", "sub-b", "2 of 2 rows of response_time outside 0.15 to 2 left out"),
        ("label-outlier", "repaired", "sub-c", "1 of 2 rows of response_time outside 0.15 to 2 left out"),
        ("label-missing", "repaired", "sub-d", "no row of response_time in trials.tsv"),
    ]


def test_without_bounds_and_scale_all_rows_count_as_they_stand(folder):
    scan = reader(folder, label={"column": "rt_ms"}).scan()
    assert {e.key: dict(e.labels) for e in scan.entries}["sub-c"] == {"response_time": 30200.0}


def test_labels_reach_the_store_beside_those_of_names_and_need_no_signal_again(folder, opened):
    plan = Preprocessing(sfreq=64.0, lowpass_hz=20.0)
    build(reader(folder, label_tables={}), plan, folder / "store")
    assert len(opened) == 4
    build(reader(folder, labels={"first": {"-a": 1.0, "-[bcd]": 0.0}}), plan, folder / "store")
    assert len(opened) == 4
    table = Store.open(folder / "store").recordings
    np.testing.assert_array_equal(table["label/response_time"], [0.5, np.nan, 0.4, np.nan])
    np.testing.assert_array_equal(table["label/first"], [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        ({"column": "speed"}, DataError, r"has no column 'speed' \(found file, trial, rt_ms\); set label_tables"),
        ({"column": "rt_ms", "file_column": "path"}, DataError, r"has no column 'path' .*response_time\.file_column"),
        ({"column": "file"}, DataError, r"column file: 'runs/sub-a.csv' is no number; write a number"),
        ({"column": "rt_ms", "scale": 0.0}, ConfigError, r"scale=0 makes no label"),
        ({"column": "rt_ms", "lowest": 2.0, "highest": 1.0}, ConfigError, r"lowest=2 is not below highest=1"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(folder, label, kind, message):
    with pytest.raises(kind, match=message) as error:
        reader(folder, label=label).scan()
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_table_and_a_label_that_stands_twice_are_one_line(folder):
    with pytest.raises(ConfigError, match=r"label response_time stands in labels and in label_tables; take it out"):
        reader(folder, labels={"response_time": {"a": 1.0}})
    (folder / "trials.tsv").write_text("file\trt_ms\na\t1\t2\t3\nb\t1\n")
    with pytest.raises(DataError, match=r"trials\.tsv line 2 has 4 cells under a header of 2") as error:
        reader(folder).scan()
    assert "\n" not in str(error.value)
    (folder / "trials.tsv").unlink()
    with pytest.raises(DataError, match=r"table of label response_time .*set label_tables\.response_time\.table"):
        reader(folder).scan()
