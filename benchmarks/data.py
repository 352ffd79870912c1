"""Random windows of 129 channels x 200 samples in batches of 128: cerebro's reader beside MNE and beside a plain copy.

All files are warm, but for the figures of `cold`. Ours delivers int16 counts, time-major, in a buffer that is used
again, for a device that converts them; ``_float32`` figures deliver float32 microvolts, channel-major, as the product
does where the model runs on the CPU. "MNE lazy" is one
``raw.get_data(start, stop)`` per window from a FIF file opened without preload, "MNE preload" the same after
``load_data()``. A "share of memcpy" compares with one plain copy per random slice of the same size from the same array;
"of_long_memcpy" with one copy of a whole batch's bytes from one random place, which no random access can reach.
``_two_threads`` figures run both sides in two threads and count wall time.
"""

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mne
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cerebro.data.arrays import write_store
from cerebro.data.loader import BatchLoader, BatchMaker
from cerebro.data.sampling import Permutation, ShuffledOrder
from cerebro.data.sources import SlidingWindows
from cerebro.data.store import Store
from cerebro.data.targets import resolve
from cerebro.data.windows import WindowReader, WindowTable, channel_rows, signal_of
from cerebro.montage import hbn_129
from cerebro.randomness import sample_keys
from cold import figures as cold_figures
from opening import figures as opening_figures
from sequences import figures as sequence_figures
from timing import compare, in_two_threads

N_CHANNELS, N_TIMES, BATCH = 129, 200, 128
N_RECORDINGS, DURATION_S, SFREQ = 24, 300, 100.0
N_TUH_AND_HBN = 48_600_000  # two-second windows of both corpora
N_BATCHES = 16  # of a call beside a plain copy
N_BATCHES_MNE = 4  # of a call beside MNE

Rows = npt.NDArray[np.int64]


def main(rounds: int) -> dict[str, float]:
    mne.set_log_level("error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store, files = write_recordings(Path(folder))
        table, _ = SlidingWindows(N_TIMES / SFREQ, 0.1).table(store)
        figures = measure(store, table, files, rounds)
    return figures | cold_figures(rounds) | opening_figures(rounds) | sequence_figures(rounds)


def write_recordings(folder: Path) -> tuple[Store, list[Path]]:
    """The same recordings as a store and as FIF files, sorted alike."""
    rng = np.random.default_rng(0)
    montage = hbn_129()
    info = mne.create_info(list(montage.channels), SFREQ, "eeg")
    eeg, files = {}, []
    for number in range(N_RECORDINGS):
        key = f"r{number:02d}"
        eeg[key] = rng.standard_normal((N_CHANNELS, int(DURATION_S * SFREQ)), dtype=np.float32) * 30
        files.append(folder / f"{key}_raw.fif")
        mne.io.RawArray(eeg[key].astype(np.float64) * 1e-6, info).save(files[-1])
    people = pd.DataFrame({"p_factor": 0.1}, index=pd.Index(sorted(eeg), name="participant_id"))
    store = write_store(
        folder / "store", eeg, montage, SFREQ, dict.fromkeys(eeg, "rest"), {key: key for key in eeg}, people, {}
    )
    assert store.verify() == []  # and every page is warm
    return store, files


def measure(store: Store, table: WindowTable, files: list[Path], rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(1)
    reader = WindowReader(store, table)
    lazy = [mne.io.read_raw_fif(file, preload=False) for file in files]
    loaded = [raw.copy().load_data() for raw in lazy]
    flat = store.shard(0).numpy()
    floats = rng.standard_normal(len(flat) // 2, dtype=np.float32)
    few, many = partial(draw, rng, table, N_BATCHES_MNE), partial(draw, rng, table, N_BATCHES)
    by_lazy, by_loaded = partial(by_mne, lazy, table), partial(by_mne, loaded, table)
    ours_int16, ours_float32 = partial(counts, reader), partial(microvolts, reader)
    copy_int16, copy_float32 = partial(copies, flat, rng, BATCH), partial(copies, floats, rng, BATCH)
    copy_long = partial(copies, flat, rng, 1)

    figures: dict[str, float] = {}
    speeds = {
        "ratio_vs_mne_lazy": compare(lambda: ours_int16(few()), lambda: by_lazy(few()), rounds),
        "ratio_vs_mne_preload": compare(lambda: ours_int16(few()), lambda: by_loaded(few()), rounds),
        "ratio_vs_mne_lazy_float32": compare(lambda: ours_float32(few()), lambda: by_lazy(few()), rounds),
        "ratio_vs_mne_preload_float32": compare(lambda: ours_float32(few()), lambda: by_loaded(few()), rounds),
        "share_of_memcpy_int16": compare(lambda: ours_int16(many()), copy_int16, rounds),
        "share_of_long_memcpy_int16": compare(lambda: ours_int16(many()), copy_long, rounds),
        "share_of_memcpy_float32": compare(lambda: ours_float32(many()), copy_float32, rounds),
    }
    for name, speed in speeds.items():
        figures |= speed.figures(name)
    figures["cpu_ms_per_batch"] = 1e3 * speeds["share_of_memcpy_int16"].ours_s / N_BATCHES
    figures["cpu_ms_per_batch_float32"] = 1e3 * speeds["share_of_memcpy_float32"].ours_s / N_BATCHES
    figures["cpu_ms_per_batch_mne_lazy"] = 1e3 * speeds["ratio_vs_mne_lazy"].peer_s / N_BATCHES_MNE
    figures["cpu_ms_per_batch_mne_preload"] = 1e3 * speeds["ratio_vs_mne_preload"].peer_s / N_BATCHES_MNE
    figures["gb_per_second_memcpy_int16"] = (
        2e-9 * BATCH * N_TIMES * N_CHANNELS * N_BATCHES / speeds["share_of_memcpy_int16"].peer_s
    )

    second = WindowReader(store, table)
    lazy_too = [mne.io.read_raw_fif(file, preload=False) for file in files]
    both = compare(
        lambda: in_two_threads(partial(counts, reader, many()), partial(counts, second, many())),
        lambda: in_two_threads(copy_int16, partial(copies, flat, np.random.default_rng(2), BATCH)),
        rounds,
        clock=time.perf_counter,
    )
    figures |= both.figures("share_of_memcpy_int16_two_threads")
    both = compare(
        lambda: in_two_threads(partial(microvolts, reader, many()), partial(microvolts, second, many())),
        lambda: in_two_threads(copy_float32, partial(copies, floats, np.random.default_rng(2), BATCH)),
        rounds,
        clock=time.perf_counter,
    )
    figures |= both.figures("share_of_memcpy_float32_two_threads")
    both = compare(
        lambda: in_two_threads(partial(counts, reader, few()), partial(counts, second, few())),
        lambda: in_two_threads(partial(by_lazy, few()), partial(by_mne, lazy_too, table, few())),
        rounds,
        clock=time.perf_counter,
    )
    figures |= both.figures("ratio_vs_mne_lazy_two_threads")

    buffer_mb = 2e-6 * BATCH * N_TIMES * N_CHANNELS  # is torch's, which tracemalloc does not see
    figures["peak_memory_mb"] = buffer_mb + peak_mb(partial(counts, WindowReader(store, table), few()))
    figures["peak_memory_mb_mne_lazy"] = peak_mb(partial(by_lazy, few()))
    figures["peak_memory_mb_mne_preload"] = peak_mb(lambda: lazy[0].copy().load_data()) * N_RECORDINGS
    figures |= order_and_loader(store, table, rounds)
    return figures


def draw(rng: np.random.Generator, table: WindowTable, n_batches: int) -> list[Rows]:
    """Rows of random batches; drawing them counts on both sides."""
    return list(rng.integers(0, len(table), (n_batches, BATCH)))


def counts(reader: WindowReader, batches: list[Rows]) -> None:
    for rows in batches:
        reader.read(rows, rows)


def microvolts(reader: WindowReader, batches: list[Rows]) -> None:
    for rows in batches:
        reader.read_microvolts(rows, rows)


def by_mne(raws: list[mne.io.BaseRaw], table: WindowTable, batches: list[Rows]) -> None:
    out = np.empty((BATCH, N_CHANNELS, N_TIMES))
    for rows in batches:
        for i, (recording, start) in enumerate(
            zip(table.recording[rows].tolist(), table.start[rows].tolist(), strict=True)
        ):
            out[i] = raws[recording].get_data(start=start, stop=start + N_TIMES)


def copies(flat: npt.NDArray[np.generic], rng: np.random.Generator, n_slices: int) -> None:
    """Copy batches of bytes, each from ``n_slices`` random places, into one array."""
    size = BATCH * N_TIMES * N_CHANNELS // n_slices
    out = np.empty((n_slices, size), flat.dtype)
    for _ in range(N_BATCHES):
        for row, start in zip(out, rng.integers(0, len(flat) - size, n_slices).tolist(), strict=True):
            row[:] = flat[start : start + size]


def maker_of(store: Store, table: WindowTable, reader: WindowReader) -> BatchMaker:
    labels = resolve(("p_factor",), table, store.participants, np.ones(len(store.participants), bool))
    return BatchMaker(reader, labels, channel_rows(store, signal_of(store, N_TIMES, ("p_factor",))), seed=0)


def order_and_loader(store: Store, table: WindowTable, rounds: int) -> dict[str, float]:
    """What the order costs, and what everything around the copy costs, per batch."""
    positions = np.arange(BATCH)
    shuffle = [timed(lambda n=n: Permutation(N_TUH_AND_HBN, 0, n)(positions + n * BATCH)) for n in range(40 * rounds)]
    keys = [timed(lambda n=n: sample_keys(0, n, positions)) for n in range(40 * rounds)]
    reader = WindowReader(store, table)
    order = ShuffledOrder(np.arange(len(table)), np.zeros(len(table), int), BATCH, 4 * N_BATCHES, seed=0)
    loader = BatchLoader(maker_of(store, table, reader), order, is_training=True)
    rows = [order.batch(0, step)[0] for step in range(len(order))]
    both = compare(lambda: exhaust(loader), lambda: counts(reader, rows), rounds)
    return {
        "feistel_ms_per_batch": 1e3 * float(np.median(shuffle)),
        "keys_ms_per_batch": 1e3 * float(np.median(keys)),
        "loader_cpu_ms_per_batch": 1e3 * both.ours_s / len(order),
        "loader_overhead_ms_per_batch": 1e3 * (both.ours_s - both.peer_s) / len(order),
    }


def exhaust(loader: BatchLoader) -> None:
    for _ in loader:
        pass


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mb(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
