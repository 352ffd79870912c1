"""``cerebro probe`` on a store and a LaBraM, and what stands beside the scores of auxiliary tasks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.mixture import write_mixture
from cerebro.montage import Montage, hbn_129

TARGETS = "age,sex,p_factor,participant"
LABRAM = {"class_path": "LaBraM", "init_args": {"conv_channels": 2, "depth": 1, "n_heads": 2, "mlp_ratio": 2.0}}


def head(target: str, kind: str = "regression") -> dict[str, object]:
    arguments = {"target": target, "kind": kind, "readout": {"class_path": "LinearReadout"}}
    return {"class_path": "Supervised", "init_args": arguments}


def eeg(draw: np.random.Generator, slow: float) -> np.ndarray:
    """Ten seconds of four channels: white noise, of which a share ``slow`` in [0, 1] is smoothed."""
    white, other = draw.normal(0, 20, (2, 4, 1024))
    smooth = np.cumsum(other, axis=1)
    smooth = (smooth[:, 24:] - smooth[:, :-24]) / np.sqrt(24)
    return ((1 - slow) * white[:, 24:] + slow * smooth).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of twenty people whose EEG is slower the older they are, a config, and the phase that it trains."""
    folder = tmp_path_factory.mktemp("probe")
    draw, full = np.random.default_rng(0), hbn_129()
    cap = Montage("hbn_129", full.channels[:4], full.positions[:4])
    people = [f"P{i:02d}" for i in range(20)]
    age = 5 + np.arange(20) * 7 % 20 * 0.5
    rows = {f"{who}_{task}": (who, task) for who in people for task in ("rest", "film")}
    participants = pd.DataFrame(
        {
            "age": age,
            "sex": np.arange(20) % 2,
            "p_factor": np.where(np.arange(20) % 6 == 0, np.nan, -0.2 * age),
            "attention": np.nan,
        },
        index=pd.Index(people, name="participant_id"),
    )
    for name in ("store", "other"):
        write_store(
            folder / name,
            {key: eeg(draw, (age[people.index(who)] - 5) / 10) for key, (who, _) in rows.items()},
            cap,
            100.0,
            tasks={key: task for key, (_, task) in rows.items()},
            people={key: who for key, (who, _) in rows.items()},
            participants=participants,
            corpus=name,
            reference="Cz",
        )
    objective = {
        "class_path": "WeightedSum",
        "init_args": {
            "weights": {"p_factor": 1.0, "sex": 0.5},
            "terms": {"p_factor": head("p_factor"), "sex": head("sex", "classification")},
        },
    }
    config = {
        "model": {"name": "aux", "encoder": LABRAM, "objective": objective, "optim": {"lr": 1.0e-3}},
        "data": {
            "store": "store",
            "windows": {"class_path": "SlidingWindows", "init_args": {"duration_s": 2.0, "stride_s": 2.0}},
            "split": {"val_ratio": 0.25, "test_ratio": 0.25},
            "targets": ["p_factor", "sex"],
            "batch_size": 20,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "mlflow": {"enabled": False},
    }
    (folder / "aux.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "aux.yaml", "--probe.targets", "[age, participant]"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def probe(*argv: str) -> int:
    return main(["probe", "outputs/aux/best.ckpt", *argv])


def test_a_checkpoint_is_probed_by_its_path_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe("--targets", TARGETS) == 0
    out = capsys.readouterr().out
    record = json.loads(Path("outputs/aux/probe_val.json").read_text())
    assert set(record["targets"]) == set(TARGETS.split(","))
    age = record["targets"]["age"]
    assert set(age) == {"window", "participant"}
    assert age["participant"]["value"] < 0.9 < age["participant"]["constant"]  # the planted slowness is found
    low, high = age["participant"]["ci95"]
    assert low <= age["participant"]["value"] <= high
    assert record["targets"]["participant"]["window"]["constant"] == 1 / 5
    assert "first half of their recordings" in record["participant_rule"]
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("age  ")] == [
        ["age", "window", "nrmse"],
        ["age", "participant", "nrmse"],
    ]
    assert "p_factor: confound baseline from age and sex alone (fitted to" in out
    assert record["targets"]["p_factor"]["window"]["confound"] < 0.5  # p_factor is made of age
    with np.load("outputs/aux/probe_val.npz") as found:
        assert found["embedding"].shape == (len(found["sample"]), 50)
        assert found["is_train"].sum() == record["n_windows"]["train"] == 100
        assert len(set(found["participant"][~found["is_train"]])) == 5


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert probe("--targets", TARGETS, "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a/probe_val.json").read_bytes() == (tmp_path / "b/probe_val.json").read_bytes()


def test_other_windows_and_targets_of_the_config_serve_too(tmp_path: Path) -> None:
    keys = ["--data.windows.duration_s", "1.0", "--max_windows", "30", "--side", "test", "--out", str(tmp_path)]
    assert main(["probe", "--config", "outputs/aux/config.yaml", "--ckpt_path", "outputs/aux/last.ckpt", *keys]) == 0
    record = json.loads((tmp_path / "probe_test.json").read_text())
    assert set(record["targets"]) == {"age", "participant"}  # probe.targets of the run
    assert record["n_windows"] == {"train": 30, "test": 30}


def test_people_that_the_checkpoint_was_trained_on_are_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["--targets", "age", "--data.split.seed", "7", "--out", str(tmp_path)]
    assert probe(*keys) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--allow_seen_participants true" in error
    assert probe(*keys, "--allow_seen_participants", "true") == 0
    assert "WARNING:" in capsys.readouterr().out


MISTAKES = [
    (["--targets", "attention"], "attention: no training window has a label 'attention'; nothing was probed."),
    (["--targets", "age", "--side", "train"], "side"),
    (["--targets", "age", "--n_resamples", "0"], "n_resamples=0 must be 1 or more"),
    (["--targets", "participant", "--max_people", "1"], "max_people=1"),
    (["--targets", "age", "--target", "age"], "--target"),
    (["--targets", "", "--probe.targets", "[]"], "nothing to probe; add --targets"),
    (["--targets", "age", "--model.encoder.init_args.depth", "2"], "encoder of phase 'aux'"),
]


@pytest.mark.parametrize(("argv", "said"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(*argv, "--out", "elsewhere") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said.removeprefix("--") in error
    assert not list(Path("elsewhere").glob("probe*"))


def test_an_unknown_target_is_told_with_those_that_there_are() -> None:
    command = [sys.executable, "-m", "cerebro.cli.main", "probe", "outputs/aux/best.ckpt", "--targets", "iq"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # without the checks of types of tests
    assert told.returncode == 2
    assert "'iq' is unknown; set data.targets (of a probe: --targets) to some of: age, attention" in told.stderr


def test_absent_checkpoints_and_configs_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("outputs/aux/absent.ckpt", "absent/best.ckpt"):
        assert main(["probe", path, "--targets", "age"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["probe"]) == 2
    assert "cerebro probe outputs/pretrain/best.ckpt --targets" in capsys.readouterr().err


def test_a_target_without_labels_is_left_out_beside_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe("--targets", "attention,age", "--out", str(tmp_path)) == 0
    assert "attention left out: no training window has a label 'attention'" in capsys.readouterr().out
    assert json.loads((tmp_path / "probe_val.json").read_text())["left_out"].keys() == {"attention"}


def test_training_left_rows_of_probes_and_of_age_and_sex_alone() -> None:
    row = json.loads(Path("outputs/aux/history.jsonl").read_text())
    assert {"probe/nrmse_age", "probe/participant", "confound/nrmse_p_factor", "confound/balanced_accuracy_sex"} < set(
        row
    )
    assert row["confound/nrmse_p_factor"] < 0.5
    record = json.loads(Path("outputs/aux/run.json").read_text())
    assert record["confound"].keys() == {"nrmse_p_factor", "balanced_accuracy_sex"}


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_scores_stand_beside_age_and_sex_alone(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--config", "outputs/aux/config.yaml"]) == 0
    out = capsys.readouterr().out
    assert "on the same windows from age and sex alone (fitted to" in out
    assert "sex: balanced_accuracy" in out
    assert "from age alone" in out


def test_an_auxiliary_target_without_any_label_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["--data.targets", "[attention, sex]", "--out", str(tmp_path)]
    keys += ["--model.objective.init_args.terms.p_factor.init_args.target", "attention"]
    assert main(["fit", "--config", "aux.yaml", *keys]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no training window has a label 'attention'" in error
    assert main(["fit", "--config", "aux.yaml", *keys, "--model.objective.init_args.weights.p_factor", "0"]) == 0


def test_a_mixture_knows_age_and_sex_of_its_people(tmp_path: Path) -> None:
    write_mixture(tmp_path / "both", {"one": Path("store"), "two": Path("other")}, {"one": 1, "two": 1})
    keys = ["--data.store", str(tmp_path / "both"), "--out", str(tmp_path / "run"), "--data.batches_per_epoch", "3"]
    assert main(["fit", "--config", "aux.yaml", *keys, "--probe.targets", "[age, participant]"]) == 0
    row = json.loads((tmp_path / "run/history.jsonl").read_text())
    assert row["confound/nrmse_p_factor"] < 0.5
    assert row["probe/participant_chance"] == 1 / 10


def test_a_checkpoint_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "nothing/best.ckpt", "--targets", "sex"]) == 2
    assert "checkpoint nothing/best.ckpt not found" in capsys.readouterr().err
