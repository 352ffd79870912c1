"""One Mamba-2 layer, forward and backward, T 124, batch 64, float32, dropout 0: times, memory and errors beside peers.

Width 128, heads of 32 (``headdim``); ``_headdim64``: heads of 64; ``_d256``: width 256, heads of 64. With more
heads the plain forms are dearer. The layer is `Mamba2Mixer`; all peers of Mamba-2 have its weights. Time ratios say how
many times less time ours takes.

``ratio_vs_chunked_ssd``: the paper's chunked form in ordinary autograd, chunk 64 (``tests/reference/mamba2_plain.py``);
``_shared`` is the same with the product of C and B formed once for all heads instead of for each.
``ratio_vs_transformers``: transformers' ``Mamba2Mixer`` on its torch path with its default chunk of 256 or, where it
cannot be imported, the plain form with that chunk; ``peer_is_transformers`` and a line on stderr tell which.
``ratio_vs_transformer_layer``: ``nn.TransformerEncoderLayer`` of equal width, 4 heads, 4x, norm first; it attends to
all places without a mask and holds its norms and its residual, which ours has in ``_with_norm``. ``_min_long`` is the
lowest of its ratios over T from 128 to 8192 with 8192 tokens a step. ``per_token_8192_over_512``: time of a token of
one sequence of 8192 over that of 16 of 512.

``share_of_gemm`` counts FLOPs by the formula below, without what is computed twice, beside the rate of the layer's
largest product, ``in_proj``, in the same rounds. ``memory_vs_chunked_ssd``: see `mamba2_memory`. ``max_gradient_error``
is the largest error of a gradient, of the input or of any parameter, against the recurrence in float64, over the
largest entry of that gradient. ``end_to_end_ratio`` and its like: see `mamba2_end_to_end`. ``_two_threads`` figures
count wall time.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from mamba2_end_to_end import figures as end_to_end
from mamba2_layers import BATCH, D_CONV, D_STATE, EXPAND, N_TIMES, SIZES, layer_of, recurrence, transformers_mixer
from mamba2_memory import figures as memory
from timing import Comparison, compare

LONG = (128, 256, 512, 1024, 2048, 4096, 8192)
LONG_TOKENS = 8192  # of a step: sequences x T
ROWS_OF_RECURRENCE = 4  # whose states in float64 fit in memory at once
PEERS = {  # figure: kinds of layer
    "ratio_vs_chunked_ssd": ("ours", "chunked_ssd"),
    "ratio_vs_chunked_ssd_shared": ("ours", "chunked_ssd_shared"),
    "ratio_vs_transformers": ("ours", "transformers"),
    "ratio_vs_transformer_layer": ("ours", "transformer_layer"),
    "ratio_vs_transformer_layer_with_norm": ("ours_with_norm", "transformer_layer"),
}

Clock = Callable[[], float]


def main(rounds: int) -> dict[str, float]:
    theirs, why = transformers_mixer()
    said = "transformers' Mamba2Mixer" if theirs else f"the plain form with chunk 256 (no transformers here: {why})"
    heads = ", ".join(f"{headdim} at d {d_model}" for d_model, headdim in SIZES.values())
    print(f"headdim {heads}; one thread, then two; ratio_vs_transformers is beside {said}", file=sys.stderr)
    figures = {"peer_is_transformers": float(theirs is not None)}
    figures |= {f"headdim{size}": float(headdim) for size, (_, headdim) in SIZES.items()}
    for size in SIZES:
        figures |= memory(size) | gradient_error(size)
    torch.set_num_threads(1)
    figures |= all_times(rounds, time.process_time)
    torch.set_num_threads(2)
    return figures | {f"{name}_two_threads": value for name, value in all_times(rounds, time.perf_counter).items()}


def all_times(rounds: int, clock: Clock) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size in SIZES:
        figures |= beside_peers(size, rounds, clock) | share(size, rounds, clock)
    return figures | long_sequences(rounds, clock) | per_token(rounds, clock) | end_to_end(rounds, clock)


# Figures --------------------------------------------------------------------------------------------------------------
def beside_peers(size: str, rounds: int, clock: Clock) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, (ours, peer) in PEERS.items():
        found = compare(layer_of(ours, size).step, layer_of(peer, size).step, rounds, clock)
        figures |= found.figures(f"{name}{size}")
        figures[f"seconds_{peer}{size}"] = found.peer_s
        figures[f"seconds_{ours}{size}"] = found.ours_s
    return figures


def long_sequences(rounds: int, clock: Clock) -> dict[str, float]:
    """At every T the Transformer layer's time over ours, and the comparison where that is lowest."""
    found: dict[int, Comparison] = {}
    for n_times in LONG:
        ours, peer = (layer_of(kind, "", LONG_TOKENS // n_times, n_times) for kind in ("ours", "transformer_layer"))
        found[n_times] = compare(ours.step, peer.step, rounds, clock)
    figures: dict[str, float] = {}
    for n_times, comparison in found.items():
        figures |= comparison.figures(f"ratio_vs_transformer_layer_t{n_times}")
        figures[f"microseconds_a_token_t{n_times}"] = 1e6 * comparison.ours_s / LONG_TOKENS
    lowest = min(found.values(), key=lambda comparison: comparison.ratio)
    return figures | lowest.figures("ratio_vs_transformer_layer_min_long")


def per_token(rounds: int, clock: Clock) -> dict[str, float]:
    long, short = (layer_of("ours", "", LONG_TOKENS // n_times, n_times) for n_times in (8192, 512))
    return compare(short.step, long.step, rounds, clock).figures("per_token_8192_over_512")


def share(size: str, rounds: int, clock: Clock) -> dict[str, float]:
    multiply, gemm_flops = gemm(size)
    found = compare(layer_of("ours", size).step, multiply, rounds, clock)
    scale = layer_flops(size, BATCH, N_TIMES) / gemm_flops
    figures = {name: value * scale for name, value in found.figures(f"share_of_gemm{size}").items()}
    return figures | {f"gemm_gflops{size}": gemm_flops / found.peer_s / 1e9}


def gemm(size: str) -> tuple[Callable[[], None], float]:
    """The layer's largest product, as often as takes some tenths of a second, and its FLOPs."""
    d_model, n_outputs, _ = projections(size)
    tokens, weight = torch.randn(BATCH * N_TIMES, d_model), torch.randn(n_outputs, d_model)
    n_calls = 20 * 128 // d_model

    def multiply() -> None:
        for _ in range(n_calls):
            F.linear(tokens, weight)

    return multiply, n_calls * linear_flops(BATCH * N_TIMES, d_model, n_outputs, passes=1)


def gradient_error(size: str, n_batch: int = BATCH, n_times: int = N_TIMES) -> dict[str, float]:
    ours = layer_of("ours", size, n_batch, n_times)
    ours.step()
    assert ours.tokens.grad is not None
    exact = recurrence(*SIZES[size])
    exact.load_state_dict(ours.module.state_dict())
    exact.double()
    tokens = ours.tokens.detach().double().requires_grad_()
    for rows in torch.arange(n_batch).split(ROWS_OF_RECURRENCE):
        exact(tokens[rows]).backward(ours.gradient[rows].double())
    wanted = {"tokens": tokens.grad} | {name: value.grad for name, value in exact.named_parameters()}
    found = {"tokens": ours.tokens.grad} | {name: value.grad for name, value in ours.module.named_parameters()}
    errors = {name: float((found[name] - grad).abs().max() / grad.abs().max()) for name, grad in wanted.items()}
    print(
        f"max_gradient_error{size}: the gradient with the largest error is that of {max(errors, key=errors.get)}",
        file=sys.stderr,
    )
    return {f"max_gradient_error{size}": max(errors.values())}


# FLOPs ----------------------------------------------------------------------------------------------------------------
def linear_flops(n_rows: int, n_inputs: int, n_outputs: int, passes: int = 3) -> float:
    """Two per multiply-add; forward, gradient of the input and gradient of the weight: three passes."""
    return 2.0 * n_rows * n_inputs * n_outputs * passes


def scan_flops(n_batch: int, n_times: int, inner: int, tile: int, passes: int = 3) -> float:
    """Within tiles the square of C and B, formed once for all heads, and its product with the inputs; from tile to tile
    the state, which the first tile does not read and the last does not write. The square counts whole."""
    n_tiles, rest = divmod(n_times, tile)
    squares = n_tiles * tile**2 + rest**2
    n_read = n_times - min(tile, n_times)
    n_written = n_times - (rest or tile) if n_times > tile else 0
    return 2.0 * n_batch * (squares * (D_STATE + inner) + (n_read + n_written) * D_STATE * inner) * passes


def layer_flops(size: str, n_batch: int, n_times: int, tile: int = N_TIMES, passes: int = 3) -> float:
    """Both projections, the convolution, and the scan; ``passes=1``: forward alone. One tile holds 124 places."""
    d_model, n_outputs, inner = projections(size)
    n_rows, n_conv = n_batch * n_times, inner + 2 * D_STATE
    linear = linear_flops(n_rows, d_model, n_outputs, passes) + linear_flops(n_rows, inner, d_model, passes)
    return linear + linear_flops(n_rows, D_CONV, n_conv, passes) + scan_flops(n_batch, n_times, inner, tile, passes)


def projections(size: str) -> tuple[int, int, int]:
    """D, what ``in_proj`` gives, and the inner width, which is what ``out_proj`` takes."""
    d_model, headdim = SIZES[size]
    inner = EXPAND * d_model
    return d_model, 2 * inner + 2 * D_STATE + inner // headdim, inner
