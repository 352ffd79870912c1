"""What every readout promises."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

import cerebro.readouts  # registers every readout
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.signal_jepa import SignalJEPA
from cerebro.readouts import Contextual, LinearReadout, MLPReadout, PostLocal, PowerReadout, PreLocal, Readout
from cerebro.signal import SignalSpec

Build = Callable[[Encoder, SignalSpec, int], Readout]
EXAMPLES: dict[str, list[Build]] = {
    "Contextual": [Contextual],
    "LinearReadout": [LinearReadout],
    "MLPReadout": [
        MLPReadout,
        partial(MLPReadout, over_channels="attention", over_windows="attention"),
        partial(MLPReadout, over_channels="concat", over_windows="statistics"),
        partial(MLPReadout, over_channels="mean", over_windows="vote"),
        partial(MLPReadout, over_channels="attention", over_windows="vote"),
        partial(MLPReadout, over_channels="concat", over_windows="vote"),
    ],
    "PostLocal": [PostLocal],
    "PowerReadout": [
        partial(PowerReadout, n_components=4, over_channels="concat", segment_tokens=0, trim=0.0),
        partial(PowerReadout, n_components=4, over_channels="mean", segment_tokens=2, trim=0.5),
    ],
    "PreLocal": [PreLocal],
}


def labram(signal: SignalSpec) -> Encoder:
    return LaBraM(signal, conv_channels=2, depth=1, n_heads=2)


def convolutions(signal: SignalSpec) -> Encoder:  # short tokens, so that a toy window has several
    return SignalJEPA(signal, conv_layers=((8, 16, 8), (16, 8, 8)), depth=0)


ENCODERS: dict[str, Callable[[SignalSpec], Encoder]] = {
    "PostLocal": convolutions,
    "PreLocal": convolutions,
}  # or LaBraM
FINAL = [cls for cls in Readout.__subclasses__() if cls.__module__.startswith("cerebro.")]
CASES = [(cls, i) for cls in FINAL for i in range(max(1, len(EXAMPLES.get(cls.__name__, []))))]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def built(request: pytest.FixtureRequest, example_of: Any, toy_signal: SignalSpec) -> tuple[Encoder, Readout]:
    cls, number = request.param
    torch.manual_seed(0)
    encoder = ENCODERS.get(cls.__name__, labram)(toy_signal)
    return encoder, example_of(EXAMPLES, cls)[number](encoder, toy_signal, 3)


def test_there_is_one_row_of_outputs_per_window(built: tuple[Encoder, Readout], toy_eeg: Any) -> None:
    encoder, readout = built
    assert readout.n_outputs == 3
    assert readout(encoder, toy_eeg(5)).shape == (5, 3)


def test_the_gradient_reaches_every_parameter(built: tuple[Encoder, Readout], toy_eeg: Any) -> None:
    encoder, readout = built
    readout(encoder, toy_eeg(4)).square().sum().backward()
    assert [name for name, parameter in readout.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in readout.named_parameters() if not bool(parameter.grad.any())] == []  # type: ignore[union-attr]
    assert any(parameter.grad is not None for parameter in encoder.parameters())


def test_the_outputs_of_windows_are_there_if_it_says_so(built: tuple[Encoder, Readout], toy_eeg: Any, pad: Any) -> None:
    encoder, readout = built
    encoder.eval()
    readout.eval()
    batch = toy_eeg(3)
    if not readout.predicts_windows:
        with pytest.raises(NotImplementedError, match=f"{type(readout).__name__} does not predict single windows"):
            readout.window_outputs(encoder, batch)
        return
    with torch.no_grad():
        outputs = readout.window_outputs(encoder, batch)
        assert outputs.shape == (3, encoder.n_patches(batch.eeg.shape[-1]), 3)
        padded = readout.window_outputs(encoder, pad(batch))[:, : outputs.shape[1]]
        torch.testing.assert_close(padded, outputs, rtol=1e-4, atol=1e-5)


def test_tokens_handed_in_are_used_if_it_says_so(built: tuple[Encoder, Readout], toy_eeg: Any) -> None:
    encoder, readout = built
    encoder.eval()
    readout.eval()
    batch = toy_eeg(4)
    with torch.no_grad():
        tokens = encoder(batch)
        torch.testing.assert_close(readout(encoder, batch, tokens), readout(encoder, batch))
        if readout.reads_tokens:
            changed = readout(encoder, batch, tokens + torch.randn_like(tokens))
            assert not torch.allclose(changed, readout(encoder, batch))


def test_features_that_stay_the_same_are_all_that_it_reads_if_it_says_so(
    built: tuple[Encoder, Readout], toy_eeg: Any
) -> None:
    encoder, readout = built
    encoder.eval()
    readout.eval()
    batch = toy_eeg(4)
    with torch.no_grad():
        tokens = encoder(batch)
    if not readout.pools:
        with pytest.raises(NotImplementedError, match=f"{type(readout).__name__} has no features that stay the same"):
            Readout.pooled(readout, encoder, batch, tokens)
        with pytest.raises(NotImplementedError, match=f"{type(readout).__name__} has no features that stay the same"):
            Readout.of_pooled(readout, tokens.flatten(1))
        return
    assert readout.reads_tokens
    pooled = readout.pooled(encoder, batch, tokens)
    assert len(pooled) == 4
    assert not pooled.requires_grad  # nothing that learns took part
    assert torch.equal(readout.of_pooled(pooled), readout(encoder, batch, tokens))


def test_padding_changes_nothing(built: tuple[Encoder, Readout], toy_eeg: Any, pad: Any) -> None:
    encoder, readout = built
    encoder.eval()
    readout.eval()
    batch = toy_eeg(4)
    with torch.no_grad():
        torch.testing.assert_close(readout(encoder, pad(batch)), readout(encoder, batch), rtol=1e-4, atol=1e-5)


def test_the_order_of_channels_does_not_matter(built: tuple[Encoder, Readout], toy_eeg: Any) -> None:
    encoder, readout = built
    encoder.eval()
    readout.eval()
    batch, order = toy_eeg(4), torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = replace(batch, eeg=batch.eeg[:, order], channel=batch.channel[:, order])
    with torch.no_grad():
        torch.testing.assert_close(readout(encoder, shuffled), readout(encoder, batch), rtol=1e-4, atol=1e-5)


def test_the_encoder_is_not_registered(built: tuple[Encoder, Readout]) -> None:
    encoder, readout = built
    assert not {id(p) for p in readout.parameters()} & {id(p) for p in encoder.parameters()}


def test_every_readout_can_be_named_in_a_config() -> None:
    assert {cls.__name__ for cls in FINAL} <= set(cerebro.readouts.__all__)
