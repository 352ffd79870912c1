"""One (file, channel) sequence of a participant with 66 channels and 124 windows of 2,048 samples, ready as one array.

``sequence_vs_cube``: our time over that of copying the same slice out of a memory-mapped int16 cube [C, W, L]; 1 = as
fast. ``sequence_vs_pandas``: how many times less time ours takes than ``pd.read_parquet`` of that one column and
``np.stack``. The store was made from that Parquet file by the product. All files are warm and the sequences were read
before, so that their checksums are verified; ``cpu_ms_per_sequence_first`` is the first time, with the checksums.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import ParquetWindows
from cerebro.data.sequences import ChannelSequences, SequenceReader
from cerebro.data.store import Store
from cerebro.montage import standard_1005
from timing import compare

N_CHANNELS, N_WINDOWS, LENGTH, SFREQ = 66, 124, 2048, 256.0
N_READ = 60  # channels of a call
N_READ_PANDAS = 3


def figures(rounds: int) -> dict[str, float]:
    """``sequence_vs_cube`` and ``sequence_vs_pandas`` with their spreads, and milliseconds of each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file, store, cube = write_participant(Path(folder))
        return measure(file, store, cube, rounds)


def write_participant(folder: Path) -> tuple[Path, Store, npt.NDArray[np.int16]]:
    """The same windows as Parquet, as a store, and as a cube of the store's own counts."""
    file = folder / "windows" / "p1_run-1.parquet"
    write_windows(file, "p1")
    store = store_of(file.parent, folder / "store")
    counts = Store.open(folder / "store").samples(0).T.reshape(N_CHANNELS, N_WINDOWS, LENGTH)
    np.save(folder / "cube.npy", counts)
    return file, store, np.load(folder / "cube.npy", mmap_mode="r")


def write_windows(file: Path, participant: str, seed: int = 0) -> None:
    """A Parquet file of one run of a participant."""
    rng = np.random.default_rng(seed)
    names = [name.upper() for name in standard_1005().channels[:N_CHANNELS]]
    eeg = rng.standard_normal((N_CHANNELS, N_WINDOWS, LENGTH), dtype=np.float32) * 30
    columns = {
        "participant": np.repeat(participant, N_WINDOWS),
        "run": np.ones(N_WINDOWS, np.int64),
        "parent_window_id": np.arange(N_WINDOWS),
        "sub_window_id": np.zeros(N_WINDOWS, np.int64),
        "window_start": np.arange(N_WINDOWS) * LENGTH / SFREQ,
        "window_end": (np.arange(N_WINDOWS) + 1) * LENGTH / SFREQ,
    }
    offsets = pa.array(np.arange(N_WINDOWS + 1) * LENGTH, pa.int32())
    lists = {name: pa.ListArray.from_arrays(offsets, channel.ravel()) for name, channel in zip(names, eeg, strict=True)}
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns | lists), file, write_page_checksum=True)


def store_of(folder: Path, out: Path) -> Store:
    """The store that the product makes of the Parquet files of a folder."""
    plan = Preprocessing(sfreq=SFREQ, highpass_hz=0.0, lowpass_hz=100.0)
    report = build(ParquetWindows(folder, "windows", window_length=LENGTH), plan, out)
    assert report.read == len(list(folder.iterdir()))
    return Store.open(out)


def measure(file: Path, store: Store, cube: npt.NDArray[np.int16], rounds: int) -> dict[str, float]:
    table, _ = ChannelSequences().table(store)
    reader = SequenceReader(store, table)
    names = [name.upper() for name in store.montages[0].channels]
    order = np.random.default_rng(1).permutation(N_READ)

    def ours(rows: npt.NDArray[np.int64]) -> Callable[[], None]:
        batches = [np.array([row], np.int64) for row in rows]

        def read() -> None:
            for batch in batches:
                reader.read(batch, batch)

        return read

    def from_cube() -> None:
        for channel in order.tolist():
            np.array(cube[channel])

    def from_pandas() -> None:
        for channel in order[:N_READ_PANDAS].tolist():
            np.stack(pd.read_parquet(file, columns=[names[channel]])[names[channel]].to_numpy())

    one = reader.read(order[:1], order[:1])[0, :, 0].numpy().reshape(N_WINDOWS, LENGTH)
    assert np.array_equal(one, cube[order[0]])
    start = time.process_time()
    ours(order)()
    first_s = time.process_time() - start
    beside_cube = compare(ours(order), from_cube, rounds)
    beside_pandas = compare(ours(order[:N_READ_PANDAS].repeat(4)), from_pandas, rounds)
    return {
        "sequence_vs_cube": 1 / beside_cube.ratio,
        "sequence_vs_cube_lowest": 1 / beside_cube.highest,
        "sequence_vs_cube_highest": 1 / beside_cube.lowest,
        "sequence_vs_pandas": 4 * beside_pandas.ratio,
        "sequence_vs_pandas_lowest": 4 * beside_pandas.lowest,
        "sequence_vs_pandas_highest": 4 * beside_pandas.highest,
        "cpu_ms_per_sequence_first": 1e3 * first_s / N_READ,
        "cpu_ms_per_sequence": 1e3 * beside_cube.ours_s / N_READ,
        "cpu_ms_per_sequence_cube": 1e3 * beside_cube.peer_s / N_READ,
        "cpu_ms_per_sequence_pandas": 1e3 * beside_pandas.peer_s / N_READ_PANDAS,
    }
