"""One signal file, of any format that MNE-Python reads, as float32 microvolts on the electrodes of a montage."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cerebro.data.readers.base import Finding, Recording
from cerebro.data.readers.header_checks import EDF_SAMPLE_BYTES, check_brainvision, check_edf, check_fif
from cerebro.data.readers.mat5 import check_eeglab
from cerebro.data.tables import read_table
from cerebro.dsp.units import to_microvolts
from cerebro.errors import DataError
from cerebro.montage import Montage, canonical_names

BLOCK_S = 60.0  # seconds in float64 at a time, so that a long recording never stands in memory twice
MOST_AMPLIFIER_UV = 1e7  # 10 V, 25 times the input range of any amplifier of EEG: a damaged number
MOST_UV = 1e15  # raw counts of 32 bits taken for volts stay below, and get a message of their own in preprocessing
HIGHEST_SFREQ = 100_000.0  # Hz; no amplifier of EEG is faster
_ANNEX_POINTER = b"/annex/objects/"


def read_signal(path: Path, montage: Montage, reference: str, key: str) -> Recording:
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

    Raises
    ------
    DataError
        In one line: no file, no recording, header and size disagree, no known channel, two labels of one electrode,
        NaN or infinite samples. Constant channels and wrong units are met in preprocessing, for every reader alike.
    """
    if not path.exists():
        raise DataError(f"signal file {path} does not exist; fetch it or take it out of the data set.")
    _check_whole(path, montage)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            raw = _open(path)
            recording = _to_microvolts(raw, path, montage, reference, key)
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
    recording.findings += _compare_names([str(label) for label in raw.ch_names], path, montage, key)
    return recording


def electrode_names(path: Path, montage: Montage) -> tuple[str, ...]:
    """Electrodes of a recording in the montage's order and spelling, from its header; no sample is read.

    Raises
    ------
    DataError
        In one line, as `read_signal`, for what a header shows.
    """
    if not path.exists():
        raise DataError(f"signal file {path} does not exist; fetch it or take it out of the data set.")
    _check_whole(path, montage)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = [str(label) for label in _open(path).ch_names]
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as above
        raise DataError(
            f"{path} cannot be read as a recording ({type(error).__name__}: {_first_line(error)}); replace it by "
            "a whole copy or take it out of the data set."
        ) from None
    found = {name for name in canonical_names(labels, montage) if name is not None}
    return tuple(name for name in montage.channels if name in found)


def _check_whole(path: Path, montage: Montage) -> None:
    """Raise DataError for what a header says against itself or the size of its file, before a parser believes it."""
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty, so it has no {suffix[1:].upper()} header; replace it by a whole copy.")
    with open(path, "rb") as file:
        if file.read(len(_ANNEX_POINTER)) == _ANNEX_POINTER:
            raise DataError(f"{path} is a git-annex pointer without its content; run `datalad get {path.name}`.")
    if suffix in EDF_SAMPLE_BYTES:
        check_edf(path, montage)
    elif suffix == ".set":
        check_eeglab(path)
    elif suffix == ".vhdr":
        check_brainvision(path)
    elif suffix == ".fif":
        check_fif(path)


def _open(path: Path) -> Any:
    import mne  # imported here because it takes a second

    if path.suffix.lower() == ".set":
        return mne.io.read_raw_eeglab(path, preload=False, verbose="error")
    return mne.io.read_raw(path, preload=False, verbose="error")


def _to_microvolts(raw: Any, path: Path, montage: Montage, reference: str, key: str) -> Recording:
    labels = [str(label) for label in raw.ch_names]
    sfreq = float(raw.info["sfreq"])
    if not 0 < sfreq <= HIGHEST_SFREQ:  # NaN too
        raise DataError(f"{path} has a rate of {sfreq:g} Hz, which no EEG has; replace it by a whole copy.")
    names = canonical_names(labels, montage)
    order = {name: place for place, name in enumerate(montage.channels)}
    picks = sorted((place for place, name in enumerate(names) if name is not None), key=lambda p: order[str(names[p])])
    if not picks:
        raise DataError(
            f"{path} has no channel that montage {montage.name} knows (found {', '.join(labels[:5])}"
            f"{', ...' if len(labels) > 5 else ''}); choose another montage or take the file out of the data set."
        )
    eeg = np.empty((len(picks), raw.n_times), dtype=np.float32)
    step = max(1, round(BLOCK_S * sfreq))
    for start in range(0, raw.n_times, step):
        stop = min(start + step, raw.n_times)
        to_microvolts(raw.get_data(picks, start, stop), eeg[:, start:stop])
    dropped = [label for label, name in zip(labels, names, strict=True) if name is None]
    findings = []
    if dropped:
        detail = (
            f"{len(dropped)} of {len(labels)} channels are no electrodes and were dropped: {', '.join(dropped[:8])}"
        )
        findings.append(Finding("no-electrode", "repaired", key, detail))
    channels = tuple(str(names[pick]) for pick in picks)
    return Recording(eeg, channels, sfreq, reference, findings)


def _check_samples(recording: Recording, path: Path) -> None:
    eeg = recording.eeg
    if eeg.shape[1] == 0:
        raise DataError(f"{path} holds no sample; take it out of the data set.")
    with np.errstate(over="ignore", invalid="ignore"):
        sums = eeg.sum(axis=1, dtype=np.float64)  # (C,)
    broken = [name for name, value in zip(recording.channels, sums, strict=True) if not np.isfinite(value)]
    if broken:
        raise DataError(
            f"{path} holds NaN or infinite samples in channel {', '.join(broken[:5])}"
            f"{f' and {len(broken) - 5} more' if len(broken) > 5 else ''}; mend the file or take it out."
        )
    peak = np.maximum(eeg.max(axis=1), -eeg.min(axis=1))  # (C,)
    most = MOST_AMPLIFIER_UV if np.median(peak) <= MOST_AMPLIFIER_UV else MOST_UV
    if peak.max() > most:
        channel = int(peak.argmax())
        at_s = float(np.abs(eeg[channel]).argmax()) / recording.sfreq
        raise DataError(
            f"{path} reaches {peak[channel]:.2g} microvolts in channel {recording.channels[channel]} at {at_s:.3f} s, "
            f"and {np.median(peak):.2g} in the median channel: a damaged number; replace the file by a whole copy."
        )


def _compare_names(labels: list[str], path: Path, montage: Montage, key: str) -> list[Finding]:
    """What a BIDS ``*_channels.tsv`` beside the signal says against the signal's own labels, which are used.

    Two labels of one electrode (``EEG Fz`` and ``Fz``) agree. Which of two contradicting lists is right cannot be
    known here.
    """
    table_path = path.with_name(path.stem.removesuffix("_eeg") + "_channels.tsv")
    if not table_path.is_file():
        return []
    table = read_table(table_path)
    if "name" not in table.columns:
        raise DataError(f"{table_path} has no column name (found {', '.join(table.columns)}); mend it.")
    own, said = _comparable(labels, montage), _comparable(table.column("name"), montage)
    absent = [name for name in said if name not in own]
    unlisted = [name for name in own if name not in said]
    if absent or unlisted:
        detail = f"in {table_path.name} and not in the signal: {_few(absent)}; the other way round: {_few(unlisted)}"
        return [Finding("channel-names-differ", "repaired", key, detail)]
    swapped = [f"{a} for {b}" for a, b in zip(own, said, strict=True) if a != b] if len(own) == len(said) else []
    if swapped:
        detail = f"{len(swapped)} names stand elsewhere than in {table_path.name}: {_few(swapped)}"
        return [Finding("channel-names-swapped", "repaired", key, detail)]
    return []


def _comparable(labels: list[str], montage: Montage) -> list[str]:
    return [name or label.strip() for name, label in zip(canonical_names(labels, montage), labels, strict=True)]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _first_line(message: object) -> str:
    lines = str(message).strip().splitlines()
    return lines[0] if lines else "no message"
