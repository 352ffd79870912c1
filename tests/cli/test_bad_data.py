"""Bad recordings, tables and stores through the command line: one line each, and a build that goes on past them."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.manifest import FORMAT_VERSION, manifest_text
from cerebro.data.pieces import make_piece
from cerebro.data.store import Store
from cerebro.simulate.writers import write_set

CHANNELS = ("Fz", "Cz", "Pz")
PEOPLE = "abcdefghijkl"  # one bad recording of twelve is 8 %
CONFIG = {
    "reader": {
        "class_path": "Folder",
        "init_args": {
            "root": "recordings",
            "name": "mine",
            "participants": "people.csv",
            "participant_column": "who",
            "participant_from": "^(.)",
            "tasks": {".": "rest"},
            "pattern": "*.set",
        },
    },
    "preprocessing": {"sfreq": 50.0, "highpass_hz": 0.5, "lowpass_hz": 20.0},
    "max_failed_share": 0.05,
}


def eeg(person: str) -> np.ndarray:
    return (30 * np.random.default_rng(ord(person)).standard_normal((3, 500))).astype(np.float32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of twelve people, its config and its checksums, in the current folder."""
    for person in PEOPLE:
        write_set(tmp_path / "recordings" / f"{person}.set", eeg(person), CHANNELS, 100.0)
    (tmp_path / "people.csv").write_text("who,age\n" + "".join(f"{person},9\n" for person in PEOPLE))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.chdir(tmp_path)

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)
    return tmp_path


def with_nan(path: Path) -> None:
    """A file with one sample that is no number, which the writer would refuse."""
    content = path.read_bytes()
    sample = eeg("a")[1, 100].tobytes()
    assert content.count(sample) == 1
    path.write_bytes(content.replace(sample, np.float32(np.nan).tobytes()))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flat(path: Path) -> None:
    write_set(path, np.full((3, 500), 7.0, np.float32), CHANNELS, 100.0)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "recordings/a.set contradicts itself"),
    "text": (lambda path: path.write_text("hello"), "a.set is no MATLAB file"),
    "empty": (lambda path: path.write_bytes(b""), "a.set is empty"),
    "volts": (lambda path: write_set(path, eeg("a") * 1e-6, CHANNELS, 100.0), "look like volts or millivolts"),
    "nanovolts": (lambda path: write_set(path, eeg("a") * 1e3, CHANNELS, 100.0), "nanovolts or unscaled counts"),
    "NaN": (with_nan, "NaN or infinite samples in channel Cz"),
    "flat": (flat, "never change"),
    "unknown names": (lambda path: write_set(path, eeg("a"), ("X1", "X2", "X3"), 100.0), "no channel that montage"),
    "one electrode twice": (lambda path: write_set(path, eeg("a"), ("T3", "T7", "Cz"), 100.0), "all mean electrode T7"),
    "a low rate": (lambda path: write_set(path, eeg("a"), CHANNELS, 30.0), "30 Hz cannot hold the band"),
    "damaged number": (lambda path: write_set(path, huge(), CHANNELS, 100.0), "reaches 1e+09 microvolts in channel Fz"),
}


def huge() -> np.ndarray:
    signal = eeg("a")
    signal[0, 7] = 1e9
    return signal


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_is_one_line_of_the_report_and_the_build_goes_on(here, name, capsys):
    spoil, message = BAD[name]
    spoil(here / "recordings" / "a.set")
    assert main(["prepare", "config.yaml", "--out", "store"]) == 1  # 1 of 12 is more than 5 %
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if message in line]
    assert len(lines) == 1
    assert "recordings/a.set" in lines[0]
    said = [line for line in output.err.splitlines() if not line.endswith(" left")]
    assert said == []  # but for the lines of progress that a slow machine gets
    assert "8.3% of the recordings failed, more than max_failed_share=0.05" in output.out
    report = json.loads((here / "store/build_report.json").read_text())
    assert (report["read"], report["failed"]) == (11, 1)
    (here / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"max_failed_share": 0.1}))
    assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    store = Store.open(here / "store")
    assert len(store) == 11
    assert store.verify() == []


def test_names_that_channels_tsv_contradicts_are_counted(here, capsys):
    (here / "recordings/a_channels.tsv").write_text("name\nCz\nFz\nPz\n")
    (here / "recordings/b_channels.tsv").write_text("name\nFz\nCz\nOz\n")
    assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    output = capsys.readouterr().out
    assert "a: 2 names stand elsewhere than in a_channels.tsv" in output
    assert "b: in b_channels.tsv and not in the signal: Oz" in output


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("who,age\na,9\na,8\n", "lists a more than once, with another age each time"),
        ("who,age\na,9\n,8\n", "data row 2 names no participant"),
        ("who,age\na,nine\n", "column age should hold numbers or n/a"),
        ("who,age\na,9,7\n", "line 2 has 3 cells under a header of 2"),
        ("who,age,age\na,9,9\n", "has column age twice"),
        ("who,age\na,\x1a9\n", "line 2 holds the control character"),
        ("name,age\na,9\n", "has no column 'who'"),
        ("", "is empty"),
    ],
)
def test_a_bad_table_is_one_line_and_exit_2(here, table, message, capsys):
    (here / "people.csv").write_text(table)
    assert main(["prepare", "config.yaml", "--out", "store"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "people.csv" in error
    assert error.count("\n") == 1
    assert not (here / "store" / "manifest.json").exists()


def test_blank_and_missing_cells_are_missing_labels_and_never_numbers(here):
    (here / "people.csv").write_text("who,age\na,n/a\nb,\nc,9\n")
    assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    age = Store.open(here / "store").participants["age"]
    assert age.isna().sum() == len(PEOPLE) - 1
    assert age["c"] == 9


def test_a_recording_that_differs_from_its_checksum_is_named(here, capsys):
    assert main(["check", "config.yaml", "--freeze"]) == 0
    path = here / "recordings/a.set"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1  # no header knows
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["prepare", "config.yaml", "--out", "store"]) == 1
    output = capsys.readouterr().out
    assert "checksum-differs" in output
    assert "recordings/a.set differs from SHA256SUMS" in output
    assert "verified        11" in output


def test_a_newer_store_says_to_update_cerebro(here, capsys):
    assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    manifest = json.loads((here / "store/manifest.json").read_text())
    (here / "store/manifest.json").write_text(manifest_text(manifest | {"version": FORMAT_VERSION + 1}))
    capsys.readouterr()
    assert main(["check", "store"]) == 2
    error = capsys.readouterr().err
    assert "update cerebro" in error
    assert error.count("\n") == 1


def test_a_damaged_store_is_one_line_and_mended_by_building_again(here, capsys, caplog):
    assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    before = Store.open(here / "store").data_hash
    table = here / "store/recordings.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    capsys.readouterr()
    assert main(["check", "store"]) == 2
    error = capsys.readouterr().err
    assert "recordings.parquet" in error
    assert error.count("\n") == 1
    with caplog.at_level(logging.WARNING):
        assert main(["prepare", "config.yaml", "--out", "store"]) == 0
    assert len(caplog.messages) == 1
    assert "It is made anew from its sources." in caplog.messages[0]
    assert Store.open(here / "store").data_hash == before
