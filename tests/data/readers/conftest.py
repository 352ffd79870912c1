"""Small HBN-like trees, written by hand so that each test can break one thing."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cerebro.data import spread
from cerebro.data.pieces import Outcome, make_piece
from cerebro.data.readers import Entry
from cerebro.data.spread import Work
from cerebro.montage import hbn_129
from cerebro.simulate.writers import write_set

sys.path.insert(0, str(Path(__file__).parent))  # edf_files.py

COLUMNS = [
    "participant_id",
    "release_number",
    "sex",
    "age",
    "ehq_total",
    "commercial_use",
    "full_pheno",
    "p_factor",
    "attention",
    "internalizing",
    "externalizing",
    "RestingState",
    "DespicableMe",
    "FunwithFractals",
    "ThePresent",
    "DiaryOfAWimpyKid",
    "contrastChangeDetection_1",
    "contrastChangeDetection_2",
    "contrastChangeDetection_3",
    "surroundSupp_1",
    "surroundSupp_2",
    "seqLearning6target",
    "seqLearning8target",
    "symbolSearch",
]
RESTING_EVENTS = (("1.0", "resting_start"), ("2.0", "instructed_toOpenEyes"), ("4.0", "instructed_toCloseEyes"))


@dataclass
class Release:
    """A release folder under construction."""

    folder: Path
    number: str = "R1"

    def participants(self, *rows: dict[str, str]) -> None:
        """Write participants.tsv; what a row leaves out is n/a."""
        lines = ["\t".join(COLUMNS)]
        for row in rows:
            filled = {"release_number": self.number} | row
            lines.append("\t".join(filled.get(column, "n/a") for column in COLUMNS))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "participants.tsv").write_text("\n".join(lines) + "\n")

    def recording(
        self,
        person: str,
        task: str,
        run: int = 0,
        events: tuple[tuple[str, str], ...] | None = RESTING_EVENTS,
        duration_s: float = 10.0,
        channels: tuple[str, ...] = hbn_129().channels,
        types: str = "EEG",
        units: str = "uV",
        sidecar: dict[str, object] | None = None,
        columns: tuple[str, ...] = (),
        signal: bool = True,
        sfreq: float = 100.0,
    ) -> Path:
        """Write one recording; gives the path of its signal."""
        stem = f"{person}_task-{task}" + (f"_run-{run}" if run else "")
        folder = self.folder / person / "eeg"
        folder.mkdir(parents=True, exist_ok=True)
        if events is not None:
            header = "\t".join(("onset", "duration", "sample", "value", "event_code", *columns))
            lines = [f"{onset}\tn/a\tn/a\t{name}\tn/a" + "\tn/a" * len(columns) for onset, name in events]
            (folder / f"{stem}_events.tsv").write_text("\n".join([header, *lines]) + "\n")
        rows = [f"{name}\t{types}\t{units}" for name in channels]
        (folder / f"{stem}_channels.tsv").write_text("\n".join(["name\ttype\tunits", *rows]) + "\n")
        own: dict[str, object] = {
            "SamplingFrequency": sfreq,
            "EEGChannelCount": len(channels),
            "RecordingDuration": duration_s,
        }
        own |= sidecar or {}
        own = {name: value for name, value in own.items() if value is not None}
        (folder / f"{stem}_eeg.json").write_text(json.dumps(own))
        path = folder / f"{stem}_eeg.set"
        if signal:
            noise = np.random.default_rng(0).standard_normal((len(channels), round(min(duration_s, 30.0) * sfreq)))
            write_set(path, (20 * noise).astype(np.float32), channels, sfreq)
        return path


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Release]:
    """Release folders below ``tmp_path/hbn``."""

    def make(name: str = "ds1", number: str = "R1") -> Release:
        return Release(tmp_path / "hbn" / name, number)

    return make


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the recordings that builds open, which work in this process as long as the test lasts."""
    keys: list[str] = []

    def run(work: Work, entries: Iterable[Entry], jobs: int) -> Iterator[Outcome]:
        for entry in entries:
            outcome = make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)
            keys.extend([] if outcome.known else [entry.key])
            yield outcome

    monkeypatch.setattr(spread, "run_in_children", run)
    return keys
