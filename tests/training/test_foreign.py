"""Files of other programs are read without running anything, and known by the names of their tensors."""

import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cerebro.errors import CheckpointError
from cerebro.files import sha256_file
from cerebro.training.checkpoint import read_checkpoint
from cerebro.training.foreign import read_source, unknown_participants


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("kind", "layout", "n_unused"), [("mem", "labram", 4), ("finetune", "finetuned", 0), ("vqnsp", "vqnsp", 3)]
)
def test_an_official_file_is_known_by_its_tensors(
    official_file: Callable[..., Path], tmp_path: Path, kind: str, layout: str, n_unused: int
) -> None:
    path = official_file(tmp_path, kind)
    found = read_source(path)
    assert found.foreign is not None
    assert found.foreign.layout == layout
    assert len(found.foreign.without_place) == n_unused
    assert found.stamp.weights_sha256 == sha256_file(path)
    assert found.foreign.left == (() if kind == "finetune" else ("epoch", "args", "optimizer", "scaler"))
    assert not found.stamp.seen
    assert f"who took part in training {path} is unknown" in unknown_participants(found)


def test_a_bare_state_dict_and_safetensors_and_a_hub_folder_are_the_same(
    official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    state = official_state("finetune")
    torch.save(state, tmp_path / "a.pt")
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    bare, hub = read_source(tmp_path / "a.pt"), read_source(folder)
    assert hub.path == folder / "model.safetensors"
    assert bare.weights.keys() == hub.weights.keys()
    assert all(torch.equal(bare.weights[name], hub.weights[name]) for name in bare.weights)


@pytest.mark.parametrize("place", ["model", "args", "optimizer"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
    official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path, monkeypatch: Any, place: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    flag, path = tmp_path / "executed", tmp_path / "hostile.pth"
    torch.save({"model": official_state("mem"), place: Hostile(f"touch {flag}")}, path)
    with pytest.raises(CheckpointError, match=r"hostile.pth holds more than tensors.*nothing was loaded") as caught:
        read_source(path)
    assert not flag.exists()
    assert "\n" not in str(caught.value)


def test_of_classes_only_a_namespace_is_let_in(official_file: Callable[..., Path], tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_checkpoint(path)  # what resumes or scores holds plain values
    content = torch.load(path, weights_only=False)
    content["args"].output_dir = pathlib.PurePosixPath("somewhere")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_source(path)


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"layer.weight": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no stamp of cerebro.*official VQNSP tokenizer, braindecode Labram"):
        read_source(tmp_path / "a.pth")


def test_tensors_that_a_layout_does_not_have_are_refused(official_file: Callable[..., Path], tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem", {"student.adapter.weight": torch.ones(2)})
    with pytest.raises(
        CheckpointError, match=r"holds 1 tensors that this layout does not have \(first: student.adapter"
    ):
        read_source(path)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_damaged_safetensors_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read as safetensors") as caught:
        read_source(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="not found"):
        read_source(tmp_path / "absent.safetensors")
