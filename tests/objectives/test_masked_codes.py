from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.objectives import VQNSP, FixedWindows, FrozenTokenizer, MaskedCodes
from cerebro.objectives.masks import random_mask
from cerebro.signal import EEGBatch, SignalSpec


def encoder_of(signal: SignalSpec) -> LaBraM:
    return LaBraM(signal, conv_channels=2, depth=2, n_heads=2)


def vqnsp(encoder: Encoder, signal: SignalSpec) -> VQNSP:
    return VQNSP(encoder, signal, n_codes=32, code_dim=8, decoder_depth=1, decoder_heads=2)


def tokenizer(signal: SignalSpec) -> FrozenTokenizer:
    return FrozenTokenizer(signal, encoder_of, vqnsp)


def build(signal: SignalSpec, **options: Any) -> tuple[LaBraM, MaskedCodes]:
    torch.manual_seed(0)
    encoder = encoder_of(signal)
    objective = MaskedCodes(encoder, signal, tokenizer, **options)
    nn.init.normal_(objective.head.weight)
    return encoder, objective


def plain_loss(encoder: LaBraM, objective: MaskedCodes, batch: EEGBatch) -> torch.Tensor:
    """The loss as it is written in the paper: every token computed, boolean masks."""
    codes, valid = objective.tokenizer(batch), encoder.valid(batch)
    hidden = random_mask(valid, objective.mask_ratio, batch.key).hidden
    total = torch.zeros(())
    for mask in (hidden, ~hidden) if objective.symmetric else (hidden,):
        logits = objective.head(objective.norm(encoder(batch, mask)))
        total = total + F.cross_entropy(logits[mask & valid], codes[mask & valid])
    return total


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("mask_ratio", [0.2, 0.5])
@pytest.mark.parametrize("padded", [True, False])
def test_the_fast_loss_equals_the_plain_one(
    toy_signal: SignalSpec, toy_eeg: Any, symmetric: bool, mask_ratio: float, padded: bool
) -> None:
    encoder, objective = build(toy_signal, symmetric=symmetric, mask_ratio=mask_ratio)
    batch = toy_eeg(5)
    if padded:
        batch.channel[0, 4:] = -1
        batch.n_valid[1] = 120
    with torch.no_grad():
        expected, loss = plain_loss(encoder, objective, batch), objective(encoder, batch)
    torch.testing.assert_close(loss.total, expected)


def test_every_patch_is_predicted_once_when_symmetric(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = encoder_of(toy_signal), toy_eeg(4)
    mask = random_mask(encoder.valid(batch), 0.3, batch.key)
    both = torch.cat([mask.hidden_index, mask.visible_index], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(12).expand(4, -1))


def test_the_tokenizer_stays_as_it_is(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    objective.train()
    assert not any(module.training for module in objective.tokenizer.modules())
    assert not any(parameter.requires_grad for parameter in objective.tokenizer.parameters())
    before = {name: value.clone() for name, value in objective.tokenizer.state_dict().items()}
    objective(encoder, toy_eeg(4)).total.backward()
    assert all(torch.equal(value, before[name]) for name, value in objective.tokenizer.state_dict().items())


def test_a_tokenizer_phase_loads_one_to_one(toy_signal: SignalSpec) -> None:
    encoder = encoder_of(toy_signal)
    phase = nn.ModuleDict({"encoder": encoder, "objective": vqnsp(encoder, toy_signal)})
    _, objective = build(toy_signal)
    objective.tokenizer.load_state_dict(phase.state_dict(), strict=True)
    tokenizer_keys = {f"tokenizer.{name}" for name in phase.state_dict()}
    assert {name for name in objective.state_dict() if name.startswith("tokenizer.")} == tokenizer_keys


def test_a_tokenizer_of_other_patches_is_refused(toy_signal: SignalSpec) -> None:
    encoder = LaBraM(toy_signal, patch_samples=50, conv_stride=2, conv_channels=2, depth=1, n_heads=2)
    with pytest.raises(ConfigError, match="tokenizer cuts patches of 100 samples every 100 and the encoder of 50"):
        MaskedCodes(encoder, toy_signal, tokenizer)


def test_a_mask_ratio_outside_zero_and_one_is_refused(toy_signal: SignalSpec) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        build(toy_signal, mask_ratio=1.0)


def test_the_showcase_tells_which_channels_were_found(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    shown = objective.showcase(encoder, toy_eeg(16))
    assert shown["accuracy_by_channel"].shape == (6,)
    assert shown["accuracy_by_patch"].shape == (2,)
    assert bool(((shown["accuracy_by_patch"] >= 0) & (shown["accuracy_by_patch"] <= 1)).all())


def fixed(batches: list[EEGBatch], n_visits: int = 1000) -> FixedWindows:
    return FixedWindows(batches, sum(map(len, batches)), n_visits)


def test_codes_of_fixed_windows_are_computed_once_and_give_the_same_loss(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    first, second = toy_eeg(4, seed=1), toy_eeg(4, seed=2)
    second = replace(second, sample=second.sample + 7)
    wanted = [objective(encoder, batch).total.detach() for batch in (first, second)]
    (line,) = objective.prepare(encoder, fixed([first, second]))
    assert line == "codes of 8 training windows computed once (0.0 MB)"
    mixed = [torch.cat([a, b]) for a, b in ((first.eeg[:2], second.eeg[2:]), (first.sample[:2], second.sample[2:]))]
    expected = torch.cat([objective.tokenizer(first)[:2], objective.tokenizer(second)[2:]])
    objective.tokenizer.objective.codebook.weight.normal_()  # the tokenizer is not asked again
    found = [objective(encoder, batch).total.detach() for batch in (first, second)]
    assert [float(value) for value in found] == [float(value) for value in wanted]
    assert objective._table is not None
    assert torch.equal(objective._table.of(replace(first, eeg=mixed[0], sample=mixed[1])), expected)


def test_validation_windows_are_coded_anew(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    objective.prepare(encoder, fixed([toy_eeg(4, seed=1)]))
    other = toy_eeg(4, seed=3)  # the same window numbers, of another side
    objective.eval()
    found = objective(encoder, other)
    expected = objective.loss(encoder, other, objective.tokenizer(other))
    assert float(found.total.detach()) == float(expected.total.detach())


@pytest.mark.parametrize(("options", "n_visits"), [({"cache_mb": 0}, 1000), ({}, 4)])
def test_nothing_is_stored_where_it_would_not_pay(
    toy_signal: SignalSpec, toy_eeg: Any, options: dict[str, int], n_visits: int
) -> None:
    encoder, objective = build(toy_signal, **options)
    assert objective.prepare(encoder, fixed([toy_eeg(4)], n_visits)) == []
    assert objective._table is None


def test_codes_that_do_not_fit_are_said_and_not_stored(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, cache_mb=1)
    windows = FixedWindows([toy_eeg(4)], 10**6, 10**9)
    (line,) = objective.prepare(encoder, windows)
    assert "1,000,000 windows would take 24 MB, more than cache_mb=1" in line
    assert objective._table is None


def test_windows_of_smaller_montages_find_their_codes(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    whole = toy_eeg(3)
    small = replace(whole, eeg=whole.eeg[:, :4], channel=whole.channel[:, :4], sample=whole.sample + 3)
    expected = objective.tokenizer(small)
    objective.prepare(encoder, fixed([small, whole]))
    assert objective._table is not None
    assert torch.equal(objective._table.of(small), expected)


def test_a_window_without_a_stored_code_never_gets_anothers(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    batch = toy_eeg(4)
    objective.prepare(encoder, fixed([replace(batch, sample=batch.sample * 2)]))
    with pytest.raises(IndexError):
        objective(encoder, replace(batch, sample=batch.sample + 1))
