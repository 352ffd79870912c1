"""A study that runs in a moment: real recipe, real plan, and a command that writes what ``cerebro fit`` would write."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

PARTICIPANTS = [f"HBN:TEST{number:02}" for number in range(24)]
N_WINDOWS = 10


def phase_config(name, target="", tokenizer=False):
    config = {
        "model": {
            "name": name,
            "encoder": {"class_path": "LaBraM", "init_args": {"d_model": 32}},
            "objective": {"class_path": "Supervised", "init_args": {"target": target}},
            "optim": {"lr": 0.001},
        },
        "data": {"store": "stores/demo", "split": {"val_ratio": 0.2}, "targets": [target] if target else []},
        "trainer": {"max_epochs": 2},
        "seed": 0,
    }
    if name == "pretrain":
        config["model"]["objective"] = {
            "class_path": "WeightedSum",
            "init_args": {"weights": {"codes": 1.0, "p_factor": 0.15}},
        }
    if tokenizer:
        config["model"]["init"] = [
            {"source": "outputs/tokenizer/best.ckpt", "take": "", "into": "objective.terms.codes.tokenizer"}
        ]
    if target:
        config["model"]["init"] = [{"source": "outputs/contrastive/best.ckpt", "only": ["blocks"]}]
    return config


RECIPE = {
    "name": "tiny",
    "seeds": [0],
    "phases": {
        "tokenizer": {"config": "../configs/tokenizer.yaml"},
        "pretrain": {"config": "../configs/pretrain.yaml", "tokenizer": "tokenizer"},
        "contrastive": {"config": "../configs/contrastive.yaml", "init": "pretrain"},
        "challenge1": {"config": "../configs/challenge1.yaml", "init": "contrastive"},
        "challenge2": {"config": "../configs/challenge2.yaml", "init": "contrastive"},
    },
    "ablations": {
        "no_contrastive": {"drop": ["contrastive"]},
        "no_auxiliary": {"set": {"pretrain": {"model.objective.init_args.weights.p_factor": 0}}},
        "supervised": {"only": ["challenge1", "challenge2"]},
    },
    "gains": [["no_contrastive", "supervised"]],
}


@pytest.fixture
def write_recipe(tmp_path, monkeypatch):
    """Write configs and a recipe below a fresh current folder; gives the recipe's relative path."""

    def write(**changes):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "configs" / "encoder.yaml").write_text("class_path: LaBraM\ninit_args: {d_model: 32}\n")
        targets = {"challenge1": "response_time", "challenge2": "p_factor"}
        for name in ("tokenizer", "pretrain", "contrastive", "challenge1", "challenge2"):
            config = phase_config(name, targets.get(name, ""), tokenizer=name == "pretrain")
            config["model"]["encoder"] = "encoder.yaml"
            (tmp_path / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(config))
        content = {key: value for key, value in {**RECIPE, **changes}.items() if value is not None}
        path = Path("recipes/tiny.yaml")
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@dataclass
class FakeCerebro:
    """Stands for the command line: writes the files of a phase run, remembers what it was asked for."""

    calls: list[list[str]] = field(default_factory=list)
    fail_at: int = -1
    is_classification: bool = False
    code: int = 2  # of the call that fails

    def __call__(self, argv):
        self.calls.append(argv)
        if len(self.calls) == self.fail_at:
            return self.code
        if argv[0] == "fit":
            self.fit(argv)
        elif argv[0] == "test":
            self.test(argv)
        return 0

    def fit(self, argv):
        flags = dict(zip(argv[1::2], argv[2::2], strict=True))
        folder = Path(flags["--out"])
        folder.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load(Path(flags["--config"]).read_text())
        config["flags"] = flags
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        name = config["model"]["name"]
        rows = [
            {
                "epoch": epoch,
                "step": 20 * (epoch + 1),
                "train/loss": 2.0 * 0.8**epoch,
                "val/loss": 2.1 * 0.85**epoch,
                "lr": 1e-3,
                "seconds": 3.0,
            }
            for epoch in range(8)
        ]
        if name == "pretrain":
            rows = [{**row, "train/jepa/feature_variance": 0.018, "train/jepa/effective_rank": 17.25} for row in rows]
        if name == "tokenizer":
            rows = [{**row, "val/perplexity": 20.0 + row["epoch"]} for row in rows]
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        np.savez(folder / "showcase.npz", **showcase(name))
        report = {
            "phase": name,
            "state": "finished",
            "seconds": 12.5,
            "peak_memory_mb": 512.0,
            "parameters": 123456,
            "trainable": 120000,
            "participants": {"train": [f"HBN:TRAIN{n:02}" for n in range(20)], "val": ["HBN:VAL01", "HBN:VAL02"]},
            "transfers": json.loads(flags.get("--model.init", "[]")),
            "git_commit": "0123456789abcdef",
            "data_hash": "d" * 64,
            "config_hash": "c" * 64,
            "warm_start": [],
            "best": {"metric": "val/loss", "value": 0.67, "epoch": 7},
            "weights_sha256": "w" * 64,
            "mlflow_run_id": "",
        }
        (folder / "frozen_tokens.safetensors").write_bytes(b"read again by a run that is resumed")
        (folder / "run.json").write_text(json.dumps(report))

    def test(self, argv):
        flags = dict(zip(argv[1::2], argv[2::2], strict=True))
        folder = Path(flags["--config"]).parent
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (target,) = config["data"]["targets"]
        init = json.loads(config["flags"].get("--model.init", "[]"))
        skill = 0.2 if not init else 0.6 if "contrastive" in init[0]["source"] else 0.4
        random = np.random.default_rng([len(target), int(100 * skill)])
        np.savez(folder / "predictions_test.npz", **predictions(target, skill, random, self.is_classification))


def predictions(target, skill, random, is_classification=False):
    participant = np.repeat(PARTICIPANTS, N_WINDOWS)
    truth = np.repeat(np.random.default_rng(len(target)).normal(size=len(PARTICIPANTS)), N_WINDOWS)
    value = skill * truth + 0.3 * random.normal(size=len(truth))
    known = np.ones(len(truth), bool)
    known[:3] = False
    if is_classification:
        truth = (truth > 0).astype(float)
        value = np.stack([1 - value, value], axis=1)
    return {
        "sample": np.arange(len(truth)),
        "recording": np.arange(len(truth)) // N_WINDOWS,
        "participant": participant,
        f"target/{target}": truth,
        f"known/{target}": known,
        f"prediction/{target}": value,
    }


def showcase(name):
    random = np.random.default_rng(0)
    n_channels, sfreq = 32, 100.0
    angle = 2.4 * np.arange(n_channels)
    radius = 0.09 * np.sqrt((np.arange(n_channels) + 0.5) / n_channels)
    positions = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(0.095**2 - radius**2)], axis=1)
    arrays = {"channel_names": np.array([f"E{n + 1}" for n in range(n_channels)]), "positions": positions}
    if name == "tokenizer":
        time = np.arange(400) / sfreq
        source = 20 * np.sin(2 * np.pi * 10 * time) * (1 + 0.5 * np.sin(2 * np.pi * 0.7 * time))
        arrays["channel"] = np.arange(n_channels)
        gain = 1 - 5 * np.abs(positions[:, 1] + 0.05)
        original = gain[:, None] * source + np.cumsum(random.normal(0, 2.0, (n_channels, 400)), axis=1) * 0.5
        arrays["original"] = original.astype(np.float32)
        arrays["reconstructed"] = (original + random.normal(0, 6 + 200 * radius[:, None], original.shape)).astype("f4")
        arrays["code_counts"] = random.poisson(np.geomspace(40, 0.05, 256))
    elif name == "contrastive":
        arrays["similarity_positive"] = random.normal(0.35, 0.2, 300).clip(-1, 1)
        arrays["similarity_negative"] = random.normal(0.0, 0.2, 4000).clip(-1, 1)
    elif name == "pretrain":
        arrays["accuracy_by_channel"] = 0.2 + positions[:, 1]
        arrays["accuracy_by_patch"] = np.array([0.2, 0.25])
        arrays["jepa/error_by_channel"] = np.where(np.arange(n_channels) == 3, np.nan, 0.4 + positions[:, 0])
    return arrays


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """Collecting garbage after each of 13 runs costs more than all else here."""
    monkeypatch.setattr("cerebro.study.execute.gc.collect", lambda: 0)


@pytest.fixture
def fake_cerebro():
    return FakeCerebro


@pytest.fixture
def finished_study(write_recipe):
    """Makes the folder of a finished study with baselines and ground truth, as ``cerebro run`` leaves it."""
    from cerebro.study import baselines
    from cerebro.study.execute import run_plan
    from cerebro.study.plan import plan_study
    from cerebro.study.recipe import read_recipe

    def make(**changes):
        truth = {key: {"response_time": value, "p_factor": value} for key, value in
                 (("oracle_nrmse", 0.3), ("reference_nrmse", 0.6))}  # fmt: skip
        recipe_path = write_recipe(ground_truth="ground_truth.json", baselines=["band_power"], **changes)
        Path("ground_truth.json").write_text(json.dumps(truth))
        out = Path("runs/tiny")
        plan = plan_study(read_recipe(recipe_path), out, code_version="test")
        assert run_plan(plan, FakeCerebro(), say=lambda line: None) == 0
        study = json.loads((out / "study.json").read_text())
        for phase, run in baselines.baseline_runs(study):
            target = {"challenge1": "response_time", "challenge2": "p_factor"}[phase]
            (out / "baselines").mkdir(exist_ok=True)
            made = predictions(target, 0.3, np.random.default_rng(9))
            np.savez(baselines.baseline_path(out, "band_power", run), **made)
            made[f"prediction/{target}"] = np.full(len(made["participant"]), 0.1)
            np.savez(baselines.baseline_path(out, "constant", run), **made)
        return out

    return make


@pytest.fixture
def study_folder(finished_study):
    """Folder of a finished study with baselines and ground truth."""
    return finished_study()
