"""Progress bars on standard error for anything that takes more than two seconds."""

import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, unit: str, total: int | None = None, stays: bool = True) -> "tqdm[Item]":
    """Iterate over ``items`` with a bar and a rate; nothing is shown for the first second.

    Without a terminal (a log file, a Slurm job) the bar is printed once every 15 s instead of redrawn. One that
    does not stay is wiped away at its end.
    """
    return tqdm(items, desc=what, unit=unit, total=total, leave=stays, **_look())


def progress_bar(what: str, unit: str, total: int) -> "tqdm[Any]":
    """Bar to be advanced by hand with ``update``; use it as a context manager."""
    return tqdm(desc=what, unit=unit, total=total, **_look())


def close_bar(bar: "tqdm[Any]") -> None:
    """Close a bar beside which lines were written with ``tqdm.write``: the next line begins on its own.

    Such lines draw the bar again without tqdm taking note, and it ends only the line of a bar that it knows to be
    drawn.
    """
    if not bar.disable:
        bar.last_print_t = time.time() + (bar.delay or 0)
    bar.close()


def _look() -> dict[str, Any]:
    columns, rows = _shape()
    is_one_of_many = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"
    return {
        "disable": is_one_of_many,  # the first process of a run shows the bar
        "delay": 1,
        "mininterval": 0.2 if sys.stderr.isatty() else 15.0,
        "file": sys.stderr,
        "ncols": columns,
        "nrows": rows,
        "dynamic_ncols": columns is None,
    }


def _shape() -> tuple[int, int] | tuple[None, None]:
    """80 x 24 for a terminal that does not know its size (containers): tqdm would draw nothing there. Else ``None``."""
    try:
        return (None, None) if os.get_terminal_size(sys.stderr.fileno()).columns else (80, 24)
    except (OSError, ValueError, AttributeError):  # no terminal
        return None, None
