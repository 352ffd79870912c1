"""Windows in random order from files that are not in memory, beside reading the same files from end to end.

Cold means that the store's files were dropped with ``posix_fadvise`` before every round. Random order is the product's
loader: an epoch of shuffled windows of 129 channels x 200 samples in batches of 128, every checksum verified, int16
delivered. Sequential is plain reading, 256 KiB at a time into one buffer, without a checksum; ``in_order`` is the same
loader, the windows in the order of the files. Wall time, because it is the disk that is measured; bytes are those that
the system says it fetched for this process (``/proc/self/io``). Each is read twice in a row and the second counts: a
virtual machine takes back memory that was free for two seconds, and getting it again costs more than the reading.

The store holds 1.5 GB, twelve times what the loader asks the disk for ahead of time in the order of the disk.
``scattered`` takes every sixth window only, so that no two windows are neighbours on the disk: what a store far larger
than that gets, a request of 52 kB at a time. ``read_amplification`` is that of the scattered windows. ``disk`` is what
can be had of windows in random order: their bytes and nothing else, read by eight threads into buffers, each group of
as many as the loader asks for at once in the order of the disk.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

import repeated
from cerebro.data.loader import FETCH_AHEAD_BYTES, BatchLoader, BatchMaker
from cerebro.data.sampling import FixedOrder, Order, ShuffledOrder
from cerebro.data.sources import SlidingWindows
from cerebro.data.store import Store
from cerebro.data.targets import resolve
from cerebro.data.windows import WindowReader, channel_rows, signal_of

N_RECORDINGS, N_TIMES, N_PEOPLE = 200, 30_000, 50
DURATION_S, BATCH = 2.0, 128
SCATTER = 6
IN_ORDER = -1  # as a seed: no shuffling
AT_ONCE = 256 << 10  # bytes; larger pieces were slower
N_READERS = 8

Result = TypeVar("Result")


def figures(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        repeated.write(path, N_RECORDINGS, N_TIMES, N_PEOPLE)
        return measure(path, rounds)


def measure(path: Path, rounds: int) -> dict[str, float]:
    table, _ = SlidingWindows(DURATION_S, DURATION_S).table(Store.open(path))
    every, scattered = np.arange(len(table)), np.arange(0, len(table), SCATTER)
    measured: dict[str, list[float]] = {}
    for number in range(rounds):
        sequential = second(lambda: sequential_speed(path))
        in_order, _ = second(lambda: loader_speed(path, every, IN_ORDER))
        random, _ = second(lambda: loader_speed(path, every, number))  # noqa: B023  is called at once
        disk = second(lambda: disk_speed(path, every, number))  # noqa: B023
        islands, amplification = second(lambda: loader_speed(path, scattered, number))  # noqa: B023
        for name, value in {
            "cold_random_vs_sequential": random / sequential,
            "cold_random_vs_in_order": random / in_order,
            "cold_random_vs_disk": random / disk,
            "cold_disk_vs_sequential": disk / sequential,
            "cold_in_order_vs_sequential": in_order / sequential,
            "cold_scattered_vs_sequential": islands / sequential,
            "read_amplification": amplification,
            "cold_in_order_mb_per_second": in_order / 1e6,
            "cold_random_mb_per_second": random / 1e6,
            "cold_disk_mb_per_second": disk / 1e6,
            "cold_scattered_mb_per_second": islands / 1e6,
            "cold_sequential_mb_per_second": sequential / 1e6,
        }.items():
            measured.setdefault(name, []).append(value)
    return {
        key: value
        for name, values in measured.items()
        for key, value in (
            (name, statistics.median(values)),
            (f"{name}_lowest", min(values)),
            (f"{name}_highest", max(values)),
        )
    }


def second(measure: Callable[[], Result]) -> Result:
    measure()
    return measure()


def loader_speed(path: Path, rows: npt.NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Useful bytes per second of one epoch of ``rows``, and bytes fetched per useful byte."""
    store = Store.open(path)
    loader = loader_of(store, rows, seed)
    drop(path)
    fetched, start = fetched_bytes(), time.perf_counter()
    useful = sum(batch.counts.nbytes for batch in loader)
    taken = time.perf_counter() - start
    return useful / taken, (fetched_bytes() - fetched) / useful


def loader_of(store: Store, rows: npt.NDArray[np.int64], seed: int) -> BatchLoader:
    table, _ = SlidingWindows(DURATION_S, DURATION_S).table(store)
    labels = resolve((), table, store.participants, np.ones(len(store.participants), bool))
    maker = BatchMaker(
        WindowReader(store, table), labels, channel_rows(store, signal_of(store, table.n_times, ())), seed=0
    )
    montage = np.zeros(len(rows), np.int64)
    is_shuffled = seed != IN_ORDER
    order: Order = ShuffledOrder(rows, montage, BATCH, 0, seed) if is_shuffled else FixedOrder(rows, montage, BATCH)
    return BatchLoader(maker, order, is_training=is_shuffled)


def sequential_speed(path: Path) -> float:
    """Bytes per second of reading the shards from end to end."""
    drop(path)
    buffer = bytearray(AT_ONCE)  # used again: fresh memory would take half of the time
    n_bytes, start = 0, time.perf_counter()
    for shard in sorted(path.glob("shards/*")):
        with open(shard, "rb", buffering=0) as file:
            while n := file.readinto(buffer):
                n_bytes += n
    return n_bytes / (time.perf_counter() - start)


def disk_speed(path: Path, rows: npt.NDArray[np.int64], seed: int) -> float:
    """Bytes per second of reading the windows of one shuffled epoch, and doing nothing with them."""
    store = Store.open(path)
    order, table = loader_of(store, rows, seed).order, SlidingWindows(DURATION_S, DURATION_S).table(store)[0]
    recording, start = table.places(np.concatenate([order.batch(0, step)[0] for step in range(len(order))]))
    index = store.index[recording]
    n_bytes = 2 * table.n_times * int(index["n_channels"][0])
    shard, first = index["shard"], 2 * (index["offset"] + start * index["n_channels"])
    n = FETCH_AHEAD_BYTES // n_bytes
    groups = [at + np.lexsort((first[at : at + n], shard[at : at + n])) for at in range(0, len(rows), n)]
    handles = [os.open(file, os.O_RDONLY) for file in sorted(path.glob("shards/*"))]
    buffers = [bytearray(n_bytes) for _ in range(N_READERS)]

    def read(reader: int, places: list[tuple[int, int]]) -> None:
        for number, at in places[reader::N_READERS]:
            os.preadv(handles[number], [buffers[reader]], at)

    drop(path)
    began = time.perf_counter()
    with ThreadPoolExecutor(N_READERS) as readers:
        for group in groups:
            places = list(zip(shard[group].tolist(), first[group].tolist(), strict=True))
            for done in [readers.submit(read, reader, places) for reader in range(N_READERS)]:
                done.result()
    taken = time.perf_counter() - began
    for handle in handles:
        os.close(handle)
    return len(rows) * n_bytes / taken


def drop(path: Path) -> None:
    """Have the system forget what it keeps of the store's files."""
    for file in [*path.glob("shards/*"), *path.glob("crc32c.u4")]:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def fetched_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
