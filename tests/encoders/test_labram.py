import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.signal import SignalSpec


def signal_of(n_times: int, n_channels: int = 129, sfreq: float = 100.0) -> SignalSpec:
    return SignalSpec(tuple(f"E{i}" for i in range(n_channels)), ((math.nan,) * 3,) * n_channels, sfreq, n_times)


def test_patches_must_divide_the_window() -> None:
    with pytest.raises(ConfigError, match=r"patch_samples=100 does not divide .*2.5 s at 100 Hz.*\[10, 25, 50, 125"):
        LaBraM(signal_of(250))


def test_a_window_longer_than_the_time_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="20 patches"):
        LaBraM(signal_of(2000))


def test_the_default_is_one_second_patches_of_width_200() -> None:
    encoder = LaBraM(signal_of(200), depth=1)
    assert (encoder.d_model, encoder.n_patches(200)) == (200, 2)


@pytest.mark.slow
def test_the_base_model_has_the_published_number_of_parameters() -> None:
    encoder = LaBraM(signal_of(800, 128, 200.0), patch_samples=200, conv_stride=8)
    body = sum(parameter.numel() for parameter in encoder.parameters())
    assert body + 2 * 200 == pytest.approx(5.82e6, rel=0.002)  # + the norm, which is part of the heads here


def test_hidden_patches_do_not_enter_the_tokens(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = LaBraM(toy_signal, conv_channels=2, depth=2, n_heads=2).eval(), toy_eeg(2)
    hidden = torch.zeros(2, 6, 2, dtype=torch.bool)
    hidden[:, 3, 1] = True
    local = encoder.embed(batch)
    with torch.no_grad():
        changed = torch.where(hidden[..., None], 99.0, local)
        assert torch.equal(encoder.mix(changed, batch, hidden), encoder.mix(local, batch, hidden))


def test_the_official_class_token_sees_which_channel_comes_first(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = LaBraM(toy_signal, conv_channels=2, depth=2, n_heads=2, class_token="official").eval()
    batch = toy_eeg(2)
    flipped = replace(batch, eeg=batch.eeg.flip(1), channel=batch.channel.flip(1))
    with torch.no_grad():
        assert not torch.allclose(encoder(flipped).flip(1), encoder(batch), atol=1e-7)
