"""From a file of braindecode's Signal-JEPA to a trained phase of other channels, and back, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.montage import Montage, hbn_129
from cerebro.training.checkpoint import read_checkpoint

CONFIG: dict[str, Any] = {
    "model": {
        "name": "age",
        "encoder": {"class_path": "SignalJEPA"},
        "objective": {
            "class_path": "Supervised",
            "init_args": {"target": "age", "readout": {"class_path": "LinearReadout"}},
        },
        "optim": {"warmup_epochs": 0},
    },
    "data": {
        "store": "store",
        "windows": {"class_path": "SlidingWindows", "init_args": {"duration_s": 2.0, "stride_s": 2.0}},
        "split": {"val_ratio": 0.3, "seed": 0},
        "targets": ["age"],
        "batch_size": 4,
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "mlflow": {"enabled": False},
}
FIT = ("fit", "--config", "phase.yaml")
ONE_PART = ("--model.encoder.init_args.depth", "0", "--model.transfer", "feature_encoder")


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_jepa_state: Callable[[str], dict[str, Tensor]]
) -> Path:
    """A store of six people and five electrodes, a config, and a file of braindecode with rows of eight channels."""
    monkeypatch.chdir(tmp_path)
    rng, cap = np.random.default_rng(0), hbn_129()
    people = [f"p{number}" for number in range(6)]
    write_store(
        tmp_path / "store",
        {name: rng.normal(0, 30, (5, 400)).astype(np.float32) for name in people},
        Montage(cap.name, cap.channels[:5], cap.positions[:5]),
        100.0,
        dict.fromkeys(people, "rest"),
        {name: name for name in people},
        pd.DataFrame({"age": rng.normal(size=6)}, people).rename_axis("participant_id"),
    )
    Path("phase.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.save(signal_jepa_state("base"), "base.pt")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    capsys.readouterr()
    assert main(list(typed)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_an_encoder_comes_in_by_a_rule_and_goes_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "rows: initial}]" in refused(capsys, *FIT, "--ckpt_path", "base.pt")
    init = json.dumps([{"source": "base.pt", "rows": "initial"}])
    assert main([*FIT, "--model.init", init, "--model.freeze_encoder", "true"]) == 0
    said = capsys.readouterr().out
    assert "channel rows: all start anew, as rows: initial says" in said
    assert "pos_encoder       0 moved   1 new   1 unused" in said
    assert "warning: frozen at random weights: pos_encoder 1 tensors" in said
    assert "who took part in training base.pt is unknown" in said
    record = json.loads((folder / "outputs/age/run.json").read_text())
    assert record["freeze"]["unchanged"] is True
    best, theirs = read_checkpoint(Path("outputs/age/best.ckpt")).weights, torch.load("base.pt")
    name = "transformer.encoder.layers.3.linear1.weight"
    assert torch.equal(best[f"encoder.{name}"], theirs[name])
    typed = ["export", "outputs/age/best.ckpt", "--format", "braindecode", "--out", "back.pt"]
    assert main(typed) == 0
    said = capsys.readouterr().out
    assert "180 tensors in the layout of braindecode SignalJEPA" in said
    assert "not in this format: objective.readout" in said
    assert torch.equal(torch.load("back.pt")[name], theirs[name])


def test_one_part_or_nothing_moves_as_a_key_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *FIT, "--ckpt_path", "base.pt", *ONE_PART[:2])
    assert "pos_encoder 1, transformer 98 tensors" in line
    assert "set model.transfer: feature_encoder" in line
    assert main([*FIT, "--ckpt_path", "base.pt", *ONE_PART, "--out", "part"]) == 0
    assert "encoder -> encoder, 7 tensors with 13,840 numbers moved" in capsys.readouterr().out
    assert main([*FIT, "--ckpt_path", "base.pt", *ONE_PART[:2], "--model.transfer", "none", "--out", "none"]) == 0
    assert "transfer: none: base.pt is not used" in capsys.readouterr().out
    assert json.loads(Path("none/run.json").read_text())["transfers"] == []
    assert "is no part of SignalJEPA" in refused(capsys, *FIT, "--model.transfer", "stem")
