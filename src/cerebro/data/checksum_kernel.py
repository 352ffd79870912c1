"""CRC-32C of pages anywhere in memory by the processor's instruction, four pages side by side.

The instruction takes eight bytes and has its result three cycles later, so that one page alone would leave it idle most
of the time. Import this module only where `cerebro.data.page_checksums.has_instruction` says so.
"""

import platform
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cerebro.compiled import compiled
from cerebro.data.page_checksums import INSTRUCTIONS, PAGE

_WORDS = PAGE // 8
_NAME = INSTRUCTIONS[platform.machine()][0]
_BITS = 64 if "x86" in _NAME else 32  # of the running checksum


@intrinsic
def _add_word(typing_context: Any, checksum: Any, address: Any) -> Any:
    """Running checksum after the eight bytes at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, running = ir.IntType(64), ir.IntType(_BITS)
        value = builder.load(builder.inttoptr(arguments[1], word.as_pointer()), align=1)
        instruction = builder.module.declare_intrinsic(_NAME, fnty=ir.FunctionType(running, [running, word]))
        before = arguments[0] if _BITS == 64 else builder.trunc(arguments[0], running)
        after = builder.call(instruction, [before, value])
        return after if _BITS == 64 else builder.zext(after, word)

    return types.uint64(types.uint64, types.intp), generate


@compiled
@no_type_check
def checksums_at(addresses: Any, out: Any) -> None:
    """Fill ``out``, uint32 (n,), with the checksums of the pages at ``addresses``, int64 (n,)."""
    ones = 0xFFFFFFFF
    n = len(addresses)
    for first in range(0, n, 4):
        a = addresses[first]
        b = addresses[min(first + 1, n - 1)]
        c = addresses[min(first + 2, n - 1)]
        d = addresses[min(first + 3, n - 1)]
        crc_a = crc_b = crc_c = crc_d = types.uint64(ones)
        for word in range(_WORDS):
            crc_a = _add_word(crc_a, a + 8 * word)
            crc_b = _add_word(crc_b, b + 8 * word)
            crc_c = _add_word(crc_c, c + 8 * word)
            crc_d = _add_word(crc_d, d + 8 * word)
        out[first] = crc_a ^ ones
        out[min(first + 1, n - 1)] = crc_b ^ ones
        out[min(first + 2, n - 1)] = crc_c ^ ones
        out[min(first + 3, n - 1)] = crc_d ^ ones
