import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch

from cerebro.nn import threads
from cerebro.nn.threads import side_by_side


@pytest.fixture(autouse=True)
def three_threads(of_threads: Callable[[int], AbstractContextManager[None]]) -> Iterator[None]:
    threads._threads.cache_clear()  # every test begins them anew
    with of_threads(3):
        yield


def squares(n: int) -> list[float]:
    found = torch.zeros(n)

    def square(i: int) -> None:
        found[i] += i**2

    side_by_side(square, range(n))
    return found.tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_every_part_is_done_once(n: int) -> None:
    assert squares(n) == [i**2 for i in range(n)]


def test_parts_run_at_the_same_time_each_in_a_single_thread_of_pytorch() -> None:
    together = threading.Barrier(3, timeout=20)
    seen = []

    def meet(_: int) -> None:
        together.wait()  # without three at the same time it breaks
        seen.append(torch.get_num_threads())

    side_by_side(meet, range(3))
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_threads_begun_later_still_have_all_of_pytorchs_threads() -> None:
    squares(3)
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3]


def test_a_part_on_its_own_has_all_threads_inside() -> None:
    seen = []
    side_by_side(lambda _: seen.append((torch.get_num_threads(), threading.current_thread())), [0])
    assert seen == [(3, threading.main_thread())]


@pytest.mark.parametrize("n", [1, 4])
def test_no_gradient_is_recorded(n: int) -> None:
    weight = torch.ones(2, requires_grad=True)
    seen = []
    side_by_side(lambda _: seen.append((weight * 2).requires_grad), range(n))
    assert seen == [False] * n
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("n", [1, 4])
def test_an_error_in_a_part_is_raised(n: int) -> None:
    def fail(i: int) -> None:
        if i == n - 1:
            raise ZeroDivisionError("part")

    with pytest.raises(ZeroDivisionError, match="part"):
        side_by_side(fail, range(n))
    assert squares(4) == [0, 1, 4, 9]


def test_nothing_runs_any_more_when_an_error_is_raised() -> None:
    failed, done = threading.Event(), []

    def work(i: int) -> None:
        if i == 0:
            failed.set()
            raise ZeroDivisionError
        failed.wait(timeout=20)
        time.sleep(0.2)
        done.append(i)

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, range(3))
    assert sorted(done) == [1, 2]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert squares(4) == [0, 1, 4, 9]
    forks = multiprocessing.get_context("fork")
    answers = forks.SimpleQueue()
    child = forks.Process(target=lambda: answers.put(squares(4)), daemon=True)
    child.start()
    child.join(timeout=30)
    assert child.exitcode == 0  # None where it waits for threads that are not there
    assert answers.get() == [0, 1, 4, 9]
