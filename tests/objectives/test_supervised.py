from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError, DataError
from cerebro.objectives.supervised import Supervised
from cerebro.readouts import LinearReadout, MLPReadout
from cerebro.signal import EEGBatch, SignalSpec


def build(signal: SignalSpec, **options: Any) -> tuple[LaBraM, Supervised]:
    torch.manual_seed(0)
    encoder = LaBraM(signal, conv_channels=2, depth=1, n_heads=2).eval()
    return encoder, Supervised(encoder, signal, **({"target": "trait", "readout": LinearReadout} | options))


def labelled(batch: EEGBatch, value: list[float], known: list[bool], target: str = "trait") -> EEGBatch:
    return replace(batch, targets={target: torch.tensor(value)}, known={target: torch.tensor(known)})


def test_the_start_takes_mean_and_sd_of_known_labels_alone(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    nan = float("nan")
    batches = [
        labelled(toy_eeg(3), [2.0, nan, 4.0], [True, False, True]),
        labelled(toy_eeg(2), [9.0, 100.0], [True, False]),
    ]
    objective.start(encoder, batches)
    assert float(objective.target_mean) == pytest.approx(5.0)
    assert float(objective.target_sd) == pytest.approx((26 / 3) ** 0.5)


def test_missing_labels_take_no_part_in_the_loss(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    batch = toy_eeg(4)
    all_known = labelled(batch, [1.0, 2.0, 3.0, 4.0], [True, False, True, False])
    with_nan = labelled(batch, [1.0, float("nan"), 3.0, float("nan")], [True, False, True, False])
    loss = objective(encoder, with_nan)
    loss.total.backward()
    assert torch.equal(objective(encoder, all_known).total, loss.total)
    assert int(loss.counts["loss"]) == 2
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)
    with torch.no_grad():
        outputs = objective.readout(encoder, batch)[:, 0]
    expected = ((outputs[0] - 1) ** 2 + (outputs[2] - 3) ** 2) / 2
    torch.testing.assert_close(loss.total.detach(), expected)


def test_balanced_classes_weigh_the_same_however_rare(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    options = {"target": "state", "kind": "classification"}
    encoder, equal = build(toy_signal, **options)
    _, balanced = build(toy_signal, **options, class_weights="balanced")
    label, known = [0.0, 0.0, 0.0, 1.0, 1.0], [True, True, True, True, False]
    batch = labelled(toy_eeg(5), label, known, "state")
    for objective in (equal, balanced):
        objective.start(encoder, [batch])
    assert equal.class_weight.tolist() == [1.0, 1.0]
    assert balanced.class_weight.tolist() == pytest.approx([4 / 6, 2.0])  # 3 against 1 known label
    probability = balanced.predict(encoder, batch)["state"]
    surprise = -probability.log()
    wanted = 0.5 * surprise[:3, 0].mean() + 0.5 * surprise[3, 1]
    assert float(balanced(encoder, batch).total.detach()) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_batch_without_labels_gives_zero_and_a_zero_gradient(toy_signal: SignalSpec, toy_eeg: Any, kind: str) -> None:
    encoder, objective = build(toy_signal, kind=kind)
    loss = objective(encoder, labelled(toy_eeg(2), [float("nan")] * 2, [False, False]))
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(float(gradient.abs().sum()) == 0 for gradient in gradients)


def test_predictions_are_in_the_targets_unit(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    batch = toy_eeg(4)
    plain = objective.predict(encoder, batch)["trait"]
    objective.target_mean.fill_(500.0)
    objective.target_sd.fill_(80.0)
    torch.testing.assert_close(objective.predict(encoder, batch)["trait"], 500 + 80 * plain)


def test_class_predictions_are_probabilities(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, target="state", kind="classification", n_classes=3)
    predicted = objective.predict(encoder, toy_eeg(4))["state"]
    assert predicted.shape == (4, 3)
    torch.testing.assert_close(predicted.sum(dim=-1), torch.ones(4))


VOTE = {
    "target": "state",
    "kind": "classification",
    "readout": partial(MLPReadout, over_windows="vote", dropout=0.0),
}


def test_the_loss_of_a_vote_is_the_cross_entropy_of_the_mean_probability(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, **VOTE)
    batch = labelled(toy_eeg(4), [0.0, 1.0, 1.0, 0.0], [True, True, True, False], "state")
    batch = replace(batch, n_valid=torch.tensor([200, 100, 200, 200]), is_padded=True)
    probability, is_real = objective.predict_windows(encoder, batch)["state"]
    assert probability.shape == (4, 2, 2)
    assert is_real.tolist() == [[True, True], [True, False], [True, True], [True, True]]
    torch.testing.assert_close(probability.sum(dim=-1), torch.ones(4, 2))
    mean = torch.stack([row[real].mean(dim=0) for row, real in zip(probability, is_real, strict=True)])
    torch.testing.assert_close(objective.predict(encoder, batch)["state"], mean)
    expected = -mean[[0, 1, 2], [0, 1, 1]].log().mean()
    torch.testing.assert_close(objective(encoder, batch).total.detach(), expected)
    tokens = encoder(batch)
    torch.testing.assert_close(objective.predict_windows(encoder, batch, tokens)["state"][0], probability)


def test_single_windows_are_predicted_by_a_vote_alone(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, target="state", kind="classification", readout=MLPReadout)
    assert objective.predict_windows(encoder, toy_eeg(2)) == {}
    encoder, objective = build(toy_signal)
    assert objective.predict_windows(encoder, toy_eeg(2)) == {}
    with pytest.raises(ConfigError, match=r"this head has one output; set over_windows to mean"):
        build(toy_signal, readout=VOTE["readout"])


def test_training_labels_of_one_class_are_refused_with_what_was_found(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, target="state", kind="classification")
    batch = labelled(toy_eeg(3), [1.0, 1.0, 0.0], [True, True, False], "state")
    with pytest.raises(
        DataError, match=r"all 4 training samples .* 'state' are of class 1, .*check the table"
    ) as error:
        objective.start(encoder, [batch, batch])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("loss", "expected"), [("mse", 9.0), ("l1", 3.0), ("huber", 2.5)])
def test_the_regression_losses_are_what_they_are_called(
    toy_signal: SignalSpec, toy_eeg: Any, loss: Any, expected: float
) -> None:
    encoder, objective = build(toy_signal, loss=loss)
    torch.nn.init.zeros_(objective.readout.get_parameter("head.weight"))
    batch = labelled(toy_eeg(2), [3.0, -3.0], [True, True])
    assert float(objective(encoder, batch).total.detach()) == pytest.approx(expected)


def test_a_frozen_encoder_builds_no_graph(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    encoder.requires_grad_(False)
    loss = objective(encoder, toy_eeg(4))
    assert loss.tokens is not None
    assert loss.tokens.grad_fn is None
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in objective.readout.parameters())


def test_unfit_targets_are_refused_in_one_line(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    with pytest.raises(ConfigError, match=r"no target 'age' \(they carry: trait, state\); add it to data.targets"):
        build(toy_signal, target="age")
    encoder, objective = build(toy_signal)
    with pytest.raises(DataError, match="no training window has a label 'trait'"):
        objective.start(encoder, [labelled(toy_eeg(2), [1.0, 2.0], [False, False])])
    encoder, objective = build(toy_signal, target="state", kind="classification")
    with pytest.raises(DataError, match=r"whole numbers from 0 to 1, found \[0.0, 2.0\]"):
        objective.start(encoder, [labelled(toy_eeg(2), [0.0, 2.0], [True, True], "state")])
