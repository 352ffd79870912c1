from typing import Any

import pytest
import torch

from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.objectives import Contrastive, Supervised, WeightedSum
from cerebro.readouts import LinearReadout
from cerebro.signal import SignalSpec


def trait(encoder: Encoder, signal: SignalSpec) -> Supervised:
    return Supervised(encoder, signal, target="trait", readout=LinearReadout)


def state(encoder: Encoder, signal: SignalSpec) -> Supervised:
    return Supervised(encoder, signal, target="state", readout=LinearReadout, kind="classification")


TERMS = {"film": Contrastive, "trait": trait, "state": state}


def build(signal: SignalSpec, weights: dict[str, float]) -> tuple[LaBraM, WeightedSum]:
    torch.manual_seed(0)
    encoder = LaBraM(signal, conv_channels=2, depth=1, n_heads=2).eval()
    return encoder, WeightedSum(encoder, signal, dict(TERMS), weights)


def test_the_total_is_the_weighted_sum_of_its_terms(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, {"film": 1.0, "trait": 0.15, "state": 2.0})
    loss = objective(encoder, toy_eeg(8))
    expected = loss.parts["film"] + 0.15 * loss.parts["trait"] + 2 * loss.parts["state"]
    torch.testing.assert_close(loss.total.detach(), expected)
    assert {"film/info_nce", "trait/mse", "trait/known", "state/accuracy"} <= set(loss.parts)


def test_the_terms_share_one_encoding(toy_signal: SignalSpec, toy_eeg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, objective = build(toy_signal, {"film": 1.0, "trait": 1.0, "state": 1.0})
    calls = []
    embed = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda batch: calls.append(1) or embed(batch))
    objective(encoder, toy_eeg(8))
    assert len(calls) == 1


def test_a_term_of_weight_zero_is_left_out_and_shifts_no_other_start(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    _, full = build(toy_signal, {"film": 1.0, "trait": 0.5, "state": 1.0})
    encoder, without = build(toy_signal, {"film": 1.0, "trait": 0.0, "state": 1.0})
    assert list(without.terms) == ["film", "state"]
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in without.state_dict().items())
    assert "trait" not in without.predict(encoder, toy_eeg(4))


def test_every_term_is_started(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, {"film": 0.0, "trait": 1.0, "state": 1.0})
    objective.start(encoder, [toy_eeg(8)])
    started = objective.terms["trait"]
    assert isinstance(started, Supervised)
    assert float(started.target_sd) != 1.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"film": 1.0, "trait": 0.1, "stat": 1.0}, "weights name film, stat, trait and terms film, state, trait"),
        ({"film": 1.0, "trait": 0.1}, "give every term a weight"),
        ({"film": -1.0, "trait": 0.1, "state": 1.0}, r"weights.film=-1.0"),
        ({"film": float("nan"), "trait": 0.1, "state": 1.0}, r"weights.film=nan"),
        ({"film": 0.0, "trait": 0.0, "state": 0.0}, "every weight is 0"),
    ],
)
def test_unfit_weights_are_refused(toy_signal: SignalSpec, weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(toy_signal, weights)
