"""Random damage to files, and the signal that is in them; tests of formats import this by name."""

import numpy as np

from cerebro.data.pieces import make_piece

CHANNELS = ("Fp1", "Cz", "Pz", "O1")
SFREQ, N_TIMES = 100.0, 500
HEADER_BYTES = 2048


def mutate(content: bytes, draw: np.random.Generator) -> bytes:
    """One random mutation; never the same bytes."""
    while True:
        changed = bytearray(content)
        kind = draw.integers(10)
        at = int(draw.integers(len(content)))
        length = int(draw.integers(1, 65))
        if kind <= 2:
            changed[at] ^= 1 << int(draw.integers(8))
        elif kind == 3:
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif kind == 4:
            changed[at : at + length] = draw.bytes(len(changed[at : at + length]))
        elif kind == 5:
            other = int(draw.integers(len(content)))
            low, high = sorted((at, other))
            length = min(length, high - low, len(content) - high)
            changed[low : low + length], changed[high : high + length] = (
                content[high : high + length],
                content[low : low + length],
            )
        elif kind <= 7:
            digits = [n for n in range(min(len(content), HEADER_BYTES)) if 48 <= content[n] <= 57]
            if digits:
                changed[digits[int(draw.integers(len(digits)))]] = 48 + int(draw.integers(10))
        elif kind == 8:
            del changed[at:]
        else:
            changed += draw.bytes(int(draw.integers(1, 1000)))
        if bytes(changed) != content:
            return bytes(changed)


def signal(seed: int = 0) -> np.ndarray:
    return (30 * np.random.default_rng(seed).standard_normal((len(CHANNELS), N_TIMES))).astype(np.float32)


def in_this_process(work, entries, jobs):
    for entry in entries:
        yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)
