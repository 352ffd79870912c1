"""Fixtures that every test may use."""

import argparse
import json
import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from torch import Tensor

from cerebro.signal import EEGBatch, SignalSpec

# A shell that starts pytest in the background lets it ignore SIGINT, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine, however slow it is; `pytest --hypothesis-profile=search` tries new ones.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("search"), derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real recordings are absent (looked for {folder.name} in a folder beside the repository)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Reference numbers that stand in the repository."""
    return Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session")
def official_state(golden: Path) -> Callable[[str], dict[str, Tensor]]:
    """``official_state("mem")``: closed-form weights of the reference runs (``finetune``, ``mem``, ``vqnsp``)."""

    def build(kind: str) -> dict[str, Tensor]:
        state = {}
        keys = json.loads((golden / f"labram_{kind}_keys.json").read_text())
        for j, (key, shape) in enumerate(sorted(keys.items())):
            value = np.sin(0.7 * np.arange(math.prod(shape)) + 1.3 * j).reshape(shape)
            if len(shape) >= 2:
                fan = shape[-1] if len(shape) == 3 else math.prod(shape[1:])
                value = value * 2 / math.sqrt(fan) if key.endswith("weight") else value * 0.2
            else:
                value = 1 + 0.1 * value if key.endswith("weight") or "gamma" in key else 0.1 * value
            state[key] = torch.tensor(value, dtype=torch.float32)
        if "quantize.embedding.weight" in state:
            codes = torch.tensor(np.sin(1.9 * np.arange(64 * 16)).reshape(64, 16), dtype=torch.float32)
            state["quantize.embedding.weight"] = F.normalize(codes, dim=-1)
        return state

    return build


@pytest.fixture(scope="session")
def official_file(official_state: Callable[[str], dict[str, Tensor]]) -> Callable[..., Path]:
    """``official_file(folder, "mem")``: a file as the official program writes it; changes are merged into the state."""

    def write(folder: Path, kind: str, changes: Mapping[str, Tensor | None] = MappingProxyType({})) -> Path:
        state = {name: value for name, value in (official_state(kind) | dict(changes)).items() if value is not None}
        content: dict[str, Any] = {"model": state, "epoch": 3, "args": argparse.Namespace(lr=5e-4, betas=[0.9, 0.98])}
        content |= {"optimizer": {"state": {}, "param_groups": [{"lr": 5e-4}]}, "scaler": {"scale": 65536.0}}
        path = folder / f"{kind}.pth"
        torch.save(content if kind != "finetune" else {"model": state}, path)
        return path

    return write


@pytest.fixture(scope="session")
def signal_jepa_signal() -> SignalSpec:
    """Eight channels and six seconds of braindecode's reference run of Signal-JEPA."""
    places = tuple((0.08 * math.cos(i), 0.08 * math.sin(i), 0.04 * math.cos(2 * i)) for i in range(8))
    return SignalSpec(tuple(f"ch{i}" for i in range(8)), places, 100.0, 600, ("kind",))


@pytest.fixture(scope="session")
def signal_jepa_state(golden: Path) -> Callable[[str], dict[str, Tensor]]:
    """``signal_jepa_state("base")``: weights of that run (``base``, ``contextual``, ``postlocal``, ``prelocal``)."""

    def build(kind: str) -> dict[str, Tensor]:
        draw, state = np.random.RandomState(0), {}  # a generator whose numbers never change
        for key, shape in sorted(json.loads((golden / "signal_jepa_keys.json").read_text())[kind].items()):
            value = draw.randn(*shape)
            if len(shape) >= 2:
                value = value / math.sqrt(math.prod(shape[1:]))
            else:
                value = 1 + 0.1 * value if key.endswith("weight") else 0.1 * value
            state[key] = torch.tensor(value, dtype=torch.float32)
        return state

    return build


@pytest.fixture(scope="session")
def signal_jepa_input(signal_jepa_signal: SignalSpec) -> EEGBatch:
    """Windows of that run, in microvolts."""
    n_batch, n_channels, n_times = 2, len(signal_jepa_signal.channels), signal_jepa_signal.n_times
    at, rows = np.arange(n_batch * n_channels * n_times), torch.arange(n_batch)
    eeg = 20 * np.sin(0.37 * at + at**1.5 * 1e-3).reshape(n_batch, n_channels, n_times)
    return EEGBatch(
        eeg=torch.tensor(eeg, dtype=torch.float32),
        channel=torch.arange(n_channels).repeat(n_batch, 1),
        n_valid=torch.full((n_batch,), n_times),
        key=rows,
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        targets={"kind": torch.zeros(n_batch)},
        known={"kind": torch.ones(n_batch, dtype=torch.bool)},
        is_padded=False,
    )


@pytest.fixture(scope="session")
def toy_signal() -> SignalSpec:
    """Six channels, two seconds at 100 Hz, a regression target and a binary one."""
    n_channels = 6
    return SignalSpec(
        channels=tuple(f"E{i + 1}" for i in range(n_channels)),
        positions=tuple((0.08 * math.cos(i), 0.08 * math.sin(i), 0.04) for i in range(n_channels)),
        sfreq=100.0,
        n_times=200,
        targets=("trait", "state"),
    )


@pytest.fixture(scope="session")
def toy_eeg(toy_signal: SignalSpec) -> Callable[..., EEGBatch]:
    """``toy_eeg(n, seed)``: EEG-like windows in microvolts whose alpha amplitude carries ``trait`` and ``state``.

    Two windows of neighbouring rows share a film component (``pair``) and come from different participants.
    """

    def build(n: int = 16, seed: int = 0) -> EEGBatch:
        draw = torch.Generator().manual_seed(seed)
        time_s = torch.arange(toy_signal.n_times) / toy_signal.sfreq
        n_channels, rows = len(toy_signal.channels), torch.arange(n)
        trait = torch.randn(n, generator=draw)
        weight = torch.linspace(0.4, 1.0, n_channels)[None, :, None]
        phase = 2 * math.pi * torch.rand(n, 1, 1, generator=draw)
        alpha = torch.sin(2 * math.pi * 10 * time_s + phase) * weight * (10 * torch.exp(0.5 * trait))[:, None, None]
        film_hz = (2 + rows // 2 % 8)[:, None, None]  # each pair has its own rhythm
        film = 12 * torch.sin(2 * math.pi * film_hz * time_s) * weight.flip(1)
        noise = torch.randn(n, n_channels, toy_signal.n_times, generator=draw).cumsum(-1)
        return EEGBatch(
            eeg=alpha + film + noise - noise.mean(-1, keepdim=True),
            channel=torch.arange(n_channels).repeat(n, 1),
            n_valid=torch.full((n,), toy_signal.n_times),
            key=torch.randint(-(2**62), 2**62, (n,), generator=draw),
            sample=rows,
            recording=rows,
            participant=rows % 2,
            pair=rows // 2 % 8,
            targets={"trait": trait, "state": (trait > 0).float()},
            known={"trait": torch.ones(n, dtype=torch.bool), "state": torch.ones(n, dtype=torch.bool)},
            is_padded=False,
        )

    return build
