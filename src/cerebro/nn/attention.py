"""Pre-norm transformer block on PyTorch's fused attention."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError

EPS = 1e-6  # of every LayerNorm in a block, as in the published models


class Attention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``.

    Parameters
    ----------
    width : int
        Width D of a token.
    n_heads : int
        Heads; must divide ``width``.
    qkv_bias : bool
        Learned bias of queries and values; keys have none (BEiT; Bao et al. 2022, arXiv:2106.08254).
    qk_norm : bool
        LayerNorm on the queries and keys of each head (Dehghani et al. 2023, arXiv:2302.05442).

    Raises
    ------
    ConfigError
        If ``n_heads`` does not divide ``width``.
    """

    def __init__(self, width: int, n_heads: int, qkv_bias: bool = False, qk_norm: bool = True) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads:
            fitting = [heads for heads in range(1, width + 1) if width % heads == 0]
            raise ConfigError(f"n_heads={n_heads} does not divide the width {width}; set n_heads to one of {fitting}.")
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.q_norm = nn.LayerNorm(width // n_heads, eps=EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // n_heads, eps=EPS) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        tokens: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Attend from the tokens at ``out`` (``None``: all) to all tokens that are ``valid`` (``None``: all)."""
        queries = tokens if out is None else take(tokens, out)
        width = tokens.shape[-1]
        if out is None:
            q, k, v = F.linear(tokens, self.qkv.weight, self._bias()).chunk(3, dim=-1)
        else:
            q = F.linear(queries, self.qkv.weight[:width], self.q_bias)
            bias = self._bias()
            k, v = F.linear(tokens, self.qkv.weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
        q, k, v = (rearrange(part, "b m (h d) -> b h m d", h=self.n_heads) for part in (q, k, v))
        mixed = attend(self.q_norm(q).type_as(v), self.k_norm(k).type_as(v), v, valid)  # (B, H, L, D / H)
        mixed_tokens: Tensor = self.proj(rearrange(mixed, "b h l d -> b l (h d)"))
        return mixed_tokens

    def _bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])


def attend(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H M E"],
    v: Float[Tensor, "B H M E"],
    valid: Bool[Tensor, "B M"] | None,
) -> Float[Tensor, "B H L E"]:
    """Fused attention; on a CPU always in float32, where bfloat16 attention is the slower one."""
    mask = None if valid is None else valid[:, None, None, :]
    if q.device.type == "cpu" and q.dtype != torch.float32:
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).type_as(v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def take(tokens: Float[Tensor, "B M D"], index: Int64[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """Tokens at ``index``, row by row."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[-1]))


class DropPath(nn.Module):
    """Drop a whole residual branch per sample while training (Huang et al. 2016, arXiv:1603.09382).

    Parameters
    ----------
    rate : float
        Share of samples whose branch is dropped, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        """Zero the branch of some samples and scale that of the others."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.rate
        return branch * kept.to(branch.dtype) / (1 - self.rate)


class Block(nn.Module):
    """Transformer block: ``x + g1 * attention(norm(x))``, then ``x + g2 * mlp(norm(x))``.

    Parameters
    ----------
    width, n_heads, qkv_bias, qk_norm
        As in `Attention`.
    mlp_ratio : float
        Width of the hidden layer of the MLP as a multiple of ``width``.
    layer_scale : float
        Start value of the learned gains g1 and g2 (Touvron et al. 2021, arXiv:2103.17239); 0 = no gains.
    drop_path : float
        See `DropPath`.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_norm: bool = True,
        layer_scale: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, n_heads, qkv_bias, qk_norm)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.fc1 = nn.Linear(width, int(mlp_ratio * width))
        self.fc2 = nn.Linear(int(mlp_ratio * width), width)
        self.gamma_1 = nn.Parameter(layer_scale * torch.ones(width)) if layer_scale > 0 else None
        self.gamma_2 = nn.Parameter(layer_scale * torch.ones(width)) if layer_scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after the block; with ``out`` only those are computed, while all serve as keys and values."""
        branch = self.attn(self.norm1(tokens), valid, out)
        residual = tokens if out is None else take(tokens, out)
        residual = residual + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.fc2(F.gelu(self.fc1(self.norm2(residual))))
        mixed: Tensor = residual + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)
        return mixed
