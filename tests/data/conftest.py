"""A small store with everything that a store can hold; children of tests import the modules in ``support`` by name."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Event, Segment
from cerebro.data.store import Store
from cerebro.montage import Montage


@pytest.fixture(scope="session")
def make_varied_store() -> Callable[[Path], Store]:
    """``make_varied_store(path)``: two channel sets, windows, large offsets, a flat channel, clipped samples."""

    def make(path: Path) -> Store:
        draw = np.random.default_rng(0)
        montage = Montage("cap", ("A", "B", "C"), np.array([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0], [np.nan] * 3]))
        offsets = np.array([[812.3456], [0.0], [-7.01]])
        eeg = {f"sub-{i}/rest": (draw.normal(0, 20, (3, 2500 + i)) + offsets).astype(np.float32) for i in range(3)}
        eeg["sub-1/rest"][1] = 0
        eeg["sub-2/rest"][2, 100:103] += 30_000
        eeg["sub-3/windows"] = draw.normal(0, 20, (2, 6 * 50)).astype(np.float32)
        windows = tuple(Segment(i // 2, i % 2, 10.1 * i, 10.1 * i + 0.5, 50 if i < 5 else 31) for i in range(6))
        people = pd.DataFrame(
            {"age": [5.1, np.nan, 7.0, 8.0], "sex": [0.0, 1.0, np.nan, 0.0], "site": ["RU", None, "CBIC", "n:a"]},
            index=[key[:5] for key in eeg],
        ).assign(visits=[1, 2, 3, 4], is_new=[True, False, True, True])
        return write_store(
            path,
            eeg,
            montage,
            100.0,
            tasks={key: key.partition("/")[2] for key in eeg},
            people={key: key[:5] for key in eeg},
            participants=people,
            events={"sub-1/rest": (Event(1.0, "start"), Event(2.00437, "größer", 0.5))},
            labels={"sub-0/rest": {"open": 1.0}, "sub-2/rest": {"open": 0.0, "speed": 0.1}},
            runs={"sub-2/rest": 2},
            releases={"sub-0/rest": "R5"},
            channels={"sub-3/windows": ("A", "C")},
            segments={"sub-3/windows": windows},
            corpus="varied",
            reference="Cz",
        )

    return make


SUPPORT = str(Path(__file__).parent / "support")
sys.path.append(SUPPORT)


@pytest.fixture(autouse=True)
def importable_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH", "")])))
