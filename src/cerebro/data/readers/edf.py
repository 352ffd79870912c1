"""EDF files without MNE-Python: their header, and chosen signals as float32 microvolts in one pass over the records.

Format: Kemp et al. 1992, doi:10.1016/0013-4694(92)90009-7, and EDF+, Kemp & Olivan 2003,
doi:10.1016/S1388-2457(03)00123-8. What the header says is checked before a sample is read; it has no checksum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from cerebro.data.readers.signal_file import check_edf_size
from cerebro.errors import DataError

FIXED_BYTES = 256
SIGNAL_BYTES = 256
BLOCK_BYTES = 8 << 20  # records read at a time
ANNOTATIONS = "EDF Annotations"
MICROVOLTS = {"nv": 1e-3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "mv": 1e3, "v": 1e6, "": 1.0}  # in lower case; "" is a guess


@dataclass(frozen=True)
class EdfSignal:
    """One signal as the header describes it.

    Parameters
    ----------
    label, unit : str
        As written, stripped; ``uV``, ``mV``, ``V`` or empty for EEG.
    physical, digital : (float, float)
        Smallest and largest value, in the unit and in counts.
    n_samples : int
        Samples in one record.
    start : int
        Place of its first sample within a record.
    """

    label: str
    unit: str
    physical: tuple[float, float]
    digital: tuple[float, float]
    n_samples: int
    start: int


@dataclass(frozen=True)
class EdfHeader:
    """What an EDF file says about itself.

    Parameters
    ----------
    path : Path
        The file.
    patient : str
        Patient field, such as ``aaaaaaaa M 01-JAN-1950 aaaaaaaa Age:51``.
    is_discontinuous : bool
        Whether it is marked EDF+D: there may be gaps between its records.
    n_records : int
        Records in the file.
    record_s : float
        Seconds of one record.
    signals : tuple of EdfSignal
        In file order, annotations among them.
    """

    path: Path
    patient: str
    is_discontinuous: bool
    n_records: int
    record_s: float
    signals: tuple[EdfSignal, ...]

    def sfreq(self, signal: EdfSignal) -> float:
        """Sampling rate of a signal, Hz."""
        return signal.n_samples / self.record_s


def read_patient(path: Path) -> str:
    """Patient field of a file's header; empty if the file is too short to have one.

    Raises
    ------
    DataError
        If the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return _text(file.read(88)[8:])
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}); fetch it or take it out.") from None


def read_header(path: Path) -> EdfHeader:
    """Read and check the header of an EDF file.

    Raises
    ------
    DataError
        In one line: no file, header and size disagree (`check_edf_size`), a field that is no number.
    """
    if not path.exists():
        raise DataError(f"signal file {path} does not exist; fetch it or take it out of the data set.")
    check_edf_size(path)
    with open(path, "rb") as file:
        fixed = file.read(FIXED_BYTES)
        n_signals = int(fixed[252:256])
        block = file.read(n_signals * SIGNAL_BYTES)

    offset = 0

    def fields(width: int) -> list[str]:
        nonlocal offset
        cells = [_text(block[offset + i * width : offset + (i + 1) * width]) for i in range(n_signals)]
        offset += n_signals * width
        return cells

    labels, _, units = fields(16), fields(80), fields(8)
    lowest, highest, least, most = fields(8), fields(8), fields(8), fields(8)
    _, counts = fields(80), [int(cell) for cell in fields(8)]
    starts = np.cumsum([0, *counts]).tolist()
    record_s = _number(fixed[244:252], path, "record duration")
    if record_s <= 0 or min(counts) < 0:
        raise DataError(f"{path} has records of {record_s:g} s; replace it by a whole copy or take it out.")
    signals = [
        EdfSignal(
            label=labels[i],
            unit=units[i],
            physical=(_number(lowest[i], path, "physical minimum"), _number(highest[i], path, "physical maximum")),
            digital=(_number(least[i], path, "digital minimum"), _number(most[i], path, "digital maximum")),
            n_samples=counts[i],
            start=starts[i],
        )
        for i in range(n_signals)
    ]
    return EdfHeader(
        path=path,
        patient=_text(fixed[8:88]),
        is_discontinuous=fixed[192:197] == b"EDF+D",
        n_records=int(fixed[236:244]),
        record_s=record_s,
        signals=tuple(signals),
    )


def read_microvolts(header: EdfHeader, picks: Sequence[int]) -> Float32[ndarray, "C T"]:
    """Read some signals of equal rate as microvolts, in the order of ``picks``.

    A unit that is empty counts as microvolts; the caller says so.

    Raises
    ------
    DataError
        If a signal's range is empty, its unit no voltage, or the file ends early.
    """
    chosen = [header.signals[pick] for pick in picks]
    scales = [_scale(signal, header.path) for signal in chosen]
    n_samples = chosen[0].n_samples
    width = sum(signal.n_samples for signal in header.signals)
    eeg = np.empty((len(chosen), header.n_records * n_samples), np.float32)
    n_at_once = max(1, BLOCK_BYTES // (2 * width))
    with open(header.path, "rb") as file:
        file.seek(FIXED_BYTES + len(header.signals) * SIGNAL_BYTES)
        for first in range(0, header.n_records, n_at_once):
            n = min(n_at_once, header.n_records - first)
            records = np.fromfile(file, "<i2", n * width)
            if records.size != n * width:
                raise DataError(f"{header.path} ends early; replace it by a whole copy.")
            records = records.reshape(n, width)
            for row, signal, (factor, shift) in zip(eeg, chosen, scales, strict=True):
                part = row[first * n_samples : (first + n) * n_samples].reshape(n, n_samples)
                np.multiply(records[:, signal.start : signal.start + n_samples], factor, out=part)
                part += shift
    return eeg


def microvolts_per(unit: str) -> float | None:
    """Microvolts in one of a unit; None if it is no voltage. Empty counts as microvolts."""
    return MICROVOLTS.get(unit.lower())


def _scale(signal: EdfSignal, path: Path) -> tuple[np.float32, np.float32]:
    """Factor and shift that turn counts into microvolts."""
    unit = microvolts_per(signal.unit)
    if unit is None:
        raise DataError(
            f"{path} channel {signal.label} has unit {signal.unit!r}, expected uV, mV or V; mend the header."
        )
    (low, high), (least, most) = signal.physical, signal.digital
    if low == high or not least < most:
        raise DataError(
            f"{path} channel {signal.label} spans {low:g} to {high:g} {signal.unit} over the counts {least:g} to "
            f"{most:g}, an empty range; replace the file by a whole copy."
        )
    factor = unit * (high - low) / (most - least)
    return np.float32(factor), np.float32(unit * low - factor * least)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _number(cell: str | bytes, path: Path, what: str) -> float:
    text = cell if isinstance(cell, str) else _text(cell)
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path} has {what} {text!r} in its header, expected a number; replace it by a whole copy.")
    return value
