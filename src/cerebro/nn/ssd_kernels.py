"""The fused kernels of mamba-ssm (Dao & Gu 2024), where they are installed beside a GPU: when they run, and the call.

They compute what `cerebro.nn.ssd_plain` does and the projection behind it. Without them Mamba-2 is the same model in
cerebro's own operations; no other model ever takes its place.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

_log = logging.getLogger(__name__)

CHUNK = 256  # places that the kernels take at once, mamba-ssm's own choice
HEADS_MULTIPLE = 8  # their convolution reads rows of a multiple of 8 numbers
LEAST_CONV, MOST_CONV = 2, 4  # widths that it knows


@cache
def kernel_or_reason() -> tuple[Callable[..., Tensor] | None, str]:
    """The kernels' function and an empty string, or None and why it cannot be imported."""
    try:
        import_module("causal_conv1d")  # without it mamba-ssm imports and then fails at the first call
        module = import_module("mamba_ssm.ops.triton.ssd_combined")
        return module.mamba_split_conv1d_scan_combined, ""
    except (ImportError, OSError, AttributeError) as error:
        first = str(error).splitlines()[0] if str(error) else "no message"
        return None, f"{type(error).__name__}: {first}"


def why_not(device: torch.device, dtype: torch.dtype, n_heads: int, d_conv: int) -> str:
    """Why the kernels do not run a layer, in words; empty where they do.

    Parameters
    ----------
    device, dtype
        Of what the layer projected.
    n_heads, d_conv : int
        Heads, and places that the convolution sees.
    """
    if device.type != "cuda":
        return f"tokens lie on {device.type}"
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if dtype == torch.float64:
        return "they have no float64"
    if n_heads % HEADS_MULTIPLE:
        return f"{n_heads} heads are no multiple of {HEADS_MULTIPLE}; choose another headdim"
    if not LEAST_CONV <= d_conv <= MOST_CONV:
        return f"d_conv={d_conv} is not in {LEAST_CONV} ... {MOST_CONV}"
    reason = kernel_or_reason()[1]
    return f"they cannot be imported ({reason})" if reason else ""


def runs_in_kernels(device: torch.device, dtype: torch.dtype, n_heads: int, d_conv: int) -> bool:
    """Whether ``why_not`` is empty; a GPU that goes without the kernels is told of once for each reason."""
    reason = why_not(device, dtype, n_heads, d_conv)
    if reason and device.type == "cuda" and not torch.compiler.is_compiling():
        _tell(reason)
    return not reason


@cache
def _tell(reason: str) -> None:
    _log.warning("Mamba2 runs in plain PyTorch on the GPU, without the kernels of mamba-ssm: %s", reason)


def kernel_scan(
    projected: Float[Tensor, "B T E"],
    conv_weight: Float[Tensor, "K 1 W"],
    conv_bias: Float[Tensor, " K"],
    dt_bias: Float[Tensor, " H"],
    a_log: Float[Tensor, " H"],
    skip: Float[Tensor, " H"],
    norm_weight: Float[Tensor, " I"],
    out_weight: Float[Tensor, "D I"],
    eps: float,
) -> Float[Tensor, "B T D"]:
    """All of a Mamba-2 layer behind its first projection; only where it ``runs_in_kernels``.

    The gate comes before the norm, as in `cerebro.nn.mamba2`.
    """
    kernel, reason = kernel_or_reason()
    assert kernel is not None, reason
    return kernel(
        projected,
        rearrange(conv_weight, "k 1 w -> k w"),
        conv_bias,
        dt_bias,
        -torch.exp(a_log.float()),
        D=skip,
        chunk_size=CHUNK,
        activation="silu",
        rmsnorm_weight=norm_weight,
        rmsnorm_eps=eps,
        outproj_weight=out_weight,
        headdim=norm_weight.numel() // skip.numel(),
        ngroups=1,
        norm_before_gate=False,
    )


def state_of_kernels() -> str:
    """One line on whether the kernels are there and what Mamba-2 runs in on this machine."""
    reason = kernel_or_reason()[1]
    if not torch.cuda.is_available():
        there = "installed, without use" if not reason else f"not there ({reason}), nor needed"
        return f"kernels of mamba-ssm: {there} without a GPU; Mamba2 runs in cerebro's own operations"
    if reason:
        return f"kernels of mamba-ssm: not there ({reason}); Mamba2 runs on the GPU in plain PyTorch, slower"
    return f"kernels of mamba-ssm: there; Mamba2 runs in them on the GPU, with a multiple of {HEADS_MULTIPLE} heads"
