"""What a store of 30,000 recordings costs to open, and what its index weighs.

The store has the size of HBN-EEG as a whole (11 releases) in recordings, channels and events, with one page of samples
per recording. It is opened in a process of its own that has imported cerebro before the clock starts.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from cerebro.data.readers.base import Event
from cerebro.data.seal import make_tables, seal
from cerebro.data.shards import Piece, StoredRecording, write_counts
from cerebro.data.store import EVENT_DTYPE, FINDING_COLUMNS, INDEX_DTYPE, crc32c
from cerebro.montage import hbn_129

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


def figures(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "store")
        runs = []
        for _ in range(rounds):
            command = [sys.executable, "-c", CHILD, str(Path(folder) / "store")]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert all(run["n"] == N_RECORDINGS for run in runs)
    return {
        "index_bytes_per_recording": float(INDEX_DTYPE.itemsize),
        "index_bytes_per_event": float(EVENT_DTYPE.itemsize),
        "open_30000_recordings_s": float(np.median([run["open_s"] for run in runs])),
        "open_30000_recordings_mb": float(np.median([run["open_mb"] for run in runs])),
    }


def write(out: Path) -> None:
    """A store whose recordings all hold the same samples."""
    montage = hbn_129()
    counts = np.random.default_rng(0).integers(-3000, 3000, (N_TIMES, 129), dtype=np.int16)
    samples = out.parent / "samples.i16"
    write_counts(samples, counts)
    piece = Piece(samples, 0, N_TIMES, 129, crc32c(counts))
    events = tuple(Event(0.001 * number, f"event_{number % 12}") for number in range(N_EVENTS))
    rows = [
        StoredRecording(
            key=f"R{number % 11 + 1}/sub-NDAR{number % N_PEOPLE:06d}/eeg/sub-NDAR{number % N_PEOPLE:06d}_task-{number}",
            participant=f"sub-NDAR{number % N_PEOPLE:06d}",
            task=f"task{number % 10}",
            channels=montage.channels,
            piece=piece,
            offsets_uV=(0.0,) * 129,
            release=f"R{number % 11 + 1}",
            reference="Cz",
            source_sha256=f"{number:064x}",
            piece_key=f"{number:064x}",
            events=events,
        )
        for number in range(N_RECORDINGS)
    ]
    people = pd.DataFrame({"age": 10.0}, index=pd.Index(sorted({row.participant for row in rows})))
    findings = pd.DataFrame([], columns=list(FINDING_COLUMNS), dtype=str)
    seal(out, make_tables(rows, montage, people, findings, {}, 100.0, 0.05, "HBN"))
