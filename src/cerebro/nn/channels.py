"""Cross-attention from the electrodes of a target montage to those of a recording."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError

HEAD_RADIUS_M = 0.1  # positions are counted in it; an electrode of unknown place counts as this far from all
NEAREST_REACH_M, FARTHEST_REACH_M = 0.015, 0.06  # of the first and last head, before training
_OCTAVES = 3


class PerceiverChannels(nn.Module):
    """Signals at the electrodes of a target montage from those of any recording, learned.

    Each target electrode asks with a learned query (Perceiver IO; Jaegle et al. 2022, arXiv:2107.14795) that holds its
    place on the head; each channel of the recording answers with its place and with what its patch looks like, and
    gives its samples. A head begins as a kernel of a few centimetres around the target's place, so that an untrained
    adapter interpolates smoothly. Twice the voltage gives twice the voltage; the order of channels does not matter, and
    padded ones have no influence.

    Parameters
    ----------
    sources : tensor (S, 3)
        Positions in metres of every channel that can occur (``SignalSpec.positions``), NaN where unknown.
    targets : tensor (O, 3)
        Positions in metres of the target's electrodes.
    patch_samples : int
        Samples of a patch, in which attention is constant.
    width : int
        Width of queries and keys.
    n_heads : int
        Heads; must divide ``width``.

    Raises
    ------
    ConfigError
        If ``n_heads`` does not divide ``width``.
    """

    distance: Tensor
    source_place: Tensor
    target_place: Tensor

    def __init__(
        self,
        sources: Float[Tensor, "S 3"],
        targets: Float[Tensor, "O 3"],
        patch_samples: int,
        width: int = 64,
        n_heads: int = 4,
    ) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads:
            fitting = [heads for heads in range(1, width + 1) if width % heads == 0]
            raise ConfigError(f"n_heads={n_heads} does not divide the width {width}; set n_heads to one of {fitting}.")
        self.patch_samples = patch_samples
        self.n_heads = n_heads
        away = torch.cdist(targets.double(), sources.double()).nan_to_num(nan=HEAD_RADIUS_M)
        self.register_buffer("distance", away.float(), persistent=False)  # (O, S) metres
        self.register_buffer("source_place", _features(sources), persistent=False)
        self.register_buffer("target_place", _features(targets), persistent=False)
        self.place = nn.Linear(self.source_place.shape[1], width, bias=False)
        self.source = nn.Parameter(0.02 * torch.randn(len(sources), width))  # what the place does not say
        self.query = nn.Parameter(0.02 * torch.randn(len(targets), width))
        self.content = nn.Linear(patch_samples, width, bias=False)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        reach = torch.linspace(NEAREST_REACH_M, FARTHEST_REACH_M, n_heads + 1)[:-1]
        self.log_reach = nn.Parameter(reach.log())
        self.mixer = nn.Parameter(torch.eye(patch_samples).repeat(n_heads, 1, 1) / n_heads)  # (H, P, P)

    def forward(
        self, eeg: Float[Tensor, "B C T"], channel: Int64[Tensor, "B C"], n_valid: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B O T"]:
        """Signals of the target's electrodes, in the unit of ``eeg``; zero for a window of nothing but padding.

        Parameters
        ----------
        eeg : tensor (B, C, T)
            Signals; padding may hold anything.
        channel : tensor (B, C)
            Row of ``sources`` of each channel, -1 = padding.
        n_valid : tensor (B,)
            Samples that are no padding, from the left.
        """
        n_times = eeg.shape[-1]
        is_real = channel >= 0
        row = channel.clamp(min=0)
        is_there = torch.arange(n_times, device=eeg.device) < n_valid[:, None]  # (B, T)
        eeg = torch.where(is_real[..., None] & is_there[:, None], eeg, 0.0)
        x = rearrange(F.pad(eeg, (0, -n_times % self.patch_samples)), "b c (n p) -> b c n p", p=self.patch_samples)
        energy = x.square().sum(dim=(1, 2, 3)) / (is_real.sum(dim=1) * n_valid).clamp(min=1)
        looks = self.content(x / (energy.sqrt()[:, None, None, None] + 1e-6))  # (B, C, N, D)
        place = (self.place(self.source_place) + self.source)[row]  # (B, C, D)
        keys = rearrange(self.to_key(looks + place[:, :, None]), "b c n (h e) -> b n h c e", h=self.n_heads)
        asked = self.to_query(self.place(self.target_place) + self.query)
        queries = rearrange(asked, "o (h e) -> h o e", h=self.n_heads)
        score = queries @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5  # (B, N, H, O, C)
        near = self.distance.t()[row]  # (B, C, O)
        kernel = near.square()[:, None] / (2 * self.log_reach.exp().square()[:, None, None])  # (B, H, C, O)
        score = score.float() - rearrange(kernel, "b h c o -> b 1 h o c")
        score = score.masked_fill(~is_real[:, None, None, None, :], torch.finfo(score.dtype).min)
        mixed = score.softmax(dim=-1).to(x.dtype) @ rearrange(x, "b c n p -> b n 1 c p")  # (B, N, H, O, P)
        out = torch.einsum("bnhop,hpq->bonq", mixed, self.mixer.to(mixed.dtype))
        return rearrange(out, "b o n p -> b o (n p)")[..., :n_times].to(eeg.dtype)


def _features(positions: Float[Tensor, "S 3"]) -> Float[Tensor, "S F"]:
    """Places as numbers of order 1, at some octaves; zero where unknown."""
    place = positions.float() / HEAD_RADIUS_M
    waves = [wave(2.0**octave * place) for octave in range(_OCTAVES) for wave in (torch.sin, torch.cos)]
    return torch.cat([place, *waves], dim=1).nan_to_num(nan=0.0)
