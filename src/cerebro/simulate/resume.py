"""A simulation that can be cut off at any moment: recordings one by one, each with a record that says it is finished.

The same command in the same folder writes only what is missing and ends with the same bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cerebro.errors import ConfigError
from cerebro.files import read_json, write_json
from cerebro.progress import progress

RECORDS = ".simulation"


@dataclass(frozen=True)
class Work:
    """One file to write.

    Parameters
    ----------
    name : str
        Unique within the simulation; its record has this name.
    path : Path
        The file.
    make : callable
        Writes the file whole or not at all and gives what is to be recorded of it, as plain types; it must survive
        pickling.
    """

    name: str
    path: Path
    make: Callable[[], dict[str, Any]]


def generator(seed: int, number: int, what: str) -> np.random.Generator:
    """Numbers that depend on the cohort, the participant and the purpose alone."""
    purpose = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "little")
    return np.random.default_rng([seed, number, purpose])


def digest_of(content: Mapping[str, Any]) -> str:
    """Hash of all that decides a simulation's bytes."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def claim(out: Path, content: Mapping[str, Any]) -> None:
    """Make ``out``, or accept a folder that was begun with the same ``content``.

    Raises
    ------
    ConfigError
        If ``out`` holds something else.
    """
    mark = out / RECORDS / "spec.json"
    if mark.exists():
        found = read_json(mark)
        if found != json.loads(json.dumps(content)):
            raise ConfigError(
                f"{out} holds another simulation (format {found.get('format', 'bids')}, preset "
                f"{found['preset']['name']}, seed {found['seed']}, effect {found['effect']:g}, "
                f"{found['n_participants']} participants, strength {found['strength_name']}); choose another --out or "
                "remove that folder."
            )
        return
    if out.exists() and (not out.is_dir() or any(path.name != RECORDS for path in out.iterdir())):
        raise ConfigError(f"{out} exists and is no simulated cohort; choose another --out.")
    write_json(mark, content)


def read_record(record: Path, file: Path, digest: str) -> dict[str, Any] | None:
    """What an earlier call recorded of a file, if both are there and of this simulation."""
    if not (record.exists() and file.exists()):
        return None
    content: dict[str, Any] = read_json(record)
    return content if content.pop("spec") == digest else None


def write_missing(out: Path, digest: str, works: Sequence[Work], n_jobs: int) -> list[dict[str, Any]]:
    """Write the files that are not there yet, in ``n_jobs`` processes; gives what is recorded of all, in order."""
    kept = [read_record(out / RECORDS / f"{work.name}.json", work.path, digest) for work in works]
    missing = [work for work, record in zip(works, kept, strict=True) if record is None]
    tasks = (delayed(_write)(work, out / RECORDS / f"{work.name}.json", digest) for work in missing)
    done = Parallel(n_jobs=max(1, min(n_jobs, len(missing))), return_as="generator")(tasks)
    made = iter(progress(done, "simulate", "recording", len(missing)))
    return [next(made) if record is None else record for record in kept]


def _write(work: Work, record: Path, digest: str) -> dict[str, Any]:
    with threadpool_limits(1):  # sums in one order whatever the number of threads
        made = work.make()
    write_json(record, {"spec": digest, **made})
    return made
