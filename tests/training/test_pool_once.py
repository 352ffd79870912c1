"""Where a head pools the tokens of a frozen encoder before anything learns, it does so once; nothing else changes."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frozen_head import POWER, build, check_same, data_of, killed_after, train

from cerebro.objectives import Contrastive, Supervised
from cerebro.objectives.base import PooledSamples
from cerebro.readouts import LinearReadout, MLPReadout
from cerebro.training import encode_once, pool_once
from cerebro.training.encode_once import FILE
from cerebro.training.frozen_tokens import FrozenTokens

STATISTICS = partial(MLPReadout, over_channels="concat", over_windows="statistics")
KEPT = "are computed once ("


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches of tokens that were read, by size."""
    seen: list[int] = []
    original = FrozenTokens.of

    def of(self: FrozenTokens, encoder: Any, batch: Any) -> Any:
        seen.append(len(batch))
        return original(self, encoder, batch)

    monkeypatch.setattr(FrozenTokens, "of", of)
    return seen


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("readout", [MLPReadout, STATISTICS, LinearReadout, POWER])
def test_a_run_on_features_is_the_run_on_tokens(
    tmp_path: Path,
    ten_people: Path,
    request: pytest.FixtureRequest,
    n_read: list[int],
    readout: Any,
    precision: str,
) -> None:
    lines: list[str] = []
    train(tmp_path / "features", ten_people, lines, readout=readout, precision=precision)
    n_features = sum(n_read)
    assert sum(KEPT in line for line in lines) == 1
    request.getfixturevalue("without_pooling")
    n_read.clear()
    lines = []
    train(tmp_path / "tokens", ten_people, lines, readout=readout, precision=precision)
    assert not any(KEPT in line for line in lines)
    n_start = 3 * 21 if readout is POWER else 0  # its passes before it learns: seven people, three channels
    assert n_features == 30 + n_start  # every sequence once
    assert sum(n_read) == 3 * 30 + n_start
    check_same(tmp_path / "features", tmp_path / "tokens", 1e-6)
    with (
        np.load(tmp_path / "features/predictions_val.npz") as ours,
        np.load(tmp_path / "tokens/predictions_val.npz") as theirs,
    ):
        np.testing.assert_allclose(ours["prediction/remission"], theirs["prediction/remission"], atol=1e-6)


@pytest.mark.parametrize("readout", [MLPReadout, POWER])
def test_tokens_that_do_not_fit_into_memory_are_pooled_as_they_are_made(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch, encoder_runs: list[int], readout: Any
) -> None:
    train(tmp_path / "fit", ten_people, readout=readout)
    encoder_runs.clear()
    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(encode_once, "MOST_OF_FREE_MEMORY", 0.0)
        train(tmp_path / "do not", ten_people, lines, readout=readout)
    assert any("that are free: its head keeps features" in line for line in lines)
    assert sum(KEPT in line for line in lines) == 1
    assert not (tmp_path / "do not" / FILE).exists()
    n_start = 3 * 21 if readout is POWER else 0
    assert sum(encoder_runs) == 30 + n_start + 5  # and a batch for the showcase
    check_same(tmp_path / "do not", tmp_path / "fit", 1e-6)


def test_features_that_do_not_fit_either_are_made_in_every_epoch(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch, encoder_runs: list[int], n_read: list[int]
) -> None:
    monkeypatch.setattr(pool_once, "MOST_OF_FREE_MEMORY", 0.0)
    lines: list[str] = []
    train(tmp_path / "tokens", ten_people, lines)
    assert any("features of the head would take more than a quarter" in line for line in lines)
    assert sum(n_read) > 3 * 30  # and those that were looked at to see how many features there would be
    encoder_runs.clear()
    monkeypatch.setattr(encode_once, "MOST_OF_FREE_MEMORY", 0.0)
    train(tmp_path / "signals", ten_people)
    assert sum(encoder_runs) > 3 * 30
    check_same(tmp_path / "signals", tmp_path / "tokens", 1e-6)


@pytest.mark.parametrize(
    "where", [{"over_channels": "attention"}, {"over_windows": "attention"}, {"over_windows": "vote"}]
)
def test_what_learns_to_pool_reads_tokens_in_every_epoch(
    tmp_path: Path, ten_people: Path, n_read: list[int], where: dict[str, Any]
) -> None:
    lines: list[str] = []
    train(tmp_path, ten_people, lines, readout=partial(MLPReadout, **where))
    assert not any(KEPT in line for line in lines)
    assert sum(n_read) == 3 * 30


@pytest.mark.parametrize("n_saves", [1, 4, 9])
def test_a_run_killed_and_resumed_ends_bit_identical_where_tokens_do_not_fit(
    tmp_path: Path, ten_people: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    monkeypatch.setattr(encode_once, "MOST_OF_FREE_MEMORY", 0.0)
    train(tmp_path / "whole", ten_people, readout=POWER)
    with killed_after(n_saves):
        train(tmp_path / "killed", ten_people, readout=POWER)
    train(tmp_path / "killed", ten_people, readout=POWER)
    check_same(tmp_path / "killed", tmp_path / "whole", 0.0)


def test_features_are_read_for_batches_without_signals_alone(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    phase = build(data.signal).eval()
    objective = phase.objective
    assert isinstance(objective, Supervised)
    loader = data.val_dataloader()
    batch, bare = (next(iter(one)).to_microvolts() for one in (loader, loader.without_signals()))
    assert batch.has_signal
    assert not bare.has_signal
    with pytest.raises(RuntimeError, match="neither its tokens nor its features are kept"):
        objective.predict(phase.encoder, bare)
    with torch.no_grad():
        right = objective.pooled(phase.encoder, batch, phase.encoder(batch))
    objective.pooled_samples = PooledSamples(batch.sample, right + 100)
    plain = objective.predict(phase.encoder, batch)["remission"]
    torch.testing.assert_close(plain, objective.predict(phase.encoder, batch, phase.encoder(batch))["remission"])
    objective.pooled_samples = PooledSamples(batch.sample, right)
    torch.testing.assert_close(objective.predict(phase.encoder, bare)["remission"], plain)
    with pytest.raises(IndexError):
        objective.predict(phase.encoder, replace(bare, sample=bare.sample * 0 + len(data.table)))


def test_a_sample_that_comes_twice_is_kept_once(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    phase = build(data.signal)
    loader, lines = data.val_dataloader(), []
    assert pool_once.pool_once(phase, [loader, loader], "32-true", lines.append)
    assert lines[0].startswith("16 features of 9 windows are computed once")
    assert phase.training


def test_other_objectives_have_no_such_features(ten_people: Path) -> None:
    data = data_of(ten_people)
    data.setup()
    phase = build(data.signal)
    objective = Contrastive(phase.encoder, data.signal)
    assert not objective.pools
    with pytest.raises(NotImplementedError, match="Contrastive reads the tokens themselves"):
        objective.pooled(phase.encoder, next(iter(data.val_dataloader())).to_microvolts(), torch.zeros(1))
