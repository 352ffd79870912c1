from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.objectives import Contrastive, Supervised, WeightedSum
from cerebro.readouts import LinearReadout, PowerReadout
from cerebro.signal import EEGBatch, SignalSpec


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


PEOPLE = ("p_factor", "age", "sex", "attention", "internalizing", "externalizing")


def six_at_once(signal: SignalSpec, toy_eeg: Any) -> tuple[LaBraM, WeightedSum, EEGBatch]:
    """All auxiliary targets of people, each known for other windows of the batch."""
    batch = toy_eeg(12)
    rows = torch.arange(12)
    for number, name in enumerate(PEOPLE):
        known = rows % (number + 2) != 0
        value = (rows % 2).float() if name == "sex" else batch.targets["trait"] * (number + 1) + number
        batch.targets[name] = torch.where(known, value, torch.nan)
        batch.known[name] = known
    terms = {
        name: partial(
            Supervised,
            target=name,
            readout=LinearReadout,
            kind="classification" if name == "sex" else "regression",
        )
        for name in PEOPLE
    }
    torch.manual_seed(0)
    signal = replace(signal, targets=PEOPLE)
    encoder = LaBraM(signal, conv_channels=2, depth=1, n_heads=2).eval()
    objective = WeightedSum(encoder, signal, terms, dict(zip(PEOPLE, (0.15, 0.1, 0.2, 0.3, 0.4, 0.5), strict=True)))
    objective.start(encoder, [batch])
    return encoder, objective, batch


def test_six_targets_of_people_are_learned_at_once_and_every_head_gets_a_gradient(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, objective, batch = six_at_once(toy_signal, toy_eeg)
    loss = objective(encoder, batch)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    torch.testing.assert_close(
        loss.total.detach(), sum(weight * loss.parts[name] for name, weight in objective.weights.items())
    )
    for name in PEOPLE:
        gradients = [parameter.grad for parameter in objective.terms[name].parameters()]
        assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients), name
    assert set(objective.predict(encoder, batch)) == set(PEOPLE)


def test_what_stands_where_a_label_is_missing_changes_no_gradient(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    def gradients(filler: float) -> list[torch.Tensor]:
        encoder, objective, batch = six_at_once(toy_signal, toy_eeg)
        for name in PEOPLE:
            batch.targets[name] = torch.where(batch.known[name], batch.targets[name], filler)
        objective(encoder, batch).total.backward()
        parameters = [*encoder.parameters(), *objective.parameters()]
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    for one, two in zip(gradients(float("nan")), gradients(1e6), strict=True):
        assert torch.equal(one, two)
        assert torch.isfinite(one).all()


def test_a_window_without_any_label_takes_no_part(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective, batch = six_at_once(toy_signal, toy_eeg)
    for name in PEOPLE:
        batch.known[name][0] = False
    batch.eeg.requires_grad_()
    objective(encoder, batch).total.backward()
    assert batch.eeg.grad is not None
    assert batch.eeg.grad[0].abs().sum() == 0
    assert batch.eeg.grad[1].abs().sum() > 0


def test_a_term_of_weight_zero_is_never_computed(
    toy_signal: SignalSpec, toy_eeg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    forward = Supervised.forward

    def noted(self: Supervised, *arguments: Any) -> Any:
        called.append(self.target)
        return forward(self, *arguments)

    monkeypatch.setattr(Supervised, "forward", noted)
    encoder, objective = build(toy_signal, {"film": 1.0, "trait": 0.0, "state": 1.0})
    objective.start(encoder, [toy_eeg(8)])
    objective(encoder, toy_eeg(8))
    assert called == ["state"]


def test_terms_of_labels_alone_share_one_pass_over_the_training_batches(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    class Counted(list[EEGBatch]):
        n_passes = 0

        def __iter__(self) -> Iterator[EEGBatch]:
            self.n_passes += 1
            return super().__iter__()

    encoder = LaBraM(toy_signal, conv_channels=2, depth=1, n_heads=2)
    batches = Counted([toy_eeg(8, seed=1), toy_eeg(8, seed=2)])
    objective = WeightedSum(encoder, toy_signal, {"trait": trait, "state": state}, {"trait": 1.0, "state": 0.5})
    objective.start(encoder, batches)
    assert batches.n_passes == 1
    found = objective.terms["trait"].target_mean
    torch.testing.assert_close(found, torch.cat([batch.targets["trait"] for batch in list(batches)]).mean())


def test_heads_that_look_at_tokens_are_started_from_them_and_others_are_not(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    power = partial(PowerReadout, n_components=3, over_channels="concat")
    by_power = partial(Supervised, target="state", readout=power, kind="classification")
    encoder = LaBraM(toy_signal, conv_channels=2, depth=1, n_heads=2).eval()
    objective = WeightedSum(encoder, toy_signal, {"trait": trait, "state": by_power}, {"trait": 1.0, "state": 1.0})
    assert objective.starts_from_tokens
    batches = [(batch, encoder(batch).detach()) for batch in (toy_eeg(8, seed=1), toy_eeg(8, seed=2))]
    objective.start_from_tokens(encoder, lambda: batches)
    head = objective.terms["state"].readout
    assert isinstance(head, PowerReadout)
    assert not torch.equal(head.axes, torch.eye(encoder.d_model)[:, :3])
    assert not WeightedSum(encoder, toy_signal, {"trait": trait}, {"trait": 1.0}).starts_from_tokens
