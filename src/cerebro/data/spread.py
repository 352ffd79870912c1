"""Recordings -> pieces in child processes of this machine; a file that crashes its reader costs one recording.

`Work` is what there is to do. Its pieces may be made by any process in any order: each is staged under the name of its
content. Clusters share the same work over many machines (`cerebro.data.spread_tasks`), each of which uses this file.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from joblib.externals.loky import FIRST_COMPLETED, wait
from joblib.externals.loky.process_executor import BrokenProcessPool

from cerebro.data.children import children
from cerebro.data.pieces import Outcome
from cerebro.data.readers.base import Entry, Finding
from cerebro.data.shards import full_disk_in_one_line
from cerebro.errors import CerebroError

# One that runs and one that waits. All of them fit into loky's own queue (2 per process and 1): of others, the numbers
# of those that it has not taken from us when the pool is ended would make its thread fail, in ten lines on the screen.
N_QUEUED_PER_JOB = 2
BEGAN = ".began"  # suffix of the marker that names a recording while it is open


@runtime_checkable
class Maker(Protocol):
    """What turns one recording into a staged piece, such as `cerebro.data.pieces.Recipe`; it survives pickling."""

    def make(self, entry: Entry, available: tuple[str, ...], staging: Path) -> Outcome:
        """Make the piece unless it is among ``available`` or staged; a recording that cannot be used is an outcome."""


@dataclass(frozen=True)
class Work:
    """Recordings to turn into staged pieces.

    Parameters
    ----------
    recipe : Maker
        What makes a piece; all that it depends on, besides its source.
    entries : tuple of Entry
        Recordings, sorted by key.
    available : mapping of str to tuple of str
        Recording -> keys of its pieces that are there already.
    staging : Path
        Folder of pieces.
    markers : Path
        Folder of this process alone for the markers of open recordings.
    """

    recipe: Maker
    entries: tuple[Entry, ...]
    available: Mapping[str, tuple[str, ...]]
    staging: Path
    markers: Path


@runtime_checkable
class Cluster(Protocol):
    """Other machines that see the same files."""

    def check(self) -> None:
        """Raise CerebroError, before anything is read, if this cluster cannot be used from here."""

    def spread(self, work: Work, jobs: int) -> Generator[Outcome, None, None]:
        """Outcome of each recording, in any order; closing the iterator ends what runs elsewhere."""


def spread_here(work: Work, jobs: int) -> Generator[Outcome, None, None]:
    """Outcome of each recording, in any order; after a crash the recordings that were open are tried one at a time."""
    left = {entry.key: entry for entry in work.entries}
    while left:
        try:
            with contextlib.closing(run_in_children(work, tuple(left.values()), jobs)) as outcomes:
                for outcome in outcomes:
                    del left[outcome.recording]
                    yield outcome
        except BrokenProcessPool as error:
            suspects = [key for key in open_recordings(work.markers) if key in left]
            remove_markers(work.markers)
            if not suspects:
                raise CerebroError(
                    f"a child process ended before it opened a recording ({str(error).splitlines()[0]}); is there "
                    "enough memory? Try fewer jobs."
                ) from error
            for key in suspects:
                yield _run_alone(work, left.pop(key))


def open_recordings(markers: Path) -> list[str]:
    """Recordings that were open in processes that ended without a word."""
    return [marker.read_text(encoding="utf-8") for marker in sorted(markers.glob(f"*{BEGAN}"))]


def remove_markers(markers: Path) -> None:
    """Forget which recordings were open."""
    for marker in markers.glob(f"*{BEGAN}"):
        marker.unlink(missing_ok=True)


def run_in_children(work: Work, entries: Sequence[Entry], jobs: int) -> Generator[Outcome, None, None]:
    """Work on entries in child processes, a few queued at a time."""
    waiting = deque(entries)
    queued: set[Future[Outcome]] = set()
    with children(jobs, len(entries)) as pool:
        while waiting or queued:
            while waiting and len(queued) < N_QUEUED_PER_JOB * jobs:
                entry = waiting.popleft()
                available = work.available.get(entry.key, ())
                queued.add(pool.submit(_make_marked, work.recipe, entry, available, work.staging, work.markers))
            done, queued = wait(queued, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _run_alone(work: Work, entry: Entry) -> Outcome:
    try:
        with contextlib.closing(run_in_children(work, [entry], 1)) as outcomes:
            return next(outcomes)
    except BrokenProcessPool:
        remove_markers(work.markers)
        detail = "the process that read it was ended by the system: a damaged file, or not enough memory"
        return Outcome(entry.key, failure=Finding("reader-crashed", "failed", entry.key, detail))


def _make_marked(recipe: Maker, entry: Entry, available: tuple[str, ...], staging: Path, markers: Path) -> Outcome:
    """`Maker.make` with a marker that tells, after a crash, which recording was open."""
    marker = markers / f"{hashlib.sha256(entry.key.encode()).hexdigest()}{BEGAN}"
    with full_disk_in_one_line(marker, len(entry.key)):
        marker.write_text(entry.key, encoding="utf-8")
    try:
        return recipe.make(entry, available, staging)
    finally:
        marker.unlink(missing_ok=True)
