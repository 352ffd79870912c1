"""`cerebro process` killed at many moments and started again ends with the same bytes, and keeps what it had made."""

import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import cerebro
from cerebro.files import read_json, sha256_file
from cerebro.simulate.writers import Trace, write_edf

DYING = Path(__file__).resolve().parents[1] / "recipes" / "dying"
SOURCES = Path(cerebro.__file__).resolve().parents[1]
N_PEOPLE = 3
CHANNELS = ("AF7", "AF8", "TP9", "TP10")
CONFIG = {
    "input": "raw",
    "participant_from": "^(p\\d+)_",
    "run_from": "_(\\d)$",
    "label": {"table": "people.csv", "participant_column": "id", "column": "outcome", "values": ["bad", "good"]},
    "mlflow": {"enabled": False},
}


def make(folder: Path) -> Path:
    (folder / "raw").mkdir(parents=True)
    for number in range(N_PEOPLE):
        draw = np.random.default_rng(number)
        for state in ("eyes-open_1", "eyes-closed_2"):
            eeg = draw.normal(0, 20, (4, 20 * 250)).astype(np.float32)
            traces = [Trace(label, 250, row) for label, row in zip(CHANNELS, eeg, strict=True)]
            write_edf(folder / f"raw/p{number}_{state}.edf", traces, "X", datetime.date(2020, 1, 1))
    outcomes = "".join(f"p{number},{('good', 'bad')[number % 2]}\n" for number in range(N_PEOPLE))
    (folder / "people.csv").write_text(f"id,outcome\n{outcomes}")
    (folder / "process.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def process(folder: Path, dies_after: int | None = None) -> int:
    """Exit code of the command; ``dies_after`` writes or renames of a process, all of its processes are killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{DYING}{os.pathsep}{SOURCES}"}
    if dies_after is not None:
        environment["DIES_AFTER"] = str(dies_after)
    command = [sys.executable, "-m", "cerebro", "process", "--config", "process.yaml"]
    done = subprocess.run(
        command, cwd=folder, env=environment, start_new_session=True, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def finished(folder: Path) -> dict[str, str]:
    """SHA-256 of what the command is for, by path; reports hold no times."""
    paths = [*folder.glob("processed/**/*.parquet"), *folder.glob("stores/primary/**/*.*")]
    return {str(path.relative_to(folder)): sha256_file(path) for path in paths if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_many_moments_it_continues_to_the_same_bytes_and_makes_nothing_twice(tmp_path: Path) -> None:
    whole, killed = make(tmp_path / "whole"), make(tmp_path / "killed")
    assert process(whole) == 0
    expected = finished(whole)
    assert sum(name.startswith("processed") for name in expected) == 2
    made: dict[Path, int] = {}
    n_kills = 0
    for dies_after in (1, 2, 3, 5, 8, 13, 21, 34):
        if process(killed, dies_after) == 0:
            break
        n_kills += 1
        for path, when in made.items():
            assert path.stat().st_mtime_ns == when, f"{path} is made twice"
        pieces = [path for path in killed.glob("interim/**/*.arrow") if not path.name.startswith(".")]
        made = {path: path.stat().st_mtime_ns for path in pieces}
        for path in killed.glob("processed/**/*.parquet"):
            assert sha256_file(path) == expected[str(path.relative_to(killed))], f"{path} is half-written"
    assert n_kills >= 4
    assert made
    assert process(killed) == 0
    assert finished(killed) == expected
    assert read_json(killed / "stores/primary/manifest.json") == read_json(whole / "stores/primary/manifest.json")
    assert not list(killed.glob("processed/**/.*.part"))
    assert not list(killed.glob("stores/**/.*.part"))
