"""State of this process that a run borrows: global random generators, record of peak memory, filter of warnings."""

import contextlib
import random
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cerebro.training.keep import random_state, restore_random_state


@contextlib.contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back as they were afterwards."""
    before = random_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global generator, for code that asks it
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_state(before)


@contextlib.contextmanager
def without_hints() -> Iterator[None]:
    """Leave out what Lightning says of the machine: the config chose it. Filters that are added inside end with it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        yield


def restart_peak_memory() -> None:
    """Forget the peak of what this process did before, where the system can (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Peak resident memory in MB since `restart_peak_memory`, or of the whole process where that is not known."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
