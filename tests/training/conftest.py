"""Makes the helpers of tests of training importable; fixtures of heads on a frozen encoder."""

import sys
from pathlib import Path
from typing import Any

import pytest

from cerebro.encoders import Mamba2
from cerebro.objectives import Supervised
from cerebro.signal import EEGBatch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def ten_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ten people, see `frozen_head`."""
    from frozen_head import write

    return write(tmp_path_factory.mktemp("frozen") / "store")


@pytest.fixture
def encoder_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Windows that the encoder saw, a batch each."""
    seen: list[int] = []
    original = Mamba2.mix

    def mix(self: Mamba2, tokens: Any, batch: EEGBatch, hidden: Any = None) -> Any:
        seen.append(len(batch))
        return original(self, tokens, batch, hidden)

    monkeypatch.setattr(Mamba2, "mix", mix)
    return seen


@pytest.fixture
def without_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    """No objective has features that stay the same: every step reads tokens."""
    original = Supervised.__init__

    def init(self: Supervised, *args: Any, **more: Any) -> None:
        original(self, *args, **more)
        self.pools = False

    monkeypatch.setattr(Supervised, "__init__", init)
