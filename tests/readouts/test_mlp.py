"""How windows and channels become one prediction, whatever order and padding they come in."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.mamba2 import Mamba2
from cerebro.errors import ConfigError
from cerebro.montage import Montage
from cerebro.nn.pooling import mean_over_valid
from cerebro.readouts import MLPReadout
from cerebro.signal import EEGBatch, SignalSpec

OVER_CHANNELS = ("mean", "attention", "concat", "asymmetry")
OVER_WINDOWS = ("mean", "attention", "statistics", "log_power", "vote")
WAYS = list(product(OVER_CHANNELS, OVER_WINDOWS))


@pytest.fixture(scope="session")
def toy_signal(toy_signal: SignalSpec) -> SignalSpec:
    """Two homologous pairs and two channels without a partner."""
    return replace(toy_signal, channels=("F3", "F4", "C3", "C4", "Cz", "P7"))


def labram(signal: SignalSpec) -> Encoder:
    torch.manual_seed(0)
    return LaBraM(signal, patch_samples=50, conv_channels=2, depth=1, n_heads=2).eval()


def adapted(signal: SignalSpec) -> Encoder:
    torch.manual_seed(0)
    places = 0.9 * np.array(signal.positions)[[3, 0, 5, 2]]
    cap = Montage("cap", ("C3", "C4", "Fz", "Pz"), places)
    return AdaptedEncoder(
        signal, lambda inner: LaBraM(inner, patch_samples=50, conv_channels=2, depth=1, n_heads=2), lambda: cap, width=8
    ).eval()


def head(encoder: Encoder, signal: SignalSpec, way: Any, n_outputs: int = 3) -> MLPReadout:
    torch.manual_seed(1)
    return MLPReadout(encoder, signal, n_outputs, over_channels=way[0], over_windows=way[1]).eval()


def shuffled_and_padded(batch: EEGBatch, order: list[int], n_channels: int, n_samples: int) -> EEGBatch:
    """Channels in another order, with padded ones among them, and padded samples behind; wild numbers as padding."""
    n, c, t = batch.eeg.shape
    eeg = 500 * torch.randn(n, c + n_channels, t + n_samples, generator=torch.Generator().manual_seed(0))
    channel = torch.full((n, c + n_channels), -1)
    eeg[:, :c, :t], channel[:, :c] = batch.eeg, batch.channel
    return replace(batch, eeg=eeg[:, order], channel=channel[:, order], is_padded=True)


def test_by_default_it_is_the_head_of_the_specification_on_the_mean_token_to_the_bit(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(3)
    torch.manual_seed(1)
    readout = MLPReadout(encoder, toy_signal, 2).eval()
    expected = ["0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias"]
    assert list(readout.state_dict()) == [f"layers.{name}" for name in expected]
    with torch.no_grad():
        tokens = encoder(batch)
        assert torch.equal(readout(encoder, batch), readout.layers(mean_over_valid(tokens, encoder.valid(batch))))


@pytest.mark.parametrize("build", [labram, adapted])
@settings(max_examples=10)
@given(data=st.data())
def test_order_and_padding_of_channels_and_windows_change_nothing(
    toy_signal: SignalSpec, toy_eeg: Any, build: Any, data: st.DataObject
) -> None:
    encoder, batch = build(toy_signal), toy_eeg(2)
    n_channels = data.draw(st.integers(0, 2))
    order = data.draw(st.permutations(range(6 + n_channels)))
    other = shuffled_and_padded(batch, list(order), n_channels, data.draw(st.sampled_from([0, 50, 130])))
    with torch.no_grad():
        for way in WAYS:
            readout = head(encoder, toy_signal, way)
            torch.testing.assert_close(readout(encoder, other), readout(encoder, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_gives_the_same_alone_and_beside_a_longer_one_with_more_channels(
    toy_signal: SignalSpec, toy_eeg: Any, way: Any
) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(2)
    short = replace(
        batch,
        n_valid=torch.tensor([100, 200]),
        channel=torch.tensor([[0, 1, 2, -1, -1, -1], [0, 1, 2, 3, 4, 5]]),
        is_padded=True,
    )
    alone = replace(
        toy_eeg(1),
        eeg=batch.eeg[:1, :3, :100],
        channel=torch.tensor([[0, 1, 2]]),
        n_valid=torch.tensor([100]),
        is_padded=False,
    )
    readout = head(encoder, toy_signal, way)
    with torch.no_grad():
        together = readout(encoder, short)
        torch.testing.assert_close(together[:1], readout(encoder, alone), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[1:], readout(encoder, batch)[1:], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together[0], readout(encoder, batch)[0], atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_of_nothing_but_padding_gives_finite_outputs(toy_signal: SignalSpec, toy_eeg: Any, way: Any) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(2)
    empty = replace(batch, channel=torch.full_like(batch.channel, -1), is_padded=True)
    assert bool(head(encoder, toy_signal, way)(encoder, empty).isfinite().all())


def test_side_by_side_left_and_right_are_told_apart_and_a_mean_cannot(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(2)
    tokens = torch.randn(2, 6, 4, encoder.d_model, generator=torch.Generator().manual_seed(0))
    swapped = tokens[:, [1, 0, 2, 3, 4, 5]]
    with torch.no_grad():
        for over_windows in OVER_WINDOWS:
            for over_channels in OVER_CHANNELS:
                readout = head(encoder, toy_signal, (over_channels, over_windows))
                is_same = torch.allclose(readout(encoder, batch, tokens), readout(encoder, batch, swapped), atol=1e-5)
                assert is_same == (over_channels in ("mean", "attention"))


def test_statistics_tell_loud_from_quiet_where_phases_are_random(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(2)
    tokens = torch.randn(2, 6, 4, encoder.d_model, generator=torch.Generator().manual_seed(0))
    rhythm = tokens[:1] - tokens[:1].mean(dim=2, keepdim=True)  # its mean over windows is zero
    louder = rhythm * torch.linspace(1, 4, encoder.d_model)
    tokens = torch.cat([rhythm, louder])
    with torch.no_grad():
        mean, statistics, power = (
            head(encoder, toy_signal, ("mean", way))(encoder, batch, tokens)
            for way in ("mean", "statistics", "log_power")
        )
    assert torch.allclose(mean[0], mean[1], atol=1e-4)
    assert not torch.allclose(statistics[0], statistics[1], atol=1e-2)
    assert not torch.allclose(power[0], power[1], atol=1e-2)


def test_a_vote_is_the_mean_of_what_the_head_says_of_each_window(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(2)
    batch = replace(batch, n_valid=torch.tensor([150, 200]), is_padded=True)
    readout = head(encoder, toy_signal, ("mean", "vote"))
    plain = MLPReadout(encoder, toy_signal, 3).eval()
    plain.load_state_dict(readout.state_dict())
    with torch.no_grad():
        tokens = encoder(batch)
        logits = readout.window_outputs(encoder, batch, tokens)
        each = torch.stack([plain.layers(tokens[:, :, n].mean(dim=1)) for n in range(4)], dim=1)
        torch.testing.assert_close(logits[1], each[1])
        torch.testing.assert_close(logits[0, :3], each[0, :3])
        expected = torch.stack([each[0, :3].softmax(-1).mean(0), each[1].softmax(-1).mean(0)])
        torch.testing.assert_close(readout(encoder, batch, tokens).softmax(dim=-1), expected)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_follows_bfloat16(toy_signal: SignalSpec, toy_eeg: Any, way: Any) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(4)
    readout = head(encoder, toy_signal, way)
    with torch.no_grad():
        exact = readout(encoder, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = readout(encoder, batch).float()
    assert float((rounded - exact).norm() / exact.norm()) < 0.1


def test_a_state_dict_of_every_way_makes_another_head_equal(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = Mamba2(toy_signal, patch_samples=50, d_model=16, n_layers=1, d_state=8, headdim=8).eval()
    batch = toy_eeg(2)
    for way in WAYS:
        first, second = (
            head(encoder, toy_signal, way),
            MLPReadout(encoder, toy_signal, 3, over_channels=way[0], over_windows=way[1]).eval(),
        )
        with torch.no_grad():
            assert not torch.allclose(first(encoder, batch), second(encoder, batch))
            second.load_state_dict(first.state_dict(), strict=True)
            assert torch.equal(first(encoder, batch), second(encoder, batch))


def test_a_vote_of_one_output_is_refused_in_one_line(toy_signal: SignalSpec) -> None:
    encoder = labram(toy_signal)
    with pytest.raises(ConfigError, match=r"over_windows: vote .* has one output; set over_windows to mean"):
        head(encoder, toy_signal, ("mean", "vote"), n_outputs=1)


def test_an_asymmetry_leaves_out_what_both_sides_share_and_the_channels_without_a_partner(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(1)
    readout = head(encoder, toy_signal, ("asymmetry", "mean"))
    tokens = torch.randn(1, 6, 4, encoder.d_model, generator=torch.Generator().manual_seed(0))
    shared = tokens + torch.randn(1, 1, 4, encoder.d_model, generator=torch.Generator().manual_seed(1))
    alone = tokens.clone()
    alone[:, 4:] += 1.0  # Cz and P7
    with torch.no_grad():
        expected = readout(encoder, batch, tokens)
        mean = tokens.mean(dim=2)
        by_hand = torch.cat([mean[:, 1] - mean[:, 0], mean[:, 3] - mean[:, 2]], dim=1)
        torch.testing.assert_close(expected, readout.layers(by_hand))
        torch.testing.assert_close(readout(encoder, batch, shared), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(readout(encoder, batch, alone), expected)
        one_side = replace(batch, channel=torch.tensor([[-1, 1, 2, 3, 4, 5]]), is_padded=True)
        by_hand[:, : encoder.d_model] = 0.0
        torch.testing.assert_close(readout(encoder, one_side, tokens), readout.layers(by_hand))


def test_log_power_is_in_microvolts_although_the_encoder_standardises(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = Mamba2(toy_signal, patch_samples=50, d_model=16, n_layers=1, d_state=8, headdim=8).eval()
    batch = replace(toy_eeg(2), deviation=torch.full((2, 6), 30.0))
    louder = replace(batch, eeg=2 * batch.eeg, deviation=2 * batch.deviation)
    with torch.no_grad():
        torch.testing.assert_close(encoder(louder), encoder(batch))
        readout = head(encoder, toy_signal, ("concat", "log_power"))
        power, more = (
            readout._windows_pooled(encoder, one, encoder(one), encoder.valid(one)) for one in (batch, louder)
        )
    torch.testing.assert_close(more - power, torch.full_like(power, float(np.log(2))))


def test_an_asymmetry_without_a_pair_is_refused_in_one_line(toy_signal: SignalSpec) -> None:
    encoder = labram(replace(toy_signal, channels=tuple(f"E{number}" for number in range(1, 7))))
    with pytest.raises(ConfigError, match=r"no two of E1, .* are homologous; set over_channels to mean"):
        head(encoder, encoder.signal, ("asymmetry", "mean"))
