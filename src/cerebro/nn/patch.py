"""LaBraM's temporal convolution: a patch of samples becomes a token."""

from math import gcd

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_positive


class PatchEncoder(nn.Module):
    """Three temporal convolutions (kernels 15, 3, 3), each with GroupNorm and GELU, over every patch alone.

    GroupNorm runs over all channels and patches of a window, as in the published model: it is the only place where a
    patch sees the scale of the others. Padding takes no part in these statistics.

    Parameters
    ----------
    patch_samples : int
        Samples P of a patch.
    stride : int
        Stride of the first convolution in samples; 8 at 200 Hz and 4 at 100 Hz both give 25 steps a second.
    conv_channels : int
        Feature maps; the width of a token is ``steps * conv_channels``.

    Attributes
    ----------
    width : int
        Width D of a token.

    References
    ----------
    Jiang, Zhao & Lu 2024, arXiv:2405.18765.
    """

    def __init__(self, patch_samples: int, stride: int, conv_channels: int) -> None:
        super().__init__()
        for name, value in (
            ("patch_samples", patch_samples),
            ("conv_stride", stride),
            ("conv_channels", conv_channels),
        ):
            check_positive(name, value)
        if stride > patch_samples:
            raise ConfigError(
                f"conv_stride={stride} is longer than a patch; set it to at most {patch_samples} samples."
            )
        self.width = ((patch_samples - 1) // stride + 1) * conv_channels
        groups = gcd(4, conv_channels)
        self.conv1 = nn.Conv2d(1, conv_channels, (1, 15), stride=(1, stride), padding=(0, 7))
        self.norm1 = nn.GroupNorm(groups, conv_channels)
        self.conv2 = nn.Conv2d(conv_channels, conv_channels, (1, 3), padding=(0, 1))
        self.norm2 = nn.GroupNorm(groups, conv_channels)
        self.conv3 = nn.Conv2d(conv_channels, conv_channels, (1, 3), padding=(0, 1))
        self.norm3 = nn.GroupNorm(groups, conv_channels)

    def forward(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M D"]:
        """Tokens of patches; ``valid`` marks those that are no padding (``None``: all)."""
        maps = patches[:, None]  # (B, 1, M, P): the patches are the rows of an image, no convolution crosses them
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            maps = conv(maps)
            maps = norm(maps) if valid is None else masked_group_norm(maps, valid, norm)
            maps = F.gelu(maps)
        return rearrange(maps, "b c m s -> b m (s c)")


def masked_group_norm(
    maps: Float[Tensor, "B K M S"], valid: Bool[Tensor, "B M"], norm: nn.GroupNorm
) -> Float[Tensor, "B K M S"]:
    """GroupNorm whose statistics leave out the rows that are padding; equal to ``norm`` if none is."""
    with torch.autocast(maps.device.type, enabled=False):
        grouped = rearrange(maps.float(), "b (g k) m s -> b g k m s", g=norm.num_groups)
        weight = valid[:, None, None, :, None].float()
        count = reduce(weight, "b g k m s -> b g k 1 1", "sum") * grouped.shape[2] * grouped.shape[4]
        count = count.clamp(min=1)
        mean = reduce(grouped * weight, "b g k m s -> b g 1 1 1", "sum") / count
        var = reduce((grouped - mean) ** 2 * weight, "b g k m s -> b g 1 1 1", "sum") / count
        normed = rearrange((grouped - mean) * torch.rsqrt(var + norm.eps), "b g k m s -> b (g k) m s")
        scaled: Tensor = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
    return scaled.type_as(maps)
