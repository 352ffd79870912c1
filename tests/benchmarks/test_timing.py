import importlib.util
import itertools
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "timing.py"


@pytest.fixture
def timing(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_timing", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "benchmark_timing", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_ratio_is_the_median_of_peer_over_ours_and_they_take_turns(timing):
    now = [0.0]
    calls = []
    peer_takes = itertools.chain([1.0], itertools.cycle([4.0, 6.0, 50.0]))  # the first round is not counted

    def ours():
        calls.append("ours")
        now[0] += 2.0

    def peer():
        calls.append("peer")
        now[0] += next(peer_takes)

    figures = timing.compare(ours, peer, rounds=9, clock=lambda: now[0]).figures("speed")
    assert figures == {"speed": 3.0, "speed_lowest": 2.0, "speed_highest": 25.0}
    assert calls == ["ours", "peer", *["peer", "ours", "ours", "peer"] * 4, "peer", "ours"]
