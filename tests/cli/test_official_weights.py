"""From an official file to a trained phase and back, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.files import sha256_file
from cerebro.montage import Montage, hbn_129, standard_1005
from cerebro.training.checkpoint import read_checkpoint
from cerebro.training.foreign import read_source

ENCODER = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 2, "n_heads": 10}
CONFIG = {
    "model": {
        "name": "age",
        "encoder": {"class_path": "LaBraM", "init_args": ENCODER},
        "objective": {"class_path": "Supervised", "init_args": {"target": "age"}},
        "optim": {"warmup_epochs": 0},
    },
    "data": {
        "store": "store",
        "windows": {"class_path": "SlidingWindows", "init_args": {"duration_s": 2.0, "stride_s": 2.0}},
        "split": {"val_ratio": 0.3, "seed": 0},
        "targets": ["age"],
        "batch_size": 4,
    },
    "trainer": {"max_epochs": 1},
    "mlflow": {"enabled": False},
}
CONFIG["model"]["objective"]["init_args"]["readout"] = {"class_path": "LinearReadout"}  # type: ignore[index]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(folder: Path, montage: Montage, n_channels: int, sfreq: float = 200.0) -> None:
    """A store of six people and a config beside it."""
    rng = np.random.default_rng(0)
    people = [f"p{number}" for number in range(6)]
    cap = Montage(montage.name, montage.channels[:n_channels], montage.positions[:n_channels])
    write_store(
        folder / "store",
        {name: rng.normal(0, 30, (n_channels, int(4 * sfreq))).astype(np.float32) for name in people},
        cap,
        sfreq,
        dict.fromkeys(people, "rest"),
        {name: name for name in people},
        pd.DataFrame({"age": rng.normal(size=6)}, people).rename_axis("participant_id"),
    )
    (folder / "phase.yaml").write_text(yaml.safe_dump(CONFIG))


def refused(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert main(list(typed)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_phase_starts_from_the_official_file_and_its_encoder_goes_back(
    folder: Path, official_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cap = standard_1005()
    names = ("Fp1", "F3", "C3", "T7", "O2")
    chosen = [cap.channels.index(name) for name in names]
    prepare(folder, Montage("five", names, cap.positions[chosen]), 5)
    official = official_file(folder, "mem")
    assert main(["fit", "--config", "phase.yaml", "--ckpt_path", "mem.pth"]) == 0
    said = capsys.readouterr().out
    assert "hand-over from mem.pth (phase official LaBraM, pretraining): encoder -> encoder" in said
    assert "channel rows: 5 of 5 channels by name" in said
    assert "who took part in training mem.pth is unknown" in said
    record = json.loads((folder / "outputs/age/run.json").read_text())
    assert record["inputs"] == {"mem.pth": sha256_file(official)}
    assert "input scale: microvolt / 100, applied inside LaBraM" in record["transfers"][0]["notes"]
    assert main(["fit", "--config", "phase.yaml", "--ckpt_path", "mem.pth"]) == 0
    assert "finished; nothing to do" in capsys.readouterr().out

    best = "outputs/age/best.ckpt"
    typed = ["export", best, "--format", "labram", "--out", "exports/tuned.pth"]
    assert main(typed) == 0
    said = capsys.readouterr().out
    assert "exports/tuned.pth is written" in said
    assert "official LaBraM, fine-tuned" in said
    assert "not in this format: encoder.mask_token 1, objective.target_mean 1, objective.target_sd 1" in said
    assert main(typed) == 0
    assert "was there already, with the same weights" in capsys.readouterr().out
    ours, back = read_checkpoint(Path(best)).weights, read_source(Path("exports/tuned.pth")).weights
    name = "encoder.transformer.blocks.1.fc2.weight"
    assert torch.equal(ours[name], back[name])
    assert main(["fit", "--config", "phase.yaml", "--ckpt_path", "exports/tuned.pth", "--out", "again"]) == 0
    capsys.readouterr()
    assert "no VQNSP" in refused(capsys, "export", best, "--format", "vqnsp", "--out", "a.pth")


def test_hbn_starts_from_the_nearest_rows_when_the_config_says_so(
    folder: Path, official_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(folder, hbn_129(), 8)
    official_file(folder, "mem")
    assert "rows: nearest" in refused(capsys, "fit", "--config", "phase.yaml", "--ckpt_path", "mem.pth")
    config = CONFIG | {"model": CONFIG["model"] | {"init": [{"source": "mem.pth", "rows": "nearest"}]}}
    (folder / "phase.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "phase.yaml"]) == 0
    said = capsys.readouterr().out
    assert "channel rows: 8 of 8 channels by position" in said
    assert "E3 <- AF4 13.3 mm" in said
    best = "outputs/age/best.ckpt"
    assert "8 of 8 channels are not among" in refused(capsys, "export", best, "--format", "labram", "--out", "a.pth")


def test_a_store_at_another_rate_is_refused(
    folder: Path, official_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(folder, hbn_129(), 8, sfreq=100.0)
    official_file(folder, "mem")
    line = refused(capsys, "fit", "--config", "phase.yaml", "--ckpt_path", "mem.pth")
    assert "set preprocessing.sfreq: 200" in line
