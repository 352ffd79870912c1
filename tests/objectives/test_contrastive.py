import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.objectives.contrastive import Contrastive, relations
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.means import LossMeans


def build(signal: SignalSpec, **options: Any) -> tuple[LaBraM, Contrastive]:
    torch.manual_seed(0)
    encoder = LaBraM(signal, conv_channels=2, depth=1, n_heads=2)
    return encoder, Contrastive(encoder, signal, **options)


def with_pairs(batch: EEGBatch, pair: list[int], participant: list[int]) -> EEGBatch:
    return replace(batch, pair=torch.tensor(pair), participant=torch.tensor(participant))


def test_positives_share_the_pair_but_not_the_person() -> None:
    positive, negative = relations(torch.tensor([3, 3, 3, 8, -1]), torch.tensor([0, 1, 0, 1, 2]))
    assert positive.int().tolist() == [
        [0, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert negative.int().tolist() == [
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_the_loss_equals_info_nce_written_out(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, temperature=0.2)
    pair, participant = [3, 3, 3, 8, 8, -1], [0, 1, 2, 1, 1, 2]
    batch = with_pairs(toy_eeg(6), pair, participant)
    with torch.no_grad():
        rows = objective.project(encoder, batch, encoder(batch))
        loss = objective(encoder, batch)
    assert rows.norm(dim=-1).tolist() == pytest.approx([1.0] * 6, rel=1e-5)
    similarity = (rows @ rows.T / 0.2).tolist()
    per_anchor = []
    for i in range(6):
        positives = [j for j in range(6) if pair[i] == pair[j] >= 0 and participant[i] != participant[j]]
        negatives = [j for j in range(6) if pair[i] != pair[j] and min(pair[i], pair[j]) >= 0]
        rest = sum(math.exp(similarity[i][j]) for j in negatives)
        terms = [-math.log(math.exp(similarity[i][j]) / (math.exp(similarity[i][j]) + rest)) for j in positives]
        if terms:
            per_anchor.append(sum(terms) / len(terms))
    assert len(per_anchor) == 3
    assert float(loss.total) == pytest.approx(sum(per_anchor) / 3, rel=1e-4)
    assert float(loss.parts["share_of_anchors"]) == 0.5


@pytest.mark.parametrize("pair", [[-1] * 4, [0, 1, 2, 3]])
def test_a_batch_without_positives_gives_zero_and_a_zero_gradient(
    toy_signal: SignalSpec, toy_eeg: Any, pair: list[int]
) -> None:
    encoder, objective = build(toy_signal)
    loss = objective(encoder, with_pairs(toy_eeg(4), pair, [0, 1, 2, 3]))
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(float(gradient.abs().sum()) == 0 for gradient in gradients)


def test_positives_without_any_negative_give_a_finite_loss(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    loss = objective(encoder, with_pairs(toy_eeg(4), [5] * 4, [0, 1, 2, 3]))
    loss.total.backward()
    assert float(loss.total.detach()) == pytest.approx(0, abs=1e-6)
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_the_temperature_is_learned_only_when_asked(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    for learnable in (True, False):
        encoder, objective = build(toy_signal, learnable=learnable)
        objective(encoder, toy_eeg(8)).total.backward()
        assert (objective.log_temperature.grad is not None) == learnable
        assert float(objective.log_temperature.detach().exp()) == pytest.approx(0.07)
    with pytest.raises(ConfigError, match="temperature"):
        build(toy_signal, temperature=0.0)


def test_alignment_and_uniformity_are_those_of_wang_and_isola(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    batch = with_pairs(toy_eeg(6), [3, 3, 3, 8, 8, -1], [0, 1, 2, 1, 0, 2])
    with torch.no_grad():
        rows = objective.project(encoder, batch, encoder(batch)).double()
        parts = objective(encoder, batch).parts
    uniformity = torch.pdist(rows).square().mul(-2).exp().mean().log()
    couples = [(0, 1), (0, 2), (1, 2), (3, 4)]
    alignment = sum(float((rows[i] - rows[j]).square().sum()) for i, j in couples) / 4
    assert float(parts["uniformity"]) == pytest.approx(float(uniformity), rel=1e-4)
    assert float(parts["alignment"]) == pytest.approx(alignment, rel=1e-4)


def test_batches_without_a_positive_are_counted_and_enter_no_mean(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    means = LossMeans()
    with torch.no_grad():
        with_one = objective(encoder, with_pairs(toy_eeg(4), [3, 3, 8, 9], [0, 1, 0, 1]))
        means.add(with_one, 4)
        for _ in range(2):
            means.add(objective(encoder, with_pairs(toy_eeg(4), [-1] * 4, [0, 1, 0, 1])), 4)
    taken = means.take()
    for part in ("positive_similarity", "alignment", "info_nce"):
        assert taken[part] == pytest.approx(float(with_one.parts[part]), rel=1e-6)
    assert taken["loss"] == pytest.approx(float(with_one.total), rel=1e-6)
    assert taken["share_of_batches_without_positive"] == pytest.approx(2 / 3)
    assert objective.remarks(taken, 3) == [
        "WARNING 2 of 3 training batches had no positive pair and taught nothing; set data.order to pairs"
    ]
    assert objective.remarks(taken | {"share_of_batches_without_positive": 0.0}, 3) == []


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ([-1] * 4, "0 have a pair and 0 a positive"),
        ([0, 1, 2, 3], "12 have a pair and 0 a positive"),
        ([5] * 4, "12 have a pair and 12 a positive"),  # but nothing to tell them from
    ],
)
def test_training_batches_that_can_teach_nothing_are_refused_before_training(
    toy_signal: SignalSpec, toy_eeg: Any, pair: list[int], said: str
) -> None:
    encoder, objective = build(toy_signal)
    useless = [with_pairs(toy_eeg(4), pair, [0, 1, 2, 3])] * 3
    with pytest.raises(ConfigError, match=f"first 3 training batches .* of 12 windows {said}; set data.order to pairs"):
        objective.start(encoder, useless)
    objective.start(encoder, [*useless, toy_eeg(8)])


def test_a_temperature_that_would_be_raised_in_silence_is_refused(toy_signal: SignalSpec) -> None:
    with pytest.raises(ConfigError, match=r"temperature=0.005 is below 0.01"):
        build(toy_signal, temperature=0.005)
