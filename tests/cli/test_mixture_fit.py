"""A phase on a mixture of two caps: the same weights whatever reads ahead, after a death, from any kind of batch."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cerebro.cli.main import main
from cerebro.data import EEGData
from cerebro.data.arrays import write_store
from cerebro.data.loader import BatchMaker
from cerebro.data.mixture import write_mixture
from cerebro.data.windows import WindowReader
from cerebro.montage import Montage, standard_1005

CAPS = {"wide": ("Fp1", "Fp2", "Cz", "Pz", "O1", "O2"), "narrow": ("Cz", "O1", "P3")}
TINY = {"class_path": "LaBraM", "init_args": {"conv_channels": 2, "depth": 1, "n_heads": 2, "mlp_ratio": 2.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mixture and a config that trains on it for two epochs of six batches."""
    folder = tmp_path_factory.mktemp("mixed")
    cap = standard_1005()
    stores = {}
    for name, channels in CAPS.items():
        people = [f"{name}{number}" for number in range(6)]
        draw = np.random.default_rng(len(name))
        stores[name] = write_store(
            folder / name,
            {who: draw.normal(0, 20, (len(channels), 1000)).astype("f4") for who in people},
            Montage(name, channels, cap.positions[[cap.channels.index(channel) for channel in channels]]),
            100.0,
            tasks=dict.fromkeys(people, "rest"),
            people={who: who for who in people},
            participants=pd.DataFrame({"age": np.arange(6.0)}, index=pd.Index(people, name="participant_id")),
            corpus=name,
            reference="average",
        ).path
    write_mixture(folder / "mixture", stores, {"wide": 0.7, "narrow": 0.3})
    objective = {"class_path": "Supervised", "init_args": {"target": "age", "readout": {"class_path": "LinearReadout"}}}
    content = {
        "model": {"name": "mixed", "encoder": TINY, "objective": objective},
        "data": {
            "store": str(folder / "mixture"),
            "windows": {"class_path": "RandomCrops", "init_args": {"duration_s": 2.0, "window_s": 4.0}},
            "split": {"val_ratio": 0.25},
            "targets": ["age"],
            "batch_size": 4,
            "batches_per_epoch": 6,
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "checkpoint_every_steps": 1,
        "mlflow": {"enabled": False},
    }
    (folder / "mixed.yaml").write_text(yaml.safe_dump(content))
    assert fit(folder, "clean") == 0
    return folder


def fit(folder, out, *argv):
    return main(["fit", "--config", str(folder / "mixed.yaml"), "--out", str(folder / out), *argv])


def weights(folder, out):
    return json.loads((folder / out / "run.json").read_text())["last_weights_sha256"]


@pytest.mark.parametrize("n_threads", [0, 2, 4])
def test_threads_that_read_ahead_change_no_weight(folder, n_threads):
    assert fit(folder, f"threads{n_threads}", "--data.prefetch_threads", str(n_threads)) == 0
    assert weights(folder, f"threads{n_threads}") == weights(folder, "clean")


def test_a_run_that_died_inside_an_epoch_goes_on_to_the_same_weights(folder, monkeypatch):
    make = BatchMaker.make

    def dying(maker, rows, key_epoch):
        if key_epoch == 9:  # the fourth batch of the second epoch
            raise OSError
        return make(maker, rows, key_epoch)

    monkeypatch.setattr(BatchMaker, "make", dying)
    with pytest.raises(OSError):
        fit(folder, "died", "--data.prefetch_threads", "0")
    monkeypatch.undo()
    kept = torch.load(folder / "died" / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["Keeper"]["position"] == {"epoch": 1, "step": 3}
    assert not (folder / "died" / "run.json").exists()
    assert fit(folder, "died", "--ckpt_path", str(folder / "died" / "last.ckpt")) == 0
    assert weights(folder, "died") == weights(folder, "clean")


def test_on_a_cpu_windows_come_as_microvolts_and_as_counts_they_train_the_same(folder, monkeypatch):
    def never(*_):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(WindowReader, "read", never)
        assert fit(folder, "microvolts") == 0
    monkeypatch.setattr(EEGData, "for_device", lambda *_: None)
    monkeypatch.setattr(WindowReader, "read_microvolts", never)
    assert fit(folder, "counts") == 0
    assert weights(folder, "microvolts") == weights(folder, "counts") == weights(folder, "clean")
