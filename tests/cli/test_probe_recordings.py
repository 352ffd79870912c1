"""A study that pretrains on sequences of single channels and probes recordings, through ``cerebro run``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.montage import Montage

SFREQ, LENGTH, N_PEOPLE = 64.0, 64, 24
CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.1], [0.0, -0.06, 0.08]]))
ENCODER = {"class_path": "Mamba2", "init_args": {"patch_samples": LENGTH, "d_model": 32, "n_layers": 2, "d_state": 16}}
ENCODER["init_args"] |= {"headdim": 8, "direction": "bidirectional"}
TARGETS = ["speed", "session", "participant"]


def write(path: Path) -> None:
    """Two recordings of each person, of 3 to 5 windows; labels and people are in waves that every window has."""
    draw, time = np.random.default_rng(0), np.arange(LENGTH) / SFREQ
    people = [f"P{number:02}" for number in range(N_PEOPLE)]
    wave = {name: np.cos(2 * np.pi * hz * time + 1) for name, hz in (("speed", 10), ("session", 5))}
    own = dict(zip(people, np.einsum("pk,kt->pt", draw.normal(size=(N_PEOPLE, 6)), _waves(time)), strict=True))
    eeg: dict[str, np.ndarray] = {}
    labels: dict[str, dict[str, float]] = {"speed": {}, "session": {}}
    segments: dict[str, tuple[Segment, ...]] = {}
    for number, who in enumerate(people):
        for session in (0, 1):
            key, n = f"{who}_{session}", 3 + (number + session) % 3
            speed = float(draw.uniform(-1, 1))
            shown = 3 * (speed + 1.2) * wave["speed"] + (2 * session - 1) * wave["session"] + own[who]
            noise = draw.normal(0, 1, (3, n, LENGTH))
            eeg[key] = (8 * (shown + noise)).reshape(3, -1).astype("f4")
            labels["speed"][key], labels["session"][key] = speed, float(session)
            segments[key] = tuple(Segment(window, 0, float(window), window + 1.0, LENGTH) for window in range(n))
    write_store(
        path,
        eeg,
        CAP,
        SFREQ,
        tasks=dict.fromkeys(eeg, "cueing"),
        people={key: key[:3] for key in eeg},
        participants=pd.DataFrame(index=pd.Index(people, name="participant_id")),
        labels={key: {name: values[key] for name, values in labels.items()} for key in eeg},
        segments=segments,
    )


def _waves(time: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(2 * np.pi * hz * time) for hz in (2, 3, 7, 12, 15, 20)])


def recipe(targets: list[str]) -> dict[str, Any]:
    return {
        "name": "recordings",
        "folds": 2,
        "phases": {"pretrain": {"config": "pretrain.yaml"}},
        "probes": {"pretrain": {"targets": targets, "by": "recording"}},
        "ablations": {"random_weights": {"set": {"pretrain": {"model.freeze_encoder": True}}}},
        "baselines": ["band_power"],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    folder = tmp_path_factory.mktemp("recordings")
    write(folder / "store")
    objective = {"class_path": "MaskedWindows", "init_args": {"mask_ratio": 0.3}}
    config = {
        "model": {"name": "pretrain", "encoder": ENCODER, "objective": objective, "optim": {"lr": 1.0e-3}},
        "data": {
            "store": "store",
            "windows": {"class_path": "ChannelSequences", "init_args": {"labels": ["speed", "session"]}},
            "split": {"val_ratio": 0.15, "n_folds": 2, "fold": 0},
            "batch_size": 16,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "mlflow": {"enabled": False},
    }
    (folder / "pretrain.yaml").write_text(yaml.safe_dump(config))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(TARGETS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "recipe.yaml", "--out", "study"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("study/results.json").read_text())
    return found


def test_what_is_in_the_windows_of_a_recording_is_found_in_the_mean_over_its_channels() -> None:
    found = results()
    models = {**found["variants"], **found["baselines"]}
    assert found["measures"] == {
        "probe/participant": "balanced_accuracy",
        "probe/session": "balanced_accuracy",
        "probe/speed": "nrmse",
    }
    speed = {name: model["probe/speed"] for name, model in models.items()}
    assert {(one["n_windows"], one["n_participants"]) for one in speed.values()} == {(2 * N_PEOPLE, N_PEOPLE)}
    for name in ("full", "random_weights", "band_power"):
        assert speed[name]["nrmse"]["mean"] < 0.8 < 1 <= speed["constant"]["nrmse"]["mean"]
        low, high = speed[name]["nrmse"]["ci95"]
        assert low < speed[name]["nrmse"]["mean"] < high
    assert models["full"]["probe/session"]["balanced_accuracy"]["mean"] > 0.9
    assert models["constant"]["probe/session"]["balanced_accuracy"]["mean"] == 0.5


def test_a_person_is_found_by_the_other_recording_among_the_people_of_the_fold() -> None:
    found = results()
    models = {**found["variants"], **found["baselines"]}
    named = {name: model["probe/participant"] for name, model in models.items()}
    assert {one["n_windows"] for one in named.values()} == {N_PEOPLE}  # one recording of each is known
    assert named["constant"]["balanced_accuracy"]["mean"] == pytest.approx(2 / N_PEOPLE, abs=1e-6)
    assert named["full"]["balanced_accuracy"]["mean"] > 4 * 2 / N_PEOPLE


def test_probes_are_compared_over_the_same_people_and_shown_with_their_validation() -> None:
    found = results()
    assert set(found["gains"]) == {"full over random_weights", "full over constant", "full over band_power"}
    assert set(found["gains"]["full over constant"]) == {f"probe/{target}" for target in TARGETS}
    assert found["gains"]["full over constant"]["probe/speed"]["gain"]["ci95"][0] > 0
    assert "val/explained" in found["validation"]["pretrain"]["full"]
    page = Path("study/report.html").read_text()
    assert "on frozen embeddings of pretrain, one row per recording" in page
    assert "on probe/speed" in page


def test_folds_of_a_probe_have_other_people() -> None:
    study = json.loads(Path("study/study.json").read_text())
    people = []
    for chain in study["chains"]:
        with np.load(Path("study") / chain["runs"]["pretrain"] / "predictions_probe_test.npz") as file:
            people.append((chain["fold"], frozenset(file["participant"].tolist())))
    assert len(set(people)) == 2  # the same for both variants
    first, second = (found for _, found in set(people))
    assert not first & second


def test_the_random_encoder_stays_as_it_was_drawn() -> None:
    runs = [path.parent for path in Path("study/phases").glob("*/run.json")]
    frozen = [json.loads((run / "run.json").read_text())["freeze"] for run in runs]
    assert sum(bool(receipt) for receipt in frozen) == 2
    assert all(receipt["sha256_before"] == receipt["sha256_after"] for receipt in frozen if receipt)


@pytest.mark.slow
def test_other_probes_are_made_without_training_anew(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text(yaml.safe_dump(recipe(["speed"])))
    before = {path: path.stat().st_mtime_ns for path in Path("study/phases").glob("*/run.json")}
    assert main(["run", "other.yaml", "--out", "study"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("study/phases").glob("*/run.json")} == before
    assert list(results()["measures"]) == ["probe/speed"]
    assert "probe/participant" not in results()["baselines"]["band_power"]
    out = capsys.readouterr().out
    assert "probe/...: ridge or logistic regression on frozen embeddings of pretrain, one row per recording" in out
    assert main(["run", "recipe.yaml", "--out", "study"]) == 0
    assert set(results()["baselines"]["band_power"]) == {f"probe/{target}" for target in TARGETS}
