"""What the contract tests share: every final class of the package, found by ``__subclasses__``."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from cerebro.signal import EEGBatch


@pytest.fixture(scope="session")
def example_of() -> Callable[[dict[str, Any], type], Any]:
    """``example_of(EXAMPLES, cls)``: how a small instance is built; fails if a new class has none."""

    def find(examples: dict[str, Any], cls: type) -> Any:
        if cls.__name__ not in examples:
            pytest.fail(f"{cls.__name__} has no example; add a small one to EXAMPLES of this contract test.")
        return examples[cls.__name__]

    return find


@pytest.fixture(scope="session")
def pad() -> Callable[[EEGBatch], EEGBatch]:
    """``pad(batch)``: two padded channels and another 100 padded samples, filled with numbers that must not matter."""

    def padded(batch: EEGBatch) -> EEGBatch:
        n, c, t = batch.eeg.shape
        eeg = 37 * torch.randn(n, c + 2, t + 100, generator=torch.Generator().manual_seed(1))
        eeg[:, :c, :t] = batch.eeg
        channel = torch.cat([batch.channel, torch.full((n, 2), -1)], dim=1)
        return replace(batch, eeg=eeg, channel=channel, is_padded=True)

    return padded
