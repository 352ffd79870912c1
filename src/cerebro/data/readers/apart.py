"""Files looked into in a child process: a damaged one may end the child or hold it up, and never the command."""

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from cerebro.data.children import children
from cerebro.data.source_files import bytes_of
from cerebro.data.watchdog import limited, was_ended
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
    left = deque(paths)
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        while left:
            problem = ""
            try:
                with children(1, len(left)) as pool:
                    while left:
                        path = left.popleft()
                        yield _look_in(pool, look, path, note)
            except BrokenProcessPool:
                late = f"{path} kept its reader busy beyond every limit: a damaged file"
                ended = f"{path} ended the process that read it: a damaged file"
                problem = late if was_ended(note) else ended
            if problem:
                yield None, problem


def _look_in(
    pool: ProcessPoolExecutor, look: Callable[[Path], Found], path: Path, note: Path
) -> tuple[Found | None, str]:
    try:
        return pool.submit(_look, look, path, note).result(), ""
    except MemoryError:
        return None, f"{path} asks for too much memory, as damaged headers do; replace it or take it out"
    except DataError as error:
        return None, str(error)


def _look(look: Callable[[Path], Found], path: Path, note: Path) -> Found:
    with limited(bytes_of(path), note):
        return look(path)
