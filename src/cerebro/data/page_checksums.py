"""CRC-32C of many pages at once: by the processor's own instruction where it pays, else by google-crc32c."""

import os
import platform
from functools import cache

import google_crc32c
import numpy as np
import numpy.typing as npt

PAGE = 4096  # bytes under one checksum
FEWEST_PAGES = 512  # below, importing the kernel costs more than it saves
# Machine -> name of the instruction in LLVM, and the feature of the processor that it needs.
INSTRUCTIONS = {
    "x86_64": ("llvm.x86.sse42.crc32.64.64", "sse4.2"),
    "aarch64": ("llvm.aarch64.crc32cx", "crc"),
    "arm64": ("llvm.aarch64.crc32cx", "crc"),
}


def page_checksums(flat: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """CRC-32C (n,) of the pages of 4,096 bytes that begin at ``starts`` (n,) in ``flat`` (RFC 3720, appendix B.4).

    Parameters
    ----------
    flat : uint8 (L,)
        Contiguous bytes, such as a mapped shard.
    starts : int64 (n,)
        First byte of each page.

    Raises
    ------
    IndexError
        If a page lies outside ``flat``.
    """
    if len(starts) and not 0 <= starts.min() <= starts.max() <= len(flat) - PAGE:
        raise IndexError(f"a page lies outside {len(flat):,} bytes")
    if len(starts) < FEWEST_PAGES or not has_instruction():
        return np.array([google_crc32c.value(flat[at : at + PAGE]) for at in starts.tolist()], np.uint32)
    from cerebro.data.checksum_kernel import checksums_at

    out = np.empty(len(starts), np.uint32)
    checksums_at(flat.ctypes.data + np.ascontiguousarray(starts), out)
    return out


@cache
def has_instruction() -> bool:
    """Whether this processor has the instruction, and numba compiles for this processor."""
    from llvmlite import binding

    _, feature = INSTRUCTIONS.get(platform.machine(), ("", ""))
    return bool(feature and binding.get_host_cpu_features().get(feature)) and "NUMBA_CPU_NAME" not in os.environ
