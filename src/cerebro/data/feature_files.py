"""Features of every window of a primary data set, as one Parquet file with the same rows in the same order."""

import contextlib
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cerebro.data.pieces import code_hash
from cerebro.data.primary_build import INTERIM, Primary
from cerebro.data.primary_table import Run, write_table
from cerebro.data.window_files import SUFFIX, read_columns, read_content, write_columns
from cerebro.errors import DataError
from cerebro.files import lock_folder, remove_orphans
from cerebro.progress import progress

FEATURES = Path("processed/features/full")
MODULE = "cerebro.data.features"
IDS = ("parent_window_id", "sub_window_id", "window_start", "window_end")


def make_features(primary: Primary, out: Path, jobs: int = 1) -> tuple[Path, int]:
    """Write ``processed/features/full/<name>_features_dataset.parquet`` below ``out``; only what is missing is done.

    Columns are those of the primary data set, with one number per feature in place of the channels.

    Returns
    -------
    path : Path
        The file.
    n_features : int
        Features of each window.

    Raises
    ------
    CerebroError
        In one line: another process writes here, the disk is full, a file of the windowed intermediate is damaged.
    """
    module = importlib.import_module(MODULE)
    own = Path(str(module.__file__))
    code = code_hash({own, *own.parent.glob("feature*.py")})  # they are spread over several files
    channels = tuple(name.upper() for name in primary.plan.channels)
    with lock_folder(out / INTERIM, "cerebro process"):
        folder = out / INTERIM / "features" / primary.name
        folder.mkdir(parents=True, exist_ok=True)
        remove_orphans(folder)
        remove_orphans(out / FEATURES)
        keys = [hashlib.sha256(f"{run.piece_key}{code}".encode()).hexdigest() for run in primary.runs]
        runs = [
            replace(run, piece=folder / f"{run.piece.stem.rpartition('_')[0]}_{key[:16]}{SUFFIX}", piece_key=key)
            for run, key in zip(primary.runs, keys, strict=True)
        ]
        missing = [
            (old.piece, new)
            for old, new in zip(primary.runs, runs, strict=True)
            if not _is_of(new.piece, new.piece_key)
        ]
        tasks = (
            delayed(_write)(module.feature_table, source, run, primary.plan.downsample_hz, channels)
            for source, run in missing
        )
        done = Parallel(n_jobs=max(1, min(jobs, len(missing))), return_as="generator")(tasks)
        for _ in progress(done, "features", "recording", len(missing)):
            pass
        names = [name for name in read_columns(runs[0].piece).column_names if name not in IDS]
        path = out / FEATURES / f"{primary.name}_features_dataset.parquet"
        labels = sorted({name for run in runs for name in run.labels})
        content = {"channels": list(channels), "features": names, "processing": primary.plan.plain()}
        write_table(path, runs, names, labels, content, "write features")
        kept = {run.piece.name for run in runs}
        for stale in folder.glob(f"*{SUFFIX}"):
            if stale.name not in kept and stale.stem.rpartition("_")[0] in {run.piece.stem[:-17] for run in runs}:
                stale.unlink()
    return path, len(names)


Features = Callable[[npt.NDArray[np.float32], float, Sequence[str]], Mapping[str, npt.NDArray[np.float64]]]


def _write(feature_table: Features, source: Path, run: Run, sfreq: float, channels: Sequence[str]) -> None:
    """Features of one recording, in a file of its own."""
    windows = read_columns(source)
    n_windows = len(windows)
    samples = [windows.column(name).combine_chunks().flatten().to_numpy().reshape(n_windows, -1) for name in channels]
    with threadpool_limits(1):  # sums in one order whatever the number of threads
        features = feature_table(np.stack(samples, axis=1), sfreq, channels)
    wrong = [name for name, values in features.items() if np.shape(values) != (n_windows,) or name in IDS]
    if wrong:
        raise DataError(f"feature {wrong[0]} of {run.key} is not one number for each of {n_windows} windows.")
    columns: dict[str, Any] = {name: windows.column(name) for name in IDS}
    columns |= {name: pa.array(np.asarray(values, np.float64)) for name, values in features.items()}
    write_columns(run.piece, columns, {"piece_key": run.piece_key})


def _is_of(path: Path, piece_key: str) -> bool:
    if not path.is_file():
        return False
    with contextlib.suppress(DataError):
        return bool(read_content(path).get("piece_key") == piece_key)
    return False
