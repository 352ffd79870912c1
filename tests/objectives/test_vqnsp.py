import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.objectives.vqnsp import VQNSP
from cerebro.signal import SignalSpec


def build(signal: SignalSpec, targets: Any = "official") -> tuple[LaBraM, VQNSP]:
    torch.manual_seed(0)
    encoder = LaBraM(signal, conv_channels=2, depth=1, n_heads=2, qkv_bias=True, qk_norm=False, layer_scale=0.0)
    return encoder, VQNSP(encoder, signal, 32, 8, decoder_depth=1, decoder_heads=2, targets=targets)


@pytest.mark.parametrize("targets", ["official", "sincos"])
def test_the_window_is_rebuilt_exactly_from_its_true_spectrum(
    toy_signal: SignalSpec, toy_eeg: Any, targets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, objective = build(toy_signal, targets)
    batch = toy_eeg(4)
    truth = tuple(part.value for part in objective.targets(encoder, batch))
    monkeypatch.setattr(objective, "decode", lambda *_: truth)
    shown = objective.eval().showcase(encoder.eval(), batch)
    torch.testing.assert_close(shown["reconstructed"], shown["original"], rtol=1e-3, atol=1e-2)  # microvolts
    torch.testing.assert_close(shown["original"], batch.eeg[0])
    assert int(shown["code_counts"].sum()) == 4 * 6 * 2


def test_official_targets_are_the_standardised_full_spectrum(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    amplitude, phase = objective.targets(encoder, toy_eeg(3))
    for part in (amplitude, phase):
        assert part.value.shape == (3, 6, 2, 100)
        torch.testing.assert_close(part.value.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.value.std(dim=(1, 2, 3)), torch.ones(3))


def test_sine_and_cosine_make_opposite_ends_of_the_phase_the_same(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal, "sincos")
    time_s = torch.arange(200) / 100
    nearly = [torch.cos(2 * math.pi * 10 * time_s + math.pi * sign * 0.999).expand(2, 6, 200) for sign in (1, -1)]
    sines = [objective.targets(encoder, replace(toy_eeg(2), eeg=eeg.contiguous()))[1].value for eeg in nearly]
    sine, cosine = (sines[0] - sines[1])[..., 10].abs().max(), (sines[0] - sines[1])[..., 51 + 10].abs().max()
    assert float(sine) < 0.01
    assert float(cosine) < 0.01


@pytest.mark.parametrize("targets", ["official", "sincos"])
def test_padding_changes_neither_loss_nor_codes(toy_signal: SignalSpec, toy_eeg: Any, targets: str) -> None:
    encoder, objective = build(toy_signal, targets)
    encoder.eval(), objective.eval()
    batch = toy_eeg(4)
    wider = torch.full((4, 8, 300), 37.0)
    wider[:, :6, :200] = batch.eeg
    padded = replace(
        batch, eeg=wider, channel=torch.cat([batch.channel, torch.full((4, 2), -1)], dim=1), is_padded=True
    )
    with torch.no_grad():
        torch.testing.assert_close(objective(encoder, padded).total, objective(encoder, batch).total)
    assert torch.equal(objective.codes(encoder, padded)[:, :6, :2], objective.codes(encoder, batch))


def test_a_flat_window_gives_a_finite_loss(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    loss = objective(encoder, replace(toy_eeg(2), eeg=torch.zeros(2, 6, 200)))
    loss.total.backward()
    assert bool(loss.total.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_the_start_spreads_the_codes(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    batches = [toy_eeg(16, seed) for seed in range(8)]
    encoder.train()
    before = objective.eval()(encoder, batches[0]).parts["perplexity"]
    objective.start(encoder, batches)
    after = objective(encoder, batches[0]).parts["perplexity"]
    assert encoder.training
    assert float(after) > max(float(before), 12)


def test_the_start_refuses_too_few_tokens_and_no_batch(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, objective = build(toy_signal)
    with pytest.raises(ConfigError, match="24 tokens cannot start 32 codes"):
        objective.start(encoder, [toy_eeg(2)])
    with pytest.raises(ConfigError, match="no training batch"):
        objective.start(encoder, [])


def test_a_window_longer_than_the_decoders_time_embedding_is_refused(toy_signal: SignalSpec) -> None:
    encoder = LaBraM(toy_signal, conv_channels=2, depth=1, n_heads=2)
    with pytest.raises(ConfigError, match="2 patches"):
        VQNSP(encoder, toy_signal, 32, 8, decoder_heads=2, max_patches=1)
