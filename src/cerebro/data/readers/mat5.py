"""Structure of an EEGLAB ``.set`` file (MATLAB level 5), walked without trusting a single number in it.

scipy's reader believes the sizes that a file announces; a damaged one makes it crash, hang, or give other data without
a word. Here every element must lie inside its parent, every array must have the bytes that its dimensions ask for, and
the rows of ``EEG`` that state a size must agree with the data. Layout: MathWorks, "MAT-File Format", R2024b.
"""

import math
import mmap
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from cerebro.errors import DataError

HEADER_BYTES = 128
DEEPEST = 12  # structures within structures; EEGLAB has four
RATE_TOLERANCE = 0.01  # relative, between srate and the duration that xmin and xmax give
SAMPLE_BYTES = 4  # an .fdt holds float32
_MI_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # type -> bytes
_MI_FORMAT = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_MI_MATRIX, _MI_COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _NUMBERS, _OTHER = 1, 2, 3, 4, 5, range(6, 16), (16, 17)
_MOST_COMPRESSED = 1032  # zlib's largest ratio


class _Damage(Exception):
    """What contradicts itself, in a few words."""


@dataclass
class _Array:
    """One array: its name, class, dimensions, the number where it is one, and the fields where it is a structure."""

    name: str
    kind: int
    dims: tuple[int, ...]
    value: float = math.nan
    fields: dict[str, "_Array"] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return math.prod(self.dims)


def check_eeglab(path: Path) -> None:
    """Raise DataError if a ``.set`` file, or the ``.fdt`` beside it, contradicts itself.

    Files of level 7.3 (HDF5) are left to their reader.

    Raises
    ------
    DataError
        In one line that names the file and the field: truncated or longer than its elements, an element larger than
        what holds it, dimensions without their bytes, ``nbchan``, ``pnts``, ``trials``, ``srate`` or ``chanlocs``
        against the data, ``srate`` against ``xmax``.
    """
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
        if head[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):  # level 7.3
            return
        if head[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise DataError(f"{path} is no MATLAB file of level 5 or 7.3; replace it by a whole copy.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                arrays = _Walker(content, "<" if head[126:128] == b"IM" else ">").file()
                eeg = arrays["EEG"].fields if "EEG" in arrays else arrays
                _check_fields(eeg, path)
            except _Damage as damage:
                raise DataError(
                    f"{path} contradicts itself: {damage}; replace it by a whole copy or take it out of the data set."
                ) from None


class _Walker:
    """A cursor over the elements of a file."""

    def __init__(self, content: mmap.mmap | bytes, order: str) -> None:
        self.content = content
        self.order = order

    def file(self) -> dict[str, _Array]:
        """Arrays of the file, by name."""
        arrays: dict[str, _Array] = {}
        at, end = HEADER_BYTES, len(self.content)
        while at < end:
            kind, first, last, after = self.element(at, end, "the file")
            if kind == _MI_COMPRESSED:
                inner = _Walker(_decompressed(self.content[first:last], self.order), self.order)
                kind, first, last, _ = inner.element(0, len(inner.content), "a compressed array")
            else:
                inner = self
            if kind == _MI_MATRIX:
                array = inner.matrix(first, last, "the file", 0)
                if array.name and array.name in arrays:
                    raise _Damage(f"two arrays are named {array.name}")
                arrays[array.name] = array
            at = after
        return arrays

    def element(self, at: int, end: int, where: str) -> tuple[int, int, int, int]:
        """Type, first and last byte of the element at ``at``, and where the next begins."""
        if at + 8 > end:
            raise _Damage(f"{where} ends within an element")
        kind, n_bytes = struct.unpack_from(self.order + "II", self.content, at)
        if kind >> 16:  # a small element: size and type in four bytes, then the data
            kind, n_bytes, first, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if n_bytes > 4:
                raise _Damage(f"a small element of {where} announces {n_bytes} bytes")
        else:
            first = at + 8
            after = first + n_bytes if kind == _MI_COMPRESSED else first + -(-n_bytes // 8) * 8
        if kind not in _MI_BYTES and kind not in (_MI_MATRIX, _MI_COMPRESSED):
            raise _Damage(f"{where} holds an element of unknown type {kind}")
        if first + n_bytes > end or after > -(-end // 8) * 8:
            raise _Damage(f"{where} announces an element of {n_bytes:,} bytes and has {max(end - first, 0):,}")
        return kind, first, first + n_bytes, after

    def matrix(self, at: int, end: int, where: str, depth: int) -> _Array:
        """The array whose parts lie from ``at`` to ``end``."""
        if at == end:
            return _Array("", 6, (0, 0))
        if depth > DEEPEST:
            raise _Damage(f"{where} holds structures more than {DEEPEST} deep")
        _, first, last, at = self.element(at, end, where)
        if last - first < 4:
            raise _Damage(f"an array of {where} has no class")
        kind = self.content[first] if self.order == "<" else self.content[first + 3]
        flags = self.content[first + 1] if self.order == "<" else self.content[first + 2]
        if kind in _OTHER:
            return _Array("", kind, ())
        mi, first, last, at = self.element(at, end, where)
        if mi not in (5, 6) or (last - first) % 4 or last - first < 8:
            raise _Damage(f"an array of {where} has no dimensions")
        dims = struct.unpack_from(f"{self.order}{(last - first) // 4}i", self.content, first)
        mi, first, last, at = self.element(at, end, where)
        name = self.content[first:last].decode("latin-1")
        array = _Array(name, kind, dims)
        where = f"{where} / {name}" if name else where
        if min(dims) < 0 or (kind != _SPARSE and array.n > end):
            raise _Damage(f"{where} announces dimensions {' x '.join(map(str, dims))}")
        if kind in (_STRUCT, _OBJECT):
            self.structure(array, at, end, where, depth)
        elif kind == _CELL:
            for _ in range(array.n):
                mi, first, last, at = self.element(at, end, where)
                self.part(mi, first, last, where, depth)
        elif kind == _CHAR or kind in _NUMBERS:
            for _ in range(2 if flags & 0x08 else 1):  # real, imaginary
                at = self.values(array, at, end, where)
        elif kind != _SPARSE:
            raise _Damage(f"{where} has the unknown class {kind}")
        return array

    def structure(self, array: _Array, at: int, end: int, where: str, depth: int) -> None:
        """Read the fields of a structure; of an array of structures the last one's stay."""
        if array.kind == _OBJECT:
            _, _, _, at = self.element(at, end, where)
        mi, first, last, at = self.element(at, end, where)
        length = struct.unpack_from(self.order + "i", self.content, first)[0] if last - first == 4 else 0
        mi, first, last, at = self.element(at, end, where)
        if length <= 0 or (last - first) % length:
            raise _Damage(f"{where} has field names of length {length} in {last - first} bytes")
        names = [self.content[n : n + length].split(b"\0")[0].decode("latin-1") for n in range(first, last, length)]
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
            raise _Damage(f"{where} has damaged field names")
        for _ in range(array.n):
            for name in names:
                mi, first, last, at = self.element(at, end, f"{where} / {name}")
                array.fields[name] = self.part(mi, first, last, f"{where} / {name}", depth)

    def part(self, mi: int, first: int, last: int, where: str, depth: int) -> _Array:
        """An array within another."""
        if mi != _MI_MATRIX:
            raise _Damage(f"{where} is no array")
        return self.matrix(first, last, where, depth + 1)

    def values(self, array: _Array, at: int, end: int, where: str) -> int:
        """Check that an array of numbers or characters has its bytes; keep the number where it is a single one."""
        if array.n == 0 and at >= end:
            return at
        mi, first, last, after = self.element(at, end, where)
        is_utf8 = mi == 16 and array.kind == _CHAR  # takes as many bytes as it needs
        if not is_utf8 and (mi not in _MI_BYTES or last - first != array.n * _MI_BYTES[mi]):
            shape = " x ".join(map(str, array.dims))
            raise _Damage(f"{where} is {shape} and has {last - first:,} bytes of type {mi}")
        if array.n == 1 and array.kind in _NUMBERS and mi in _MI_FORMAT:
            array.value = float(struct.unpack_from(self.order + _MI_FORMAT[mi], self.content, first)[0])
        return after


def _decompressed(content: bytes, order: str) -> bytes:
    """Bytes of a compressed array; zlib's own checksum is verified."""
    stream = zlib.decompressobj()
    try:
        start = stream.decompress(content, 8)
        announced = struct.unpack(order + "II", start)[1] if len(start) == 8 else 0
        if announced > _MOST_COMPRESSED * len(content):
            raise _Damage(f"a compressed array of {len(content):,} bytes announces {announced:,}")
        rest = stream.decompress(stream.unconsumed_tail) + stream.flush()
    except zlib.error as error:
        raise _Damage(f"a compressed array is damaged ({error})") from None
    if not stream.eof:
        raise _Damage("a compressed array is truncated")
    return start + rest


def _check_fields(eeg: dict[str, _Array], path: Path) -> None:
    for name in ("nbchan", "pnts", "srate", "data"):
        if name not in eeg:
            raise _Damage(f"EEG has no field {name}")
    n_channels, n_times, srate = (eeg[name].value for name in ("nbchan", "pnts", "srate"))
    n_trials = eeg["trials"].value if "trials" in eeg else 1.0
    for name, value in (("nbchan", n_channels), ("pnts", n_times), ("trials", n_trials)):
        if not (math.isfinite(value) and value > 0 and value == round(value)):
            raise _Damage(f"EEG.{name} is {value:g}")
    if not (math.isfinite(srate) and srate > 0):
        raise _Damage(f"EEG.srate is {srate:g} Hz")
    data, fdt = eeg["data"], path.with_suffix(".fdt")
    n_values = int(n_channels * n_times * n_trials)
    said = f"EEG.nbchan {n_channels:g}, pnts {n_times:g}, trials {n_trials:g}"
    if data.kind in _NUMBERS:
        if data.dims[0] != n_channels or data.n != n_values:
            raise _Damage(f"{said}, but EEG.data is {' x '.join(map(str, data.dims))}")
    elif data.kind == _CHAR and fdt.is_file():
        if fdt.stat().st_size != n_values * SAMPLE_BYTES:
            raise _Damage(f"{said}, but {fdt.name} has {fdt.stat().st_size:,} bytes instead of {n_values * 4:,}")
    elif data.kind != _CHAR:
        raise _Damage(f"EEG.data is neither numbers nor the name of a file (class {data.kind})")
    located = eeg["chanlocs"].n if "chanlocs" in eeg else 0
    if located not in (0, n_channels):
        raise _Damage(f"EEG.nbchan is {n_channels:g}, but chanlocs names {located} channels")
    xmin, xmax = (eeg[name].value if name in eeg else math.nan for name in ("xmin", "xmax"))
    if n_trials == 1 and n_times > 1 and xmax > xmin:  # False where one is unknown
        implied = (n_times - 1) / (xmax - xmin)
        if not abs(implied / srate - 1) <= RATE_TOLERANCE:
            raise _Damage(f"EEG.srate is {srate:g} Hz, but xmin, xmax and pnts give {implied:g} Hz")
