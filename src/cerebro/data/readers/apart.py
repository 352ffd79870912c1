"""Files looked into in a child process: a damaged one may end the child or hold it up, and never the command."""

import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from cerebro.data.source_files import bytes_of
from cerebro.data.watchdog import end_with_parent, limited, was_ended
from cerebro.errors import DataError

Found = TypeVar("Found")


def each_apart(look: Callable[[Path], Found], paths: Sequence[Path]) -> Generator[tuple[Found | None, str], None, None]:
    """What ``look`` gives for each file, or ``None`` and in one line why there is nothing.

    Parameters
    ----------
    look : callable
        Function of a module; it raises DataError for what it cannot use.
    paths : sequence of Path
        Files, or places in files, looked into one after another under the limits of `cerebro.data.watchdog`.
    """
    pool = None
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        try:
            for path in paths:
                pool = pool or ProcessPoolExecutor(1, initializer=end_with_parent, initargs=(os.getpid(),))
                try:
                    yield pool.submit(_look, look, path, note).result(), ""
                except BrokenProcessPool:
                    pool.shutdown(wait=True, kill_workers=True)
                    pool = None
                    late = f"{path} kept its reader busy beyond every limit: a damaged file"
                    ended = f"{path} ended the process that read it: a damaged file"
                    yield None, late if was_ended(note) else ended
                except MemoryError:
                    yield None, f"{path} asks for too much memory, as damaged headers do; replace it or take it out"
                except DataError as error:
                    yield None, str(error)
        finally:
            if pool is not None:
                pool.shutdown(wait=True, kill_workers=True)


def _look(look: Callable[[Path], Found], path: Path, note: Path) -> Found:
    with limited(bytes_of(path), note):
        return look(path)
