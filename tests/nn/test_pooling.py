"""Pooling equals a loop over the valid items, and padding has no part in it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cerebro.nn.pooling import (
    VARIANCE_FLOOR,
    AttentionPooling,
    apart_from_mean,
    by_channel,
    log_mean_probability,
    log_power,
    mean_and_deviation,
    mean_of,
    mean_over_valid,
)


@st.composite
def padded_items(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Items (B, C, N, D) with wild numbers where they are not valid, and which are valid; some rows have none."""
    shape = [draw(st.integers(1, 4)) for _ in range(3)]
    noise = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    valid = torch.rand(shape, generator=noise) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    items = torch.randn(*shape, 5, generator=noise)
    return torch.where(valid[..., None], items, 1e6 * items), valid


@settings(max_examples=40)
@given(padded_items())
def test_means_and_deviations_are_those_of_the_valid_items_alone(case: tuple[Tensor, Tensor]) -> None:
    items, valid = case
    mean, both = mean_of(items, valid), mean_and_deviation(items, valid)
    for at in map(tuple, torch.cartesian_prod(*map(torch.arange, valid.shape[:2])).reshape(-1, 2).tolist()):
        some = items[at][valid[at]]
        expected = some.mean(dim=0) if len(some) else torch.zeros(5)
        torch.testing.assert_close(mean[at], expected, rtol=1e-4, atol=1e-5)
        deviation = (some.var(dim=0, correction=0) + VARIANCE_FLOOR).sqrt() if len(some) else torch.zeros(5)
        torch.testing.assert_close(both[at], torch.cat([expected, deviation]), rtol=1e-4, atol=1e-5)
        power = deviation.log() + math.log(3.0) if len(some) else deviation
        torch.testing.assert_close(log_power(items, valid, torch.full(valid.shape[:2], 3.0))[at], power)


@settings(max_examples=40)
@given(padded_items(), st.integers(0, 6))
def test_power_within_segments_is_that_of_a_loop_over_them(case: tuple[Tensor, Tensor], segment: int) -> None:
    items, valid = case
    apart = apart_from_mean(items, valid, segment)
    power = log_power(items, valid, torch.ones(valid.shape[:2]), segment)
    for at in map(tuple, torch.cartesian_prod(*map(torch.arange, valid.shape[:2])).reshape(-1, 2).tolist()):
        pieces = zip(items[at].split(segment or 99), valid[at].split(segment or 99), strict=True)
        each = [some[there] - some[there].mean(dim=0) for some, there in pieces if bool(there.any())]
        expected = torch.cat(each) if each else torch.zeros(0, 5)
        torch.testing.assert_close(apart[at][valid[at]], expected, rtol=1e-4, atol=1e-5)
        assert not apart[at][~valid[at]].any()
        if each:
            variance = expected.square().mean(dim=0)
            torch.testing.assert_close(power[at], 0.5 * (variance + VARIANCE_FLOOR).log(), rtol=1e-4, atol=1e-4)


@settings(max_examples=60)
@given(padded_items(), st.integers(1, 6), st.floats(0, 0.99))
def test_trimmed_power_is_that_of_a_loop_over_sorted_segments(
    case: tuple[Tensor, Tensor], segment: int, trim: float
) -> None:
    items, valid = case
    power = log_power(items, valid, torch.ones(valid.shape[:2]), segment, trim)
    for at in map(tuple, torch.cartesian_prod(*map(torch.arange, valid.shape[:2])).reshape(-1, 2).tolist()):
        pieces = zip(items[at].split(segment), valid[at].split(segment), strict=True)
        each = [(some[there] - some[there].mean(dim=0)).square() for some, there in pieces if bool(there.any())]
        n_gone = int((torch.tensor(float(len(each))) * trim).floor())
        for feature in range(items.shape[-1] if each else 0):
            squares = sorted((one[:, feature] for one in each), key=lambda one: float(one.mean()))
            variance = torch.cat(squares[: len(squares) - n_gone]).mean()
            expected = 0.5 * (variance + VARIANCE_FLOOR).log()
            torch.testing.assert_close(power[at][feature], expected, rtol=1e-4, atol=1e-4)
        if not each:
            assert not power[at].any()


def test_power_within_segments_leaves_out_a_drift_between_them() -> None:
    rhythm = torch.tensor([1.0, -1.0]).repeat(8)[None, :, None]
    drift = torch.arange(4.0).repeat_interleave(4)[None, :, None]
    valid, scale = torch.ones(1, 16, dtype=torch.bool), torch.ones(1)
    within = log_power(rhythm + 10 * drift, valid, scale, 4)
    torch.testing.assert_close(within, log_power(rhythm, valid, scale))
    assert float(log_power(rhythm + 10 * drift, valid, scale) - within) > 2


@settings(max_examples=40)
@given(padded_items())
def test_attention_weights_are_a_softmax_over_the_valid_items(case: tuple[Tensor, Tensor]) -> None:
    items, valid = case
    torch.manual_seed(0)
    pool = AttentionPooling(5)
    with torch.no_grad():
        pooled = pool(items, valid)
        for at in map(tuple, torch.cartesian_prod(*map(torch.arange, valid.shape[:2])).reshape(-1, 2).tolist()):
            some = items[at][valid[at]]
            if not len(some):
                assert not pooled[at].any()
                continue
            standard = (some - some.mean(dim=1, keepdim=True)) / (some.var(dim=1, correction=0)[:, None] + 1e-5).sqrt()
            score = torch.tanh(standard @ pool.key.weight.T + pool.key.bias) @ pool.query.weight[0]
            torch.testing.assert_close(pooled[at], score.softmax(dim=0) @ some, rtol=1e-4, atol=1e-5)


def test_attention_finds_the_item_that_matters() -> None:
    torch.manual_seed(0)
    pool, head = AttentionPooling(6), torch.nn.Linear(6, 1)
    optimiser = torch.optim.Adam([*pool.parameters(), *head.parameters()], lr=0.02)
    valid = torch.ones(256, 12, dtype=torch.bool)
    for _ in range(150):
        items, label = torch.randn(256, 12, 6), torch.randn(256).sign()
        items[:, :, 0] = 0
        items[:, 3, 0], items[:, 3, 1] = 6.0, 3 * label  # one window in twelve is marked, and says it
        loss = torch.nn.functional.soft_margin_loss(head(pool(items, valid))[:, 0], label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert float(pool.weights(items, valid)[:, 3].mean()) > 0.8
    assert float(loss.detach()) < 0.1


def test_a_mean_cancels_a_rhythm_at_random_phases_and_its_deviation_does_not() -> None:
    phase = 2 * math.pi * torch.rand(1, 4000, 1, generator=torch.Generator().manual_seed(0))
    both = mean_and_deviation(10 * torch.sin(phase), torch.ones(1, 4000, dtype=torch.bool))
    assert abs(float(both[0, 0])) < 0.5
    assert float(both[0, 1]) == pytest.approx(10 / math.sqrt(2), rel=0.03)


def test_pooling_of_alike_or_absent_items_has_a_finite_gradient() -> None:
    items = torch.ones(2, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    torch.manual_seed(0)
    pool = AttentionPooling(4)
    total = mean_and_deviation(items, valid).sum() + pool(items, valid).sum() + mean_of(items, valid).sum()
    (total + log_mean_probability(items, valid).sum()).backward()
    assert items.grad is not None
    assert bool(items.grad.isfinite().all())
    assert not items.grad[0, 2].any()
    assert all(bool(p.grad.isfinite().all()) for p in pool.parameters() if p.grad is not None)


def test_over_both_axes_a_mean_counts_every_valid_token_once() -> None:
    tokens = torch.arange(12.0).view(1, 2, 3, 2)
    valid = torch.tensor([[[True, True, False], [True, False, False]]])
    torch.testing.assert_close(
        mean_over_valid(tokens, valid)[0], (tokens[0, 0, 0] + tokens[0, 0, 1] + tokens[0, 1, 0]) / 3
    )


def test_channels_stand_by_name_whatever_their_order() -> None:
    items = torch.tensor([[[1.0], [2.0], [99.0]], [[3.0], [4.0], [5.0]]])
    channel = torch.tensor([[3, 0, -1], [1, 2, 0]])
    placed = by_channel(items, channel, channel >= 0, 4)[..., 0]
    assert placed.tolist() == [[2.0, 0.0, 0.0, 1.0], [5.0, 3.0, 4.0, 0.0]]


def test_the_softmax_of_a_vote_is_the_mean_probability_of_the_valid_windows() -> None:
    logits = 5 * torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 6, [True, False, True, False, False, False], [False] * 6])
    outputs = log_mean_probability(logits, valid)
    probability = logits.softmax(dim=-1)
    torch.testing.assert_close(outputs.softmax(dim=-1), outputs.exp())
    torch.testing.assert_close(outputs[0].exp(), probability[0].mean(dim=0))
    torch.testing.assert_close(outputs[1].exp(), probability[1, [0, 2]].mean(dim=0))
    torch.testing.assert_close(outputs[2].exp(), probability[2, 0])


def test_a_vote_of_sure_and_wrong_windows_has_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[[300.0, -300.0], [250.0, -250.0], [0.0, 0.0]]], requires_grad=True)
    valid = torch.tensor([[True, True, False]])
    loss = torch.nn.functional.cross_entropy(log_mean_probability(logits, valid), torch.tensor([1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(500 + math.log(2), rel=1e-4)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert not logits.grad[0, 2].any()
