"""A build's work shared out over tasks of a cluster that see the same files; nothing is lost with a task that dies.

Item i of the recordings goes to task i mod n. A task makes its share's pieces in the shared staging folder, isolated as
on one machine, and writes each outcome as a line of its journal, which the builder follows. What a dead task leaves is
shared out again. Tasks live by a lease, a file beside their journals: the builder, or its successor after a kill,
removes it, and each task ends within moments.
"""

import contextlib
import errno
import itertools
import json
import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cerebro.data.pieces import Outcome, Recipe, code_version, record_from
from cerebro.data.readers.base import Entry, Finding
from cerebro.data.spread import Work, open_recordings, spread_here
from cerebro.errors import CerebroError

LEASE = "lease"
LEASE_POLL_S = 1.0
JOURNAL_POLL_S = 0.5
MAX_DEATHS = 2  # of tasks within one recording, until it counts as the cause
RESERVE_BYTES = 1 << 16  # freed when the disk is full, so that a task can still say so


@dataclass(frozen=True)
class Share:
    """What one task does; ``work.markers`` is a folder of its own, with its journal."""

    work: Work
    jobs: int  # child processes in the task

    @property
    def journal(self) -> Path:
        """File of one JSON line per outcome."""
        return self.work.markers / "journal.jsonl"


@runtime_checkable
class Tasks(Protocol):
    """Shares that were handed to a cluster."""

    def are_running(self) -> bool:
        """Whether any of them may still begin or go on."""

    def last_words(self) -> str:
        """Why the first of them ended that did not say so in its journal; "" where nothing is known."""

    def cancel(self) -> None:
        """End them all; those that have ended are no mistake."""


def share_out(
    work: Work, submit: Callable[[Sequence[Share], Path], Tasks], n_tasks: int, jobs: int
) -> Generator[Outcome, None, None]:
    """Outcome of each recording, in any order, from tasks elsewhere; closing it ends them.

    Parameters
    ----------
    work : Work
        All that is to be done.
    submit : callable
        Hands shares to the cluster; its second argument is a folder for logs.
    n_tasks : int
        Tasks at a time.
    jobs : int
        Child processes of each.

    Raises
    ------
    CerebroError
        In one line: what a task could not do, or that tasks end before they open a recording.
    """
    folder = work.staging / f"spread-{secrets.token_hex(4)}"
    folder.mkdir()
    (folder / LEASE).touch()
    left = {entry.key: entry for entry in work.entries}
    deaths: Counter[str] = Counter()
    tasks: Tasks | None = None
    try:
        for attempt in itertools.count():
            shares = _make_shares(work, list(left.values()), folder / str(attempt), n_tasks, jobs)
            tasks = submit(shares, folder / "logs")
            n_left = len(left)
            for outcome in _follow(shares, tasks):
                if left.pop(outcome.recording, None) is not None:
                    yield outcome
            if not left:
                break
            suspects = [key for share in shares for key in open_recordings(share.work.markers) if key in left]
            if not suspects and len(left) == n_left:
                raise CerebroError(
                    f"tasks ended before they opened a recording ({tasks.last_words() or 'without a word'}); do they "
                    f"see {work.staging}, and is there enough time and memory? Logs are in {folder / 'logs'}."
                )
            deaths.update(suspects)
            for key in suspects:
                if deaths[key] == MAX_DEATHS:
                    del left[key]
                    detail = f"{MAX_DEATHS} tasks died while they read it: a damaged file, or not enough memory"
                    yield Outcome(key, failure=Finding("task-lost", "failed", key, detail))
            if not left:
                break
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        (folder / LEASE).unlink(missing_ok=True)
        if tasks is not None:
            tasks.cancel()


def end_tasks_of_killed_builds(staging: Path) -> None:
    """Withdraw the leases that a killed builder left, and wait until its tasks have seen it."""
    folders = list(staging.glob("spread-*"))
    leases = [folder / LEASE for folder in folders if (folder / LEASE).exists()]
    for lease in leases:
        lease.unlink(missing_ok=True)
    if leases:
        time.sleep(2 * LEASE_POLL_S)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)  # what a dying task still writes goes with the staging folder


def run_share(share: Share) -> None:
    """Do a share in a process of its own, which ends with its lease."""
    lease = share.work.markers.parent.parent / LEASE

    def watch() -> None:
        while _is_held(lease):
            time.sleep(LEASE_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    work_share(share)


def work_share(share: Share) -> None:
    """Make the pieces of a share; outcomes and errors that a user can mend go to its journal.

    A cluster may begin a task again that it has lost: what the journal has is not done twice.
    """
    reserve = share.work.markers / "reserve"
    told = {line["outcome"]["recording"] for line in _new_lines(share.journal, 0)[0] if "outcome" in line}
    work = replace(share.work, entries=tuple(entry for entry in share.work.entries if entry.key not in told))
    try:
        reserve.write_bytes(os.urandom(RESERVE_BYTES))
        _check_view(work)
        with contextlib.closing(spread_here(work, share.jobs)) as outcomes:
            for outcome in outcomes:
                _write_line(share.journal, {"outcome": asdict(outcome)})
    except (CerebroError, OSError) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, OSError) and not is_full:
            raise
        reserve.unlink(missing_ok=True)
        full = f"the disk is full: {work.staging} needs more space; free some and run the same command again."
        _write_line(share.journal, {"error": full if is_full else str(error)})
    else:
        _write_line(share.journal, {"ended": True})
        reserve.unlink()


def _make_shares(work: Work, left: list[Entry], folder: Path, n_tasks: int, jobs: int) -> list[Share]:
    n_tasks = min(n_tasks, len(left))
    shares = []
    for number in range(n_tasks):
        own = folder / str(number)
        own.mkdir(parents=True)
        entries = tuple(left[number::n_tasks])
        available = {entry.key: work.available[entry.key] for entry in entries if entry.key in work.available}
        shares.append(Share(replace(work, entries=entries, available=available, markers=own), jobs))
    return shares


def _follow(shares: Sequence[Share], tasks: Tasks) -> Iterator[Outcome]:
    """Outcomes from the journals until every task has ended, by its own word or the cluster's."""
    read = dict.fromkeys((share.journal for share in shares), 0)  # journal -> bytes that were understood
    while read:
        are_running = tasks.are_running()  # asked before the journals are read, so that no line is missed
        for journal in list(read):
            lines, n_bytes = _new_lines(journal, read[journal])
            read[journal] += n_bytes
            for line in lines:
                if "error" in line:
                    raise CerebroError(line["error"])
                if "ended" in line:
                    del read[journal]
                    break
                yield _outcome(line["outcome"])
        if not are_running:
            return
        if read:
            time.sleep(JOURNAL_POLL_S)


def _new_lines(journal: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines of a journal from byte ``start``, and how many bytes they are."""
    try:
        with open(journal, "rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    lines = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError):  # a line that its writer died in: the recording is done again
            lines.append(json.loads(line))
    return lines, len(whole)


def _write_line(journal: Path, content: dict[str, Any]) -> None:
    """Append a line; opened and closed each time, as network file systems show to others only what was closed."""
    with open(journal, "ab") as file:
        begun = file.tell() and not _ends_with_line(journal)
        file.write(b"\n" * begun + json.dumps(content).encode() + b"\n")


def _ends_with_line(journal: Path) -> bool:
    with open(journal, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _outcome(content: dict[str, Any]) -> Outcome:
    record, failure = content["record"], content["failure"]
    return Outcome(
        content["recording"],
        content["known"],
        None if record is None else record_from(record),
        None if failure is None else Finding(**failure),
    )


def _check_view(work: Work) -> None:
    """Refuse to work with other code or without the recordings: the bytes would differ, or every recording fail."""
    recipe = work.recipe
    if not isinstance(recipe, Recipe):
        raise CerebroError("a cluster makes pieces of stores only; run this command without one.")
    reader = recipe.reader
    if type(reader).__module__.startswith("cerebro.") and code_version(reader) != recipe.code:
        raise CerebroError(
            f"{os.uname().nodename} runs another version of cerebro than this command; install the same one there."
        )
    if work.entries and not any(entry.path.exists() for entry in work.entries[:8]):
        raise CerebroError(
            f"{os.uname().nodename} does not see {work.entries[0].path}; put the recordings on a file system that "
            "every worker mounts under the same path."
        )


def _is_held(lease: Path) -> bool:
    try:
        lease.open().close()  # opening, unlike a look, asks a network file system's server
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno != errno.ESTALE
    return True
