from typing import Any

import torch
from torch import nn

from cerebro.encoders.labram import LaBraM
from cerebro.readouts import LinearReadout, MLPReadout
from cerebro.signal import SignalSpec


def test_the_linear_readout_is_norm_and_linear_of_the_mean_token(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = LaBraM(toy_signal, conv_channels=2, depth=1, n_heads=2).eval()
    readout, batch = LinearReadout(encoder, toy_signal, 2), toy_eeg(3)
    with torch.no_grad():
        expected = readout.head(readout.norm(encoder(batch).mean(dim=(1, 2))))
        torch.testing.assert_close(readout(encoder, batch), expected)


def test_the_mlp_readout_has_the_layers_of_the_specification(toy_signal: SignalSpec) -> None:
    encoder = LaBraM(toy_signal, conv_channels=4, depth=1, n_heads=2)
    layers = list(MLPReadout(encoder, toy_signal, 2).layers)
    names = [type(layer).__name__ for layer in layers]
    assert names == ["LayerNorm", "Dropout", "Linear", "GELU", "Dropout", "Linear"]
    first, last = layers[2], layers[5]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert (first.in_features, first.out_features, last.out_features) == (100, 50, 2)
    assert float(first.weight.detach().abs().max()) <= (6 / 150) ** 0.5  # Xavier
