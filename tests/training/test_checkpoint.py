import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cerebro.errors import CheckpointError, DataError
from cerebro.training.checkpoint import (
    STAMP,
    AtomicCheckpoint,
    Checkpoint,
    Stamp,
    Transfer,
    read_checkpoint,
    refuse_seen,
    transfer_weights,
    weights_sha256,
)


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def stamp(**changes: Any) -> Stamp:
    plain: dict[str, Any] = {
        "phase": "tokenizer",
        "version": "0",
        "git_commit": "",
        "data_hash": "",
        "config_hash": "",
        "config": {},
        "signal": {},
        "participants": {"train": [], "val": []},
        "trained": [],
        "seen": [],
    }
    return Stamp(**plain | changes)


def make_phase(width: int = 3) -> nn.Module:
    encoder = nn.ModuleDict({"feature": nn.Linear(2, width), "mixer": nn.Linear(width, width)})
    return nn.ModuleDict({"encoder": encoder, "objective": nn.ModuleDict({"head": nn.Linear(width, 1)})})


def checkpoint_of(phase: nn.Module) -> Checkpoint:
    weights = {name: value.clone() for name, value in phase.state_dict().items()}
    return Checkpoint(Path("a.ckpt"), stamp(), weights, {})


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # would execute pickles behind weights_only=True
    flag = tmp_path / "executed"
    torch.save({STAMP: Hostile(f"touch {flag}"), "state_dict": {}}, tmp_path / "zip.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Hostile(f"touch {flag}")))
    for name in ("zip.ckpt", "raw.ckpt"):
        with pytest.raises(CheckpointError, match=name) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not flag.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt cannot be read|a\.ckpt holds more") as caught:
        read_checkpoint(tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    AtomicCheckpoint().save_checkpoint(
        {STAMP: stamp().plain(), "state_dict": {"a": torch.ones(999)}}, tmp_path / "a.ckpt"
    )
    whole = (tmp_path / "a.ckpt").read_bytes()
    for share in (0.2, 0.6, 0.99):
        (tmp_path / "a.ckpt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "a.ckpt")


def test_addresses_are_paths_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        read_checkpoint(Path("https://example.org/a.ckpt"))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="no stamp of cerebro"):
        read_checkpoint(tmp_path / "foreign.ckpt")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, path = AtomicCheckpoint(), tmp_path / "a.ckpt"
    writer.save_checkpoint({STAMP: stamp().plain(), "state_dict": {"a": torch.ones(3)}}, path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="disk is full"):
            writer.save_checkpoint({STAMP: stamp().plain(), "state_dict": {"a": torch.zeros(3)}}, path)
    assert read_checkpoint(path).weights["a"].sum() == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_hash_of_weights_sees_names_shapes_types_and_values() -> None:
    base = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    variants = [
        {"a": torch.arange(4.0), "c": torch.tensor(1)},
        {"a": torch.arange(4.0).view(2, 2), "b": torch.tensor(1)},
        {"a": torch.arange(4.0).double(), "b": torch.tensor(1)},
        {"a": torch.arange(4.0) + 1e-6, "b": torch.tensor(1)},
    ]
    hashes = {weights_sha256(weights) for weights in [base, *variants]}
    assert len(hashes) == 5
    assert weights_sha256(dict(reversed(base.items()))) == weights_sha256(base)
    assert weights_sha256({"a": torch.ones(2, dtype=torch.bfloat16)})


def test_a_whole_phase_can_move_into_a_part_of_another() -> None:
    source, target = make_phase(), nn.ModuleDict({"objective": nn.ModuleDict({"tokenizer": make_phase()})})
    report = transfer_weights(target, Transfer(Path("a.ckpt"), "", "objective.tokenizer"), checkpoint_of(source))
    moved = target.get_submodule("objective.tokenizer").state_dict()
    assert weights_sha256(moved) == weights_sha256(source.state_dict())
    assert len(report.moved) == 6
    assert not report.unused
    assert report.n_numbers == sum(value.numel() for value in source.state_dict().values())


def test_only_the_named_parts_move() -> None:
    source, target = make_phase(), make_phase()
    before = target.get_submodule("encoder.mixer").state_dict()["weight"].clone()
    report = transfer_weights(target, Transfer(Path("a.ckpt"), only=("feature",)), checkpoint_of(source))
    assert torch.equal(target.get_submodule("encoder.mixer").state_dict()["weight"], before)
    assert set(report.moved) == {"encoder.feature.weight", "encoder.feature.bias"}
    assert "encoder.mixer.weight" in report.unused
    assert "unused: encoder.mixer 2, objective.head 2" in report.line()


def test_a_partial_load_is_refused_and_changes_nothing() -> None:
    source, target = make_phase(), make_phase()
    found = checkpoint_of(source)
    before = weights_sha256(target.state_dict())
    del found.weights["encoder.mixer.bias"]
    found.weights["encoder.extra"] = torch.ones(1)
    found.weights["encoder.feature.weight"] = torch.ones(5, 2)
    with pytest.raises(
        CheckpointError,
        match=r"feature.weight is \(5, 2\), expected \(3, 2\).*1 missing \(first: mixer.bias\).*1 left over",
    ):
        transfer_weights(target, Transfer(Path("a.ckpt")), found)
    assert weights_sha256(target.state_dict()) == before


def test_a_transfer_of_nothing_or_into_nothing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds nothing by that name"):
        transfer_weights(make_phase(), Transfer(Path("a.ckpt"), take="teacher"), checkpoint_of(make_phase()))
    with pytest.raises(CheckpointError, match=r"no module 'objective.tokenizer'.*one of encoder, encoder.feature"):
        transfer_weights(
            make_phase(), Transfer(Path("a.ckpt"), into="objective.tokenizer"), checkpoint_of(make_phase())
        )


def test_participants_seen_are_named() -> None:
    refuse_seen(["a", "b"], ["c"], "test", Path("x.ckpt"))
    with pytest.raises(CheckpointError, match=r"1 test participants were seen while x.ckpt was trained \(first: b\)"):
        refuse_seen(["a", "b"], ["b", "c"], "test", Path("x.ckpt"))
