"""How much of an encoder moves, what is said of each of its parts, and what is frozen."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from torch import nn

from cerebro.errors import CheckpointError, ConfigError
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, TransferReport, read_checkpoint, transfer_weights
from cerebro.training.handover import hand_over
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.stamp import config_hash
from cerebro.training.tracking import MLflowKeys


def build(signal: Any, name: str, **keys: Any) -> Phase:
    return Phase(name, signal, toy.ToyEncoder, toy.ToyObjective, Optim(lr=1e-2, warmup_epochs=0.0), **keys)


def train(
    out: Path, ckpt_path: Path | None = None, name: str = "next", max_epochs: int = 1, shift: int = 0, **keys: Any
) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    run = RunKeys(out, mlflow=MLflowKeys(enabled=False))
    config = {"model": {"name": name}, "data": {}, "extra": repr(keys)}
    trainer, data = TrainerKeys(max_epochs, accelerator="cpu"), toy.ToyData(2, shift=shift)
    record = fit(partial(build, name=name, **keys), data, trainer, run, config, ckpt_path, lines.append)
    return record, lines


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source")
    train(out, name="first")
    return out / "best.ckpt"


def test_all_of_an_encoder_moves_unless_something_else_is_asked(source: Path, tmp_path: Path) -> None:
    record, lines = train(tmp_path, source, freeze_encoder=True)
    assert record["transfers"][0]["components"] == {
        "mask_token": {"moved": 1, "new": 0, "unused": 0},
        "patch": {"moved": 2, "new": 0, "unused": 0},
        "statistics": {"moved": 5, "new": 0, "unused": 0},
        "block": {"moved": 2, "new": 0, "unused": 0},
    }
    at = next(at for at, line in enumerate(lines) if line.startswith("hand-over from"))
    assert lines[at + 1 : at + 5] == [
        "  mask_token  1 moved  0 new  0 unused",
        "  patch       2 moved  0 new  0 unused",
        "  statistics  5 moved  0 new  0 unused",
        "  block       2 moved  0 new  0 unused",
    ]
    assert not any("frozen at random weights" in line for line in lines)


@pytest.mark.parametrize("way", ["ckpt_path", "init"])
def test_a_part_moves_alone_and_the_rest_starts_anew(source: Path, tmp_path: Path, way: str) -> None:
    given = {"init": (Transfer(source),)} if way == "init" else {}
    record, lines = train(tmp_path, None if given else source, transfer="patch", freeze_encoder=True, **given)
    ours, theirs = read_checkpoint(tmp_path / "best.ckpt").weights, read_checkpoint(source).weights
    assert torch.equal(ours["encoder.patch.weight"], theirs["encoder.patch.weight"])
    assert not torch.equal(ours["encoder.block.weight"], theirs["encoder.block.weight"])
    assert record["transfers"][0]["components"]["block"] == {"moved": 0, "new": 2, "unused": 2}
    assert "  block       0 moved  2 new  2 unused" in lines
    told = "warning: frozen at random weights: mask_token 1, statistics 5, block 2 tensors"
    assert any(line.startswith(told) for line in lines)


@pytest.mark.parametrize("way", ["ckpt_path", "init"])
def test_none_uses_no_source_and_its_people_do_not_count(source: Path, tmp_path: Path, way: str) -> None:
    given = {"init": (Transfer(source),)} if way == "init" else {}
    record, lines = train(tmp_path, None if given else source, shift=2, transfer="none", **given)  # tests 0 and 1
    assert record["transfers"] == []
    assert record["inputs"] == {}
    assert f"transfer: none: {source} is not used, and the encoder does not start from it" in lines
    trained = read_checkpoint(tmp_path / "best.ckpt").stamp.trained
    assert trained == [f"toy:{number:02}" for number in range(2, 8)]
    same, _ = train(tmp_path.with_name(f"{tmp_path.name}-alone"), shift=2)
    assert same["weights_sha256"] == record["weights_sha256"]


def test_none_does_not_read_a_source_of_init_at_all(tmp_path: Path) -> None:
    record, _ = train(tmp_path, transfer="none", init=(Transfer(tmp_path / "absent.ckpt"),))
    assert record["warm_start"] == []


def test_a_hand_over_that_says_it_itself_is_left_alone(source: Path, tmp_path: Path) -> None:
    init = (Transfer(source, only=("block",)), Transfer(source, "objective.readout", "objective.readout"))
    record, lines = train(tmp_path, transfer="none", init=init)
    assert [len(report["moved"]) for report in record["transfers"]] == [2, 2]
    assert not any("not used" in line for line in lines)


def test_parts_that_other_hand_overs_fill_are_not_called_new() -> None:
    phase = build(toy.SIGNAL, "a")
    other = Checkpoint(Path("a.ckpt"), stamp(), dict(build(toy.SIGNAL, "b").state_dict()), {})
    transfers = [Transfer(Path("a.ckpt"), only=(part,)) for part in ("patch", "block")]
    reports = hand_over(phase, transfers, {"a.ckpt": other}, lambda line: None)
    assert [report.components["patch"]["new"] for report in reports] == [0, 0]
    assert reports[1].components["patch"] == {"moved": 0, "new": 0, "unused": 2}
    assert reports[0].components["statistics"]["new"] == 5


def test_an_unknown_part_is_refused_with_those_that_there_are() -> None:
    said = r"transfer='stem' is no part of ToyEncoder; .*all, none or one of mask_token, patch, statistics, block\."
    with pytest.raises(ConfigError, match=said):
        build(toy.SIGNAL, "a", transfer="stem")


def test_parts_that_one_side_lacks_are_named_with_what_to_type() -> None:
    whole, half, three = encoder_of("feature", "mixer"), encoder_of("feature"), encoder_of("feature", "mixer", "top")
    said = r"has parts that this phase has not \(mixer 2 tensors\); nothing was loaded; set model.transfer: feature to"
    with pytest.raises(CheckpointError, match=said):
        transfer_weights(half, Transfer(Path("a.ckpt")), checkpoint_of(whole))
    with pytest.raises(CheckpointError, match=r"has no mixer 2 tensors; .* set model.transfer: feature to"):
        transfer_weights(whole, Transfer(Path("a.ckpt")), checkpoint_of(half))
    with pytest.raises(CheckpointError, match=r"only: \[feature, mixer\] into this entry"):
        transfer_weights(whole, Transfer(Path("a.ckpt")), checkpoint_of(three))
    transfer_weights(half, Transfer(Path("a.ckpt"), only=("feature",)), checkpoint_of(whole))


def test_records_without_components_are_read() -> None:
    report = TransferReport("a", "p", "encoder", "encoder", "0", 1, {"encoder.x": (1,)}, {})
    old = {key: value for key, value in report.plain().items() if key != "components"}
    assert TransferReport(**old).part_lines() == []


def test_a_run_without_the_newer_keys_has_the_hash_that_it_always_had() -> None:
    old = {"model": {"name": "a", "init": []}, "data": {}}
    new = {"model": {"name": "a", "init": [], "transfer": "all", "freeze_encoder": False}, "data": {}}
    assert config_hash(old) == config_hash(new)
    assert config_hash(old) != config_hash({"model": new["model"] | {"freeze_encoder": True}, "data": {}})
    assert config_hash(old) != config_hash({"model": new["model"] | {"transfer": "patch"}, "data": {}})


def test_a_frozen_encoder_stays_the_same_bytes_in_all_epochs(source: Path, tmp_path: Path) -> None:
    record, lines = train(tmp_path, source, max_epochs=3, freeze_encoder=True)
    before, after = read_checkpoint(source).weights, read_checkpoint(tmp_path / "last.ckpt").weights
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("encoder."))
    receipt = record["freeze"]
    assert receipt["unchanged"] is True
    assert receipt["epochs"] == 3
    assert receipt["sha256_before"] == receipt["sha256_after"]
    n_readout = toy.ToyEncoder(toy.SIGNAL).d_model + 1
    assert record["trainable"] == receipt["trainable_parameters"] == n_readout
    assert any(line.endswith("the encoder is frozen in all epochs") for line in lines)
    same, _ = train(tmp_path.with_name(f"{tmp_path.name}-epochs"), source, max_epochs=3, freeze_encoder_epochs=3)
    assert {**same["freeze"], "epochs": 3} == receipt
    assert same["last_weights_sha256"] == record["last_weights_sha256"]
    assert same["trainable"] == record["trainable"]


def test_a_frozen_run_that_goes_on_stays_frozen_and_proves_it_anew(source: Path, tmp_path: Path) -> None:
    train(tmp_path / "a", source, freeze_encoder=True)
    record, _ = train(tmp_path / "b", tmp_path / "a" / "last.ckpt", max_epochs=3, freeze_encoder=True)
    assert record["freeze"]["epochs"] == 3
    assert record["freeze"]["unchanged"] is True
    before, after = read_checkpoint(source).weights, read_checkpoint(tmp_path / "b" / "last.ckpt").weights
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("encoder."))
    assert record["trainable"] == record["freeze"]["trainable_parameters"]


def test_an_encoder_frozen_at_its_start_is_warned_of_part_by_part(tmp_path: Path) -> None:
    told = "warning: frozen at random weights: mask_token 1, patch 2, statistics 5, block 2 tensors"
    for number, keys in enumerate(({"freeze_encoder": True}, {"freeze_encoder_epochs": 1})):
        _, lines = train(tmp_path / str(number), **keys)
        assert sum(line.startswith(told) for line in lines) == 1
    _, lines = train(tmp_path / "free")
    assert not any("warning" in line for line in lines)


def test_run_json_has_the_components(source: Path, tmp_path: Path) -> None:
    train(tmp_path, source)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["transfers"][0]["components"]["patch"] == {"moved": 2, "new": 0, "unused": 0}


def encoder_of(*parts: str) -> nn.Module:
    return nn.ModuleDict({"encoder": nn.ModuleDict({part: nn.Linear(2, 2) for part in parts})})


def stamp() -> Stamp:
    return Stamp("source", "0", "", "", "", {}, {}, {"train": [], "val": []}, [], [])


def checkpoint_of(phase: nn.Module) -> Checkpoint:
    return replace(Checkpoint(Path("a.ckpt"), stamp(), {}, {}), weights=dict(phase.state_dict()))
