"""Bad Parquet windows through `cerebro prepare` and `cerebro fit`: one line each, counted, and the others go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.pieces import make_piece
from cerebro.data.sequences import ChannelSequences
from cerebro.data.store import Store

LENGTH, SFREQ = 100, 100.0
CHANNELS = ("AF7", "AF8", "TP9", "TP10")
PEOPLE = "abcdefghijkl"  # one bad file of twelve is 8 %
CONFIG = {
    "reader": {
        "class_path": "ParquetWindows",
        "init_args": {"root": "windows", "name": "win", "sfreq": SFREQ, "window_length": LENGTH},
    },
    "preprocessing": {"sfreq": SFREQ, "highpass_hz": 0.5, "lowpass_hz": 45.0},
    "max_failed_share": 0.05,
}
ENCODER = Path(__file__).parents[2] / "configs" / "encoders" / "labram_tiny.yaml"
Rows = list[dict[str, Any]]


def rows_of(person: str, n_windows: int = 5) -> Rows:
    """Windows of one run, each channel with a scale of its own."""
    rng = np.random.default_rng(ord(person))
    rows = []
    for window in range(n_windows):
        where = {"participant": person, "run": 1, "Remission": PEOPLE.index(person) % 2}
        when = {"parent_window_id": window, "sub_window_id": 0, "window_start": 1.0 * window}
        samples = {name: rng.normal(0, 20 + 5 * k, LENGTH).astype(np.float32) for k, name in enumerate(CHANNELS)}
        rows.append(where | when | {"window_end": 1.0 * window + 1.0} | samples)
    return rows


def write(person: str, rows: Rows | pd.DataFrame) -> None:
    Path("windows").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), f"windows/{person}.parquet", write_page_checksum=True)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of twelve people and their config in the current folder."""
    monkeypatch.chdir(tmp_path)
    for person in PEOPLE:
        write(person, rows_of(person))
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)


def prepare() -> int:
    return main(["prepare", "config.yaml", "--out", "store"])


def fit() -> int:
    """Train a small model on sequences for an epoch."""
    phase = {
        "model": {
            "name": "short",
            "encoder": yaml.safe_load(ENCODER.read_text()),
            "objective": {
                "class_path": "Supervised",
                "init_args": {
                    "target": "remission",
                    "kind": "classification",
                    "n_classes": 2,
                    "readout": {"class_path": "LinearReadout"},
                },
            },
        },
        "data": {
            "store": "store",
            "windows": {"class_path": "ChannelSequences"},
            "split": {"val_ratio": 0.25, "test_ratio": 0.25, "seed": 0},
            "targets": ["remission"],
            "batch_size": 8,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "mlflow": {"enabled": False},
    }
    Path("phase.yaml").write_text(yaml.safe_dump(phase))
    return main(["fit", "--config", "phase.yaml"])


def sequence(store: Store, person: str, channel: int) -> np.ndarray:
    """Microvolts of a channel as the store keeps it."""
    number = store.recordings["participant"].tolist().index(person)
    return store.samples(number)[:, channel] * store.lsb_uV


def nan_window(rows: Rows) -> Rows:
    rows[2]["AF8"] = np.full(LENGTH, np.nan, np.float32)
    return rows


def nan_sample(rows: Rows) -> Rows:
    rows[2]["AF8"][7] = np.nan
    return rows


BAD: dict[str, tuple[Callable[[Rows], Rows | pd.DataFrame], str]] = {
    "a window twice": (lambda rows: [*rows, rows[1]], "window 1/0 (parent/sub) of a_run-1 more than once (1 rows too"),
    "an empty window": (lambda rows: [*rows[:4], rows[4] | {"TP9": []}], "window 4/0: channel TP9 has no samples"),
    "no window": (lambda rows: pd.DataFrame(rows)[:0], "holds no window; take it out"),
    "a window of NaN": (nan_window, "window 2/0: channel AF8 has missing"),
    "one NaN": (nan_sample, "window 2/0: channel AF8 has missing"),
    "ragged channels": (
        lambda rows: [rows[0] | {"TP10": rows[0]["TP10"][:-1]}, *rows[1:]],
        "window 0/0: channel TP10 has another number of samples",
    ),
    "other columns": (
        lambda rows: pd.DataFrame(rows).rename(columns={"participant": "subject", "parent_window_id": "window"}),
        "windows need participant, run, parent_window_id, sub_window_id, window_start, window_end",
    ),
    "other channels": (
        lambda rows: pd.DataFrame(rows).rename(columns={"AF7": "left"}),
        "has a channel left that montage 10-05 does not know",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_of_the_report_and_the_others_go_on(name, capsys):
    spoil, message = BAD[name]
    write("a", spoil(rows_of("a")))
    assert prepare() == 1  # 1 of 12 is more than 5 %
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if message in line]
    assert len({line.split(": ", 1)[-1] for line in lines}) == 1
    assert "a.parquet" in lines[0]
    said = [line for line in output.err.splitlines() if not line.endswith(" left")]
    assert said == []  # but for the lines of progress that a slow machine gets
    report = json.loads(Path("store/build_report.json").read_text())
    assert (report["read"], report["failed"]) == (11, 1)
    assert len(ChannelSequences().table(Store.open(Path("store")))[0]) == 11 * 4


def test_windows_out_of_order_are_sorted_and_counted(capsys):
    write("a", [rows_of("a")[window] for window in (3, 0, 4, 2, 1)])
    assert prepare() == 0
    assert "a_run-1: 5 of 5 windows stood out of order; sorted by parent, then sub-window" in capsys.readouterr().out
    expected = np.concatenate([row["AF7"] for row in rows_of("a")])
    np.testing.assert_allclose(sequence(Store.open(Path("store")), "a", 0), expected - expected.mean(), atol=0.026)


def test_windows_of_another_length_are_padded_or_cut_and_counted(capsys):
    rows = rows_of("a")
    rows[4] |= {name: rows[4][name][:60] for name in CHANNELS}
    rows[1] |= {name: np.append(rows[1][name], np.float32(9e4)) for name in CHANNELS}
    write("a", rows)
    assert prepare() == 0
    output = capsys.readouterr().out
    assert "a_run-1: 1 of 5 windows do not have 100 samples" in output
    assert {line.split()[1] for line in output.splitlines() if line.startswith("  repaired")} >= {
        "window-padded",
        "window-cut",
    }
    store = Store.open(Path("store"))
    assert not sequence(store, "a", 0)[460:].any()
    table, _ = ChannelSequences().table(store)
    assert table.n_valid[:4].tolist() == [460] * 4
    there = np.concatenate([row["AF7"][:LENGTH] for row in rows]).astype(np.float64)
    assert table.deviation_uV[0] == pytest.approx(there.std(), rel=1e-3)


def test_files_of_other_channels_are_kept_with_their_own_and_counted(capsys):
    write("a", pd.DataFrame(rows_of("a")).drop(columns="AF8"))
    assert prepare() == 0
    assert "a.parquet: has no AF8, unlike 11 of 12 files; kept with its own" in capsys.readouterr().out
    store = Store.open(Path("store"))
    table, _ = ChannelSequences().table(store)
    assert np.bincount(table.recording[:]).tolist() == [3] + [4] * 11


@pytest.mark.parametrize("n_windows", [1, 5])
def test_training_takes_sequences_of_one_window_beside_longer_ones(n_windows, capsys):
    for person in PEOPLE[:6]:
        write(person, rows_of(person, n_windows=1))
    for person in PEOPLE[6:]:
        write(person, rows_of(person, n_windows))
    assert prepare() == 0
    capsys.readouterr()
    assert fit() == 0
    assert main(["test", "--config", "outputs/short/config.yaml"]) == 0
    assert "constant predictor" in capsys.readouterr().out


def test_training_on_windows_that_overlap_says_so_once(capsys, caplog):
    for person in PEOPLE:
        rows = rows_of(person)
        for window, row in enumerate(rows):
            row.update(window_start=0.5 * window, window_end=0.5 * window + 1.0)
        write(person, rows)
    assert prepare() == 0
    capsys.readouterr()
    assert fit() == 0
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err + caplog.text).splitlines() if "overlap their neighbours" in line]
    assert len(lines) == 1
    assert "windows of 12 recordings overlap their neighbours by up to 50%: hidden windows can be read off" in lines[0]
