"""The state-space scan of Mamba-2 in plain operations: what `cerebro.nn.ssd` is held against, and what runs on a GPU.

Shapes as in the package's legend, T being places of a sequence, and: I inner width, S width of a state, K = I + 2 S
channels of the convolution and W its width, E = I + K + H what is projected.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

CHUNK = 64  # places whose mutual decays are written out


def plain_gated_scan(
    projected: Float[Tensor, "B T E"],
    conv_weight: Float[Tensor, "K 1 W"],
    conv_bias: Float[Tensor, " K"],
    dt_bias: Float[Tensor, " H"],
    a_log: Float[Tensor, " H"],
    skip: Float[Tensor, " H"],
    eps: float,
    chunk: int = CHUNK,
) -> Float[Tensor, "B T I"]:
    """What a Mamba-2 layer does between its two projections, by the chunked form of the paper (section 6).

    Convolution and SiLU, scan, skip, gate, root-mean-square norm without its weight; see `cerebro.nn.mamba2`. Float32
    inside whatever comes in, float64 where that comes in.
    """
    n_heads, n_conv, width = len(skip), len(conv_bias), conv_weight.shape[-1]
    kind = torch.promote_types(projected.dtype, torch.float32)
    with torch.autocast(projected.device.type, enabled=False):
        n_inner = projected.shape[-1] - n_conv - n_heads
        z, xbc, dt = torch.split(projected.to(kind), [n_inner, n_conv, n_heads], dim=-1)
        early = F.pad(xbc.transpose(1, 2), (width - 1, 0))
        xbc = F.silu(F.conv1d(early, conv_weight, conv_bias, groups=n_conv)).transpose(1, 2)
        x, b, c = torch.split(xbc, [n_inner, (n_conv - n_inner) // 2, (n_conv - n_inner) // 2], dim=-1)
        x = rearrange(x, "b t (h p) -> b t h p", h=n_heads)
        dt = F.softplus(dt + dt_bias)  # (B, T, H)
        y = scan(x * dt[..., None], -torch.exp(a_log) * dt, b, c, chunk) + x * skip[:, None]
        gated = y.flatten(2) * F.silu(z)
        normed: Tensor = gated * torch.rsqrt(gated.square().mean(dim=-1, keepdim=True) + eps)
        return normed


def scan(
    x: Float[Tensor, "B T H P"],
    log_decay: Float[Tensor, "B T H"],
    b: Float[Tensor, "B T S"],
    c: Float[Tensor, "B T S"],
    chunk: int = CHUNK,
) -> Float[Tensor, "B T H P"]:
    """``h[t] = exp(log_decay[t]) h[t-1] + b[t] x[t]'`` and ``y[t] = c[t]' h[t]`` for every head, from ``h[-1] = 0``.

    Within a chunk as attention with a decaying mask, from chunk to chunk by the state.
    """
    n_times = x.shape[1]
    chunk = min(chunk, max(n_times, 1))  # a challenge window has four places
    n_chunks = -(-n_times // chunk)
    behind = n_chunks * chunk - n_times
    x, b, c = (F.pad(value, (0, 0) * (value.dim() - 2) + (0, behind)) for value in (x, b, c))
    x, b, c = (rearrange(value, "b (k q) ... -> b k q ...", k=n_chunks) for value in (x, b, c))
    decay = rearrange(F.pad(log_decay, (0, 0, 0, behind)), "b (k q) h -> b h k q", k=n_chunks)
    total = decay.cumsum(dim=-1)  # from the start of the chunk to each place
    since = total[..., :, None] - total[..., None, :]  # (B, H, K, Q, Q)
    is_later = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    mask = since.masked_fill(is_later, -torch.inf).exp()
    inside = torch.einsum("bkts,bhkts,bkshp->bkthp", c @ b.transpose(2, 3), mask, x)
    to_end = (total[..., -1:] - total).exp()  # (B, H, K, Q)
    added = torch.einsum("bksn,bhks,bkshp->bkhpn", b, to_end, x)
    whole = total[..., -1].exp()  # (B, H, K)
    state, before = torch.zeros_like(added[:, 0]), []
    for k in range(n_chunks):
        before.append(state)
        state = whole[:, :, k, None, None] * state + added[:, k]
    carried = torch.einsum("bktn,bkhpn,bhkt->bkthp", c, torch.stack(before, dim=1), total.exp())
    return (inside + carried).flatten(1, 2)[:, :n_times]
