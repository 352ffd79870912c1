"""A study with baselines on features from a shell: they stand in the table, and the probes pass them over."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.montage import Montage

N_PEOPLE, N_WINDOWS, LENGTH = 48, 4, 64


def write(folder: Path) -> None:
    """People whose features tell their label, and whose signals do not."""
    draw = np.random.default_rng(0)
    people = {f"P{number:02}_run-1": f"P{number:02}" for number in range(N_PEOPLE)}
    label = np.arange(N_PEOPLE) % 2
    windows = tuple(Segment(number, 0, 1.0 * number, 1.0 * number + 1, LENGTH) for number in range(N_WINDOWS))
    write_store(
        folder / "store",
        {key: draw.normal(0, 10, (2, LENGTH * N_WINDOWS)).astype("f4") for key in people},
        Montage("two", ("AF7", "AF8"), np.eye(2, 3) * 0.09),
        64.0,
        tasks=dict.fromkeys(people, "rest"),
        people=people,
        participants=pd.DataFrame(
            {"remission": label.astype(float)}, index=pd.Index(people.values(), name="participant_id")
        ),
        segments=dict.fromkeys(people, windows),
        corpus="clinic",
    )
    rows = [(name, 1, n, 0, 1.0 * n, 1.0 * n + 1) for name in people.values() for n in range(N_WINDOWS)]
    ids = ("Participant", "run", "parent_window_id", "sub_window_id", "window_start", "window_end")
    table = pd.DataFrame(rows, columns=list(ids))
    table["AF7_alpha_power"] = np.exp(2 * np.repeat(label, N_WINDOWS) + draw.normal(0, 0.5, len(rows)))
    table.to_parquet(folder / "features.parquet")
    config = {
        "model": {
            "name": "finetune",
            "encoder": {
                "class_path": "Mamba2",
                "init_args": {"patch_samples": LENGTH, "d_model": 32, "n_layers": 1, "d_state": 16, "headdim": 8},
            },
            "objective": {
                "class_path": "Supervised",
                "init_args": {"target": "remission", "kind": "classification", "n_classes": 2,
                              "readout": {"class_path": "LinearReadout"}},
            },
        },
        "data": {
            "store": "store",
            "windows": {"class_path": "ChannelSequences"},
            "split": {"val_ratio": 0.2},
            "targets": ["remission"],
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    (folder / "finetune.yaml").write_text(yaml.safe_dump(config))
    recipe = {
        "name": "clinic",
        "folds": 2,
        "phases": {"finetune": {"config": "finetune.yaml"}},
        "probes": {"finetune": {"targets": ["remission"], "by": "recording"}},
        "baselines": ["constant", "features_logistic", "features_boosting"],
        "features": "features.parquet",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.slow
def test_baselines_on_features_stand_beside_the_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert main(["run", "recipe.yaml", "--out", "study"]) == 0
    out, err = capsys.readouterr()
    assert "features_boosting of remission: 2 features of" in err
    assert "full over features_logistic, remission" in out
    results = json.loads(Path("study/results.json").read_text())
    for name in ("features_logistic", "features_boosting"):
        entry = results["baselines"][name]["remission"]
        assert entry["balanced_accuracy"]["mean"] > 0.9
        assert entry["n_participants"] == N_PEOPLE
        assert entry["n_windows"] == 2 * N_PEOPLE  # a row for each channel, as of the network
        assert "probe/remission" not in results["baselines"][name]
    assert "probe/remission" in results["baselines"]["constant"]
    assert "features logistic" in Path("study/report.html").read_text()
    assert main(["run", "recipe.yaml", "--out", "study"]) == 0
    assert "baselines of" not in capsys.readouterr().err
    Path("features.parquet").unlink()
    assert main(["report", "study"]) == 0  # the page needs no features
