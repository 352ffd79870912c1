"""A store of any size in seconds: every recording holds the same samples."""

from pathlib import Path

import numpy as np
import pandas as pd

from cerebro.data.readers.base import Event
from cerebro.data.seal import make_tables, seal
from cerebro.data.shards import Piece, StoredRecording, write_counts
from cerebro.data.store import FINDING_COLUMNS, crc32c
from cerebro.montage import hbn_129

N_CHANNELS, SFREQ = 129, 100.0


def write(out: Path, n_recordings: int, n_times: int, n_people: int, n_events: int = 0) -> None:
    """Recordings of HBN's net at 100 Hz, ``n_times`` samples and ``n_events`` events each."""
    montage = hbn_129()
    counts = np.random.default_rng(0).integers(-3000, 3000, (n_times, N_CHANNELS), dtype=np.int16)
    samples = out.parent / "samples.i16"
    write_counts(samples, counts)
    piece = Piece(samples, 0, n_times, N_CHANNELS, crc32c(counts))
    events = tuple(Event(0.001 * number, f"event_{number % 12}") for number in range(n_events))
    rows = [
        StoredRecording(
            key=f"R{number % 11 + 1}/sub-NDAR{number % n_people:06d}/eeg/sub-NDAR{number % n_people:06d}_task-{number}",
            participant=f"sub-NDAR{number % n_people:06d}",
            task=f"task{number % 10}",
            channels=montage.channels,
            piece=piece,
            offsets_uV=(0.0,) * N_CHANNELS,
            release=f"R{number % 11 + 1}",
            reference="Cz",
            source_sha256=f"{number:064x}",
            piece_key=f"{number:064x}",
            events=events,
        )
        for number in range(n_recordings)
    ]
    people = pd.DataFrame({"age": 10.0}, index=pd.Index(sorted({row.participant for row in rows})))
    findings = pd.DataFrame([], columns=list(FINDING_COLUMNS), dtype=str)
    seal(out, make_tables(rows, montage, people, findings, {}, SFREQ, 0.05, "HBN"))
