import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.cli.main import main
from cerebro.cli.prepare import read_config
from cerebro.data.arrays import write_store
from cerebro.data.readers import Exported
from cerebro.data.store import Store
from cerebro.montage import Montage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    eeg = {"a": np.random.default_rng(0).normal(0, 20, (2, 1000)).astype(np.float32)}
    montage = Montage("cap", ("A", "B"), np.eye(2, 3) * 0.1)
    people = pd.DataFrame({"age": [1.0]}, index=["p"])
    return write_store(tmp_path / "store", eeg, montage, 100.0, {"a": "rest"}, {"a": "p"}, people)


@pytest.mark.parametrize(("form", "compression"), [("zarr", "zstd"), ("hdf5", "gzip"), ("zarr", "none")])
def test_export_check_and_prepare_again(store, tmp_path, capsys, form, compression):
    out = tmp_path / "out"
    typed = ["export", str(store.path), "--format", form, "--out", str(out), "--compression", compression]
    assert main(typed) == 0
    said = capsys.readouterr()
    assert f"{out} is written" in said.out
    assert "1 recordings, 0.00 h of 1 participants" in said.out
    assert "class_path: Exported" in said.out
    assert said.err == ""
    assert main(typed) == 0
    assert "was there already, whole and of this store" in capsys.readouterr().out
    assert main(["check", str(out)]) == 0
    assert f"{out}: 0 errors" in capsys.readouterr().out
    config = tmp_path / "back.yaml"
    config.write_text("reader: {class_path: Exported, init_args: {path: out}}\nlsb_uV: 0.05\n")
    assert isinstance(read_config(config).reader, Exported)
    assert main(["prepare", str(config), "--out", str(tmp_path / "back")]) == 0
    assert Store.open(tmp_path / "back").data_hash == store.data_hash


@pytest.mark.parametrize(("form", "place"), [("zarr", "recordings/000000/eeg/c/0/0"), ("hdf5", "")])
def test_check_names_what_is_damaged_and_ends_with_1(store, tmp_path, capsys, form, place):
    out = tmp_path / "out"
    main(["export", str(store.path), "--format", form, "--out", str(out)])
    file = out / place if place else out
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    file.write_bytes(damaged)
    capsys.readouterr()
    assert main(["check", str(out)]) == 1
    said = capsys.readouterr().out
    assert "error    export" in said
    assert "recording a, recordings/000000/eeg" in said
    assert f"{out}: 1 errors" in said


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["model.ckpt", "--format", "zarr"], "the checkpoint of a phase as labram, vqnsp, braindecode"),
        (["STORE", "--format", "labram"], "a store goes out as zarr or hdf5"),
        (["model.ckpt", "--format", "labram"], "checkpoint model.ckpt not found"),
        (["model.ckpt", "--format", "labram", "--compression", "zstd"], "--compression zstd is for stores"),
        (
            ["STORE", "--format", "npz"],
            "format='npz' is unknown; set format to one of braindecode, hdf5, labram, mamba_ssm, package, vqnsp",
        ),
        (["STORE", "--format", "zarr", "--compression", "lz4"], "compression='lz4' is unknown"),
        (["STORE", "--format", "zarr", "--compression", "gzip"], "set --compression to none or zstd"),
        (["none", "--format", "zarr"], "was not found"),
        (["STORE"], "--format"),
    ],
)
def test_mistakes_are_one_line(store, tmp_path, capsys, typed, message):
    typed = [str(store.path) if word == "STORE" else word for word in typed]
    assert main(["export", *typed, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_config_that_names_no_export_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("reader: {class_path: Exported, init_args: {path: none}}\n")
    assert main(["prepare", str(tmp_path / "c.yaml"), "--plan"]) == 2
    error = capsys.readouterr().err
    assert "none was not found; `cerebro export STORE" in error
    assert error.count("\n") == 1


def test_an_unwritable_place_is_one_line(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["export", str(store.path), "--format", "zarr", "--out", str(tmp_path / "file" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    shutil.rmtree(store.path)
