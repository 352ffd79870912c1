"""What a store of 30,000 recordings costs to open, what its index weighs, and what its windows cost.

The store has the size of HBN-EEG as a whole (11 releases) in recordings, channels and events, with one page of samples
per recording. It is opened in a process of its own that has imported cerebro before the clock starts. Another process
lists its windows, splits its people and makes the training order, as a phase does before its first batch; there every
recording counts as 54 minutes long, which makes the 48.6 million windows of HBN and TUH EEG together.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import repeated
from cerebro.data.store import EVENT_DTYPE, INDEX_DTYPE

N_RECORDINGS, N_EVENTS, N_PEOPLE, N_TIMES = 30_000, 100, 3_000, 15

CHILD = """
import json, sys, time
from pathlib import Path
import psutil
from cerebro.data.store import Store
before = psutil.Process().memory_info().rss
start = time.perf_counter()
store = Store.open(Path(sys.argv[1]))
taken = time.perf_counter() - start
print(json.dumps({"open_s": taken, "open_mb": (psutil.Process().memory_info().rss - before) / 1e6, "n": len(store)}))
"""

WINDOWS_CHILD = """
import json, sys, time
from pathlib import Path
import psutil
import cerebro.data.module
from cerebro.data import EEGData, ParticipantSplit, SlidingWindows

def of_54_minutes(path):
    store = opened(path)
    store.index["n_times"] = 324_000
    return store

opened, cerebro.data.module.open_store = cerebro.data.module.open_store, of_54_minutes
before = psutil.Process().memory_info().rss
start = time.perf_counter()
data = EEGData(Path(sys.argv[1]), SlidingWindows(2.0, 2.0), ParticipantSplit(), ("age",), batch_size=128)
loader, n = data.train_dataloader(), len(data.table)
taken = time.perf_counter() - start
most = 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({"s": taken, "mb": (most - before) / 1e6, "n": n, "batches": len(loader)}))
"""


def figures(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        repeated.write(Path(folder) / "store", N_RECORDINGS, N_TIMES, N_PEOPLE, N_EVENTS)
        runs, windows = ([child(code, Path(folder)) for _ in range(rounds)] for code in (CHILD, WINDOWS_CHILD))
    assert all(run["n"] == N_RECORDINGS for run in runs)
    assert all(run["n"] == N_RECORDINGS * 1620 for run in windows)
    return {
        "index_bytes_per_recording": float(INDEX_DTYPE.itemsize),
        "index_bytes_per_event": float(EVENT_DTYPE.itemsize),
        "open_30000_recordings_s": float(np.median([run["open_s"] for run in runs])),
        "open_30000_recordings_mb": float(np.median([run["open_mb"] for run in runs])),
        "windows_48_million_s": float(np.median([run["s"] for run in windows])),
        "windows_48_million_mb": float(np.median([run["mb"] for run in windows])),
    }


def child(code: str, folder: Path) -> dict[str, float]:
    """What a process of its own prints as JSON."""
    command = [sys.executable, "-c", code, str(folder / "store")]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found
