"""Pieces of CPU work side by side: one thread each, instead of every small product shared among all threads.

Where PyTorch shares a product of a hundred microseconds among its threads, a third of the time or more goes to waking
them (figures: docs/experiments.md, Signal-JEPA's steps). Its operations let other threads of Python run meanwhile.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")


def side_by_side(work: Callable[[Part], None], parts: Iterable[Part], is_shared_alone: bool = True) -> None:
    """Call ``work`` once on every part, without gradients, on as many threads as PyTorch may use.

    Which thread takes which part is not fixed, so ``work`` writes what belongs to its part alone. A part on its own
    has all of PyTorch's threads inside, unless ``is_shared_alone`` is False: then it has one, as others have.
    """
    todo = deque(parts)
    n_threads = torch.get_num_threads()
    if n_threads < 2 or (len(todo) < 2 and is_shared_alone):
        _work_off(work, todo)
        return
    threads = _threads(n_threads, os.getpid())  # a process that was forked has none of its parent's threads
    running = [threads.submit(_work_off, work, todo) for _ in range(min(n_threads, len(todo)))]
    wait(running)
    for one in running:
        one.result()


@torch.no_grad()
def _work_off(work: Callable[[Part], None], todo: deque[Part]) -> None:
    while todo:
        try:
            part = todo.popleft()
        except IndexError:  # another thread was faster
            return
        work(part)


@cache
def _threads(n_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads within which PyTorch uses one thread only."""
    all_there = Barrier(n_threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question would undo what was set before
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="cerebro", initializer=begin)
    for _ in range(n_threads):
        pool.submit(int)
    all_there.wait()
    torch.set_num_threads(n_threads)  # what a thread sets is also what threads begun later start with
    return pool
