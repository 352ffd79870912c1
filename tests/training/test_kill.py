import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

HERE = str(Path(__file__).parent)


def train(out: str, pause_s: float) -> None:
    """Run ``cerebro fit`` on the toy phase in this process."""
    import sys

    sys.path.insert(0, HERE)
    os.environ["OMP_NUM_THREADS"] = "1"
    import toy_cli

    from cerebro.cli.main import main

    toy_cli.install()
    sys.exit(
        main(["fit", "--config", f"{HERE}/toy.yaml", "--out", out, f"--model.objective.init_args.pause_s={pause_s}"])
    )


def start(out: Path, pause_s: float) -> "multiprocessing.process.BaseProcess":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cerebro.cli.fit"])
    process = context.Process(target=train, args=(str(out), pause_s))
    process.start()
    return process


def kill_until_finished(out: Path, n_kills: int, rng: np.random.Generator) -> int:
    """Kill a run ``n_kills`` times at random moments, then let it finish; gives how many kills hit it."""
    n_hit = 0
    for _ in range(n_kills):
        process = start(out, 0.02)
        began = time.monotonic()
        while not (out / ".lock").exists() and time.monotonic() < began + 60:
            time.sleep(0.01)
        process.join(timeout=float(rng.uniform(0.05, 0.9)))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            n_hit += 1
        process.join()
    process = start(out, 0.02)
    process.join()
    assert process.exitcode == 0
    return n_hit


def check_killed_runs(folder: Path, n_kills: int) -> None:
    whole = start(folder / "whole", 0.02)
    whole.join()
    assert whole.exitcode == 0
    n_hit = kill_until_finished(folder / "killed", n_kills, np.random.default_rng(0))
    assert n_hit >= n_kills // 2
    ours, theirs = (json.loads((folder / name / "run.json").read_text()) for name in ("killed", "whole"))
    for key in ("weights_sha256", "last_weights_sha256", "best", "config_hash"):
        assert ours[key] == theirs[key]
    rows = []
    for name in ("killed", "whole"):
        lines = [json.loads(line) for line in (folder / name / "history.jsonl").read_text().splitlines()]
        rows.append([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    assert rows[0] == rows[1]
    assert not list((folder / "killed").glob(".*.part"))


def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 5)


@pytest.mark.slow
def test_a_run_killed_many_times_ends_bit_identical(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 25)
