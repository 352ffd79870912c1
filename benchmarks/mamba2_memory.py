"""Bytes that a step of one Mamba-2 layer needs, beside the plain chunked form.

Each layer runs in a process of its own, on one thread. Counted is the peak of the process's resident memory over three
steps, above what stood before them: parameters, tokens, a gradient, and all that a step on one short sequence loads.
So buffers inside of an autograd function count, and gradients. Every array of 64 kB or more goes back to the system as
soon as it is freed, so that what the allocator would keep for later does not.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from mamba2_layers import layer_of


def figures(size: str) -> dict[str, float]:
    """``memory_vs_chunked_ssd`` and the others as ours over the peer, and megabytes of each."""
    kinds = ("ours", "chunked_ssd", "transformers", "transformer_layer")
    peaks = {kind: _peak_mb(kind, size) for kind in kinds}
    found = {f"memory_vs_{kind}{size}": peaks["ours"] / peaks[kind] for kind in kinds[1:]}
    return found | {f"step_peak_mb_{kind}{size}": peak for kind, peak in peaks.items()}


def _peak_mb(kind: str, size: str) -> float:
    command = [sys.executable, str(Path(__file__).resolve()), kind, size]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def peak_of_steps(kind: str, size: str) -> float:
    torch.set_num_threads(1)
    layer_of(kind, size, n_batch=1, n_times=8).step()
    layer = layer_of(kind, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_mb("VmRSS")
    for _ in range(3):
        layer.step()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(peak_of_steps(sys.argv[1], sys.argv[2]))
