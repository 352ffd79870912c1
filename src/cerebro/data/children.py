"""Pools of child processes, which the steps of one command may share: each child takes more than a second to start.

A child imports every library anew and loads its compiled loops. Within `shared_children` a pool stays when a step is
done with it, and the next step takes it; a pool whose step failed, or was cut short, is ended and not used again.
"""

import contextlib
import os
from collections.abc import Iterator

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from cerebro.data.watchdog import end_with_parent

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class _Shared:
    """What the steps of one command share; ``pool`` is None while a step has it, and before the first."""

    def __init__(self, n_most: int) -> None:
        self.n_most = n_most
        self.pool: ProcessPoolExecutor | None = None
        self.n_processes = 0


_shared: _Shared | None = None


@contextlib.contextmanager
def shared_children(n_most: int) -> Iterator[None]:
    """Let each `children` within take the pool that the last one left; it is ended with the body.

    Parameters
    ----------
    n_most : int
        Processes of the largest step: a pool has as many from the start, where it has work for them.
    """
    global _shared
    outer, _shared = _shared, _Shared(n_most)
    try:
        yield
    finally:
        mine, _shared = _shared, outer
        if mine.pool is not None:
            mine.pool.shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def children(n_processes: int, n_items: int) -> Iterator[ProcessPoolExecutor]:
    """Pool of ``n_processes`` or more, of one thread each, which end with this process.

    Parameters
    ----------
    n_processes : int
        That this step can keep busy.
    n_items : int
        What it has to do; there are no more processes than that.
    """
    shared = _shared
    wanted = min(n_processes, n_items)
    pool, shared_size = None, 0
    if shared is not None:
        pool, shared_size, shared.pool = shared.pool, shared.n_processes, None
        if pool is not None and (shared_size < wanted or not _is_alive(pool)):
            pool.shutdown(wait=True, kill_workers=True)
            pool = None
    if pool is None:
        size = wanted if shared is None else max(wanted, min(shared.n_most, n_items))
        pool = ProcessPoolExecutor(size, env=ONE_THREAD, initializer=end_with_parent, initargs=(os.getpid(),))
        shared_size = size
    is_done = False
    try:
        yield pool
        is_done = True
    finally:
        if is_done and shared is not None and shared is _shared and shared.pool is None:
            shared.pool, shared.n_processes = pool, shared_size
        else:
            pool.shutdown(wait=True, kill_workers=True)


def _is_alive(pool: ProcessPoolExecutor) -> bool:
    """Whether no process of an idle pool was ended meanwhile."""
    try:
        return bool(pool.submit(os.getppid).result() == os.getpid())
    except BrokenProcessPool:
        return False
