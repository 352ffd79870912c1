"""Two processes compute what one computes on the same global batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent / "support" / "one_of_processes.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``alone``, ``first`` and ``second``: what one process found, and the two of a run of two."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    names = {"alone": (0, 1), "first": (0, 2), "second": (1, 2)}
    running = {
        name: subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(world_size), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, (rank, world_size) in names.items()
    }
    try:
        errors = {name: process.communicate(timeout=200)[1] for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert all(process.returncode == 0 for process in running.values()), errors
    return {
        name: torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True)
        for name, (rank, world_size) in names.items()
    }


CASES = ["supervised", "masked_codes", "jepa", "masked_windows", "vqnsp_loss"]


@pytest.mark.parametrize("process", ["first", "second"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_of_uneven_shares_are_those_of_the_global_batch(
    found: dict[str, Any], case: str, process: str
) -> None:
    alone, mine = found["alone"][case], found[process][case]
    assert set(mine) == set(alone)
    assert sum(float(value.abs().max()) > 0 for name, value in alone.items() if "." in name) > 10
    largest = max(float(value.norm()) for name, value in alone.items() if name.startswith(("encoder.", "objective.")))
    for name, expected in alone.items():  # float32: what is small only because terms cancel has their rounding
        least = 1.0 if name.startswith("part/") else 0.01 * largest
        error = float((mine[name] - expected).norm() / (expected.norm() + least))
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize("process", ["first", "second"])
def test_the_gradient_of_two_processes_is_that_of_one(found: dict[str, Any], process: str) -> None:
    alone, mine = found["alone"]["contrastive"], found[process]["contrastive"]
    assert set(mine) == set(alone)
    for needed in ("objective.log_temperature", "objective.projection.1.weight", "encoder."):
        assert any(name.startswith(needed) for name in alone), needed
    for name, expected in alone.items():
        if not name.startswith(("total", "part/")):
            assert float(expected.abs().max()) > 0 or name == "encoder.mask_token", name
        error = float((mine[name] - expected).norm() / expected.norm().clamp(min=1e-12))
        assert error < 1e-6, (name, error)


def test_both_processes_hold_the_same_codebook_to_the_bit(found: dict[str, Any]) -> None:
    for case in ("vqnsp", "vqnsp_revived", "uneven"):
        first, second = found["first"][case], found["second"][case]
        assert all(torch.equal(first[name], second[name]) for name in first), case
    assert not torch.equal(found["first"]["vqnsp"]["weight"], found["first"]["vqnsp_revived"]["weight"])


@pytest.mark.parametrize("name", ["started", "weight", "use", "perplexity"])
def test_the_codebook_of_two_processes_is_that_of_one_on_the_joint_batches(found: dict[str, Any], name: str) -> None:
    alone, first = found["alone"]["vqnsp"], found["first"]["vqnsp"]
    assert int(first["taken"]) == int(alone["taken"]) == 5  # 72 tokens a batch of all processes, 300 wanted
    torch.testing.assert_close(first[name], alone[name], rtol=1e-5, atol=1e-5)


def test_rows_of_different_numbers_are_gathered_in_the_order_of_the_processes(found: dict[str, Any]) -> None:
    torch.manual_seed(0)
    tokens = torch.randn(30, 4)
    assert torch.equal(found["first"]["uneven"]["rows"], torch.cat([tokens[:1], tokens[:4]]))
    assert found["first"]["uneven"]["none"].shape == (0, 4)


@pytest.mark.parametrize("process", ["first", "second"])
def test_a_head_that_looks_at_tokens_takes_those_of_all_processes(found: dict[str, Any], process: str) -> None:
    alone, mine = found["alone"]["power"], found[process]["power"]
    assert float(alone["scale"].min()) > 0
    assert not torch.allclose(alone["scale"], torch.ones_like(alone["scale"]), atol=1e-3)
    for name, expected in alone.items():
        torch.testing.assert_close(mine[name], expected, rtol=1e-4, atol=1e-5)
