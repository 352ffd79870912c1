"""Loops that numba compiles for the processor at hand, once; the machine code is kept on disk for the next process.

Without ``fastmath``, so that every sum is taken in the order written: the same bytes whatever the vector width. The
interpreter's lock is released, and no threads are started.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` (numbers and NumPy arrays in and out) at its first call for each combination of types.

    Where no folder for the machine code can be written, each process compiles anew, which takes some seconds.
    """
    plain = inspect.unwrap(function)  # tests wrap every function to check shapes; numba needs the one that was written
    settings = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(cache=True, **settings)(plain)
    except RuntimeError:  # numba found no folder that it may write
        made = numba.njit(**settings)(plain)
    return made  # type: ignore[no-any-return]
