"""A reader of ``.npy`` files that children import by name: tests of builds put this folder on their path."""

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan, Skip
from cerebro.montage import Montage


class Arrays(Reader):
    """Recordings in ``.npy`` files at 250 Hz; what a name says happens when the file is opened."""

    corpus = "arrays"

    def __init__(self, root: Path, gain: float = 1.0, slow_s: float = 0.2) -> None:
        self.root = root
        self.slow_s = slow_s
        self.gain = gain

    def montage(self) -> Montage:
        return Montage("cap", ("A", "B", "C"), np.eye(3) * 0.1)

    def scan(self, require_signals: bool = True) -> Scan:
        entries = [
            Entry(path.stem, path.stem[:5], "rest", path, events=(Event(1.0, "start"),))
            for path in sorted(self.root.glob("*.npy"))
        ]
        people = sorted({entry.participant for entry in entries})
        table = pd.DataFrame({"age": np.arange(len(people)) + 5.0}, index=people)
        return Scan(entries, [Finding("unlisted", "skipped", "sub99", "not there")], table)

    def load(self, entry: Entry) -> Recording:
        (self.root / f"{entry.key}.opened").touch()
        if "crash" in entry.key:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in entry.key:
            time.sleep(self.slow_s)
        if "bug" in entry.key:
            raise ZeroDivisionError("a bug\nin a reader")
        if "short" in entry.key:
            raise Skip(Finding("too-short", "skipped", entry.key, "0.01 s"))
        eeg = np.load(entry.path) * np.float32(self.gain)
        findings = [Finding("no-electrode", "repaired", entry.key, "ECG dropped")] if "ecg" in entry.key else []
        return Recording(eeg, ("A", "B", "C"), 250.0, "Cz", findings)

    def opened(self) -> list[str]:
        """Recordings whose signal was opened since the last call."""
        marks = sorted(self.root.glob("*.opened"))
        for mark in marks:
            mark.unlink()
        return [mark.stem for mark in marks]


def write_recording(root: Path, key: str, seed: int, n_times: int = 2500) -> None:
    np.save(root / f"{key}.npy", (np.random.default_rng(seed).normal(size=(3, n_times)) * 20).astype(np.float32))


def content(store: Path) -> dict[str, str]:
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
