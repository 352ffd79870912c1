"""Runs of int16, one per channel, wherever they lie in memory -> one batch, zero behind the end of each row.

Each is one call without the interpreter's lock, at the speed of a memory copy: the samples of a channel lie side by
side in the store and in the batch, so that nothing is turned over.
"""

from typing import Any, no_type_check

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int16, Int64
from numba import carray, types
from numba.extending import intrinsic
from numpy import ndarray

from cerebro.compiled import compiled
from cerebro.data.gather import copy_bytes


def gather_count_runs(
    addresses: Int64[ndarray, "B C"], n_valid: Int64[ndarray, " B"], out: Int16[ndarray, "B C T"]
) -> None:
    """Fill ``out`` with runs as they are.

    Parameters
    ----------
    addresses : int64 (B, C)
        Where in memory each run begins. The caller answers for it that it may be read; nothing is checked here.
    n_valid : int64 (B,)
        Values of each run of a row, T at most.
    out : int16 array (B, C, T)
        Contiguous; overwritten.
    """
    assert out.flags.c_contiguous
    _copy(np.ascontiguousarray(addresses), np.ascontiguousarray(n_valid), out)


def gather_microvolt_runs(
    addresses: Int64[ndarray, "B C"],
    n_valid: Int64[ndarray, " B"],
    scale: npt.NDArray[np.float32],
    out: Float32[ndarray, "B C T"],
) -> None:
    """As `gather_count_runs`, each value times the ``scale`` (B,) of its row: microvolts per count."""
    assert out.flags.c_contiguous
    assert scale.dtype == np.float32  # a wider one would round otherwise than a device does
    _scale(np.ascontiguousarray(addresses), np.ascontiguousarray(n_valid), np.ascontiguousarray(scale), out)


@intrinsic
def _counts_at(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to int16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int16)(types.intp), generate


@compiled
@no_type_check
def _copy(addresses: Any, n_valid: Any, out: Any) -> None:
    n_rows, n_channels, n_times = out.shape
    for b in range(n_rows):
        n = n_valid[b]
        for c in range(n_channels):
            copy_bytes(out.ctypes.data + 2 * n_times * (b * n_channels + c), addresses[b, c], 2 * n)
            out[b, c, n:] = 0


@compiled
@no_type_check
def _scale(addresses: Any, n_valid: Any, scale: Any, out: Any) -> None:
    n_rows, n_channels, _ = out.shape
    for b in range(n_rows):
        n, microvolts = n_valid[b], scale[b]
        for c in range(n_channels):
            counts, row = carray(_counts_at(addresses[b, c]), (n,)), out[b, c]
            for t in range(n):
                row[t] = np.float32(counts[t]) * microvolts
            row[n:] = 0
