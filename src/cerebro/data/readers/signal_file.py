"""One signal file, of any format that MNE-Python reads, as float32 microvolts on the electrodes of a montage."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cerebro.data.readers.base import Finding, Recording
from cerebro.errors import DataError
from cerebro.montage import Montage, canonical_names

MICROVOLTS_PER_VOLT = 1e6
BLOCK_S = 60.0  # seconds in float64 at a time, so that a long recording never stands in memory twice
_EDF_SAMPLE_BYTES = {".edf": 2, ".bdf": 3}


def read_signal(path: Path, montage: Montage, reference: str, key: str, listed: tuple[str, ...] = ()) -> Recording:
    """Read a continuous recording.

    Channels come in the montage's order and spelling; those that are no electrode of it are dropped and counted under
    rule ``no-electrode``, and what MNE warned of under ``file-warning``.

    Parameters
    ----------
    path : Path
        ``.set``, ``.edf``, ``.bdf``, ``.vhdr``, ``.fif`` or another format of MNE-Python.
    montage : Montage
        Electrodes that the file's labels may mean.
    reference : str
        Reference of the recording, handed through.
    key : str
        Name of the recording in findings.
    listed : tuple of str
        Channel names that a table beside the file gives, in its order; where the file says otherwise its own names are
        used and counted under rule ``channel-names-differ`` or ``channel-order-differs``. Empty = no table.

    Raises
    ------
    DataError
        In one line: no file, no recording, header and size disagree, no known channel, two labels of one electrode,
        NaN or infinite samples. Constant channels and wrong units are met in preprocessing, for every reader alike.
    """
    if not path.exists():
        raise DataError(f"signal file {path} does not exist; fetch it or take it out of the data set.")
    if path.suffix.lower() in _EDF_SAMPLE_BYTES:
        check_edf_size(path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            raw = _open(path)
            recording = _to_microvolts(raw, path, montage, reference, key)
            recording.findings.extend(name_findings(raw.ch_names, listed, montage, key))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # MNE and scipy raise nearly anything on a damaged file
            raise DataError(
                f"{path} cannot be read as a recording ({type(error).__name__}: {_first_line(error)}); replace it by "
                "a whole copy or take it out of the data set."
            ) from None
    texts = sorted({_first_line(entry.message) for entry in warned if issubclass(entry.category, RuntimeWarning)})
    recording.findings += [Finding("file-warning", "repaired", key, text) for text in texts]
    _check_samples(recording, path)
    return recording


def name_findings(labels: Sequence[str], listed: Sequence[str], montage: Montage, key: str) -> list[Finding]:
    """Where the channel names of a file and of the table beside it disagree on electrodes; nothing if there is none."""
    if not listed:
        return []
    ours, theirs = ([name for name in canonical_names(names, montage) if name] for names in (labels, listed))
    if set(ours) != set(theirs):
        only = [f"{name} in the file alone" for name in ours if name not in theirs]
        only += [f"{name} in the table alone" for name in theirs if name not in ours]
        detail = f"{', '.join(only[:6])}{f' and {len(only) - 6} more' if len(only) > 6 else ''}; the file's are used"
        return [Finding("channel-names-differ", "repaired", key, detail)]
    swapped = [(at, a, b) for at, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1) if a != b]
    if not swapped:
        return []
    at, a, b = swapped[0]
    detail = f"{len(swapped)} electrodes in another order, first channel {at}: {a} in the file, {b} in the table; "
    return [Finding("channel-order-differs", "repaired", key, f"{detail}the file's names are used")]


def check_edf_size(path: Path) -> None:
    """Raise DataError unless an EDF or BDF file has exactly the bytes that its header announces.

    MNE reads a truncated file as a shorter recording without a word. Layout of the header: Kemp et al. 1992,
    doi:10.1016/0013-4694(92)90009-7.
    """
    with open(path, "rb") as file:
        fixed = file.read(256)
        try:
            header_bytes, n_records, n_signals = (int(fixed[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
            file.seek(256 + n_signals * 216)
            counts = file.read(n_signals * 8)
            record_samples = sum(int(counts[8 * i : 8 * i + 8]) for i in range(n_signals))
        except (ValueError, OSError):
            raise DataError(
                f"{path} has no {path.suffix[1:].upper()} header; replace it by a whole copy or take it out of the "
                "data set."
            ) from None
    if header_bytes != 256 * (n_signals + 1) or record_samples <= 0:
        raise DataError(
            f"{path} announces {n_signals} signals, {record_samples} samples a record and a header of {header_bytes} "
            "bytes, which contradict each other; replace it by a whole copy."
        )
    if n_records < 0:
        raise DataError(f"{path} was never closed by its recorder (unknown number of records); save it again as EDF.")
    expected = header_bytes + n_records * record_samples * _EDF_SAMPLE_BYTES[path.suffix.lower()]
    found = path.stat().st_size
    if found != expected:
        state = "is truncated" if found < expected else "is longer than its header says"
        raise DataError(
            f"{path} {state}: {found:,} bytes where its header announces {expected:,}; replace it by a whole copy."
        )


def _open(path: Path) -> Any:
    import mne  # imported here because it takes a second

    if path.suffix.lower() == ".set":
        return mne.io.read_raw_eeglab(path, preload=False, verbose="error")
    return mne.io.read_raw(path, preload=False, verbose="error")


def _to_microvolts(raw: Any, path: Path, montage: Montage, reference: str, key: str) -> Recording:
    labels = [str(label) for label in raw.ch_names]
    names = canonical_names(labels, montage)
    order = {name: place for place, name in enumerate(montage.channels)}
    picks = sorted((place for place, name in enumerate(names) if name is not None), key=lambda p: order[str(names[p])])
    if not picks:
        raise DataError(
            f"{path} has no channel that montage {montage.name} knows (found {', '.join(labels[:5])}"
            f"{', ...' if len(labels) > 5 else ''}); choose another montage or take the file out of the data set."
        )
    eeg = np.empty((len(picks), raw.n_times), dtype=np.float32)
    step = max(1, round(BLOCK_S * raw.info["sfreq"]))
    for start in range(0, raw.n_times, step):
        stop = min(start + step, raw.n_times)
        eeg[:, start:stop] = raw.get_data(picks, start, stop) * MICROVOLTS_PER_VOLT
    dropped = [label for label, name in zip(labels, names, strict=True) if name is None]
    findings = []
    if dropped:
        detail = (
            f"{len(dropped)} of {len(labels)} channels are no electrodes and were dropped: {', '.join(dropped[:8])}"
        )
        findings.append(Finding("no-electrode", "repaired", key, detail))
    channels = tuple(str(names[pick]) for pick in picks)
    return Recording(eeg, channels, float(raw.info["sfreq"]), reference, findings)


def _check_samples(recording: Recording, path: Path) -> None:
    eeg = recording.eeg
    if eeg.shape[1] == 0:
        raise DataError(f"{path} holds no sample; take it out of the data set.")
    sums = eeg.sum(axis=1, dtype=np.float64)  # (C,)
    broken = [name for name, value in zip(recording.channels, sums, strict=True) if not np.isfinite(value)]
    if broken:
        raise DataError(
            f"{path} holds NaN or infinite samples in channel {', '.join(broken[:5])}"
            f"{f' and {len(broken) - 5} more' if len(broken) > 5 else ''}; mend the file or take it out."
        )


def _first_line(message: object) -> str:
    lines = str(message).strip().splitlines()
    return lines[0] if lines else "no message"
