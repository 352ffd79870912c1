import logging

import pytest

from cerebro.encoders import AdaptedEncoder, LaBraM
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
