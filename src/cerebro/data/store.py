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

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Int16
from numpy import ndarray

from cerebro.data.manifest import PAGE_CHECKSUMS, missing_or_damaged, read_manifest, read_parquet
from cerebro.errors import DataError
from cerebro.montage import Montage
from cerebro.progress import progress

if TYPE_CHECKING:
    import torch

ALIGNMENT = 4096  # bytes
PAGE = 4096  # bytes under one CRC-32C: whoever reads one window reads no more than the pages that it touches
TIME_MAJOR, CHANNEL_MAJOR = 0, 1  # layouts of the index
EVENT_TICKS_PER_S = 10_000

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
        # Private mappings: torch asks for writable memory, and nothing written there ever reaches the file.
        self._maps = [np.memmap(path / shard["name"], dtype="<i2", mode="c") for shard in manifest["shards"]]

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
        self.touch(np.array([row["shard"]]), np.array([start * 2]), n_values * 2)
        view = np.asarray(self._maps[row["shard"]])[start : start + n_values]
        is_time_major = row["layout"] == TIME_MAJOR
        view = view.reshape(n_times, n_channels) if is_time_major else view.reshape(n_channels, n_times).T
        view.flags.writeable = False
        return view

    def offsets_uV(self, recording: int) -> npt.NDArray[np.float32]:
        """Microvolts (C,) that were subtracted from each channel before quantising."""
        row = self.index[recording]
        return np.asarray(self._offsets[row["offset_row"] : row["offset_row"] + row["n_channels"]])

    def shard(self, number: int) -> "torch.Tensor":
        """Flat int16 tensor (L,) over the memory map of a shard; call `touch` before reading a range."""
        import torch  # here, because the children that read signals never need it and would wait seconds for it

        return torch.from_numpy(np.asarray(self._maps[number]))

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
        for page in np.unique(pages[~self._is_checked[pages]]).tolist():
            problem = self._page_problem(page)
            if problem:
                raise DataError(f"store {self.path} is damaged: {problem}; delete it and run `cerebro prepare` again.")
            self._is_checked[page] = True
            self._n_unchecked -= 1

    def verify(self) -> list[str]:
        """Verify every byte of the store; one line per damaged file or page, empty if all is well."""
        problems = missing_or_damaged(self.path, self.manifest, thorough=True)
        names = [shard["name"] for shard in self.manifest["shards"]]
        for number in progress(range(len(names)), "verify", "shard", len(names)):
            pages = range(int(self._first_page[number]), int(self._first_page[number + 1]))
            problems += filter(None, map(self._page_problem, pages))
        for recording, row in enumerate(self.index):
            start, n = int(row["offset"]), int(row["n_times"]) * int(row["n_channels"])
            if crc32c(self._maps[row["shard"]][start : start + n]) != int(row["checksum"]):
                problems.append(f"recording {self.recordings['key'].iloc[recording]}: its checksum does not agree")
        return problems

    def _table(self, name: str) -> pd.DataFrame:
        table: pd.DataFrame = read_parquet(self.path / f"{name}.parquet").to_pandas()
        return table

    def _page_problem(self, page: int) -> str:
        number = int(np.searchsorted(self._first_page, page, side="right")) - 1
        start = (page - int(self._first_page[number])) * PAGE
        part = self._maps[number][start // 2 : (start + PAGE) // 2]
        if crc32c(part) == int(self._crc[page]):
            return ""
        return f"{self.manifest['shards'][number]['name']}: checksum of bytes {start:,} to {start + PAGE:,} differs"


def crc32c(counts: npt.NDArray[np.int16]) -> int:
    """CRC-32C (Castagnoli) of an array's bytes."""
    return int(google_crc32c.value(np.ascontiguousarray(counts).reshape(-1).view(np.uint8)))


def _montage(entry: dict[str, Any]) -> Montage:
    positions = np.array([[np.nan] * 3 if xyz is None else xyz for xyz in entry["positions"]], dtype=np.float64)
    return Montage(entry["name"], tuple(entry["channels"]), positions.reshape(-1, 3))
