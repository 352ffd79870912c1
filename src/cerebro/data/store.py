"""The recording store: recordings as int16 in flat shards, with tables beside them, every byte checksummed.

A store is a folder::

    manifest.json        written last; settings, montages, event names, SHA-256 of every table, data_hash
    index.npy            one row of `INDEX_DTYPE` per recording, sorted by key
    events.npy           one row of `EVENT_DTYPE` per event, in the order of the recordings, then of time
    offsets.npy          float32 microvolts that were subtracted from each channel of each recording
    crc32c.u4            little-endian uint32, without a header: CRC-32C of every page of every shard
    recordings.parquet   key, participant, task, run, session, release, reference, ... and ``label/<name>`` columns
    events.parquet       recording (row), onset_sample, onset_s (as the source says), duration_samples, name
    segments.parquet     recording (row), parent_window_id, sub_window_id, start_s, stop_s, n_valid
    participants.parquet participant_id (index), age, sex, ...
    findings.parquet     what was repaired, skipped or failed, by which rule
    build_report.json    the same, counted
    shards/00000.i16     little-endian int16, each recording at a multiple of 4 KiB

Samples are ``counts * lsb_uV`` microvolts after the offset of the channel was removed. A continuous recording lies
time-major (T, C); one that came as windows lies channel-major, (C, windows x samples of a window). Windows are
arithmetic on the index: any length, stride or crop without a rebuild. `cerebro.data.seal` writes this format.
"""

import mmap
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.manifest import PAGE_CHECKSUMS, missing_or_damaged, read_manifest, read_parquet
from cerebro.data.page_checksums import PAGE, Pages
from cerebro.errors import DataError
from cerebro.montage import Montage
from cerebro.progress import progress

if TYPE_CHECKING:
    import torch

ALIGNMENT = 4096  # bytes
TIME_MAJOR, CHANNEL_MAJOR = 0, 1  # layouts of the index
EVENT_TICKS_PER_S = 10_000
ANNOUNCED = 1 << 17  # bytes at once; Linux forgets what is announced beyond its read-ahead, 128 KiB unless it is set
LONG = 1 << 19  # bytes; longer stretches are read, this much at once, and not announced

INDEX_DTYPE = np.dtype(
    [
        ("shard", "<i4"),
        ("montage", "<i4"),  # number in Store.montages
        ("participant", "<i4"),  # row of Store.participants
        ("n_channels", "<i4"),
        ("offset", "<i8"),  # int16 elements from the start of the shard
        ("n_times", "<i8"),
        ("offset_row", "<i8"),  # first of n_channels entries in offsets.npy
        ("event_row", "<i8"),  # first of its rows in events.npy; the next recording's is the end
        ("scale", "<f4"),  # microvolts per count
        ("checksum", "<u4"),  # CRC-32C of the recording's own bytes
        ("segment_samples", "<i4"),  # 0 = continuous
        ("layout", "<i4"),  # TIME_MAJOR or CHANNEL_MAJOR
    ]
)
EVENT_DTYPE = np.dtype([("onset", "<u4"), ("name", "<u4")])  # 0.1 ms from the first sample; row of Store.event_names
# piece is empty for what a scan found; recording too where a finding speaks of no recording that was opened
FINDING_COLUMNS = ("recording", "piece", "rule", "severity", "where", "detail")


class Store:
    """Read-only view of a sealed store; open one with `Store.open`.

    Attributes
    ----------
    path : Path
        Folder of the store.
    sfreq, lsb_uV : float
        Sampling rate in Hz and microvolts per count, of all recordings.
    corpus, reference : str
        Namespace of the participants; the common reference (``mixed`` where recordings differ, see the column
        ``reference`` of ``recordings``).
    data_hash : str
        SHA-256 of the content: the same for equal recordings, tables and settings wherever the store lies.
    montages : tuple of Montage
        Channel sets that occur, with positions; ``index["montage"]`` counts in it.
    index : structured array (R,)
        Rows of `INDEX_DTYPE`.
    event_index : structured array (E,)
        Rows of `EVENT_DTYPE`; those of recording r begin at ``index["event_row"][r]``.
    event_names : tuple of str
        What ``event_index["name"]`` counts in.
    recordings, events, segments, participants, findings : pandas.DataFrame
        Tables, read when they are first asked for; ``recordings`` has R rows in the order of ``index``,
        ``participants`` is indexed by participant_id.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.sfreq = float(manifest["sfreq"])
        self.lsb_uV = float(manifest["lsb_uV"])
        self.corpus = str(manifest["corpus"])
        self.reference = str(manifest["reference"])
        self.data_hash = str(manifest["data_hash"])
        self.montages = tuple(_montage(entry) for entry in manifest["montages"])
        self.event_names = tuple(map(str, manifest["event_names"]))
        self.index: npt.NDArray[Any] = np.load(path / "index.npy", allow_pickle=False)
        self.event_index: npt.NDArray[Any] = np.load(path / "events.npy", mmap_mode="r", allow_pickle=False)
        self._offsets: npt.NDArray[np.float32] = np.load(path / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self._crc = np.memmap(path / PAGE_CHECKSUMS, dtype="<u4", mode="r")
        n_pages = [-(-int(shard["bytes"]) // PAGE) for shard in manifest["shards"]]
        self._first_page = np.concatenate([[0], np.cumsum(n_pages)]).astype(np.int64)  # shard -> row of crc32c.u4
        self._is_checked = np.zeros(len(self._crc), dtype=bool)  # costs memory only where something was looked at
        self._n_unchecked = len(self._crc)
        self._lock = threading.Lock()
        self._maps = [_map(path / shard["name"]) for shard in manifest["shards"]]
        self._flats = [np.frombuffer(shard, dtype="<i2") for shard in self._maps]
        self._pages = Pages(self._flats)
        n_bytes = sum(int(shard["bytes"]) for shard in manifest["shards"])
        self._fits_memory = n_bytes < psutil.virtual_memory().total / 2

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """Table of the recordings, in the order of ``index``."""
        return self._table("recordings")

    @cached_property
    def events(self) -> pd.DataFrame:
        """Table of all events; `event_index` is the same in eight bytes an event."""
        return self._table("events")

    @cached_property
    def segments(self) -> pd.DataFrame:
        """Table of all segments, in the order of the recordings, then of their windows."""
        return self._table("segments")

    @cached_property
    def participants(self) -> pd.DataFrame:
        """Table of the participants, by participant_id."""
        return self._table("participants").set_index("participant_id")

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Table of what the build repaired, skipped or failed."""
        return self._table("findings")

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a sealed store; its tables are verified now, its samples when they are first touched.

        Raises
        ------
        DataError
            In one line if the store is absent, unfinished or damaged, naming the file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        problems = missing_or_damaged(path, manifest)
        if problems:
            raise DataError(
                f"store {path} is damaged: {problems[0]}"
                + (f" (and {len(problems) - 1} more)" * (len(problems) > 1))
                + "; run the same `cerebro prepare` command again."
            )
        return cls(path, manifest)

    def __len__(self) -> int:
        return len(self.index)

    def samples(self, recording: int) -> Int16[ndarray, "T C"]:
        """Counts of one recording: a read-only view of the memory map, verified on first touch.

        Raises
        ------
        DataError
            If a checksum does not agree.
        """
        row = self.index[recording]
        n_times, n_channels = int(row["n_times"]), int(row["n_channels"])
        start, n_values = int(row["offset"]), n_times * n_channels
        place = np.array([row["shard"]]), np.array([start * 2])
        self.will_need(*place, np.array([n_values * 2]))
        self.touch(*place, n_values * 2)
        view: npt.NDArray[np.int16] = self._flats[row["shard"]][start : start + n_values]
        is_time_major = row["layout"] == TIME_MAJOR
        view = view.reshape(n_times, n_channels) if is_time_major else view.reshape(n_channels, n_times).T
        view.flags.writeable = False
        return view

    def offsets_uV(self, recording: int) -> npt.NDArray[np.float32]:
        """Microvolts (C,) that were subtracted from each channel before quantising."""
        row = self.index[recording]
        first = int(row["offset_row"])
        return np.array(self._offsets[first : first + int(row["n_channels"])])

    def shard(self, number: int) -> "torch.Tensor":
        """Flat int16 tensor (L,) over the memory map of a shard; call `touch` before reading a range."""
        import torch  # here, because the children that read signals never need it and would wait seconds for it

        return torch.from_numpy(self._flats[number])

    def flat(self, number: int) -> npt.NDArray[np.int16]:
        """All int16 values of a shard as one array over the memory map; call `touch` before reading a range."""
        return self._flats[number]

    @property
    def is_at_hand(self) -> bool:
        """Whether all samples have been read and fit half of the memory: then they are there still."""
        return self._fits_memory and not self._n_unchecked

    def will_need(
        self, shard: npt.NDArray[np.integer], first_byte: npt.NDArray[np.integer], n_bytes: npt.NDArray[np.integer]
    ) -> None:
        """Have the system read ``n_bytes`` (B,) from each ``first_byte`` (B,) of ``shard`` (B,), short ones later.

        A memory map alone reads one page after the other, each when it is missed. Here they are asked for in the order
        of the disk, neighbours at once: short pieces in the background, long ones before this returns, because Linux
        reads them twice as fast when they are read and not announced. Does nothing where the samples are at hand.
        """
        if self.is_at_hand or not len(shard):
            return
        base = self._first_page[shard]
        low, high = base + first_byte // PAGE, base + (first_byte + n_bytes - 1) // PAGE + 1  # pages of the store
        order = np.argsort(low)
        low, high, number = low[order], np.maximum.accumulate(high[order]), np.asarray(shard)[order]
        is_new = np.append(True, (low[1:] > high[:-1]) | (number[1:] != number[:-1]))
        last = np.append(np.flatnonzero(is_new)[1:], len(low)) - 1
        start = (low[is_new] - self._first_page[number[is_new]]) * PAGE
        length = (high[last] - low[is_new]) * PAGE
        for which in np.unique(number).tolist():
            mine = number[is_new] == which
            _fetch(self._maps[which], self._shard_path(which), start[mine].tolist(), length[mine].tolist())

    def touch(self, shard: npt.NDArray[np.integer], first_byte: npt.NDArray[np.integer], n_bytes: int) -> None:
        """Verify the pages of ``n_bytes`` bytes from each ``first_byte`` (B,) of ``shard`` (B,), unless they were.

        Costs one look at a bitmap once they were seen, and nothing once all was.

        Raises
        ------
        DataError
            If a checksum does not agree: the shard and the bytes.
        """
        if not self._n_unchecked or not n_bytes:
            return
        base = self._first_page[shard]
        low, high = base + first_byte // PAGE, base + (first_byte + n_bytes - 1) // PAGE
        pages = low[:, None] + np.arange(int((high - low).max()) + 1)
        pages = np.minimum(pages, high[:, None]).ravel()
        unseen = np.sort(pages[~self._is_checked[pages]])
        unseen = unseen[np.diff(unseen, prepend=-1) > 0]  # neighbours share a page; five times faster than np.unique
        damaged = self._damaged(unseen)
        if damaged:
            raise DataError(f"store {self.path} is damaged: {damaged[0]}; delete it and run `cerebro prepare` again.")
        self._mark(unseen)

    def verify(self) -> list[str]:
        """Verify every byte of the store; one line per damaged file or page, empty if all is well."""
        problems = missing_or_damaged(self.path, self.manifest, thorough=True)
        keys = self.recordings["key"]
        for recording in progress(range(len(self.index)), "verify", "recording", len(self.index)):
            row = self.index[recording]
            number, start, n_values = (
                int(row["shard"]),
                int(row["offset"]),
                int(row["n_times"]) * int(row["n_channels"]),
            )
            self.will_need(np.array([number]), np.array([2 * start]), np.array([2 * n_values]))
            first = int(self._first_page[number]) + 2 * start // PAGE
            pages = np.arange(first, first + -(-2 * n_values // PAGE))
            damaged = self._damaged(pages)
            if not damaged:
                self._mark(pages)
            problems += damaged
            if crc32c(self._flats[number][start : start + n_values]) != int(row["checksum"]):
                problems.append(f"recording {keys.iloc[recording]}: its checksum does not agree")
        return problems

    def _mark(self, pages: npt.NDArray[np.int64]) -> None:
        """Note that ``pages`` are verified; two threads may have verified one page."""
        with self._lock:
            self._n_unchecked -= int(np.count_nonzero(~self._is_checked[pages]))
            self._is_checked[pages] = True

    def _shard_path(self, number: int) -> Path:
        return self.path / str(self.manifest["shards"][number]["name"])

    def _table(self, name: str) -> pd.DataFrame:
        table: pd.DataFrame = read_parquet(self.path / f"{name}.parquet").to_pandas()
        return table

    def _damaged(self, pages: npt.NDArray[np.int64]) -> list[str]:
        """One line for each of ``pages`` (ascending rows of crc32c.u4) whose checksum does not agree."""
        shard = np.searchsorted(self._first_page, pages, side="right") - 1
        start = (pages - self._first_page[shard]) * PAGE
        differs = np.flatnonzero(self._pages.checksums(shard, start) != self._crc[pages])
        names = [self.manifest["shards"][number]["name"] for number in shard[differs].tolist()]
        places = zip(names, start[differs].tolist(), strict=True)
        return [f"{name}: checksum of bytes {first:,} to {first + PAGE:,} differs" for name, first in places]


def _fetch(mapped: mmap.mmap, path: Path, starts: list[int], lengths: list[int]) -> None:
    if not hasattr(os, "posix_fadvise"):  # macOS
        for start, length in zip(starts, lengths, strict=True):
            mapped.madvise(mmap.MADV_WILLNEED, start, length)
        return
    unused = bytearray(LONG)
    handle = os.open(path, os.O_RDONLY)  # unlike madvise, its calls leave the interpreter's lock free
    try:
        for start, length in zip(starts, lengths, strict=True):
            end = start + length
            if length > LONG:
                for at in range(start, end, LONG):
                    os.preadv(handle, [memoryview(unused)[: end - at]], at)
            else:
                for at in range(start, end, ANNOUNCED):
                    os.posix_fadvise(handle, at, min(ANNOUNCED, end - at), os.POSIX_FADV_WILLNEED)
    finally:
        os.close(handle)


def _map(shard: Path) -> mmap.mmap:
    """Private mapping: torch asks for writable memory, and nothing written there ever reaches the file."""
    with open(shard, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapped.madvise(mmap.MADV_RANDOM)  # the system would read 128 KiB around every page that is missed
    return mapped


def crc32c(counts: npt.NDArray[np.generic]) -> int:
    """CRC-32C (Castagnoli) of an array's bytes."""
    return int(google_crc32c.value(np.ascontiguousarray(counts).reshape(-1).view(np.uint8)))


def _montage(entry: dict[str, Any]) -> Montage:
    positions = np.array([[np.nan] * 3 if xyz is None else xyz for xyz in entry["positions"]], dtype=np.float64)
    return Montage(entry["name"], tuple(entry["channels"]), positions.reshape(-1, 3))
