"""Limits for one recording that is read in a child process: a damaged file may cost its child, never the build.

A parser that a damaged file has caught may hold Python's lock for ever, so nothing written in Python can end it. The
limits are the system's: CPU time (a timer whose signal ends the process), wall time (faulthandler's own thread, for one
that waits for ever) and address space (an allocation beyond it fails as `MemoryError`). All grow with the files' size.
"""

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

CPU_S, CPU_S_PER_MB = 20.0, 1.0  # a 129-channel recording of 45 MB is read, filtered and stored in 3 s
WALL_S, WALL_S_PER_MB = 600.0, 10.0  # slow network folders included
MEMORY_BYTES, MEMORY_BYTES_PER_BYTE = 4_000_000_000, 32  # float64 of int16 is 4; compressed files grow more


@contextlib.contextmanager
def limited(n_bytes: int, note: Path) -> Iterator[None]:
    """End this process if the body works or waits too long, after a note of where; MemoryError if it takes too much.

    One body at a time in a process.

    Parameters
    ----------
    n_bytes : int
        Size of the files that the body reads.
    note : Path
        File that stays, and is not empty, only where the process was ended here.
    """
    mb = n_bytes / 1e6
    with open(note, "wb") as file:
        faulthandler.dump_traceback_later(WALL_S + WALL_S_PER_MB * mb, exit=True, file=file)
        faulthandler.register(signal.SIGPROF, file=file, chain=True)  # chain: the system ends the process then
        signal.setitimer(signal.ITIMER_PROF, CPU_S + CPU_S_PER_MB * mb)
        try:
            with _limited_memory(MEMORY_BYTES + int(MEMORY_BYTES_PER_BYTE * n_bytes)):
                yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)
            faulthandler.cancel_dump_traceback_later()
            note.unlink(missing_ok=True)


def was_ended(note: Path) -> bool:
    """Whether an earlier `limited` ended its process; the note is removed."""
    if not note.is_file():
        return False
    is_note = note.stat().st_size > 0
    note.unlink(missing_ok=True)
    return is_note


@contextlib.contextmanager
def _limited_memory(more_bytes: int) -> Iterator[None]:
    """Let allocations fail that take this process ``more_bytes`` beyond what it holds; Linux alone enforces it."""
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + more_bytes
    bounds = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *bounds]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def end_with_parent(parent: int) -> None:
    """End this child within moments of a killed parent, so that it writes nothing beside its successor."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
