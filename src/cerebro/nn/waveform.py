"""Convolutions over the samples of one channel: a feature vector every few hundred milliseconds."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError

ConvLayers = Sequence[tuple[int, int, int]]
"""(channels, kernel, stride) of each convolution."""


def receptive_field(layers: ConvLayers) -> tuple[int, int]:
    """Samples that one feature vector sees, and samples from one to the next."""
    field, step = 1, 1
    for _, kernel, stride in layers:
        field, step = field + (kernel - 1) * step, step * stride
    return field, step


class WaveformEncoder(nn.Module):
    """Strided convolutions with GELU over each channel alone, with GroupNorm per feature map behind the first.

    Modules and numbers are those of braindecode's feature encoder for Signal-JEPA, itself after wav2vec (Baevski et al.
    2020, arXiv:2006.11477) and BENDR (Kostas et al. 2021, arXiv:2101.12037): ``1.0`` is the first convolution and
    ``1.2`` its norm. Weights know nothing of channels, so that any montage fits.

    Parameters
    ----------
    layers : sequence of (int, int, int)
        Channels, kernel and stride of each convolution.

    Raises
    ------
    ConfigError
        If there is no layer, or a number below 1.
    """

    def __init__(self, layers: ConvLayers) -> None:
        super().__init__()
        if not layers or any(number < 1 for layer in layers for number in layer):
            raise ConfigError(
                f"conv_layers={[list(layer) for layer in layers]} cannot be; give [channels, kernel, stride] of each "
                "convolution, all of them 1 or more."
            )
        self.width = layers[-1][0]
        self.first_kernel, self.first_stride = layers[0][1:]
        n_inputs = 1
        for number, (n_maps, kernel, stride) in enumerate(layers, start=1):
            conv = nn.Conv1d(n_inputs, n_maps, kernel, stride, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            norm = [nn.GroupNorm(n_maps, n_maps)] if number == 1 else []
            self.add_module(str(number), nn.Sequential(conv, nn.Identity(), *norm, nn.GELU()))
            n_inputs = n_maps

    def forward(
        self, eeg: Float[Tensor, "B C T"], n_valid: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        """Features of every channel.

        Parameters
        ----------
        eeg : tensor (B, C, T)
            Microvolts.
        n_valid : tensor (B,), optional
            Samples that are no padding, from the left; the norm leaves out what looks at others. ``None``: all.
        """
        n_channels = eeg.shape[1]
        x = rearrange(eeg, "b c t -> (b c) 1 t")
        for number, block in enumerate(self.children()):
            assert isinstance(block, nn.Sequential)
            if number == 0 and n_valid is not None:
                x = F.gelu(self._masked_norm(block[0](x), block[2], n_valid.repeat_interleave(n_channels)))
            else:
                x = block(x)
        return rearrange(x, "(b c) d n -> b c n d", c=n_channels)

    def _masked_norm(
        self, maps: Float[Tensor, "R K S"], norm: nn.Module, n_valid: Int64[Tensor, " R"]
    ) -> Float[Tensor, "R K S"]:
        """GroupNorm with a group per map, over the steps that see valid samples alone."""
        assert isinstance(norm, nn.GroupNorm)
        with torch.autocast(maps.device.type, enabled=False):
            wide = maps.float()
            n_steps = (n_valid - self.first_kernel) // self.first_stride + 1
            valid = (torch.arange(maps.shape[-1], device=maps.device) < n_steps[:, None])[:, None]  # (R, 1, S)
            count = n_steps.clamp(min=1)[:, None, None]
            mean = torch.where(valid, wide, 0.0).sum(dim=2, keepdim=True) / count
            var = torch.where(valid, wide - mean, 0.0).square().sum(dim=2, keepdim=True) / count
            normed = (wide - mean) * torch.rsqrt(var + norm.eps)
            scaled: Tensor = normed * norm.weight[:, None] + norm.bias[:, None]
        return scaled.type_as(maps)
