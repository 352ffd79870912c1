import logging
from dataclasses import replace

import pytest
import torch

from cerebro.encoders import AdaptedEncoder, LaBraM, Mamba2, Transformer
from cerebro.errors import ConfigError
from cerebro.montage import hbn_129
from cerebro.signal import SignalSpec

NOWHERE = (float("nan"),) * 3


def encoder_of(positions):
    signal = SignalSpec(("A", "B"), positions, 100.0, 200)
    return AdaptedEncoder(signal, lambda inner: LaBraM(inner, conv_channels=2, depth=1, n_heads=2), hbn_129, width=16)


def test_recordings_without_a_single_position_are_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"no channel of the recordings has a position \(A, B\)"):
        encoder_of((NOWHERE, NOWHERE))


def test_channels_without_a_position_are_counted(caplog):
    with caplog.at_level(logging.WARNING):
        encoder_of(((0.0, 0.0, 0.1), NOWHERE))
    assert "1 of 2 channels have no position: B" in caplog.text


@pytest.mark.parametrize("inner", [Mamba2, Transformer])
def test_the_deviation_of_the_recordings_own_channels_is_none_of_the_electrodes(inner, toy_signal, toy_eeg):
    encoder = AdaptedEncoder(toy_signal, lambda signal: inner(signal, patch_samples=20, d_model=16), hbn_129, width=16)
    batch = toy_eeg(3)
    carried = replace(batch, deviation=torch.full(batch.channel.shape, 7.0))
    encoder.eval()
    with torch.no_grad():
        tokens = encoder(carried)
        assert tokens.shape[:2] == (3, 129)
        assert torch.equal(tokens, encoder(batch))
