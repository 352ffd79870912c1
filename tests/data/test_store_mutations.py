"""Damage to what cerebro itself writes: a store, file by file, and what an interrupted build leaves behind."""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.cli.main import main
from cerebro.data import build as building
from cerebro.data import seal as sealing
from cerebro.data.build import build
from cerebro.data.pieces import make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.montage import Montage

PLAN = Preprocessing(sfreq=50.0, lowpass_hz=20.0)
N_FLIPS, N_MANY = 3, 500


class Noise(Reader):
    """Three people; the second recording was repaired, a fourth is skipped."""

    corpus = "noise"

    def __init__(self, root: Path) -> None:
        self.root = root

    def montage(self) -> Montage:
        return Montage("cap", ("A", "B", "C"), np.eye(3) * 0.1)

    def scan(self, require_signals: bool = True) -> Scan:
        entries = [
            Entry(path.stem, path.stem, "rest", path, events=(Event(1.0, "start"), Event(2.5, "stop")))
            for path in sorted(self.root.glob("*.npy"))
        ]
        people = pd.DataFrame({"age": [9.0, np.nan, 11.5]}, index=[entry.participant for entry in entries])
        return Scan(entries, [Finding("unlisted", "skipped", "sub9", "not there")], people)

    def load(self, entry: Entry) -> Recording:
        findings = [Finding("no-electrode", "repaired", entry.key, "ECG dropped")] if entry.key == "sub1" else []
        return Recording(np.load(entry.path), ("A", "B", "C"), 100.0, "Cz", findings)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Noise:
    root = tmp_path_factory.mktemp("source")
    for number in range(3):
        noise = 20 * np.random.default_rng(number).standard_normal((3, 1000 + 100 * number))
        np.save(root / f"sub{number}.npy", noise.astype(np.float32))
    return Noise(root)


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of builds, and nothing here pulls the plug


@pytest.fixture(scope="module")
def whole(reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    build(reader, PLAN, store)
    return store


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files_of(folder)}


def flip(path: Path, draw: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
    path.write_bytes(data)


def use_everything(path: Path) -> None:
    """Open a store and look at every sample and table."""
    store = Store.open(path)
    for row in range(len(store)):
        store.samples(row)
        store.offsets_uV(row)
    for name in ("recordings", "events", "participants", "findings"):
        getattr(store, name)


def check_flips(whole: Path, out: Path, n: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Flip one bit of one file at a time; `cerebro check` names the file, and so does using the store."""
    shutil.copytree(whole, out)
    draw = np.random.default_rng(0)
    for name in files_of(whole):
        for _ in range(n):
            flip(out / name, draw)
            assert main(["check", str(out)]) in (1, 2)
            output = capsys.readouterr()
            assert name in output.out + output.err
            assert output.err.count("\n") <= 1
            is_padding = name.endswith(".i16") and flipped_is_padding(whole, out, name)
            if not is_padding and name != "build_report.json":
                with pytest.raises(DataError, match=rf"^[^\n]*{re.escape(shown(name))}[^\n]*$"):
                    use_everything(out)
            shutil.copy(whole / name, out / name)
    assert main(["check", str(out)]) == 0


def shown(name: str) -> str:
    """File that a message names: the checksums of the pages show as a page that differs from them."""
    return "shards/" if name.startswith("crc32c") else name


def flipped_is_padding(whole: Path, out: Path, name: str) -> bool:
    """Whether no sample is concerned (recordings begin at whole pages)."""
    store = Store.open(whole)
    a, b = np.fromfile(whole / name, np.int16), np.fromfile(out / name, np.int16)
    (at,) = np.flatnonzero(a != b)
    return not any(
        row["offset"] // 2048 * 2048 <= at < -(-(row["offset"] + row["n_times"] * row["n_channels"]) // 2048) * 2048
        for row in store.index
    )


def test_one_flipped_bit_in_any_file_of_a_store_is_found_by_check_and_by_use(whole, tmp_path, capsys):
    check_flips(whole, tmp_path / "store", N_FLIPS, capsys)


@pytest.mark.slow
def test_500_flipped_bits_of_a_store_are_found(whole, tmp_path, capsys):
    check_flips(whole, tmp_path / "store", -(-N_MANY // len(files_of(whole))), capsys)


def interrupted(reader: Noise, out: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Build until the pieces are staged, the shards are packed, or the store waits for its move."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "staged":
            patch.setattr(building, "seal", stop)
        else:
            patch.setattr(sealing, {"packed": "_write_tables", "sealed": "recover"}[where], stop)
        with pytest.raises(KeyboardInterrupt):
            build(reader, PLAN, out)


def check_staging(reader: Noise, whole: Path, folder: Path, where: str, n: int, monkeypatch) -> int:
    """Damage one file of an interrupted build at a time; the next build gives the same store all the same."""
    began = folder / "began"
    interrupted(reader, began, monkeypatch, where)
    names = [name for name in files_of(began) if not name.startswith(".")]
    draw, n_done = np.random.default_rng(0), 0
    for name in names:
        for attempt in range(n):
            out = folder / "out"
            shutil.copytree(began, out)
            if attempt % 3 < 2:
                flip(out / name, draw)
            else:
                with open(out / name, "r+b") as file:
                    file.truncate(int(draw.integers(os.path.getsize(out / name))))
            build(reader, PLAN, out)
            is_sample = where == "sealed" and name.endswith(".i16")  # a store at rest: found when touched
            assert (content(out) == content(whole)) != (is_sample and Store.open(out).verify() != []), name
            shutil.rmtree(out)
            n_done += 1
    return n_done


@pytest.mark.parametrize("where", ["staged", "packed", "sealed"])
def test_damage_to_an_interrupted_build_never_reaches_the_store(reader, whole, tmp_path, monkeypatch, where):
    assert check_staging(reader, whole, tmp_path, where, 1, monkeypatch) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("where", ["staged", "packed", "sealed"])
def test_many_damages_to_an_interrupted_build(reader, whole, tmp_path, monkeypatch, where):
    assert check_staging(reader, whole, tmp_path, where, 9, monkeypatch) >= 40


def test_damaged_staged_pieces_are_made_again_and_counted_in_one_line(reader, tmp_path, monkeypatch, caplog):
    out = tmp_path / "store"
    interrupted(reader, out, monkeypatch, "staged")
    records = sorted((out / "staging").glob("*.json"))
    records[0].write_text(records[0].read_text().replace('"clipped": 0', '"clipped": 7'))
    flip(records[1].with_suffix(".i16"), np.random.default_rng(0))
    with caplog.at_level(logging.WARNING):
        report = build(reader, PLAN, out)
    assert report.read == 3
    (line,) = caplog.messages
    assert line.startswith("2 of the recordings that an earlier run had staged are damaged")
    assert "\n" not in line
