"""Counter-based random numbers: what is drawn for a sample depends on (seed, epoch, sample) and on nothing else.

A mask or an augmentation that is a function of such a key is the same for any number of workers, any batch size and
any place at which a run was resumed. The mixing function is splitmix64 (Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195).
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
# The same as int64 for torch; plain integers, for torch.compile makes guards of numpy's and then fails at these.
_GOLDEN_I64, _MIX_1_I64, _MIX_2_I64 = (int(value.astype(np.int64)) for value in (_GOLDEN, _MIX_1, _MIX_2))


def splitmix64(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 64-bit integers so that neighbouring inputs give unrelated outputs; same shape."""
    value = value + _GOLDEN  # arrays wrap around without a warning
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return np.asarray(value ^ (value >> np.uint64(31)), dtype=np.uint64)


def sample_keys(seed: int, epoch: int, sample: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Key of each sample in an epoch: int64 hash of (seed, epoch, sample); same shape as ``sample``."""
    start = splitmix64(splitmix64(np.array([seed], np.int64).view(np.uint64)) ^ np.uint64(epoch))
    return splitmix64(start ^ sample.astype(np.int64).view(np.uint64)).view(np.int64)


def uniform(keys: Int64[Tensor, " B"], n: int, stream: int = 0) -> Float[Tensor, "B n"]:
    """Draw ``n`` numbers in [0, 1) per key; another ``stream`` gives numbers unrelated to the first.

    Runs on the device of ``keys`` without a host synchronisation, in wrapping int64 arithmetic.
    """
    counter = torch.arange(n, device=keys.device, dtype=torch.int64) + (stream << 32)
    mixed = _splitmix64_torch(_splitmix64_torch(keys)[:, None] ^ _splitmix64_torch(counter)[None, :])
    return (_shift_right(mixed, 40)).to(torch.float32) * 2.0**-24


def keys_within(keys: Int64[Tensor, " B"], number: Int64[Tensor, "B M"]) -> Int64[Tensor, "B M"]:
    """Key of each numbered part (a channel, a window) of each sample: a function of its key and the number alone."""
    apart = (number + 1) << 40  # no counter of `uniform` comes that far
    return _splitmix64_torch(_splitmix64_torch(keys)[:, None] ^ _splitmix64_torch(apart))


def normal(keys: Int64[Tensor, " B"], n: int, stream: int = 0) -> Float[Tensor, "B n"]:
    """Draw ``n`` numbers of mean 0 and standard deviation 1 per key (Box & Muller 1958, doi:10.1214/aoms/1177706645).

    None lies further out than 5.8, since `uniform` has 24 bits. Takes two streams: ``stream`` and the one behind it.
    """
    radius = (-2 * torch.log1p(-uniform(keys, n, stream))).sqrt()
    return radius * torch.cos(2 * math.pi * uniform(keys, n, stream + 1))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own shift is arithmetic)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64_torch(value: Tensor) -> Tensor:
    value = value + _GOLDEN_I64
    value = (value ^ _shift_right(value, 30)) * _MIX_1_I64
    value = (value ^ _shift_right(value, 27)) * _MIX_2_I64
    return value ^ _shift_right(value, 31)
