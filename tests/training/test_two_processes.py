"""Two processes that torchrun starts train as one does on the same global batches."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cerebro.training.checkpoint import read_checkpoint

HERE = Path(__file__).parent
FIT = ["fit", "--config", f"{HERE}/toy.yaml"]
SAME = ["--model.encoder.init_args.dropout=0", "--model.encoder.init_args.has_statistics=false"]  # for any share
SUPERVISED = [  # the labels of every seventh window are missing: the halves of a batch know different numbers
    "--model.objective={class_path: Supervised, init_args: {target: y, readout: {class_path: ToyReadout}}}",
]
CASES: dict[str, list[str]] = {
    "toy": ["--checkpoint_every_steps=3"],
    "supervised": SUPERVISED,
    "classes": [
        "--model.objective={class_path: Supervised, init_args: {target: sex, kind: classification, "
        "class_weights: balanced, readout: {class_path: ToyReadout}}}"
    ],
    "sum": [
        "--model.objective={class_path: WeightedSum, init_args: {weights: {toy: 1.0, y: 0.3}, terms: {toy: "
        "{class_path: ToyObjective}, y: {class_path: Supervised, init_args: {target: y, readout: "
        "{class_path: ToyReadout}}}}}}"
    ],
    "frozen": ["--model.freeze_encoder_epochs=2"],
    "accumulated": ["--trainer.accumulate_grad_batches=2", *SUPERVISED],
    "probed": ["--probe.targets=[age]", "--patience=1", "--monitor_mode=max"],  # val/loss falls, which is no better
}


def environment() -> dict[str, str]:
    """Without what the test runner says of its own processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TORCHELASTIC"))}
    return {**kept, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def start(n: int, script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a script of this folder in ``n`` processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"] if n > 1 else []
    return subprocess.Popen(
        [sys.executable, *torchrun, str(HERE / script), *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, output and errors; nothing is left of a process that does not end."""
    try:
        out, errors = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends its processes
            process.communicate(timeout=60)
    return process.returncode, out, errors


def train(n: int, *arguments: str) -> tuple[int, str, str]:
    return end(start(n, "toy_cli.py", *FIT, *SAME, *arguments))


def history(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def check_same(ours: Path, theirs: Path, within: float = 1e-6) -> None:
    """Same losses, scores and weights, relative to their size."""
    rows, others = history(ours), history(theirs)
    assert [set(row) for row in rows] == [set(row) for row in others]
    for row, other in zip(rows, others, strict=True):
        for key, value in row.items():
            assert value == pytest.approx(other[key], rel=within, abs=1e-9 if within else 0.0), (key, row["epoch"])
    for name in ("best.ckpt", "last.ckpt"):
        found, expected = read_checkpoint(ours / name).weights, read_checkpoint(theirs / name).weights
        for key, tensor in found.items():
            error = float((tensor.double() - expected[key].double()).norm())
            assert error <= within * max(1e-3, float(expected[key].double().norm())), (name, key, error)


def run_cases(folder: Path, names: list[str]) -> dict[int, Path]:
    """Every case in one process and in two; folders by number of processes."""
    running = {}
    for n in (1, 2):
        commands = [[*FIT, *SAME, f"--out={folder}/{n}/{name}", *CASES[name]] for name in names]
        (folder / f"{n}.json").write_text(json.dumps(commands))
        running[n] = start(n, "toy_cases.py", f"{folder}/{n}.json")
    for process in running.values():
        code, _, errors = end(process)
        assert code == 0, errors
    return {n: folder / str(n) for n in running}


def test_two_processes_train_as_one_on_the_same_global_batches(tmp_path: Path) -> None:
    names = ["toy", "supervised", "frozen"]
    found = run_cases(tmp_path, names)
    for name in names:
        check_same(found[2] / name, found[1] / name)
        assert json.loads((found[2] / name / "run.json").read_text())["processes"] == 2
    receipt = json.loads((found[2] / "frozen" / "run.json").read_text())["freeze"]
    assert receipt["unchanged"]
    weights = [read_checkpoint(found[2] / name / "last.ckpt").weights["encoder.patch.weight"] for name in names]
    assert not torch.equal(weights[0], weights[2])  # the encoder was frozen, then trained


@pytest.mark.slow
def test_two_processes_train_every_kind_of_phase_as_one(tmp_path: Path) -> None:
    names = ["classes", "sum", "accumulated", "probed"]
    found = run_cases(tmp_path, names)
    for name in names:
        check_same(found[2] / name, found[1] / name)
    rows = history(found[2] / "probed")
    assert len(rows) < 4  # patience ended it, on both at once
    assert any(key.startswith("probe/") for key in rows[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that went through."""
    out = tmp_path_factory.mktemp("two") / "whole"
    code, _, errors = train(2, f"--out={out}")
    assert code == 0, errors
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1), (2, 2)])
def test_a_run_goes_on_with_any_number_of_processes(whole: Path, tmp_path: Path, first: int, then: int) -> None:
    """Stopped by a signal inside an epoch, resumed by one or by two, and ended as one that went through."""
    out = tmp_path / "run"
    running = start(first, "toy_cli.py", *FIT, *SAME, f"--out={out}", "--model.objective.init_args.pause_s=0.2")
    while not (out / "last.ckpt").exists() and running.poll() is None:
        time.sleep(0.05)
    running.terminate()
    code, _, errors = end(running)
    assert code in (1, 143)
    assert "last.ckpt is saved, the same command continues" in errors
    assert errors.count("the same command continues") == 1
    assert not (out / "run.json").exists()
    assert not (out / ".lock").exists()
    code, _, errors = train(then, f"--out={out}", "--resume", "--model.objective.init_args.pause_s=0.2")
    assert code == 0, errors
    assert json.loads((out / "run.json").read_text())["processes"] == then
    check_same(out, whole, within=1e-6 if first != then else 0.0)


@pytest.mark.slow
def test_one_process_that_dies_ends_the_other_with_one_line(tmp_path: Path) -> None:
    running = start(2, "toy_cli.py", *FIT, *SAME, f"--out={tmp_path}", "--model.objective.init_args.pause_s=0.3")
    while not (tmp_path / "last.ckpt").exists() and running.poll() is None:
        time.sleep(0.05)
    children = [child for child in psutil.Process(running.pid).children() if "toy_cli.py" in " ".join(child.cmdline())]
    assert len(children) == 2
    children[1].kill()
    code, _, errors = end(running)
    assert code == 1
    assert not (tmp_path / ".lock").exists()
    assert "Traceback" not in errors.split("ChildFailedError")[0].split("torch/distributed")[0]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_both_with_one_line(tmp_path: Path) -> None:
    code, _, errors = train(2, f"--out={tmp_path}", "--model.objective.init_args.bad_step=7")
    assert code == 1
    assert errors.count("the loss became nan in epoch 1 at step 7") == 1
    assert len(json.loads((tmp_path / "nonfinite.json").read_text())["sample"]) == 8  # of both shares
    assert not (tmp_path / ".lock").exists()


@pytest.mark.slow
def test_a_mistake_in_a_config_is_told_once(tmp_path: Path) -> None:
    for arguments, line in (
        (["--trainer.max_epochs=0"], "trainer.max_epochs=0 must be 1 or more"),
        (["--model.encoder.init_args.has_statistics=true"], "encoder.statistics is a BatchNorm1d"),
    ):
        code, _, errors = train(2, f"--out={tmp_path}", *arguments)
        assert code == 1  # what torchrun answers to any failure
        assert errors.count(line) == 1
        assert "exitcode  : 2" in errors
