"""Mamba-2 layers in ordinary autograd: the chunked form of the paper's listing, and the recurrence that defines both.

Dao & Gu 2024, arXiv:2405.21060: listing 1 (``ssd_minimal``) and equation 1. Peers for time, memory and results that
share no code with the product; names and shapes of the tensors are those of mamba-ssm's ``Mamba2`` with one group.

Letters of the equations: b batch, c chunk, l and s places in a chunk, h head, p width of a head, n state.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D_STATE, D_CONV, EXPAND, EPS = 128, 4, 2, 1e-5


class PlainMamba2(nn.Module):
    """(B, T, D) to (B, T, D); a sequence is padded with zeros to whole chunks.

    With ``chunk=256`` it computes what transformers' ``Mamba2Mixer`` does on its torch path. B and C are repeated for
    every head, as in the paper's listing and in transformers; ``is_shared``: their product is formed once for all.
    """

    def __init__(self, d_model: int, headdim: int, chunk: int = 64, is_shared: bool = False) -> None:
        super().__init__()
        self.chunk, self.is_shared = chunk, is_shared
        self.inner = EXPAND * d_model
        self.n_heads, n_conv = self.inner // headdim, self.inner + 2 * D_STATE
        self.in_proj = nn.Linear(d_model, self.inner + n_conv + self.n_heads, bias=False)
        self.conv1d = nn.Conv1d(n_conv, n_conv, D_CONV, groups=n_conv, padding=D_CONV - 1)
        self.dt_bias = nn.Parameter(torch.full((self.n_heads,), -4.0))
        self.A_log = nn.Parameter(torch.linspace(1, 16, self.n_heads).log())
        self.D = nn.Parameter(torch.ones(self.n_heads))
        self.norm = nn.RMSNorm(self.inner, eps=EPS)
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        n_batch, n_times, _ = tokens.shape
        n_conv = self.inner + 2 * D_STATE
        z, xbc, dt = self.in_proj(tokens).split([self.inner, n_conv, self.n_heads], dim=-1)
        xbc = F.silu(self.conv1d(xbc.transpose(1, 2))[..., :n_times].transpose(1, 2))
        x, b, c = xbc.split([self.inner, D_STATE, D_STATE], dim=-1)
        x = x.view(n_batch, n_times, self.n_heads, -1)
        n_copies = 1 if self.is_shared else self.n_heads
        b, c = (value[:, :, None].repeat(1, 1, n_copies, 1) for value in (b, c))
        dt = F.softplus(dt + self.dt_bias)  # (B, T, H)
        y = self.scan(x * dt[..., None], -torch.exp(self.A_log) * dt, b, c) + x * self.D[:, None]
        mixed: Tensor = self.out_proj(self.norm(y.flatten(2) * F.silu(z)))
        return mixed

    def scan(self, x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
        n_times, chunk = x.shape[1], self.chunk
        x, log_decay, b, c = (in_chunks(value, chunk) for value in (x, log_decay, b, c))
        log_decay = log_decay.permute(0, 3, 1, 2)  # b h c l
        total = log_decay.cumsum(dim=-1)
        within = torch.exp(sums_of_segments(log_decay))
        inside = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", c, b, within, x)
        states = torch.einsum("bclhn,bhcl,bclhp->bchpn", b, torch.exp(total[..., -1:] - total), x)
        states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
        across = torch.exp(sums_of_segments(F.pad(total[..., -1], (1, 0))))  # from chunk to chunk
        states = torch.einsum("bhzc,bchpn->bzhpn", across, states)[:, :-1]
        carried = torch.einsum("bclhn,bchpn,bhcl->bclhp", c, states, torch.exp(total))
        return (inside + carried).flatten(1, 2)[:, :n_times]


class RecurrentMamba2(PlainMamba2):
    """The definition, place by place: ``state = exp(log_decay) state + x b'`` and ``y = state c``."""

    def scan(self, x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
        decay, y = log_decay.exp(), []
        state = x.new_zeros(x.shape[0], *x.shape[2:], D_STATE)
        for t in range(x.shape[1]):
            state = decay[:, t, :, None, None] * state + x[:, t, :, :, None] * b[:, t, :, None]
            y.append((state @ c[:, t, :, :, None])[..., 0])
        return torch.stack(y, dim=1)


def in_chunks(value: Tensor, chunk: int) -> Tensor:
    """(B, T, ...) to (B, chunks, chunk, ...), zeros behind."""
    behind = -value.shape[1] % chunk
    padded = F.pad(value, (0, 0) * (value.dim() - 2) + (0, behind))
    return padded.unflatten(1, (-1, chunk))


def sums_of_segments(values: Tensor) -> Tensor:
    """(..., T) to (..., T, T): at [t, s] the sum over s + 1 ... t, minus infinity above the diagonal."""
    n = values.shape[-1]
    is_below = torch.ones(n, n, dtype=torch.bool, device=values.device).tril(-1)
    sums = values[..., None].expand(*values.shape, n).masked_fill(~is_below, 0).cumsum(dim=-2)
    return sums.masked_fill(is_below.T, -torch.inf)
