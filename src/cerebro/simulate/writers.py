"""Write recordings as EEGLAB ``.set``, BioSemi ``.bdf`` and ``.edf`` files: whole or absent, the same bytes every time.

EEGLAB: one MAT-file (level 5) that holds header and samples, as the originals of HBN-EEG do
(Shirazi et al. 2024, doi:10.1101/2024.10.03.615261). BDF: 24-bit integers, as the 100 Hz challenge copies are
(format: https://www.biosemi.com/faq/file_format.htm).
"""

import datetime
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import edfio
import numpy as np
import numpy.typing as npt
from scipy.io import savemat

from cerebro.errors import DataError
from cerebro.files import write_atomically

BDF_STEP_UV = 0.03125  # microvolts per count; a power of two, so that microvolts survive the scaling exactly
_BDF_COUNTS = 8_000_000  # used range of the 24 bits, chosen so that the header's eight digits hold it exactly
BDF_LIMIT_UV = _BDF_COUNTS * BDF_STEP_UV
EDF_LIMIT_UV = 3276.7  # 32,767 counts of 0.1 microvolt
_MAT_HEADER = b"MATLAB 5.0 MAT-file, written by cerebro"
_START = datetime.time(10, 0, 0)

Microvolts = npt.NDArray[np.float32]


def write_set(path: Path, eeg: Microvolts, channels: tuple[str, ...], sfreq: float) -> None:
    """Write one continuous recording as an EEGLAB file with its samples inside.

    Parameters
    ----------
    path : Path
        Name of the file, ending in ``.set``; its folder is made.
    eeg : float32 array, shape (C, T)
        Microvolts, finite; two samples or more (readers squeeze a single one away).
    channels : tuple of str
        Channel names, one per row.
    sfreq : float
        Sampling rate in Hz.

    Raises
    ------
    DataError
        If shapes disagree or a sample is not finite.
    """
    _check(path, eeg, channels)
    if eeg.shape[1] < 2:
        raise DataError(f"{path.name}: EEGLAB files need two samples or more; write a longer signal.")
    n_channels, n_times = eeg.shape
    locations = np.zeros(n_channels, dtype=[("labels", object), ("type", object)])
    locations["labels"] = list(channels)
    locations["type"] = ["EEG"] * n_channels
    header: dict[str, Any] = {
        "setname": path.stem,
        "filename": path.name,
        "nbchan": float(n_channels),
        "trials": 1.0,
        "pnts": float(n_times),
        "srate": float(sfreq),
        "xmin": 0.0,
        "xmax": (n_times - 1) / sfreq,
        "times": np.arange(n_times, dtype=np.float64)[None] * (1000.0 / sfreq),
        "data": np.ascontiguousarray(eeg, dtype=np.float32),
        "chanlocs": locations,
        "event": np.zeros((0, 0)),
        "epoch": np.zeros((0, 0)),
        "icawinv": np.zeros((0, 0)),
        "icasphere": np.zeros((0, 0)),
        "icaweights": np.zeros((0, 0)),
        "icaact": np.zeros((0, 0)),
        "ref": "Cz",
    }
    buffer = io.BytesIO()
    savemat(cast(Any, buffer), {"EEG": header}, format="5", oned_as="row")
    content = buffer.getbuffer()
    content[:116] = _MAT_HEADER.ljust(116)  # scipy writes the time of day there
    write_atomically(path, lambda file: _write_bytes(file, content))


def write_bdf(path: Path, eeg: Microvolts, channels: tuple[str, ...], sfreq: float) -> None:
    """Write one continuous recording as BDF, rounded to steps of 0.03125 microvolt.

    Parameters
    ----------
    path : Path
        Name of the file, ending in ``.bdf``; its folder is made.
    eeg : float32 array, shape (C, T)
        Microvolts, finite, within +-250,000.
    channels : tuple of str
        Channel names, one per row.
    sfreq : float
        Sampling rate in Hz, a whole number.

    Raises
    ------
    DataError
        If shapes disagree, the rate is no whole number, or a sample is not finite or too large.
    """
    _check(path, eeg, channels)
    if sfreq != round(sfreq):
        raise DataError(
            f"{path.name}: a rate of {sfreq:g} Hz does not fit BDF's records; give a whole number of hertz."
        )
    if eeg.size and float(np.abs(eeg).max()) > BDF_LIMIT_UV:
        raise DataError(
            f"{path.name}: samples reach {float(np.abs(eeg).max()):g} microvolts, BDF files here hold "
            f"+-{BDF_LIMIT_UV:g}; check the unit of the signal (microvolts are expected)."
        )
    record_s = math.gcd(eeg.shape[1], round(sfreq)) / sfreq
    signals = [
        edfio.BdfSignal(
            row.astype(np.float64),
            sfreq,
            label=name,
            physical_dimension="uV",
            physical_range=(-BDF_LIMIT_UV, BDF_LIMIT_UV),
            digital_range=(-_BDF_COUNTS, _BDF_COUNTS),
        )
        for row, name in zip(eeg, channels, strict=True)
    ]
    bdf = edfio.Bdf(signals, starttime=_START, data_record_duration=record_s)
    buffer = io.BytesIO()
    bdf.write(buffer)
    write_atomically(path, lambda file: _write_bytes(file, buffer.getbuffer()))


@dataclass(frozen=True)
class Trace:
    """One signal of an EDF file: its label, rate in Hz (a whole number) and samples, of whatever unit is named."""

    label: str
    sfreq: int
    values: Microvolts
    unit: str = "uV"


def write_edf(path: Path, traces: Sequence[Trace], patient: str, date: datetime.date, mark: str = "") -> None:
    """Write signals of any whole rates as EDF with records of one second, rounded to steps of 0.1.

    Parameters
    ----------
    path : Path
        Name of the file; its folder is made.
    traces : sequence of Trace
        Signals of one duration in whole seconds; values within +-3276.7.
    patient : str
        The header's patient field, 80 letters or fewer.
    date : datetime.date
        Day of the recording.
    mark : str
        What stands in the header's reserved field: ``EDF+D`` for a file with gaps.

    Raises
    ------
    DataError
        If durations disagree or a value is not finite or too large.
    """
    seconds = {len(trace.values) / trace.sfreq for trace in traces}
    if len(seconds) != 1 or min(seconds) != round(min(seconds)) or not min(seconds):
        raise DataError(f"{path.name}: signals last {sorted(seconds)} s; give one duration of whole seconds.")
    largest = float(np.max([np.abs(trace.values).max() for trace in traces]))  # NaN stays NaN
    if not largest <= EDF_LIMIT_UV:
        raise DataError(
            f"{path.name}: samples reach {largest:g}, EDF files here hold +-{EDF_LIMIT_UV:g}; check the unit of the "
            "signal (microvolts are expected)."
        )
    signals = [
        edfio.EdfSignal(
            trace.values.astype(np.float64),
            trace.sfreq,
            label=trace.label,
            physical_dimension=trace.unit,
            physical_range=(-EDF_LIMIT_UV, EDF_LIMIT_UV),
            digital_range=(-32767, 32767),
        )
        for trace in traces
    ]
    recording = edfio.Recording(startdate=date)
    edf = edfio.Edf(signals, recording=recording, starttime=_START, data_record_duration=1.0)
    buffer = io.BytesIO()
    edf.write(buffer)
    content = buffer.getbuffer()
    content[8:88] = patient.encode("ascii").ljust(80)
    if mark:
        content[192 : 192 + len(mark)] = mark.encode()
    write_atomically(path, lambda file: _write_bytes(file, content))


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    write_atomically(path, lambda file: _write_bytes(file, memoryview(text.encode())))


def _write_bytes(file: Any, content: memoryview) -> None:
    file.write(content)


def _check(path: Path, eeg: Microvolts, channels: tuple[str, ...]) -> None:
    if eeg.ndim != 2 or eeg.shape[0] != len(channels) or eeg.shape[1] == 0:
        raise DataError(
            f"{path.name}: a signal of shape {eeg.shape} came with {len(channels)} channel names; give (channels, "
            "samples) with one name per row and at least one sample."
        )
    if not np.isfinite(eeg).all():
        raise DataError(f"{path.name}: the signal holds NaN or infinity; give finite microvolts.")
