"""A study killed at any moment and started again ends with the same bytes, and does nothing twice."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

import cerebro
from cerebro.files import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("tokenizer", "pretrain", "contrastive", "challenge1", "challenge2")
STAGES = ("simulate", "prepare", "seal", *PHASES, "results")
STARTED = re.compile(
    r"^(?:data: cerebro (?P<data>simulate|prepare)|phase \d of 5: (?P<phase>\w+) .*\.\.\.$|(?P<results>baselines of))",
    re.MULTILINE,
)
TINY = {
    "data.store": "store",
    "data.batch_size": 8,
    "data.batches_per_epoch": 4,
    "data.max_eval_windows": 16,
    "trainer.max_epochs": 2,
    "checkpoint_every_steps": 1,
    "model.encoder.init_args.depth": 1,
}
TOKENIZER_DEPTH = "model.objective.init_args.terms.codes.init_args.tokenizer.init_args.encoder.init_args.depth"
EXTRA = {
    "pretrain": {TOKENIZER_DEPTH: 1},
    "challenge1": {"model.freeze_encoder_epochs": 1},
    "challenge2": {"model.freeze_encoder_epochs": 1},
}
DATA = {
    "reader": {"class_path": "HBN", "init_args": {"root": "cohort"}},
    "preprocessing": {"sfreq": 100.0, "highpass_hz": 0.5, "lowpass_hz": 45.0},
}
RECIPE = {
    "name": "short",
    "data": {
        "simulate": {"out": "cohort", "preset": "demo", "participants": 15},
        "prepare": {"config": "data.yaml", "store": "store"},
    },
    "phases": {
        "tokenizer": {},
        "pretrain": {"tokenizer": "tokenizer"},
        "contrastive": {"init": "pretrain"},
        "challenge1": {"init": "contrastive"},
        "challenge2": {"init": "contrastive"},
    },
    "baselines": ["band_power"],
}
RUN = ["run", "recipe.yaml", "--out", "study"]
NO_MEASURE = ("seconds", "train_seconds", "peak_memory_mb", "mlflow_run_id")  # differ between any two runs


@dataclass
class Study:
    """Folder in which the short recipe runs, and what is known of its progress."""

    folder: Path
    made: dict[Path, set[int]] = field(default_factory=dict)  # finished file -> when it was written

    def write_recipe(self) -> None:
        """Recipe and data config; phases are those of the demo, smaller."""
        self.folder.mkdir()
        recipe = json.loads(json.dumps(RECIPE))
        for name, phase in recipe["phases"].items():
            phase["config"] = f"../configs/demo/{name}.yaml"
            phase["set"] = TINY | EXTRA.get(name, {})
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        (self.folder / "data.yaml").write_text(yaml.safe_dump(DATA))

    @property
    def log(self) -> Path:
        """Output of the command that ran last."""
        return self.folder / "output.txt"

    def stage(self) -> str:
        """What the command that runs now is doing; empty before it says anything."""
        text = self.log.read_text() if self.log.exists() else ""
        found = [next(filter(None, match.groups())) for match in STARTED.finditer(text)]
        if re.search(r"^phase 5 of 5.*reused", text, re.MULTILINE):
            return "results"
        if found[-1:] == ["prepare"] and self._staged("seal-*"):
            return "seal"
        return (found[-1] if found[-1] in STAGES else "results") if found else ""

    def n_recordings(self) -> int:
        """Simulated recordings that are finished."""
        return len(list(self.folder.glob("cohort/.simulation/*task-*.json")))

    def n_pieces(self) -> int:
        """Prepared recordings that are finished."""
        return len(self._staged("*.json"))

    def _staged(self, pattern: str) -> list[Path]:
        """Files in the staging folder, which the build takes away when it is done, in the middle of a look too."""
        with contextlib.suppress(FileNotFoundError):
            return list(self.folder.glob(f"store/staging/{pattern}"))
        return []

    def last_save(self, phase: str) -> int:
        """When a phase wrote its last checkpoint; 0 if it has none."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.glob(f"study/phases/{phase}-*/last.ckpt"):
                return path.stat().st_mtime_ns
        return 0

    def progress(self) -> str:
        """How far the study is, in a few words."""
        prepared = "all" if (self.folder / "store/manifest.json").exists() else self.n_pieces()
        runs = len(list(self.folder.glob("study/phases/*/run.json")))
        return f"{self.n_recordings()} recordings simulated, {prepared} prepared, {runs} phases finished"

    def note_finished(self) -> None:
        """Remember when each finished piece of work was written."""
        phases = self.folder / "study" / "phases"
        finished = [*self._staged("*.json"), *self.folder.glob("store/manifest.json")]
        for record in self.folder.glob("cohort/.simulation/*task-*.json"):
            participant = record.name.split("_")[0]
            finished += [record, self.folder / "cohort" / participant / "eeg" / f"{record.stem}_eeg.bdf"]
        for report in phases.glob("*/run.json"):
            finished += [report, *(report.with_name(name) for name in ("best.ckpt", "last.ckpt", "history.jsonl"))]
        finished += [*phases.glob("*/predictions_test.npz"), *self.folder.glob("study/baselines/*.npz")]
        for path in finished:
            self.made.setdefault(path, set()).add(path.stat().st_mtime_ns)


class Server:
    """Starts commands; see command_server.py."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, study: Study, **environment: str) -> int:
        """Start the recipe; gives the number of its process group."""
        assert self.process.stdin is not None
        study.log.unlink(missing_ok=True)
        request = [str(study.folder), str(study.log), RUN, environment]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def ended(self) -> int:
        """Wait for the end of what was started; gives its exit code."""
        return self._answer()

    def close(self) -> None:
        """End the server."""
        self.process.communicate()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Folder with configs and code of its own: whoever edits the repository meanwhile changes no study here."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    package = Path(cerebro.__file__).parent
    shutil.copytree(package, tmp_path / "code" / "cerebro", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def environment(workplace: Path) -> dict[str, str]:
    """One thread, the code of the workplace, and a death that a test can set."""
    path = os.pathsep.join([str(workplace / "code"), str(Path(__file__).with_name("dying"))])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[Server]:
    """Server of commands."""
    served = Server(environment)
    yield served
    served.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_killed_at_20_random_moments_ends_with_the_same_bytes_and_does_nothing_twice(
    workplace: Path, environment: dict[str, str], server: Server
) -> None:
    whole, killed = Study(workplace / "whole"), Study(workplace / "killed")
    began = time.monotonic()
    lasted = run_once(whole, server)
    print(f"uninterrupted: {time.monotonic() - began:.0f} s;", {name: f"{s:.1f} s" for name, s in lasted.items()})
    landed = []
    killed.write_recipe()
    chosen = moments(lasted, whole.n_recordings(), np.random.default_rng(0))
    for number, moment in enumerate(chosen, start=1):
        landed.append(kill_once(killed, server, moment))
        print(f"kill {number:2d} after {time.monotonic() - began:4.0f} s, {landed[-1]:<12} {killed.progress()}")
    command = [sys.executable, "-m", "cerebro.cli.main", *RUN]
    last = subprocess.run(command, cwd=killed.folder, env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    killed.note_finished()
    print(f"finished after {time.monotonic() - began:.0f} s")

    assert len(landed) == 20
    assert landed.count("the end") <= 2
    assert {"simulate", "prepare"} <= set(landed)
    assert len(set(landed) & set(PHASES)) >= 4
    assert {path: times for path, times in killed.made.items() if len(times) > 1} == {}
    compare(whole.folder, killed.folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_that_dies_while_it_writes_ends_with_the_same_bytes_and_does_nothing_twice(
    workplace: Path, server: Server
) -> None:
    whole, killed = Study(workplace / "whole"), Study(workplace / "killed")
    run_once(whole, server)
    killed.write_recipe()
    rng, landed = np.random.default_rng(0), []
    while len(landed) < 100:
        most = 160 if landed else 60  # with a process for each participant, simulating takes some 100 calls in each
        server.start(killed, DIES_AFTER=str(rng.integers(1, most)))
        code = server.ended()
        assert code in (0, -signal.SIGKILL), killed.log.read_text()
        killed.note_finished()
        if code == 0:
            break
        landed.append(killed.stage())
        print(f"death {len(landed):2d}, {landed[-1]:<12} {killed.progress()}")
    assert code == 0
    assert len(landed) >= 10
    assert {"simulate", "prepare"} <= set(landed)
    assert set(landed) & set(PHASES)
    assert {path: times for path, times in killed.made.items() if len(times) > 1} == {}
    compare(whole.folder, killed.folder)


def run_once(study: Study, server: Server) -> dict[str, float]:
    """Run the recipe to its end; gives the seconds of each stage."""
    study.write_recipe()
    group = server.start(study)
    lasted = dict.fromkeys(STAGES, 0.0)
    before = time.monotonic()
    while psutil.pid_exists(group):
        time.sleep(0.01)
        now, stage = time.monotonic(), study.stage()
        if stage:
            lasted[stage] += now - before
        before = now
    assert server.ended() == 0, study.log.read_text()
    return lasted


@dataclass(frozen=True)
class Moment:
    """When to kill: in a stage, after so much progress (recordings finished, or checkpoints seen) and a while."""

    stage: str
    progress: int
    delay_s: float


def moments(lasted: dict[str, float], n_recordings: int, rng: np.random.Generator) -> list[Moment]:
    """Twenty random moments over all stages, in the order of stages."""
    counts = [("simulate", int(0.9 * n_recordings * (part + rng.uniform()) / 4)) for part in range(4)]
    counts += [("prepare", int(0.9 * n_recordings * (part + rng.uniform()) / 3)) for part in range(3)]
    chosen = [Moment(stage, n, float(rng.uniform(0, 0.3))) for stage, n in counts]
    chosen.append(Moment("seal", 0, float(rng.uniform(0, 0.1))))
    chosen.append(Moment("tokenizer", 0, float(rng.uniform(0, 0.5 * lasted["tokenizer"]))))  # MLflow makes its database
    for phase in (*PHASES, *rng.choice(PHASES[1:], 4, replace=False)):
        chosen.append(Moment(phase, int(rng.integers(0, 4)), float(rng.uniform(0, 0.3))))
    chosen += [Moment("results", 0, float(rng.uniform(0, 0.4 * lasted["results"]))) for _ in range(2)]
    return sorted(chosen, key=lambda moment: STAGES.index(moment.stage))


def kill_once(study: Study, server: Server, moment: Moment) -> str:
    """Start the study and kill it with all its processes at a moment; gives the stage it was in, or ``the end``."""
    group = server.start(study)
    saves = {study.last_save(moment.stage)}
    due = np.inf
    while psutil.pid_exists(group) and time.monotonic() < due:
        time.sleep(0.005)
        saves.add(study.last_save(moment.stage))
        counts = {"simulate": study.n_recordings, "prepare": study.n_pieces}
        progress = counts.get(moment.stage, lambda: len(saves) - 1)()
        stage = study.stage()
        is_past = bool(stage) and STAGES.index(stage) > STAGES.index(moment.stage)
        if due == np.inf and (is_past or (stage == moment.stage and progress >= moment.progress)):
            due = time.monotonic() + moment.delay_s
    landed = study.stage()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    code = server.ended()
    assert code in (0, -signal.SIGKILL), study.log.read_text()
    study.note_finished()
    return landed if code else "the end"


def compare(whole: Path, killed: Path) -> None:
    """The same cohort, store, weights, predictions and results; only times, memory and MLflow's names differ."""
    for name in ("cohort", "store", "study/baselines"):
        assert hashes(killed / name) == hashes(whole / name), name
    runs = [sorted(path.name for path in (folder / "study" / "phases").iterdir()) for folder in (whole, killed)]
    assert runs[0] == runs[1]
    assert len(runs[0]) == len(PHASES)
    for run in runs[0]:
        ours, theirs = killed / "study" / "phases" / run, whole / "study" / "phases" / run
        assert measureless(read_json(ours / "run.json")) == measureless(read_json(theirs / "run.json")), run
        rows = [
            [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
            for folder in (ours, theirs)
        ]
        assert measureless(rows[0]) == measureless(rows[1]), run
        for arrays in [path.name for path in theirs.glob("*.npz")]:
            same_arrays(ours / arrays, theirs / arrays)
    results = [measureless(read_json(folder / "study" / "results.json")) for folder in (killed, whole)]
    assert results[0] == results[1]
    assert (killed / "study" / "report.html").is_file()
    assert tracked(killed) == tracked(whole) == sorted((name, "FINISHED") for name in ("short", *PHASES))
    assert not list(killed.glob("**/.*.part"))
    assert not (killed / "study" / ".lock").exists()  # a finished phase may keep one: no obstacle, its owner is dead


def tracked(folder: Path) -> list[tuple[str, str]]:
    """Name and state of MLflow's runs."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return sorted(database.execute("select name, status from runs"))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def measureless(content: Any) -> Any:
    """Content without times, memory and names that MLflow gives."""
    if isinstance(content, dict):
        return {key: measureless(value) for key, value in content.items() if key not in NO_MEASURE}
    return [measureless(value) for value in content] if isinstance(content, list) else content


def same_arrays(ours: Path, theirs: Path) -> None:
    """Two files hold the same arrays to the last bit."""
    with np.load(ours) as one, np.load(theirs) as other:
        assert sorted(one.files) == sorted(other.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=f"{ours}: {name}")
