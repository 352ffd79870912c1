"""Headers that contradict themselves or the size of their file: EDF, BDF, BrainVision and FIF, before MNE opens them.

MNE reads many damaged files as other data without a word, and some ask for more memory than there is.
"""

import math
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from cerebro.data.source_files import data_files
from cerebro.errors import DataError
from cerebro.montage import Montage, canonical_names

EDF_SAMPLE_BYTES = {".edf": 2, ".bdf": 3}
_EDF_UNITS = frozenset({"uV", "µV", "μV", "mV", "V"})  # whose scale MNE knows
_EDF_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # label, transducer, unit, physical, digital min and max, filter, n
_VHDR_BYTES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
_VHDR_MARK = re.compile(r"Brain ?Vision( Core)?( V-Amp)? Data( Exchange)? Header File,? Version \d", re.IGNORECASE)
_FIF_TAG = struct.Struct(">iiii")  # kind, type, bytes, position of the next
_FIF_FILE_ID, _FIF_NEXT_IS_BESIDE, _FIF_END = 100, 0, -1


def check_edf(path: Path, montage: Montage) -> None:
    """Raise DataError unless an EDF or BDF file's header is whole and its size is what the header announces.

    MNE reads a truncated file as a shorter recording without a word. Layout of the header: Kemp et al. 1992,
    doi:10.1016/0013-4694(92)90009-7. Names, dates and remarks are not judged.
    """
    _check_edf(path, lambda labels: canonical_names(labels, montage))


def check_edf_size(path: Path) -> None:
    """`check_edf` without a judgement on ranges and units of single signals."""
    _check_edf(path, lambda labels: (None,) * len(labels))


def _check_edf(path: Path, electrodes: Callable[[list[str]], Sequence[str | None]]) -> None:
    kind = path.suffix[1:].upper()
    size = path.stat().st_size
    with open(path, "rb") as file:
        fixed = file.read(256)
        version = fixed[:8]
        if version != (b"\xffBIOSEMI" if kind == "BDF" else b"0       "):
            raise DataError(f"{path} has no {kind} header; replace it by a whole copy or take it out of the data set.")
        header_bytes, n_records, n_signals = (
            _edf_number(path, name, fixed[a:b], whole=True)
            for name, a, b in (("header bytes", 184, 192), ("data records", 236, 244), ("signals", 252, 256))
        )
        record_s = _edf_number(path, "record duration", fixed[244:252])
        if header_bytes != 256 * (n_signals + 1) or n_signals < 1 or header_bytes > size:
            raise DataError(
                f"{path} announces {n_signals:g} signals and a header of {header_bytes:g} bytes in a file of {size:,}, "
                "which contradict each other; replace it by a whole copy."
            )
        rest = file.read(int(n_signals) * 256)
    if n_records < 0:
        raise DataError(f"{path} was never closed by its recorder (unknown number of records); save it again as EDF.")
    if n_records < 1 or record_s < 0:
        raise DataError(f"{path} announces {n_records:g} records of {record_s:g} s; replace it by a whole copy.")
    columns, at = [], 0
    for width in _EDF_FIELDS:
        columns.append([rest[at + i * width : at + (i + 1) * width] for i in range(int(n_signals))])
        at += width * int(n_signals)
    labels = [label.decode("latin-1").strip() for label in columns[0]]
    counts = []
    names = electrodes(labels)
    for i, label in enumerate(labels):
        values = [
            _edf_number(path, f"{name} of signal {label!r}", columns[place][i], whole=name == "samples a record")
            for name, place in (
                ("physical minimum", 3),
                ("physical maximum", 4),
                ("digital minimum", 5),
                ("digital maximum", 6),
                ("samples a record", 8),
            )
        ]
        low, high, least, most, count = values
        limit = 1 << (8 * EDF_SAMPLE_BYTES[path.suffix.lower()] - 1)
        is_scaled = low != high and -limit <= least < most < limit
        if count < 1 or (names[i] is not None and not is_scaled):
            raise DataError(
                f"{path} signal {label!r} has physical range {low:g} to {high:g}, digital range {least:g} to {most:g}, "
                f"{count:g} samples a record, which cannot be; replace it by a whole copy."
            )
        unit = columns[2][i].decode("latin-1").strip()
        if names[i] is not None and unit not in _EDF_UNITS:
            raise DataError(
                f"{path} signal {label!r} has the unit {unit!r}, whose size in microvolts is unknown; save it again in "
                "uV, or replace it by a whole copy."
            )
        counts.append(int(count))
    if record_s == 0 and any(name is not None for name in names):
        raise DataError(f"{path} announces records of 0 s; replace it by a whole copy.")
    expected = int(header_bytes) + int(n_records) * sum(counts) * EDF_SAMPLE_BYTES[path.suffix.lower()]
    if size != expected:
        state = "is truncated" if size < expected else "is longer than its header says"
        raise DataError(
            f"{path} {state}: {size:,} bytes where its header announces {expected:,}; replace it by a whole copy."
        )


def check_brainvision(path: Path) -> None:
    """Raise DataError unless a ``.vhdr`` is whole and its data file has the size that it announces."""
    text = path.read_bytes().decode("latin-1")  # ASCII but for names and units
    if not _VHDR_MARK.match(text.removeprefix("ï»¿")):
        raise DataError(f"{path} does not begin as a BrainVision header; replace it by a whole copy.")
    keys = _vhdr_keys(text, path)
    n_channels = _vhdr_number(keys, "NumberOfChannels", path, whole=True)
    _vhdr_number(keys, "SamplingInterval", path)
    numbered = sorted(int(name[2:]) for name in keys if re.fullmatch(r"Ch\d{1,6}", name))
    if n_channels != len(numbered) or numbered != list(range(1, len(numbered) + 1)):
        raise DataError(
            f"{path} announces NumberOfChannels={n_channels:g} and names {len(numbered)} channels; replace it by a "
            "whole copy."
        )
    for number in range(1, int(n_channels) + 1):
        cells = keys[f"Ch{number}"].split(",")
        if len(cells) > 2 and cells[2].strip():
            _number_or_error(cells[2], f"resolution of channel {cells[0]!r}", path)
    form = keys.get("DataFormat", "BINARY").upper()
    orientation = keys.get("DataOrientation", "MULTIPLEXED").upper()
    if form not in ("BINARY", "ASCII") or orientation not in ("MULTIPLEXED", "VECTORIZED"):
        raise DataError(f"{path} has DataFormat={form}, DataOrientation={orientation}; replace it by a whole copy.")
    if form == "ASCII":
        return
    sample_bytes = _VHDR_BYTES.get(keys.get("BinaryFormat", "INT_16").upper())
    if sample_bytes is None:
        raise DataError(f"{path} has the unknown BinaryFormat={keys['BinaryFormat']}; replace it by a whole copy.")
    if "DataFile" not in keys:
        raise DataError(f"{path} names no DataFile; replace it by a whole copy.")
    data = path.with_name(Path(keys["DataFile"].replace("$b", path.stem)).name)
    if data not in data_files(path):
        raise DataError(f"{path} names the data file {data.name!r}, which is not there; fetch it, or mend DataFile=.")
    size, frame = data.stat().st_size, int(n_channels) * sample_bytes
    n_points = _vhdr_number(keys, "DataPoints", path, whole=True) if "DataPoints" in keys else size // frame
    if size == 0 or size != n_points * frame:
        raise DataError(
            f"{data} has {size:,} bytes, which is not {n_points:,.0f} samples of {n_channels:g} channels in "
            f"{sample_bytes} bytes as {path.name} announces; replace both by whole copies."
        )


def check_fif(path: Path) -> None:
    """Raise DataError unless a ``.fif`` file is a whole chain of tags that ends where the file ends."""
    size = path.stat().st_size
    position, n_bytes_seen, n_tags = 0, 0, 0
    with open(path, "rb") as file:
        while position != _FIF_END:
            file.seek(position)
            head = file.read(_FIF_TAG.size)
            if len(head) < _FIF_TAG.size:
                raise _no_chain(path, f"tag {n_tags} at byte {position:,} lies beyond its end")
            kind, _, n_bytes, following = _FIF_TAG.unpack(head)
            end = position + _FIF_TAG.size + n_bytes
            if n_bytes < 0 or end > size:
                raise _no_chain(path, f"tag {n_tags} announces {n_bytes:,} bytes at byte {position:,} of {size:,}")
            if n_tags == 0 and kind != _FIF_FILE_ID:
                raise _no_chain(path, "it does not begin with a file id")
            n_bytes_seen += end - position
            n_tags += 1
            if following > 0 and following <= position:
                raise _no_chain(path, f"tag {n_tags - 1} leads back to byte {following:,}")
            if following < _FIF_END:
                raise _no_chain(path, f"tag {n_tags - 1} leads to byte {following:,}")
            last_end = end
            position = end if following == _FIF_NEXT_IS_BESIDE else following
            if position == size:
                break
    if last_end != size:
        raise _no_chain(path, f"its tags end at byte {last_end:,} of {size:,}")


def _no_chain(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read as a recording: {why}; replace it by a whole FIF file.")


def _edf_number(path: Path, name: str, cell: bytes, whole: bool = False) -> float:
    text = cell.rstrip(b"\0").decode("latin-1").strip()
    if not whole:
        text = text.replace(",", ".", 1)  # as programs write it where the comma is the decimal sign; MNE reads it too
    if not re.fullmatch(r"[+-]?\d+" if whole else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        kind = path.suffix[1:].upper()
        raise DataError(f"{path} has no {kind} header: its field {name} is {text!r}; replace it by a whole copy.")
    return float(text)


def _vhdr_keys(text: str, path: Path) -> dict[str, str]:
    """Keys of the sections that describe the data; comments and other sections are left out."""
    keys: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line.lower()
        elif section in ("[common infos]", "[binary infos]", "[channel infos]") and not line.startswith(";"):
            name, equals, value = line.partition("=")
            if equals and keys.setdefault(name.strip(), value.strip()) != value.strip():
                raise DataError(f"{path} gives {name.strip()} twice; mend the header or replace it.")
    return keys


def _vhdr_number(keys: dict[str, str], name: str, path: Path, whole: bool = False) -> float:
    if name not in keys:
        raise DataError(f"{path} has no key {name}; replace it by a whole copy.")
    value = _number_or_error(keys[name], name, path)
    if not value > 0 or (whole and value != round(value)):
        raise DataError(f"{path} has {name}={value:g}; replace it by a whole copy.")
    return value


def _number_or_error(text: str, name: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path} has {name}={text!r}, expected a number; replace it by a whole copy.")
    return value
