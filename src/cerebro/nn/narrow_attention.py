"""Attention with narrow heads on a CPU: a few rows of the attention matrix at a time, the rest recomputed.

PyTorch's fused CPU kernel is made for wide heads: with heads of 8 its backward pass takes twice the time of the matrix
products below, whose long side is always the keys (figures: docs/experiments.md, Signal-JEPA). What is kept for the
backward pass is the same as there: queries, keys, values and the result.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cerebro.nn.threads import side_by_side

WIDEST_HEAD = 8  # with heads of 20 the fused kernel is the faster one
FEWEST_KEYS = 96  # with fewer keys both take the same time
ENTRIES = 256 * 1024  # of the attention matrix at once: two such buffers fit a cache
HIDDEN_SCORE = -1e30  # of a key that is no token; a row without any key gets their mean


def is_narrow(q: Tensor, k: Tensor) -> bool:
    """Whether `narrow_attention` is the faster way for these queries and keys."""
    return (
        q.device.type == "cpu"
        and q.dtype == torch.float32
        and q.shape[-1] <= WIDEST_HEAD
        and k.shape[-2] >= FEWEST_KEYS
        and not torch.compiler.is_compiling()
    )


def narrow_attention(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H M E"],
    v: Float[Tensor, "B H M E"],
    valid: Bool[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B H L E"]:
    """``softmax(q k' / sqrt(E)) v``, keys that are not ``valid`` left out; float32 on a CPU, any strides."""
    n_batch, n_heads, _, width = k.shape
    if valid is not None:  # one more column carries what hides a key: no pass over the matrix
        score = torch.where(valid, 0.0, HIDDEN_SCORE)[:, None, :, None]
        k = torch.cat([k, score.to(k.dtype).expand(n_batch, n_heads, -1, -1)], dim=-1)
        q = F.pad(q, (0, 1), value=width**0.5)  # the score is divided by it
    mixed: Tensor = _NarrowAttention.apply(q, k, v, width**-0.5)  # type: ignore[no-untyped-call]
    return mixed


class _NarrowAttention(torch.autograd.Function):
    """Keys and values are turned over once, so that every product has the keys along its rows."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        n_queries, n_keys = q.shape[2], k.shape[2]
        heads, rows = _piece(n_queries, n_keys, q.shape[0] * q.shape[1])
        kt, vt = _turned(k), _turned(v)
        mixed_t = vt.new_empty(*vt.shape[:2], n_queries)  # (G, E, L); G heads of all windows

        def mix(group: tuple[Tensor, ...]) -> None:
            queries, keys, values, mixed = group
            buffers = _buffers(heads, rows, n_keys)
            for some, out in zip(torch.split(queries, rows, 1), torch.split(mixed, rows, 2), strict=True):
                weights, _ = _weights(some, keys, buffers)
                torch.bmm(values, weights.transpose(1, 2), out=out)

        side_by_side(mix, _in_groups(heads, _flat(q * scale), kt, vt, mixed_t))
        ctx.save_for_backward(q, k, v, mixed_t)
        ctx.scale = scale
        return _turned_back(mixed_t, q[..., : v.shape[3]])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, mixed_t = ctx.saved_tensors
        n_queries, n_keys = q.shape[2], k.shape[2]
        heads, rows = _piece(n_queries, n_keys, q.shape[0] * q.shape[1])
        scaled, scaled_t, kt, grad_t = _flat(q * ctx.scale), _turned(q * ctx.scale), _turned(k), _turned(grad)
        # With one column more the product of gradient and values is less its mean under the weights at once.
        mean = (grad_t * mixed_t).sum(dim=1)[..., None]  # (G, L, 1)
        grad_less = torch.cat([_flat(grad), -mean], dim=2)
        values = F.pad(_turned(v), (0, 0, 0, 1), value=1.0)
        grad_q, grad_k, grad_v = torch.empty_like(scaled_t), torch.zeros_like(kt), torch.zeros_like(_turned(v))

        def mix_back(group: tuple[Tensor, ...]) -> None:
            queries, queries_t, keys, less, wanted_t, with_one, to_q, to_k, to_v = group
            buffers = _buffers(heads, rows, n_keys)
            by_row = (torch.split(x, rows, 1) for x in (queries, less))
            by_column = (torch.split(x, rows, 2) for x in (queries_t, wanted_t, to_q))
            for some, some_less, some_t, some_wanted_t, out in zip(*by_row, *by_column, strict=True):
                weights, scores = _weights(some, keys, buffers)
                to_v.baddbmm_(some_wanted_t, weights)
                torch.bmm(some_less, with_one, out=scores)
                weights.mul_(scores)
                to_k.baddbmm_(some_t, weights)
                torch.bmm(keys, weights.transpose(1, 2), out=out)

        parts = _in_groups(heads, scaled, scaled_t, kt, grad_less, grad_t, values, grad_q, grad_k, grad_v)
        side_by_side(mix_back, parts)
        return _turned_back(grad_q.mul_(ctx.scale), q), _turned_back(grad_k, k), _turned_back(grad_v, v), None


def _turned_back(found: Float[Tensor, "G E M"], like: Float[Tensor, "B H M E"]) -> Float[Tensor, "B H M E"]:
    return found.view(*like.shape[:2], like.shape[3], like.shape[2]).transpose(2, 3)


def _flat(x: Float[Tensor, "B H M E"]) -> Float[Tensor, "G M E"]:
    return x.reshape(-1, *x.shape[2:]).contiguous()


def _turned(x: Float[Tensor, "B H M E"]) -> Float[Tensor, "G E M"]:
    return x.transpose(2, 3).reshape(-1, x.shape[3], x.shape[2]).contiguous()  # a single window comes as a view


def _piece(n_queries: int, n_keys: int, n_heads: int) -> tuple[int, int]:
    """Heads of all windows, and queries, of a piece of the attention matrix; pieces are about equal.

    Threads share the heads, so that there are as many groups of them for one thread as for another.
    """
    most = max(1, ENTRIES // n_keys)
    heads = max(1, most // n_queries)
    rows = -(-n_queries // -(-n_queries // most))
    n_threads = torch.get_num_threads()
    n_groups = -(-n_heads // heads)
    return -(-n_heads // (-(-n_groups // n_threads) * n_threads)), rows


def _in_groups(heads: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, heads) for tensor in tensors), strict=True)


def _buffers(heads: int, rows: int, n_keys: int) -> tuple[Tensor, Tensor]:
    return torch.empty(heads * rows * n_keys), torch.empty(heads * rows * n_keys)


def _weights(
    queries: Float[Tensor, "g l E"], keys: Float[Tensor, "g E M"], buffers: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, "g l M"], Float[Tensor, "g l M"]]:
    """Attention weights of some queries, and the buffer of the scores, which is free again."""
    shape = (len(queries), queries.shape[1], keys.shape[2])
    weights, scores = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)  # softmax wants them in one piece
    torch.bmm(queries, keys, out=scores)
    torch.ops.aten._softmax.out(scores, -1, False, out=weights)
    return weights, scores
