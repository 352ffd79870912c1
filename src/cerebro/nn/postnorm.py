"""Post-norm transformer layers with the names and numbers of ``torch.nn.Transformer`` (Vaswani et al. 2017)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError
from cerebro.nn.attention import attend, take
from cerebro.nn.feedforward import feed_forward
from cerebro.nn.narrow_attention import is_narrow, narrow_attention

DropoutAt = Literal["residual", "everywhere"]
"""``residual``: on what a branch adds. ``everywhere``: also on attention weights and hidden units, as torch has it."""


class PackedAttention(nn.Module):
    """Multi-head attention whose tensors are those of ``torch.nn.MultiheadAttention``.

    Parameters
    ----------
    width, n_heads : int
        Width of a token; heads, which must divide it.

    Raises
    ------
    ConfigError
        If ``n_heads`` does not divide ``width``.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads:
            fitting = [heads for heads in range(1, width + 1) if width % heads == 0]
            raise ConfigError(f"n_heads={n_heads} does not divide the width {width}; set n_heads to one of {fitting}.")
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        queries: Float[Tensor, "B L D"],
        memory: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "B L D"]:
        """Attend from ``queries`` to the tokens of ``memory`` that are ``valid`` (``None``: all)."""
        width = queries.shape[-1]
        if queries is memory:
            q, k, v = F.linear(queries, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q = F.linear(queries, self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = F.linear(memory, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        q, k, v = (rearrange(part, "b m (h e) -> b h m e", h=self.n_heads) for part in (q, k, v))
        if dropout > 0:
            mask = None if valid is None else valid[:, None, None, :]
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        elif is_narrow(q, k):
            mixed = narrow_attention(q, k, v, valid)
        else:
            mixed = attend(q, k, v, valid)
        projected: Tensor = self.out_proj(rearrange(mixed, "b h l e -> b l (h e)"))
        return projected


class _Layer(nn.Module):
    """What encoder and decoder layers share: the feed-forward branch and the two places of dropout."""

    def __init__(self, width: int, hidden: int, dropout: float, dropout_at: DropoutAt) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.dropout_at = dropout, dropout_at

    def _inner(self) -> float:
        """Dropout on attention weights and hidden units."""
        return self.dropout if self.training and self.dropout_at == "everywhere" else 0.0

    def _branch(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        return F.dropout(x, self.dropout, self.training) if self.dropout > 0 else x

    def _fed_forward(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        if inner := self._inner():
            return self._branch(self.linear2(F.dropout(F.relu(self.linear1(x)), inner)))
        return self._branch(feed_forward(x, self.linear1, self.linear2))


class PostNormEncoderLayer(_Layer):
    """``x = norm1(x + attention(x))``, then ``norm2(x + linear2(relu(linear1(x))))``.

    Parameters
    ----------
    width, n_heads, hidden : int
        Width of a token, heads, hidden units of the feed-forward branch.
    dropout : float
        Rate, in [0, 1).
    dropout_at : {"residual", "everywhere"}
        See `DropoutAt`.
    """

    def __init__(
        self, width: int, n_heads: int, hidden: int, dropout: float = 0.0, dropout_at: DropoutAt = "residual"
    ) -> None:
        super().__init__(width, hidden, dropout, dropout_at)
        self.self_attn = PackedAttention(width, n_heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after the layer; with ``out`` only those are computed, while all serve as keys and values."""
        queries = x if out is None else take(x, out)
        x = self.norm1(queries + self._branch(self.self_attn(queries, x, valid, self._inner())))
        mixed: Tensor = self.norm2(x + self._fed_forward(x))
        return mixed


class PostNormDecoderLayer(_Layer):
    """Self-attention, attention to a memory, feed-forward, each added and then normalised.

    Parameters
    ----------
    width, n_heads, hidden, dropout, dropout_at
        As in `PostNormEncoderLayer`.
    """

    def __init__(
        self, width: int, n_heads: int, hidden: int, dropout: float = 0.0, dropout_at: DropoutAt = "residual"
    ) -> None:
        super().__init__(width, hidden, dropout, dropout_at)
        self.self_attn = PackedAttention(width, n_heads)
        self.multihead_attn = PackedAttention(width, n_heads)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        memory: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B L"] | None = None,
        memory_valid: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after the layer."""
        x = self.norm1(x + self._branch(self.self_attn(x, x, valid, self._inner())))
        x = self.norm2(x + self._branch(self.multihead_attn(x, memory, memory_valid, self._inner())))
        mixed: Tensor = self.norm3(x + self._fed_forward(x))
        return mixed


class PostNormEncoder(nn.Module):
    """Encoder layers and a last norm, started as ``torch.nn.Transformer`` is.

    Parameters
    ----------
    width, depth, n_heads, hidden, dropout, dropout_at
        Layers, and as in `PostNormEncoderLayer`.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        n_heads: int,
        hidden: int,
        dropout: float = 0.0,
        dropout_at: DropoutAt = "residual",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PostNormEncoderLayer(width, n_heads, hidden, dropout, dropout_at) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        _xavier(self)

    def forward(
        self,
        x: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after all layers and the norm; with ``out`` the last layer computes those alone."""
        for layer in self.layers[:-1]:
            x = layer(x, valid)
        mixed: Tensor = self.norm(self.layers[-1](x, valid, out))
        return mixed

    def last_layers(
        self, x: Float[Tensor, "B M D"], n_last: int, valid: Bool[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """Tokens after each of the last ``n_last`` layers, before the last norm."""
        found = []
        for layer in self.layers:
            x = layer(x, valid)
            found.append(x)
        return found[-n_last:]


class PostNormDecoder(nn.Module):
    """Decoder layers and a last norm, started as ``torch.nn.Transformer`` is; its weights depend on no channels.

    Parameters
    ----------
    width, depth, n_heads, hidden, dropout, dropout_at
        As in `PostNormEncoder`.
    """

    channel_tables: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        width: int,
        depth: int,
        n_heads: int,
        hidden: int,
        dropout: float = 0.0,
        dropout_at: DropoutAt = "residual",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PostNormDecoderLayer(width, n_heads, hidden, dropout, dropout_at) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        _xavier(self)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        memory: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B L"] | None = None,
        memory_valid: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after all layers and the norm."""
        for layer in self.layers:
            x = layer(x, memory, valid, memory_valid)
        mixed: Tensor = self.norm(x)
        return mixed


def _xavier(module: nn.Module) -> None:
    """Glorot's uniform start of every matrix, with the packed projections as one matrix each, as in torch."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
