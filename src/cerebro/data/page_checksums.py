"""CRC-32C of many pages at once: by the processor's own instruction where it pays, else by google-crc32c."""

import os
import platform
import sys
from collections.abc import Sequence
from functools import cache

import google_crc32c
import numpy as np
import numpy.typing as npt

PAGE = 4096  # bytes under one checksum
FEWEST_PAGES = 512  # below, importing the kernel costs more than it saves
_KERNEL = "cerebro.data.checksum_kernel"
# Machine -> name of the instruction in LLVM, and the feature of the processor that it needs.
INSTRUCTIONS = {
    "x86_64": ("llvm.x86.sse42.crc32.64.64", "sse4.2"),
    "aarch64": ("llvm.aarch64.crc32cx", "crc"),
    "arm64": ("llvm.aarch64.crc32cx", "crc"),
}


class Pages:
    """Pages of several mapped shards.

    Parameters
    ----------
    shards : sequence of int16 (L,)
        Contiguous; they stay where they are in memory.
    """

    def __init__(self, shards: Sequence[npt.NDArray[np.int16]]) -> None:
        self._bytes = [shard.view(np.uint8) for shard in shards]
        self._address = np.array([shard.ctypes.data for shard in shards], np.int64)
        self._last = np.array([len(shard) - PAGE for shard in self._bytes], np.int64)

    def checksums(self, shard: npt.NDArray[np.int64], start: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """CRC-32C (n,) of the pages of 4,096 bytes that begin at byte ``start`` (n,) of ``shard`` (n,).

        RFC 3720, appendix B.4.

        Raises
        ------
        IndexError
            If a page lies outside its shard.
        """
        if ((start < 0) | (start > self._last[shard])).any():
            raise IndexError(f"a page lies outside its shard of {self._last[shard].min() + PAGE:,} bytes or more")
        if (len(start) < FEWEST_PAGES and _KERNEL not in sys.modules) or not has_instruction():
            places = zip(shard.tolist(), start.tolist(), strict=True)
            return np.array([google_crc32c.value(self._bytes[one][at : at + PAGE]) for one, at in places], np.uint32)
        from cerebro.data.checksum_kernel import checksums_at

        out = np.empty(len(start), np.uint32)
        checksums_at(self._address[shard] + start, out)
        return out


@cache
def has_instruction() -> bool:
    """Whether this processor has the instruction, and numba compiles for this processor."""
    from llvmlite import binding

    _, feature = INSTRUCTIONS.get(platform.machine(), ("", ""))
    return bool(feature and binding.get_host_cpu_features().get(feature)) and "NUMBA_CPU_NAME" not in os.environ
