"""A model of HBN's net reads recordings of 21 electrodes through the learned adapter, by config alone."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.channels import SUBSETS
from cerebro.data.loader import BatchMaker
from cerebro.montage import Montage, hbn_129, standard_1005
from cerebro.training.checkpoint import read_checkpoint

TINY = {"class_path": "LaBraM", "init_args": {"conv_channels": 2, "depth": 1, "n_heads": 2, "mlp_ratio": 2.0}}
ADAPTED = {
    "class_path": "AdaptedEncoder",
    "init_args": {"target": "cerebro.montage.hbn_129", "width": 16, "encoder": TINY},
}
READOUT = {"class_path": "LinearReadout"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of both caps, of different people, and a config each."""
    folder = tmp_path_factory.mktemp("adapted")
    cap, names = standard_1005(), SUBSETS["10-20-21"]
    ears = Montage("10-20", names, cap.positions[[cap.channels.index(name) for name in names]])
    for name, montage, encoder in (("net", hbn_129(), TINY), ("cap", ears, ADAPTED)):
        people = [f"{name}{i}" for i in range(8)]
        draw = np.random.default_rng(1)
        write_store(
            folder / name,
            {who: draw.normal(0, 20, (len(montage.channels), 800)).astype("f4") for who in people},
            montage,
            100.0,
            tasks=dict.fromkeys(people, "rest"),
            people={who: who for who in people},
            participants=pd.DataFrame({"age": np.arange(8.0)}, index=pd.Index(people, name="participant_id")),
            corpus=name,
        )
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config(folder, name, encoder)))
    return folder


def config(folder, name, encoder):
    objective = {"class_path": "Supervised", "init_args": {"target": "age", "readout": READOUT}}
    data = {"store": str(folder / name), "windows": {"class_path": "SlidingWindows"}, "targets": ["age"]}
    data |= {"split": {"val_ratio": 0.25}, "batch_size": 4, "batches_per_epoch": 3}
    return {
        "model": {"name": name, "encoder": encoder, "objective": objective},
        "data": data,
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "mlflow": {"enabled": False},
        "out": str(folder / "outputs" / name),
    }


def fit(folder, name, *argv):
    return main(["fit", "--config", str(folder / f"{name}.yaml"), *argv])


def test_an_encoder_of_the_net_moves_behind_the_adapter_and_is_trained_on_21_electrodes(folder, capsys):
    assert fit(folder, "net") == 0
    source = folder / "outputs" / "net" / "best.ckpt"
    init = f"[{{source: {source}, into: encoder.encoder}}]"
    code = fit(folder, "cap", "--model.init", init)
    text = capsys.readouterr()
    assert code == 0, text.err
    handed, trained = (read_checkpoint(folder / "outputs" / name / "best.ckpt").weights for name in ("net", "cap"))
    rows = trained["encoder.encoder.transformer.channel_embedding"].shape
    assert rows == handed["encoder.transformer.channel_embedding"].shape  # one per electrode of the net
    assert "encoder.adapter.mixer" in trained
    assert "encoder.adapter" in text.out  # what is new in this phase


def test_an_encoder_of_another_cap_is_not_taken_over(folder, capsys):
    content = config(folder, "cap", TINY)
    content["model"]["name"] = "plain"
    content["out"] = str(folder / "outputs" / "plain")
    (folder / "plain.yaml").write_text(yaml.safe_dump(content))
    assert fit(folder, "plain") == 0
    source = folder / "outputs" / "plain" / "best.ckpt"
    out = str(folder / "outputs" / "refused")
    init = f"[{{source: {source}, into: encoder.encoder}}]"
    assert fit(folder, "cap", "--model.init", init, "--out", out, "--allow_seen_participants", "true") == 2
    assert "trained on other channels: 21 there, 129 here (first difference: " in capsys.readouterr().err


def test_objectives_that_rebuild_the_recordings_channels_refuse_an_adapted_encoder(folder, capsys):
    vqnsp = "{class_path: VQNSP, init_args: {n_codes: 8, code_dim: 4, decoder_depth: 1}}"
    code = fit(folder, "cap", "--model.objective", vqnsp, "--out", str(folder / "outputs" / "vqnsp"))
    line = capsys.readouterr().err
    assert code == 2
    assert "VQNSP compares every channel of a recording (21)" in line


def test_a_run_with_the_adapter_that_died_goes_on_to_the_same_weights(folder, monkeypatch):
    argv = ["--checkpoint_every_steps", "1", "--model.name", "again"]
    assert fit(folder, "cap", *argv, "--out", str(folder / "whole")) == 0
    make, out, last = BatchMaker.make, ["--out", str(folder / "died")], folder / "died" / "last.ckpt"

    def dying(maker, rows, key_epoch):
        if last.exists():
            raise OSError
        return make(maker, rows, key_epoch)

    monkeypatch.setattr(BatchMaker, "make", dying)
    with pytest.raises(OSError):
        fit(folder, "cap", *argv, *out, "--data.prefetch_threads", "0")
    monkeypatch.undo()
    assert read_checkpoint(last).content["callbacks"]["Keeper"]["position"] == {"epoch": 0, "step": 1}
    assert fit(folder, "cap", *argv, *out, "--ckpt_path", str(last)) == 0
    whole, resumed = (read_checkpoint(folder / name / "last.ckpt").weights for name in ("whole", "died"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any("adapter" in name for name in whole)
