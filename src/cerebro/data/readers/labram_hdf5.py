"""HDF5 files in the form of LaBraM's data sets: one group per recording (Jiang et al. 2024, arXiv:2405.18765)."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32
from numpy import ndarray

from cerebro.data.readers.apart import each_apart
from cerebro.data.readers.base import Entry, Finding, Reader, Recording, Scan
from cerebro.errors import ConfigError, DataError, check_exists
from cerebro.montage import Montage, canonical_names, hbn_129, standard_1005
from cerebro.progress import progress_bar

MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
MICROVOLTS = {"uV": 1.0, "mV": 1e3, "V": 1e6}
SUFFIXES = (".h5", ".hdf5")
BLOCK_BYTES = 2**24


class LaBraMHDF5(Reader):
    """HDF5 files of which each group is a recording: dataset ``eeg`` (C, T) with attributes ``rsFreq`` and ``chOrder``.

    The recording is filtered and resampled like any other. Such a file has no checksums, no table of people and no
    events; what a person is called must stand in the name of the group.

    Parameters
    ----------
    path : Path
        One file, or a folder of ``.hdf5`` and ``.h5`` files.
    name : str
        Name of the data set: the namespace of its participants.
    participant_from : str
        Regular expression that finds the person in FILE/GROUP (file without suffix); its first group is the person.
    task : str
        Task of all recordings.
    unit : {"uV", "mV", "V"}
        Unit of the samples.
    montage : {"standard_1005", "hbn_129"}
        Electrodes that ``chOrder`` may mean; other channels are dropped and counted.
    reference : {"Cz", "average", "linked-ears", "unknown"}
        Reference of the recordings.

    Raises
    ------
    ConfigError
        If ``participant_from`` cannot be used.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        participant_from: str = "/([^_]+)",
        task: str = "unknown",
        unit: Literal["uV", "mV", "V"] = "uV",
        montage: Literal["standard_1005", "hbn_129"] = "standard_1005",
        reference: Literal["Cz", "average", "linked-ears", "unknown"] = "unknown",
    ) -> None:
        try:
            n_groups = re.compile(participant_from).groups
        except re.error as error:
            raise ConfigError(f"participant_from={participant_from!r} is no regular expression ({error}).") from None
        if n_groups < 1:
            raise ConfigError(f"participant_from={participant_from!r} has no group; put brackets around the person.")
        self.path = Path(path)
        self.corpus = name
        self.participant_from = participant_from
        self.task = task
        self.unit = unit
        self.reference = reference
        self._montage = montage

    @property
    def root(self) -> Path | None:
        """Folder of the files, which may hold a list of checksums; none where a single file was given."""
        return self.path if self.path.is_dir() else None

    def montage(self) -> Montage:
        """Give the electrodes named at construction."""
        return MONTAGES[self._montage]()

    def scan(self, require_signals: bool = True) -> Scan:
        """List the groups; see `Reader.scan`. With ``require_signals`` every sample is read once for its hash.

        Raises
        ------
        DataError
            If there is no file. A damaged file or group is a finding, and the rest goes on.
        """
        check_exists(self.path, f"HDF5 file of data set {self.corpus}", "set path to a file or a folder of them.")
        files = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        entries: list[Entry] = []
        findings: list[Finding] = []
        files = [file for file in files if file.suffix in SUFFIXES or not self.path.is_dir()]
        if not files:
            raise DataError(f"{self.path} holds no {' or '.join(SUFFIXES)} file; set path.")
        look = _hashes if require_signals else _names
        with progress_bar("read", "file", total=len(files)) as bar:
            for file, (groups, problem) in zip(files, each_apart(look, files), strict=True):
                bar.update()
                if problem or not groups:
                    detail = problem or f"{file} holds no group with a dataset eeg, as LaBraM's files do"
                    findings.append(Finding("unusable-file", "failed", file.name, detail))
                for group in groups or ():
                    found = self._listed(file, *group)
                    if isinstance(found, Entry):
                        entries.append(found)
                    else:
                        findings.append(found)
        people = pd.Index(sorted({entry.participant for entry in entries}), name="participant_id", dtype=object)
        return Scan(entries, findings, pd.DataFrame(index=people))

    def _listed(self, file: Path, name: str, sha256: str, problem: str) -> Entry | Finding:
        """What a group is: a recording, or one that cannot be used and why."""
        key = f"{file.stem}/{name}"
        if problem:
            return Finding("unusable-recording", "failed", key, problem)
        person = re.search(self.participant_from, key)
        if person is None or not person[1]:
            detail = f"participant_from={self.participant_from!r} finds nobody in the name"
            return Finding("participant-unknown", "skipped", key, detail)
        return Entry(key, person[1], self.task, file / name, source_sha256=sha256)

    def load(self, entry: Entry) -> Recording:
        """Read one group; see `Reader.load`."""
        file, name = entry.path.parent, entry.path.name
        with _opened(file) as opened:
            dataset = opened[name]["eeg"]
            sfreq, labels = _attributes(dataset, file, name)
            names = canonical_names(labels, self.montage())
            order = {channel: place for place, channel in enumerate(self.montage().channels)}
            picks = sorted((at for at, label in enumerate(names) if label), key=lambda at: order[str(names[at])])
            if not picks:
                raise DataError(f"{file}, group {name} has no channel of montage {self._montage}; choose another.")
            eeg: Float32[ndarray, "C T"] = np.empty((len(picks), dataset.shape[1]), np.float32)
            for start, block in _blocks(dataset):
                eeg[:, start : start + block.shape[1]] = block[picks] * MICROVOLTS[self.unit]
        dropped = [label for label, channel in zip(labels, names, strict=True) if channel is None]
        findings = []
        if dropped:
            detail = f"{len(dropped)} of {len(labels)} channels are no electrodes and were dropped: "
            findings.append(Finding("no-electrode", "repaired", entry.key, detail + ", ".join(dropped[:8])))
        return Recording(eeg, tuple(str(names[at]) for at in picks), sfreq, self.reference, findings)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An open file; what goes wrong in it is a DataError that names it, for h5py raises nearly anything on damage."""
    import h5py  # here, because no other reader needs it

    is_open = False
    try:
        with h5py.File(file, "r") as opened:
            is_open = True
            yield opened
    except (DataError, MemoryError):
        raise
    except Exception as error:
        what = "is damaged" if is_open else "does not open as HDF5"
        raise DataError(f"{file} {what} ({_reason(error)}); replace it by a whole copy.") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


def _attributes(dataset: Any, file: Path, name: str) -> tuple[float, list[str]]:
    """Rate in Hz and channel labels."""
    missing = [key for key in ("rsFreq", "chOrder") if key not in dataset.attrs]
    if missing or dataset.ndim != 2:
        found = f"no attribute {missing[0]}" if missing else f"{dataset.ndim} dimensions"
        raise DataError(f"{file}, group {name}: dataset eeg has {found}; LaBraM's has (C, T), rsFreq and chOrder.")
    labels = [label.decode() if isinstance(label, bytes) else str(label) for label in dataset.attrs["chOrder"]]
    if len(labels) != dataset.shape[0]:
        raise DataError(f"{file}, group {name}: {dataset.shape[0]} rows and {len(labels)} names in chOrder; mend it.")
    sfreq = float(dataset.attrs["rsFreq"])
    if not 0 < sfreq < np.inf:
        raise DataError(f"{file}, group {name}: rsFreq={sfreq:g} is no rate in Hz; mend the attribute.")
    return sfreq, labels


def _blocks(dataset: Any) -> Iterator[tuple[int, Any]]:
    """(First sample, values (C, t)) in pieces of bounded size."""
    step = max(1, BLOCK_BYTES // max(1, dataset.shape[0] * dataset.dtype.itemsize))
    for start in range(0, dataset.shape[1], step):
        yield start, dataset[:, start : start + step]


def _names(file: Path) -> list[tuple[str, str, str]]:
    """Groups of a file that are recordings: name, "" and why one cannot be used, or ""."""
    return list(_groups(file, lambda dataset: ""))


def _hashes(file: Path) -> list[tuple[str, str, str]]:
    """`_names` with the SHA-256 of each recording."""
    return list(_groups(file, _sha256))


def _groups(file: Path, digest: Callable[[Any], str]) -> Iterator[tuple[str, str, str]]:
    with _opened(file) as opened:
        for name in sorted(opened, key=os.fsencode):
            shown = os.fsdecode(name)  # h5py gives bytes for a name that is no UTF-8
            try:
                if "eeg" in getattr(opened[name], "keys", list)():
                    yield shown, digest(opened[name]["eeg"]), ""
            except Exception as error:  # as in `_opened`
                yield shown, "", f"{file}, group {shown} is damaged ({_reason(error)}); replace it by a whole copy."


def _sha256(dataset: Any) -> str:
    """SHA-256 of a recording's samples and of what they mean."""
    digest = hashlib.sha256(repr([dataset.shape, dataset.dtype.str, *map(str, dataset.attrs.values())]).encode())
    if dataset.ndim == 2:
        for _, block in _blocks(dataset):
            digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()
