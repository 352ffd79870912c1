"""From a file of mamba-ssm to a trained phase, and back, as a user types it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.montage import Montage, hbn_129
from cerebro.nn.mamba2 import Mamba2Stack

CONFIG: dict[str, Any] = {
    "model": {
        "name": "age",
        "encoder": {
            "class_path": "Mamba2",
            "init_args": {"patch_samples": 50, "d_model": 16, "n_layers": 2, "d_state": 8, "headdim": 8},
        },
        "objective": {
            "class_path": "Supervised",
            "init_args": {"target": "age", "readout": {"class_path": "LinearReadout"}},
        },
        "optim": {"warmup_epochs": 0},
        "freeze_encoder": True,
        "init": [{"source": "layers.pt"}],
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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of six people and five electrodes, a config, and a file with two layers in mamba-ssm's names."""
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
    torch.save(Mamba2Stack(16, 2, d_state=8, headdim=8).state_dict(), "layers.pt")
    return tmp_path


def test_layers_come_in_are_frozen_and_go_back_to_the_bit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "phase.yaml"]) == 0
    said = capsys.readouterr().out
    assert "taken as one (ngroups 1)" in said
    assert "warning: frozen at random weights: input_proj 2, codes 3 tensors" in said
    assert "who took part in training layers.pt is unknown" in said
    assert json.loads((folder / "outputs/age/run.json").read_text())["freeze"]["unchanged"] is True
    assert main(["export", "outputs/age/best.ckpt", "--format", "mamba_ssm", "--out", "back.pt"]) == 0
    assert "19 tensors in the layout of mamba-ssm Mamba2" in capsys.readouterr().out
    there, back = torch.load("layers.pt"), torch.load("back.pt")
    assert there.keys() == back.keys()
    assert all(torch.equal(back[name], value) for name, value in there.items())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--model.encoder.init_args.d_state", "16"), "d_state 8 there, d_state 16 here"),
        (
            ("--model.encoder.init_args.patch_samples", "64"),
            "patch_samples=64 of Mamba2 does not divide the 200 samples",
        ),
        (("--model.encoder.init_args.headdim", "5"), "headdim=5 does not divide the inner width 32"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_two(
    folder: Path, capsys: pytest.CaptureFixture[str], typed: tuple[str, str], said: str
) -> None:
    assert main(["fit", "--config", "phase.yaml", *typed]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
