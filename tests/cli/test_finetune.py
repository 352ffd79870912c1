"""``cerebro fit`` of a fine-tuning phase, which finds its checkpoint, its store and its name by itself."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from cerebro.cli import fit as fit_verbs
from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.montage import Montage
from cerebro.training.checkpoint import read_checkpoint

LENGTH, SFREQ, N_WINDOWS = 64, 32.0, 5
CAP = Montage("cap", ("Fz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, -0.06, 0.08]]))
NAME = "mamba2_eeg_d8_l2_m40_mae"
ENCODER = {
    "class_path": "Mamba2",
    "init_args": {"patch_samples": LENGTH, "d_model": 8, "n_layers": 2, "headdim": 4, "d_state": 4},
}
SPLIT = {"val_ratio": 0.2, "test_ratio": 0.2, "stratify_by": ["remission"]}
SHARED = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "mlflow": {"enabled": False}}
PRETRAIN: dict[str, Any] = SHARED | {
    "model": {
        "name": "pretrain",
        "encoder": "../encoder.yaml",
        "objective": {"class_path": "MaskedWindows", "init_args": {"mask_ratio": 0.4}},
    },
    "data": {"store": "store", "windows": {"class_path": "ChannelSequences"}, "split": SPLIT, "batch_size": 8},
    "out": "outputs/{model}",
    "run_name": "{model}",
}
FINETUNE: dict[str, Any] = SHARED | {
    "pretrain_config": "pretrain.yaml",
    "freeze_backbone": True,
    "model": {
        "name": "finetune",
        "encoder": "../encoder.yaml",
        "objective": {
            "class_path": "Supervised",
            "init_args": {"target": "remission", "kind": "classification", "readout": {"class_path": "MLPReadout"}},
        },
    },
    "data": PRETRAIN["data"] | {"targets": ["remission"]},
    "out": "outputs/{pretrained}_finetuned",
    "run_name": "{pretrained}_finetuned",
    "monitor": "val/balanced_accuracy_remission",
    "monitor_mode": "max",
}


@pytest.fixture(autouse=True)
def _no_shape_checks_around_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, the check that data are `PhaseData` opens the store, inside the check instead of `fit`."""
    for name in ("_parts", "fit_phase", "score_phase"):
        monkeypatch.setattr(fit_verbs, name, inspect.unwrap(getattr(fit_verbs, name)))


def write_people(path: Path, labels: list[float]) -> None:
    """A store of one run per person."""
    draw = np.random.default_rng(0)
    people = [f"p{number:02}" for number in range(len(labels))]
    keys = [f"{name}_run-1" for name in people]
    segments = tuple(Segment(i, 0, 2.0 * i, 2.0 * i + 2, LENGTH) for i in range(N_WINDOWS))
    write_store(
        path,
        {key: draw.normal(0, 20, (2, N_WINDOWS * LENGTH)).astype(np.float32) for key in keys},
        CAP,
        SFREQ,
        tasks=dict.fromkeys(keys, "rest"),
        people=dict(zip(keys, people, strict=True)),
        participants=pd.DataFrame({"remission": labels}, index=pd.Index(people, name="participant_id")),
        segments=dict.fromkeys(keys, segments),
    )


def write_configs(folder: Path) -> None:
    (folder / "configs").mkdir(parents=True)
    (folder / "encoder.yaml").write_text(yaml.safe_dump(ENCODER))
    (folder / "configs/pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN))
    (folder / "configs/finetune.yaml").write_text(yaml.safe_dump(FINETUNE))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, configs and the pretraining."""
    folder = tmp_path_factory.mktemp("finetune")
    write_configs(folder)
    write_people(folder / "store", [0.0, 1.0] * 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "configs/pretrain.yaml"]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def fit(*argv: str) -> int:
    return main(["fit", "--config", "configs/finetune.yaml", *argv])


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The line that a command is refused with."""
    capsys.readouterr()
    assert fit(*argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_the_checkpoint_is_found_from_the_pretraining_config_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--trainer.max_epochs=2") == 0
    told = capsys.readouterr().out
    assert f"hand-over from outputs/{NAME}/{NAME}_best.ckpt (phase pretrain): encoder -> encoder" in told
    assert "the encoder is frozen in all epochs" in told
    out = here / f"outputs/{NAME}_finetuned"
    assert (out / f"{NAME}_finetuned_best.ckpt").samefile(out / "best.ckpt")
    record = json.loads((out / "run.json").read_text())
    assert record["freeze"]["unchanged"]
    assert list(record["inputs"]) == [f"outputs/{NAME}/{NAME}_best.ckpt"]
    before = read_checkpoint(here / f"outputs/{NAME}/best.ckpt").weights
    after = read_checkpoint(out / "best.ckpt").weights
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("encoder."))
    assert fit("--trainer.max_epochs=2") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_config_of_the_run_stands_by_itself(here: Path) -> None:
    assert fit() == 0
    out = f"outputs/{NAME}_finetuned"
    config = yaml.safe_load((here / out / "config.yaml").read_text())
    assert config["out"] == out
    assert config["run_name"] == f"{NAME}_finetuned"
    assert [entry["source"] for entry in config["model"]["init"]] == [f"outputs/{NAME}/{NAME}_best.ckpt"]
    assert not {"pretrain_config", "data_path", "output_dir", "freeze_backbone"} & set(config)
    shutil.rmtree(f"outputs/{NAME}")  # scoring asks for no pretraining
    assert main(["test", "--config", f"{out}/config.yaml"]) == 0
    assert main(["test", "--config", "configs/finetune.yaml"]) == 0


@pytest.mark.parametrize("dash", ["-", "_"])
def test_the_other_names_of_keys_are_flags_with_either_dash(here: Path, dash: str) -> None:
    shutil.move("store", "elsewhere")
    shutil.move("configs/pretrain.yaml", "first.yaml")
    text = yaml.safe_dump(PRETRAIN | {"model": PRETRAIN["model"] | {"encoder": "encoder.yaml"}})
    Path("first.yaml").write_text(text)
    config = {key: value for key, value in FINETUNE.items() if key != "pretrain_config"}
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(config))
    flags = {
        "pretrain-config": "first.yaml",
        "data-path": "elsewhere",
        "output-dir": "there",
        "freeze-backbone": "false",
    }
    assert fit(*(part for name, value in flags.items() for part in (f"--{name.replace('-', dash)}", value))) == 0
    record = json.loads(Path("there/run.json").read_text())
    assert record["freeze"] == {}
    assert record["trainable"] == record["parameters"]
    assert yaml.safe_load(Path("there/config.yaml").read_text())["data"]["store"] == "elsewhere"


def test_the_other_names_are_keys_of_a_config_too_and_the_last_one_typed_counts(here: Path) -> None:
    shutil.move("store", "elsewhere")
    config = {**FINETUNE, "data_path": "elsewhere", "output_dir": "there"}
    config["data"] = {key: value for key, value in FINETUNE["data"].items() if key != "store"}
    del config["out"]
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(config))
    assert fit("--model.freeze_encoder", "false", "--out=here") == 0
    assert json.loads(Path("here/run.json").read_text())["freeze"] == {}
    assert not Path("there").exists()


def test_without_a_pretraining_the_name_says_random(here: Path) -> None:
    assert fit("--pretrain_config", "") == 0
    assert Path("outputs/mamba2_eeg_d8_l2_random_finetuned/mamba2_eeg_d8_l2_random_finetuned_best.ckpt").is_file()


def test_a_source_in_model_init_or_ckpt_path_names_the_run(here: Path) -> None:
    source = f"outputs/{NAME}/best.ckpt"
    init = json.dumps([{"source": source}])
    assert fit("--pretrain_config=", "--model.init", init) == 0
    assert Path(f"outputs/{NAME}_finetuned/run.json").is_file()
    shutil.rmtree(f"outputs/{NAME}_finetuned")
    assert fit("--pretrain_config=", "--ckpt_path", source) == 0
    assert Path(f"outputs/{NAME}_finetuned/run.json").is_file()
    shutil.rmtree(f"outputs/{NAME}_finetuned")
    assert fit("--pretrain_config=", "--model.init", init, "--model.transfer=none") == 0
    assert Path("outputs/mamba2_eeg_d8_l2_random_finetuned/run.json").is_file()


def test_a_run_is_resumed_in_another_folder_without_a_second_source(here: Path) -> None:
    assert fit() == 0
    last = f"outputs/{NAME}_finetuned/last.ckpt"
    assert fit("--trainer.max_epochs=2", "--ckpt_path", last, "--out", "longer") == 0
    assert json.loads(Path("longer/run.json").read_text())["best"]["epoch"] in (0, 1)


def test_a_missing_checkpoint_says_what_was_looked_for_what_is_there_and_what_makes_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = yaml.safe_dump(PRETRAIN).replace("mask_ratio: 0.4", "mask_ratio: 0.6")
    Path("configs/pretrain.yaml").write_text(text)
    line = refused(capsys)
    assert "d_model 8, n_layers 2, mask_ratio 0.6, masking_style mae" in line
    name = NAME.replace("m40", "m60")
    assert f"looked for outputs/{name}/{name}_best.ckpt and outputs/{name}/best.ckpt" in line
    assert f"outputs holds {NAME};" in line
    assert "train it with `cerebro fit --config configs/pretrain.yaml`" in line
    shutil.rmtree("outputs")
    assert "outputs holds no other" in refused(capsys)


def test_the_folder_of_a_run_is_a_pretraining_config_too(here: Path) -> None:
    Path("configs/pretrain.yaml").unlink()
    config = {key: value for key, value in FINETUNE.items() if key != "pretrain_config"}
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(config))
    assert fit("--pretrain-config", f"outputs/{NAME}/config.yaml") == 0
    assert Path(f"outputs/{NAME}_finetuned/run.json").is_file()


def test_config_and_checkpoint_that_disagree_are_named_with_both_values(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "--model.encoder.init_args.d_model=16")
    assert "model.encoder.init_args.d_model is 16 here and 8 in the pretraining configs/pretrain.yaml" in line
    assert "type --model.encoder.init_args.d_model 8" in line
    line = refused(capsys, "--model.encoder.init_args.direction=bidirectional")
    assert "direction is bidirectional here and causal" in line
    transformer = {"class_path": "Transformer", "init_args": {"patch_samples": LENGTH, "d_model": 8, "n_layers": 2}}
    Path("transformer.yaml").write_text(yaml.safe_dump(transformer))
    assert "model.encoder.class_path is" in refused(capsys, "--model.encoder", "transformer.yaml")


def test_a_checkpoint_of_another_encoder_or_ratio_than_its_config_says_now_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = json.loads(json.dumps(ENCODER))
    scaled["init_args"]["scale_uV"] = 5.0
    Path("encoder.yaml").write_text(yaml.safe_dump(scaled))
    line = refused(capsys)
    assert "was trained with model.encoder.init_args.scale_uV 20.0" in line
    assert "configs/pretrain.yaml says 5.0 now" in line
    Path("encoder.yaml").write_text(yaml.safe_dump(ENCODER))
    text = yaml.safe_dump(PRETRAIN | {"out": f"outputs/{NAME}", "run_name": "{name}"})
    Path("configs/pretrain.yaml").write_text(text.replace("mask_ratio: 0.4", "mask_ratio: 0.6"))
    assert "was trained with model.objective.init_args.mask_ratio 0.4" in refused(capsys)
    Path("configs/pretrain.yaml").write_text(text.replace("name: pretrain", "name: other"))
    assert "is of phase 'pretrain', and the pretraining configs/pretrain.yaml is 'other'" in refused(capsys)


MISTAKES = [
    (["--freeze-backbone", "maybe"], ["freeze-backbone: found maybe, expected true or false"]),
    (
        ["--freeze-backbone", "true", "--model.freeze_encoder", "false"],
        ["the command line gives --freeze-backbone true and --model.freeze_encoder false", "leave one of them out"],
    ),
    (["--data-path", "a", "--data.store=b"], ["--data-path a and --data.store b"]),
    (["--pretrain-config", "absent.yaml"], ["config absent.yaml not found"]),
    (["--pretrain-config", "absent"], ["pretraining config absent not found"]),
    (["--pretrain-config", "encoder.yaml"], ["pretraining config encoder.yaml: "]),
    (["--data-path", "absent"], ["absent not found", "cerebro process-primary --config configs/processing.yaml"]),
    (["--data-path", "absent.parquet"], ["primary data set absent.parquet not found", "cerebro process-primary"]),
    (["--model.init", '[{"source": "x.ckpt"}]'], ["two sources, x.ckpt in model.init and the pretraining"]),
    (["--ckpt_path", f"outputs/{NAME}/best.ckpt"], ["two sources, --ckpt_path", "add --pretrain_config="]),
    (["--data.split.stratify_by", "[sex]"], ["no column sex to stratify by", "remission, or to []"]),
    (["--data.split.n_folds=20", "--data.split.test_ratio=0"], ["n_folds=20", "only 12 participants"]),
    (["--data.split.val_ratio=0.5", "--data.split.test_ratio=0.49"], ["no one is left to train on: 12 participants"]),
]


@pytest.mark.parametrize(("argv", "said"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: list[str]
) -> None:
    line = refused(capsys, *argv)
    assert all(part in line for part in said), line


def test_a_config_that_gives_both_names_of_a_key_is_refused_unless_they_agree(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(json.dumps(FINETUNE))
    config["model"]["freeze_encoder"] = False
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(config))
    line = refused(capsys)
    assert "configs/finetune.yaml gives freeze_backbone true and model.freeze_encoder false" in line
    config["model"]["freeze_encoder"] = True
    config["freeze_backbone"] = "maybe"
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(config))
    assert "freeze_backbone maybe" in refused(capsys)


def test_another_split_than_that_of_the_pretraining_is_said_before_its_people_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--data.split.seed", "1") == 2
    found = capsys.readouterr()
    assert "has data.split.seed 42 and this phase 1: people of the same store change sides" in found.out
    assert "were seen while" in found.err


def test_people_of_a_class_too_rare_for_all_sides_are_told_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(Path("rare"), [0.0] * 10 + [1.0, 1.0])
    assert fit("--data-path", "rare", "--pretrain_config=") in (0, 2)
    told = capsys.readouterr().out
    assert "no one with remission 1 on the side" in told
    assert "(2 have it)" in told


def write_primary(path: Path, n: int, channels: tuple[str, ...] = ("FZ", "PZ")) -> None:
    table = {"Participant": ["a"] * n, **{name: [[0.0]] * n for name in channels}}
    pq.write_table(pa.table(table), path)


def test_a_primary_file_stands_for_the_store_that_was_made_of_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_primary(Path("all.parquet"), 12 * N_WINDOWS)
    line = refused(capsys, "--data-path", "all.parquet")
    assert "no store of the primary data set all.parquet (looked for all and stores/primary)" in line
    Path("stores").mkdir()
    shutil.move("store", "stores/primary")
    assert fit("--data-path", "all.parquet") == 0
    out = f"outputs/{NAME}_finetuned"
    assert yaml.safe_load(Path(out, "config.yaml").read_text())["data"]["store"] == "stores/primary"
    write_primary(Path("all.parquet"), 7)
    assert "(60 windows there, 7 in the file)" in refused(capsys, "--data-path", "all.parquet")
    write_primary(Path("all.parquet"), 12 * N_WINDOWS, ("FZ",))
    assert "the file has no channel PZ" in refused(capsys, "--data-path", "all.parquet")


def test_a_checkpoint_that_names_other_programs_classes_runs_none_of_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hit.py").write_text("open('hit', 'w')\n")
    for path in Path(f"outputs/{NAME}").glob("*best.ckpt"):
        content = torch.load(path, weights_only=True)
        content["cerebro"]["config"]["model"]["encoder"]["class_path"] = "hit.Encoder"
        path.unlink()
        torch.save(content, path)
    assert "is of classes outside cerebro" in refused(capsys)
    assert fit("--pretrain_config=", "--model.init", json.dumps([{"source": f"outputs/{NAME}/best.ckpt"}])) == 0
    assert Path(f"outputs/{NAME}_finetuned/run.json").is_file()  # named by its folder
    assert not Path("hit").exists()


@pytest.mark.slow
def test_two_processes_share_the_tokens_that_the_first_one_computes(here: Path) -> None:
    flags = ["--config", "configs/finetune.yaml", "--trainer.max_epochs=3", "--data.batch_size=4"]
    flags += ["--model.objective.init_args.readout.init_args.dropout=0"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TORCHELASTIC"))}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "cerebro"]
    ended = subprocess.run(
        [*launcher, "fit", *flags, "--out=two"],
        env={**kept, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("are computed once, and kept in two/frozen_tokens.safetensors") == 1
    assert main(["fit", *flags, "--out=one"]) == 0
    rows = [
        [json.loads(line) for line in Path(name, "history.jsonl").read_text().splitlines()] for name in ("one", "two")
    ]
    for ours, theirs in zip(*rows, strict=True):
        for key in ("train/loss", "val/loss", "val/balanced_accuracy_remission"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-6)
    weights = [read_checkpoint(Path(name, "last.ckpt")).weights for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)
