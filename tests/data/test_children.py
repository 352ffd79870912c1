"""Pools of child processes that the steps of one command share."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from cerebro.data.children import children, shared_children
from cerebro.data.readers.apart import each_apart


def process_of(pool: ProcessPoolExecutor) -> int:
    return int(pool.submit(os.getpid).result())


def fail_in_a_step(seen: list[int]) -> None:
    with children(1, 5) as pool:
        seen.append(process_of(pool))
        raise ValueError("cut short")


def is_there(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def size(path: Path) -> int:
    """Look into a file; one named ``bad`` ends its process."""
    if path.name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "bad", "c", "d")]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * number)
    return paths


def test_steps_share_children_which_end_with_the_command() -> None:
    seen = []
    with shared_children(1):
        for _ in range(2):
            with children(1, 5) as pool:
                seen.append(process_of(pool))
        assert is_there(seen[0])
    assert seen[0] == seen[1]
    assert not is_there(seen[0])


def test_without_sharing_children_end_with_their_step() -> None:
    with children(1, 5) as pool:
        process = process_of(pool)
    assert not is_there(process)


def test_children_that_failed_or_were_cut_short_are_not_used_again() -> None:
    with shared_children(1):
        seen: list[int] = []
        with pytest.raises(ValueError, match="cut short"):
            fail_in_a_step(seen)
        [cut_short] = seen
        assert not is_there(cut_short)
        with children(1, 5) as pool:
            idle = process_of(pool)
        os.kill(idle, signal.SIGKILL)  # between two steps
        with children(1, 5) as pool:
            assert process_of(pool) not in (cut_short, idle)


def test_a_file_that_ends_its_child_costs_the_next_step_nothing(files: list[Path]) -> None:
    with shared_children(1):
        for _ in range(2):
            found = list(each_apart(size, files))
            assert [value for value, _ in found] == [0, None, 2, 3]
            assert found[1][1].endswith("bad ended the process that read it: a damaged file")
        with children(1, 1) as pool:
            assert process_of(pool) != os.getpid()


def test_a_step_gets_as_many_children_as_it_can_keep_busy() -> None:
    with shared_children(2):
        with children(1, 1) as pool:
            assert len(_processes(pool)) == 1
        with children(2, 5) as pool:
            assert len(_processes(pool)) == 2
        with children(1, 5) as pool:
            assert len(_processes(pool)) == 2  # the same ones: none is started or ended for a smaller step


def _processes(pool: ProcessPoolExecutor) -> list[psutil.Process]:
    process_of(pool)
    return [one for one in psutil.Process().children() if "LokyProcess" in " ".join(one.cmdline())]
