"""Transformer over the tokens of all channels and patches, with a class token and learned positions."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_positive
from cerebro.nn.attention import Block, take

ClassToken = Literal["official", "fixed"]


class TokenTransformer(nn.Module):
    """Adds channel and time embeddings and a class token, and mixes the tokens of a window in ``depth`` blocks.

    There is no norm behind the last block: heads bring their own, before or after pooling, as published.

    Parameters
    ----------
    width, depth, n_heads : int
        Size of the transformer.
    n_channels : int
        Channels that can occur.
    max_patches : int
        Longest window in patches.
    mlp_ratio, qkv_bias, qk_norm, layer_scale
        As in `cerebro.nn.attention.Block`.
    drop_path : float
        Rate at the last block; it rises linearly from 0 at the first.
    class_token : {"official", "fixed"}
        Position of the class token: ``fixed`` is a row of its own; ``official`` is the embedding of the first channel,
        as the published pretraining has it by accident (the result then depends on which channel comes first).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        n_heads: int,
        n_channels: int,
        max_patches: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_norm: bool = True,
        layer_scale: float = 0.1,
        drop_path: float = 0.0,
        class_token: ClassToken = "fixed",
    ) -> None:
        super().__init__()
        check_positive("depth", depth)
        self.class_position: ClassToken = class_token
        self.class_token = nn.Parameter(torch.empty(width))
        self.channel_embedding = nn.Parameter(torch.empty(1 + n_channels, width))  # row 0 = class token
        self.time_embedding = nn.Parameter(torch.empty(max_patches, width))
        self.blocks = nn.ModuleList(
            Block(width, n_heads, mlp_ratio, qkv_bias, qk_norm, layer_scale, drop_path * i / max(depth - 1, 1))
            for i in range(depth)
        )
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.class_token, self.channel_embedding, self.time_embedding):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            with torch.no_grad():  # the branches of deep blocks start smaller
                block.attn.proj.weight.div_(math.sqrt(2 * (i + 1)))
                block.fc2.weight.div_(math.sqrt(2 * (i + 1)))

    def positions(self, channel: Int64[Tensor, "B C"], n_patches: int) -> Float[Tensor, "B C N D"]:
        """Channel and time embeddings of ``n_patches`` tokens of each channel; padding gets the class token's."""
        # F.embedding, not an index: its gradient is summed in a fixed order on any number of threads
        return F.embedding(channel + 1, self.channel_embedding)[:, :, None] + self.time_embedding[:n_patches]

    def layers(
        self, placed: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """Any tokens that have their positions, after each block; the class token has its own position.

        Raises
        ------
        ConfigError
            If the class token has the position of the first channel, which a list of tokens does not know.
        """
        if self.class_position == "official":
            raise ConfigError(
                "class_token: official takes the position of the first channel, and JEPA mixes lists of tokens without "
                "one; set model.encoder.init_args.class_token to fixed."
            )
        first = (self.class_token + self.channel_embedding[0]).expand(len(placed), 1, -1).to(placed.dtype)
        x = torch.cat([first, placed], dim=1)
        with_first = None if valid is None else torch.cat([valid.new_ones(len(valid), 1), valid], dim=1)
        found = []
        for block in self.blocks:
            x = block(x, with_first)
            found.append(x[:, 1:])
        return found

    def forward(
        self,
        tokens: Float[Tensor, "B C N D"],
        channel: Int64[Tensor, "B C"],
        valid: Bool[Tensor, "B C N"] | None = None,
        keep: Int64[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B X D"]:
        """Mixed tokens over the flattened (C N), without the class token.

        Parameters
        ----------
        tokens : (B, C, N, D)
            Local tokens.
        channel : (B, C)
            Row of ``SignalSpec.channels``; -1 = padding.
        valid : bool (B, C, N), optional
            Tokens that are no padding; ``None``: all.
        keep : (B, M), optional
            Compute these tokens only; ``None``: all.
        out : (B, L), optional
            Give these tokens, all of them in ``keep``; ``None``: the kept ones. The last block computes no others.
        """
        n_batch, n_channels, n_patches, _ = tokens.shape
        # F.embedding, not an index: its gradient is summed in a fixed order on any number of threads
        position = F.embedding(channel + 1, self.channel_embedding)  # (B, C, D); padding gets row 0 and is masked
        x = (tokens + position[:, :, None] + self.time_embedding[:n_patches]).flatten(1, 2)  # (B, C N, D)
        at_class = position[:, 0] if self.class_position == "official" else self.channel_embedding[0]
        first = (self.class_token + at_class).expand(n_batch, -1)[:, None].to(x.dtype)  # (B, 1, D)
        flat_valid = None if valid is None else valid.flatten(1, 2)
        where = out
        if keep is not None:
            x = take(x, keep)
            flat_valid = None if flat_valid is None else flat_valid.gather(1, keep)
            if out is not None:
                place = torch.zeros(n_batch, n_channels * n_patches, dtype=torch.int64, device=x.device)
                counter = torch.arange(keep.shape[1], device=x.device).expand_as(keep)
                where = place.scatter_(1, keep, counter).gather(1, out)
        x = torch.cat([first, x], dim=1)
        if flat_valid is not None:
            flat_valid = torch.cat([flat_valid.new_ones(n_batch, 1), flat_valid], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, flat_valid)
        last = self.blocks[-1]
        mixed: Tensor = last(x, flat_valid)[:, 1:] if where is None else last(x, flat_valid, where + 1)
        return mixed
