"""Windows of int16, time-major, wherever they lie in memory -> one batch: as they are, or as microvolts, channel-major.

Both are one call without the interpreter's lock, which a training loop in another thread would otherwise be asked for
once per window. Of microvolts the transposition is the work: done value by value it takes five times as long as copying
the result. Here a window is turned over in tiles of 16 samples x 8 channels, each in a network of three rounds of
interleaved vectors, converted and scaled in registers, and written past the cache, which would read every line of the
batch before it is overwritten. Meanwhile the next window is on its way into the cache, some lines with every tile: it
lies at a random place, which no processor foresees. The vectors are written in LLVM's portable form through numba, so
that they compile for any processor; ``tests/data/test_gather.py`` holds the kernels equal to NumPy. Figures:
``benchmarks/run.py data``.
"""

from typing import Any, no_type_check

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int16
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy import ndarray

from cerebro.compiled import compiled

STREAM_BYTES = 32
LINE_BYTES = 64  # of the cache
TILE_TIMES, TILE_CHANNELS = 16, 8  # 16 float32 are one line of the cache, 8 int16 one vector register

# Two vectors of two lanes of 8: the first halves of their lanes in turn, and the second halves.
_LOW = [0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27]
_HIGH = [4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31]


def gather_counts(addresses: npt.NDArray[np.int64], out: Int16[ndarray, "B T C"]) -> None:
    """Fill ``out`` with B windows as they are.

    Parameters
    ----------
    addresses : int64 (B,)
        Where in memory each window begins: T x C int16 values. The caller answers for it that they may be read; nothing
        is checked here.
    out : int16 array (B, T, C)
        Contiguous; overwritten.
    """
    assert out.flags.c_contiguous
    assert len(addresses) == len(out)
    _copy(np.ascontiguousarray(addresses), out)


def gather_microvolts(
    addresses: npt.NDArray[np.int64], scale: npt.NDArray[np.float32], out: Float32[ndarray, "B C T"]
) -> None:
    """Fill ``out`` with ``counts * scale`` of B windows; the interpreter's lock is free meanwhile.

    Parameters
    ----------
    addresses : int64 (B,)
        Where in memory each window begins: C x T int16 values, time-major. The caller answers for it that they may be
        read; nothing is checked here.
    scale : float32 (B,)
        Microvolts per count.
    out : float32 array (B, C, T)
        Contiguous; overwritten.
    """
    assert out.flags.c_contiguous
    assert len(addresses) == len(scale) == len(out)
    _gather(np.ascontiguousarray(addresses), np.ascontiguousarray(scale), out)


@intrinsic
def copy_bytes(typing_context: Any, goal: Any, source: Any, n_bytes: Any) -> Any:
    """C's memcpy, for compiled loops: two addresses and a number of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        byte = ir.IntType(8).as_pointer()
        goal, source = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, goal, source, arguments[2], 1)

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the line of the cache at an address, to be read soon; any address will do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])

    return types.void(types.intp), generate


def _turning(is_streamed: bool) -> Any:
    """Make an intrinsic that turns over a tile; streamed results must lie at multiples of 32 bytes."""

    @intrinsic
    def turn(typing_context: Any, source: Any, source_step: Any, goal: Any, goal_step: Any, scale: Any) -> Any:
        """16 rows of 8 int16, ``source_step`` bytes apart -> 8 rows of 16 float32, ``goal_step`` bytes apart."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            source, source_step, goal, goal_step, scale = arguments
            size, lane = source.type, ir.IntType(32)

            def pick(indices: list[int]) -> Any:
                return ir.Constant(ir.VectorType(lane, len(indices)), indices)

            def address(base: Any, step: Any, row: int, kind: Any) -> Any:
                place = builder.add(base, builder.mul(step, ir.Constant(size, row)))
                return builder.inttoptr(place, kind.as_pointer())

            narrow = ir.VectorType(ir.IntType(16), TILE_CHANNELS)
            rows = [builder.load(address(source, source_step, t, narrow), align=2) for t in range(TILE_TIMES)]
            rows = [builder.shuffle_vector(rows[t], rows[t + 8], pick(list(range(16)))) for t in range(8)]
            for _ in range(3):  # after three rounds, vector c holds samples 0..15 of channel c
                pairs = [(rows[i], rows[i + 4]) for i in range(4)]
                rows = [builder.shuffle_vector(*pair, pick(half)) for pair in pairs for half in (_LOW, _HIGH)]
            wide = ir.VectorType(ir.FloatType(), TILE_TIMES)
            none = ir.Constant(wide, ir.Undefined)
            one = builder.insert_element(none, scale, ir.Constant(lane, 0))
            scales = builder.shuffle_vector(one, none, pick([0] * TILE_TIMES))
            for channel, row in enumerate(rows):
                counts = builder.sitofp(builder.sext(row, ir.VectorType(lane, TILE_TIMES)), wide)
                place = address(goal, goal_step, channel, wide)
                written = builder.store(builder.fmul(counts, scales), place, align=STREAM_BYTES if is_streamed else 4)
                if is_streamed:
                    written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(lane, 1)]))

        return types.void(types.intp, types.intp, types.intp, types.intp, types.float32), generate

    return turn


_turn_tile, _turn_and_stream_tile = _turning(is_streamed=False), _turning(is_streamed=True)


@intrinsic
def _finish_streams(typing_context: Any) -> Any:
    """What was written past the cache is there for every thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        builder.fence("seq_cst")

    return types.void(), generate


@compiled
@no_type_check
def _copy(addresses: Any, out: Any) -> None:
    n_windows, n_times, n_channels = out.shape
    n_bytes = 2 * n_times * n_channels
    for b in range(n_windows):
        copy_bytes(out.ctypes.data + b * n_bytes, addresses[b], n_bytes)


@compiled
@no_type_check
def _gather(addresses: Any, scale: Any, out: Any) -> None:
    n_windows, n_channels, n_times = out.shape
    n_bytes = 2 * n_times * n_channels
    window = np.empty((n_times, n_channels), np.int16)
    goal = out.ctypes.data
    is_tiled = n_times >= TILE_TIMES and n_channels >= TILE_CHANNELS
    is_aligned = goal % STREAM_BYTES == 0 and 4 * n_times % STREAM_BYTES == 0
    n_rows, n_columns = (n_channels + TILE_CHANNELS - 1) // TILE_CHANNELS, (n_times + TILE_TIMES - 1) // TILE_TIMES
    lines_per_tile = (n_bytes // LINE_BYTES + n_rows * n_columns) // (n_rows * n_columns)
    for b in range(n_windows):
        source, start = addresses[b], goal + 4 * b * n_times * n_channels
        if not is_tiled:
            copy_bytes(window.ctypes.data, source, n_bytes)
            for c in range(n_channels):
                for t in range(n_times):
                    out[b, c, t] = window[t, c] * scale[b]
            continue
        following, asked = addresses[min(b + 1, n_windows - 1)], 0
        for j in range(n_rows):
            c = min(TILE_CHANNELS * j, n_channels - TILE_CHANNELS)  # the last tile overlaps the one before
            for i in range(n_columns):
                for byte in range(asked, min(asked + lines_per_tile * LINE_BYTES, n_bytes), LINE_BYTES):
                    _prefetch(following + byte)
                asked += lines_per_tile * LINE_BYTES
                t = min(TILE_TIMES * i, n_times - TILE_TIMES)
                tile, place = source + 2 * (t * n_channels + c), start + 4 * (c * n_times + t)
                if is_aligned:
                    _turn_and_stream_tile(tile, 2 * n_channels, place, 4 * n_times, scale[b])
                else:
                    _turn_tile(tile, 2 * n_channels, place, 4 * n_times, scale[b])
    _finish_streams()
