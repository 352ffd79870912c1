from dataclasses import replace

import numpy as np
import pytest
import torch

from cerebro.errors import ConfigError
from cerebro.signal import RawBatch, SignalSpec


def raw_batch(counts: torch.Tensor, scale: float) -> RawBatch:
    b, _, c = counts.shape
    number = torch.arange(b)
    return RawBatch(
        counts=counts,
        microvolts_per_count=torch.full((b,), scale),
        channel=torch.arange(c).repeat(b, 1),
        n_valid=torch.full((b,), counts.shape[1]),
        key=number,
        sample=number,
        recording=number,
        participant=number,
        pair=number,
        targets={"age": torch.ones(b)},
        known={"age": torch.ones(b, dtype=torch.bool)},
        is_padded=False,
    )


def test_counts_become_microvolts_channel_by_channel():
    counts = torch.randint(-32768, 32767, (3, 20, 5), dtype=torch.int16)
    batch = raw_batch(counts, 0.05).to_microvolts()
    expected = counts.numpy().astype(np.float32).transpose(0, 2, 1) * np.float32(0.05)
    assert batch.eeg.dtype == torch.float32
    assert batch.eeg.is_contiguous()
    np.testing.assert_array_equal(batch.eeg.numpy(), expected)


def test_a_moved_batch_keeps_every_field():
    batch = raw_batch(torch.ones(2, 4, 3, dtype=torch.int16), 0.1)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.targets["age"], batch.targets["age"])
    assert len(moved) == 2
    assert not moved.is_padded
    assert not moved.to_microvolts().to(torch.device("cpu")).is_padded


def test_a_signal_refuses_a_channel_twice_and_a_missing_position():
    with pytest.raises(ConfigError, match="occur twice: Cz"):
        SignalSpec(("Cz", "Cz"), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), 100.0, 200)
    with pytest.raises(ConfigError, match="2 channel names came with 1 positions"):
        SignalSpec(("Cz", "Pz"), ((0.0, 0.0, 0.0),), 100.0, 200)


def test_a_batch_without_its_signal_has_its_shape_and_no_memory():
    batch = replace(raw_batch(torch.ones(3, 0, 5, dtype=torch.int16), 0.1), absent_samples=2048)
    moved = batch.to(torch.device("cpu"))
    assert moved.absent_samples == 2048
    eeg = moved.to_microvolts().eeg
    assert eeg.shape == (3, 5, 2048)
    assert eeg.dtype == torch.float32
    assert eeg.untyped_storage().nbytes() == 4
    assert not eeg.any()
