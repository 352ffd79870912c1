"""A JEPA phase from data to record: its teacher lives in the checkpoint, and a dead run is stopped."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import toy

from cerebro.encoders import SignalJEPA
from cerebro.objectives import JEPA, BlockMask
from cerebro.training.checkpoint import Transfer, read_checkpoint, transfer_weights
from cerebro.training.health import Collapsed
from cerebro.training.keep import Keeper
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.tracking import MLflowKeys

ENCODER = {"conv_layers": ((4, 5, 5), (8, 1, 1)), "depth": 2, "n_heads": 2, "feedforward": 16, "place_width": 6}
KEYS = {"predictor_depth": 1, "predictor_heads": 2, "predictor_feedforward": 16, "teacher_layers": 1}


def build(signal: Any, init: tuple[Transfer, ...] = (), **more: Any) -> Phase:
    keys = KEYS | {"momentum": (0.9, 0.99), "mask": lambda s, n: BlockMask(s, n, "spatial", ratio=0.5)} | more
    return Phase("jepa", signal, partial(SignalJEPA, **ENCODER), partial(JEPA, **keys), Optim(lr=1e-2), init)


def train(out: Path, **more: Any) -> dict[str, Any]:
    keys = RunKeys(out, mlflow=MLflowKeys(enabled=False), checkpoint_every_steps=1)
    trainer = TrainerKeys(2, accelerator="cpu")
    config = {"model": {"name": "jepa"}, "data": {}, "extra": repr(sorted(more))}
    return fit(partial(build, **more), toy.ToyData(3), trainer, keys, config, None, [].append)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("jepa") / "run"
    train(out)
    return out


@pytest.mark.parametrize("n_saves", [1, 4, 6])
def test_a_killed_run_ends_bit_identical_teacher_included(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    original, count = Keeper._save, [0]

    class Killed(BaseException):
        pass

    def save(self: Keeper, trainer: Any, name: str) -> None:
        original(self, trainer, name)
        count[0] += 1
        if count[0] == n_saves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_save", save)
        with pytest.raises(Killed):
            train(tmp_path)
    train(tmp_path)
    found, wanted = (read_checkpoint(folder / "last.ckpt").weights for folder in (tmp_path, whole))
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []
    assert any(name.startswith("objective.teacher.") for name in wanted)


def test_the_teacher_is_neither_the_encoder_nor_where_it_began(whole: Path) -> None:
    weights = read_checkpoint(whole / "last.ckpt").weights
    torch.manual_seed(0)
    name = "transformer.encoder.layers.0.linear1.weight"
    start = build(toy.SIGNAL).encoder.state_dict()[name]
    teacher, encoder = weights[f"objective.teacher.{name}"], weights[f"encoder.{name}"]
    assert not torch.equal(teacher, encoder)
    assert 0 < float((teacher - encoder).norm()) < float((start - encoder).norm()) + float(encoder.norm())
    shared = "feature_encoder.1.0.weight"
    assert torch.equal(weights[f"objective.teacher.{shared}"], weights[f"encoder.{shared}"])


def test_the_teacher_can_hand_itself_over_as_an_encoder(whole: Path) -> None:
    phase = build(toy.SIGNAL)
    source = read_checkpoint(whole / "last.ckpt")
    transfer_weights(phase, Transfer(whole / "last.ckpt", take="objective.teacher"), source)
    for name, value in phase.encoder.state_dict().items():
        assert torch.equal(value, source.weights[f"objective.teacher.{name}"])


def test_a_dead_run_is_stopped_before_anything_of_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(Collapsed, match=r"^epoch 1 of jepa is no good: the teacher's features collapsed: .*limit 0.99"):
        train(tmp_path, least_variance=0.99)
    assert not (tmp_path / "run.json").exists()
    assert not (tmp_path / "best.ckpt").exists()
    assert not (tmp_path / "history.jsonl").exists()
