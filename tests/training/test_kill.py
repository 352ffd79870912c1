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


def kill_or_finish(out: Path, wait_s: float) -> bool:
    """Start a run and kill it ``wait_s`` after it took its lock; gives whether the kill came before its end."""
    process = start(out, 0.02)
    began = time.monotonic()
    while not (out / ".lock").exists() and process.is_alive() and time.monotonic() < began + 60:
        time.sleep(0.01)
    process.join(timeout=wait_s)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def check_same(run: Path, whole: Path) -> None:
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (run, whole))
    for key in ("weights_sha256", "last_weights_sha256", "best", "config_hash"):
        assert ours[key] == theirs[key]
    rows = []
    for folder in (run, whole):
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        rows.append([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    assert rows[0] == rows[1]
    assert not list(run.glob(".*.part"))


def check_killed_runs(folder: Path, n_kills: int) -> None:
    """Kill runs ``n_kills`` times before their end, the same one again and again until it finishes."""
    whole = start(folder / "whole", 0.02)
    whole.join()
    assert whole.exitcode == 0
    rng = np.random.default_rng(0)
    n_hit, number = 0, 0
    while n_hit < n_kills:
        out = folder / f"killed{number}"
        if kill_or_finish(out, float(rng.uniform(0.05, 0.9))):
            n_hit += 1
        else:
            check_same(out, folder / "whole")
            number += 1
    last = start(folder / f"killed{number}", 0.02)
    last.join()
    assert last.exitcode == 0
    check_same(folder / f"killed{number}", folder / "whole")


def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 5)


@pytest.mark.slow
def test_a_run_killed_many_times_ends_bit_identical(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 25)
