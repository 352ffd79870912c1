"""Loops that numba compiles for the processor at hand, once; the machine code is kept on disk for the next process.

By `compiled` every sum is taken in the order written: the same bytes whatever the vector width. By `compiled_loosely`
sums are taken in any order and products added without being rounded first, which lets sums use whole vectors: the same
bytes on one processor. The interpreter's lock is released, and no threads are started.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import numba

_log = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` (numbers and NumPy arrays in and out) at its first call for each combination of types.

    Where no folder for the machine code can be written, each process compiles anew, which takes some seconds. Machine
    code that cannot be read (a full disk, a damaged file) is compiled anew with a line in the log.
    """
    return _compiled(function, {})


def compiled_loosely(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `compiled`, with sums in any order; infinite and missing values stay what they are."""
    return _compiled(function, {"fastmath": {"contract", "reassoc"}})


def _compiled(function: Callable[..., Any], more: dict[str, Any]) -> Callable[..., Any]:
    plain = inspect.unwrap(function)  # tests wrap every function to check shapes; numba needs the one that was written
    settings = {"nogil": True, "error_model": "numpy", **more}
    try:
        made = numba.njit(cache=True, **settings)(plain)
    except RuntimeError:  # numba found no folder that it may write
        made = numba.njit(**settings)(plain)
    _forgive(made)
    return made  # type: ignore[no-any-return]


def _forgive(made: Any) -> None:
    """Have numba compile what it cannot load: by itself it ends the process with an error of pickle."""
    kept = getattr(made, "_cache", None)
    if kept is None:  # NUMBA_DISABLE_JIT
        return
    load = kept.load_overload

    def load_or_compile(signature: Any, target: Any) -> Any:
        try:
            return load(signature, target)
        except Exception as error:  # a damaged pickle may raise anything
            _log.warning("machine code in %s cannot be read (%s); it is compiled anew.", kept.cache_path, error)
            try:
                kept.flush()
            except Exception:  # it cannot be replaced either
                kept.disable()
            return None

    kept.load_overload = load_or_compile
