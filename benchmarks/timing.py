"""Ours beside a peer: interleaved in one process, CPU time, the median of the rounds' ratios and their spread."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """How many times less time ours takes than the peer, and seconds of each (medians over rounds)."""

    ratio: float
    lowest: float
    highest: float
    ours_s: float
    peer_s: float

    def figures(self, name: str) -> dict[str, float]:
        """Flat figures: ``name`` and its spread."""
        return {name: self.ratio, f"{name}_lowest": self.lowest, f"{name}_highest": self.highest}


def compare(
    ours: Callable[[], object],
    peer: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Comparison:
    """Time both in turn, changing who goes first, after one round that is not counted."""
    ours(), peer()
    times: list[tuple[float, float]] = []
    for number in range(rounds):
        taken = {}
        for subject in (ours, peer) if number % 2 else (peer, ours):
            start = clock()
            subject()
            taken[subject] = clock() - start
        times.append((taken[ours], taken[peer]))
    ratios = [peer_s / ours_s for ours_s, peer_s in times]
    return Comparison(
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        ours_s=statistics.median(ours_s for ours_s, _ in times),
        peer_s=statistics.median(peer_s for _, peer_s in times),
    )


def in_two_threads(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Run both at once and wait for both."""
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(first), pool.submit(second)]:
            job.result()
