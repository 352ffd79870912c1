"""An encoder that is frozen in all epochs runs once, and nothing else changes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from frozen_head import LENGTH, POWER, check_same, data_of, encoder_of, killed_after, train, write
from toy import ToyReadout

from cerebro.data import ChannelSequences, EEGData, ParticipantSplit
from cerebro.encoders import Encoder
from cerebro.objectives import Supervised, WeightedSum
from cerebro.readouts import MLPReadout, PowerReadout
from cerebro.signal import SignalSpec
from cerebro.training import encode_once
from cerebro.training.checkpoint import Transfer, read_checkpoint, weights_sha256
from cerebro.training.encode_once import FILE, Asked
from cerebro.training.phase import Phase

PRINCIPAL = partial(POWER, components="principal")  # whose axes are at right angles


@pytest.mark.usefixtures("without_pooling")
@pytest.mark.parametrize("readout", [MLPReadout, POWER])
def test_a_run_with_stored_tokens_is_the_run_without_them(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch, encoder_runs: list[int], readout: Any
) -> None:
    lines: list[str] = []
    record = train(tmp_path / "stored", ten_people, lines, readout=readout)
    n_stored = sum(encoder_runs)
    assert any("are computed once, and kept in" in line for line in lines)
    assert record["freeze"]["unchanged"]
    with monkeypatch.context() as patch:
        patch.setattr(encode_once, "MOST_OF_FREE_MEMORY", 0.0)
        encoder_runs.clear()
        lines = []
        train(tmp_path / "anew", ten_people, lines, readout=readout)
    assert any("it runs anew in each of the 3 epochs" in line for line in lines)
    assert not (tmp_path / "anew" / FILE).exists()
    assert n_stored < 10 * 3 + 6  # every sequence once, and a batch for the showcase
    assert sum(encoder_runs) > 2 * n_stored
    check_same(tmp_path / "stored", tmp_path / "anew", 1e-6)
    with (
        np.load(tmp_path / "stored/predictions_val.npz") as ours,
        np.load(tmp_path / "anew/predictions_val.npz") as his,
    ):
        np.testing.assert_allclose(ours["prediction/remission"], his["prediction/remission"], atol=1e-6)
        assert np.array_equal(ours["sample"], his["sample"])


def test_tokens_are_those_of_the_encoder_at_every_window_that_is_there(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    encoder = encoder_of(data.signal)
    asked = Asked(encoder, {}, data, data.val_dataloader(), "32-true")
    outline = asked.outline()
    kept = asked.compute(outline)
    assert encoder.training
    encoder.eval()
    assert len(outline.sample) == len(data.rows("train")) + len(data.rows("val"))
    assert outline.n_rows == sum(-(-int(n) // LENGTH) for n in data.table.n_valid[outline.sample.numpy()])
    loader = data.train_dataloader()
    for raw, bare in zip(loader, data.train_dataloader().without_signals(), strict=True):
        batch, labels = raw.to_microvolts(), bare.to_microvolts()
        assert labels.eeg.shape == batch.eeg.shape
        assert labels.eeg.untyped_storage().nbytes() == 4
        valid = encoder.valid(batch)
        assert torch.equal(encoder.valid(labels), valid)
        with torch.no_grad():
            torch.testing.assert_close(kept.of(encoder, labels)[valid], encoder(batch)[valid], rtol=1e-5, atol=1e-5)
        assert (kept.of(encoder, labels)[~valid] == 0).all()


def test_a_window_that_was_not_kept_is_an_error(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    encoder = encoder_of(data.signal)
    asked = Asked(encoder, {}, data, data.val_dataloader(), "32-true")
    outline = asked.outline()
    kept = asked.compute(outline)
    batch = next(iter(data.train_dataloader())).to_microvolts()
    unknown = sorted(set(range(len(data.table))) - set(outline.sample.tolist()))
    some = replace(batch, sample=torch.full_like(batch.sample, unknown[0] if unknown else len(data.table)))
    with pytest.raises(IndexError):
        kept.of(encoder, some)


def test_an_encoder_that_trains_runs_in_every_epoch(tmp_path: Path, ten_people: Path, encoder_runs: list[int]) -> None:
    lines: list[str] = []
    record = train(tmp_path, ten_people, lines, freeze=False)
    assert not any("computed once" in line for line in lines)
    assert not (tmp_path / FILE).exists()
    assert record["freeze"]["epochs"] == 1
    assert sum(encoder_runs) >= 3 * 30


def test_a_readout_that_reads_no_tokens_and_a_single_epoch_make_the_encoder_run(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "once", ten_people, max_epochs=1)
    assert not (tmp_path / "once" / FILE).exists()
    monkeypatch.setattr(MLPReadout, "reads_tokens", False)
    train(tmp_path / "signals", ten_people)
    assert not (tmp_path / "signals" / FILE).exists()


def test_a_sum_is_kept_where_every_term_reads_tokens_alone(tmp_path: Path, ten_people: Path) -> None:
    term = partial(Supervised, target="remission", readout=ToyReadout)

    def summed(signal: SignalSpec, **more: Any) -> Phase:
        objective = partial(WeightedSum, terms={"a": term, "b": term}, weights={"a": 1.0, "b": 0.5})
        return Phase("head", signal, encoder_of, objective, freeze_encoder=True)

    train(tmp_path, ten_people, build=summed)
    assert (tmp_path / FILE).exists()


def test_labels_are_read_without_the_signals(tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = Supervised.start

    def start(self: Supervised, encoder: Encoder, batches: Any) -> None:
        batches = list(batches)
        seen.extend(batch.eeg.untyped_storage().nbytes() for batch in batches)
        original(self, encoder, batches)

    monkeypatch.setattr(Supervised, "start", start)
    train(tmp_path, ten_people, freeze=False)
    assert set(seen) == {4}  # one zero


def test_a_head_starts_from_the_tokens_that_training_begins_with_and_never_again_on_resume(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[tuple[int, ...]]] = []
    original = PowerReadout.start

    def start(self: PowerReadout, encoder: Encoder, batches: Any) -> None:
        assert not self.training
        passes.extend([tuple(batch.sample.tolist()) for batch, _ in batches()] for _ in range(2))
        original(self, encoder, batches)

    monkeypatch.setattr(PowerReadout, "start", start)
    for freeze in (True, False):
        train(tmp_path / f"{freeze}", ten_people, freeze=freeze, readout=PRINCIPAL)
        assert len(passes) == 2
        assert passes[0] == passes[1]
        passes.clear()
        weights = read_checkpoint(tmp_path / f"{freeze}/last.ckpt").weights
        axes = weights["objective.readout.axes"]
        torch.testing.assert_close(axes.T @ axes, torch.eye(4), rtol=1e-5, atol=1e-5)
        assert not torch.equal(axes, torch.eye(16)[:, :4])
        train(tmp_path / f"{freeze}", ten_people, freeze=freeze, readout=PRINCIPAL, max_epochs=4)
        assert not passes
        again = read_checkpoint(tmp_path / f"{freeze}/last.ckpt").weights
        assert torch.equal(again["objective.readout.axes"], axes)


@pytest.mark.parametrize("readout", [MLPReadout, POWER])
@pytest.mark.parametrize("n_saves", [1, 4, 9])
def test_a_run_killed_and_resumed_reads_its_tokens_back_and_ends_bit_identical(
    tmp_path: Path,
    ten_people: Path,
    encoder_runs: list[int],
    n_saves: int,
    readout: Any,
) -> None:
    train(tmp_path / "whole", ten_people, readout=readout)
    with killed_after(n_saves):
        train(tmp_path / "killed", ten_people, readout=readout)
    encoder_runs.clear()
    lines: list[str] = []
    train(tmp_path / "killed", ten_people, lines, readout=readout)
    assert any("are read from" in line for line in lines)
    assert sum(encoder_runs) <= 5  # the showcase
    check_same(tmp_path / "killed", tmp_path / "whole", 0.0)


def test_a_head_that_was_handed_over_keeps_its_components(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "first", ten_people, readout=POWER)
    first = read_checkpoint(tmp_path / "first/best.ckpt").weights
    other = write(tmp_path / "store", 0.0, seed=1)
    passes: list[int] = []
    monkeypatch.setattr(PowerReadout, "start", lambda *_: passes.append(1))
    readout = Transfer(tmp_path / "first/best.ckpt", "objective.readout", "objective.readout")
    lines: list[str] = []
    train(tmp_path / "second", other, lines, readout=POWER, name="second", init=(readout,))
    assert any("objective.readout starts as it was handed over" in line for line in lines)
    assert passes == []
    second = read_checkpoint(tmp_path / "second/last.ckpt").weights
    for name in ("axes", "centre", "scale"):
        assert torch.equal(second[f"objective.readout.{name}"], first[f"objective.readout.{name}"])
    encoder = Transfer(tmp_path / "first/best.ckpt", "encoder", "encoder")
    train(tmp_path / "third", other, readout=POWER, name="third", init=(encoder,))
    assert passes == [1]


def test_processes_share_the_memory_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(encode_once.psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    assert encode_once.free_bytes(cpu) == 8000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert encode_once.free_bytes(cpu) == 2000


STALE: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "other weights": lambda folder, store: {"store": store, "encoder_seed": 1},
    "other data": lambda folder, store: {"store": write(folder / "other", 3.0)},
    "other precision": lambda folder, store: {"store": store, "precision": "bf16-mixed"},
}


@pytest.mark.parametrize("what", STALE)
def test_a_file_of_other_weights_data_or_precision_is_never_used(tmp_path: Path, ten_people: Path, what: str) -> None:
    train(tmp_path / "first", ten_people)
    other = STALE[what](tmp_path, ten_people)
    train(tmp_path / "clean", **other)
    lines: list[str] = []
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / FILE).write_bytes((tmp_path / "first" / FILE).read_bytes())
    train(tmp_path / "mixed", lines=lines, **other)
    assert any("are of other weights, data or windows, and are replaced" in line for line in lines)
    check_same(tmp_path / "mixed", tmp_path / "clean", 0.0)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_noticed_and_replaced(tmp_path: Path, ten_people: Path, damage: str) -> None:
    train(tmp_path / "clean", ten_people)
    whole = (tmp_path / "clean" / FILE).read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    content = {"cut": whole[:-50], "flipped": bytes(flipped), "empty": b""}[damage]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(content)
    lines: list[str] = []
    train(tmp_path / "run", ten_people, lines)
    assert any("is damaged, and is replaced" in line for line in lines)
    check_same(tmp_path / "run", tmp_path / "clean", 0.0)


def test_the_key_knows_everything_that_decides_a_token(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    encoder = encoder_of(data.signal)
    asked = Asked(encoder, {"class_path": "Mamba2"}, data, data.val_dataloader(), "32-true")
    outline = asked.outline()
    short = EEGData(ten_people, ChannelSequences(max_windows=3), ParticipantSplit(val_ratio=0.3), batch_size=5)
    short.setup()
    others = [
        replace(asked, encoder=encoder_of(data.signal, 1)),
        replace(asked, description={"class_path": "Mamba2", "init_args": {"scale_uV": 10.0}}),
        replace(asked, precision="bf16-mixed"),
        replace(asked, data=short),
    ]
    keys = [asked.key(outline), *(other.key(outline) for other in others)]
    assert len(set(keys)) == len(keys)
    fewer = replace(
        outline, sample=outline.sample[1:], n_channels=outline.n_channels[1:], n_tokens=outline.n_tokens[1:]
    )
    assert asked.key(fewer) != keys[0]
    assert asked.key(outline) == keys[0]
    assert weights_sha256(encoder.state_dict()) == weights_sha256(encoder_of(data.signal).state_dict())
