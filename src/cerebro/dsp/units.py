"""Volts, as files and MNE-Python have them, to the microvolts that everything else in cerebro works in."""

from jaxtyping import Float32, Float64
from numpy import ndarray

from cerebro.compiled import compiled

MICROVOLTS_PER_VOLT = 1e6


def to_microvolts(volts: Float64[ndarray, "C T"], out: Float32[ndarray, "C T"]) -> None:
    """Fill ``out`` with ``volts`` in microvolts, in one pass over memory; each row of both is contiguous or not."""
    _to_microvolts(volts, out)


@compiled
def _to_microvolts(volts, out):  # type: ignore[no-untyped-def]
    for channel in range(len(volts)):
        source, goal = volts[channel], out[channel]
        for place in range(len(source)):
            goal[place] = source[place] * MICROVOLTS_PER_VOLT
