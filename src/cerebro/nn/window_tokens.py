"""What becomes of windows before a sequence model: one linear projection, and codes of place and time.

A window of the papers on Mamba is a patch here: P samples of one channel.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_positive
from cerebro.signal import EEGBatch, SignalSpec


class WindowProjection(nn.Module):
    """``Linear(P, D)`` of each window, divided by the standard deviation of its channel.

    The deviation is that of the channel's whole recording where the batch carries it, else ``scale_uV``; also for a
    channel that is flat throughout. It divides what the weights make of the microvolts, which is the same as dividing
    each sample and P / D times cheaper.

    Parameters
    ----------
    patch_samples, d_model : int
        Samples P of a window, width D of a token.
    scale_uV : float
        Microvolts that count as one where no deviation is known, > 0.
    """

    def __init__(self, patch_samples: int, d_model: int, scale_uV: float) -> None:
        super().__init__()
        check_positive("patch_samples", patch_samples)
        check_positive("d_model", d_model)
        check_positive("scale_uV", scale_uV)
        self.scale_uV = scale_uV
        start = nn.Linear(patch_samples, d_model)
        self.weight, self.bias = start.weight, start.bias

    def forward(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Tokens; of a window that the valid samples end in, the rest counts as zeros."""
        n_samples = self.weight.shape[1]
        n_windows = batch.eeg.shape[-1] // n_samples
        windows = rearrange(batch.eeg[..., : n_windows * n_samples], "b c (n p) -> b c n p", p=n_samples)
        projected = F.linear(windows, self.weight)
        if batch.is_padded and n_windows:
            last = (batch.n_valid // n_samples).clamp(max=n_windows - 1)  # (B,): the window that is cut, if one is
            at = last[:, None, None, None].expand(-1, windows.shape[1], 1, -1)
            cut = windows.gather(2, at.expand(-1, -1, -1, n_samples))
            place = last[:, None] * n_samples + torch.arange(n_samples, device=last.device)
            cut = cut.masked_fill((place >= batch.n_valid[:, None])[:, None, None], 0.0)
            projected = projected.scatter(2, at.expand(-1, -1, -1, projected.shape[-1]), F.linear(cut, self.weight))
        return projected / self.scale(batch)[:, :, None, None] + self.bias

    def scale(self, batch: EEGBatch) -> Float[Tensor, "B C"]:
        """Microvolts that count as one in each channel."""
        scale = batch.scale(self.scale_uV)
        return torch.where(scale > 0, scale, self.scale_uV)

    def hide(self, tokens: Float[Tensor, "B C N D"], hidden: Bool[Tensor, "B C N"] | None) -> Float[Tensor, "B C N D"]:
        """Tokens as they are where the windows that are ``hidden`` hold zeros: the bias."""
        return tokens if hidden is None else torch.where(hidden[..., None], self.bias.to(tokens.dtype), tokens)


class PlaceAndTime(nn.Module):
    """Codes that are added to tokens: where an electrode is on the unit sphere, and when a window is in its sequence.

    The place is the direction from the origin of the head frame, three numbers, times a random matrix that is never
    trained and is kept in checkpoints, so that a model that is loaded places electrodes as the one that was saved. The
    time is ``Linear(1, D)`` of t / T, window t of T valid ones.

    Parameters
    ----------
    signal : SignalSpec
        Channels, each with a position.
    d_model : int
        Width D of a token.
    seed : int
        Of the random matrix, whose numbers are drawn from a normal distribution of variance 1.

    Raises
    ------
    ConfigError
        If a channel has no position.
    """

    places: Tensor
    place_projection: Tensor

    def __init__(self, signal: SignalSpec, d_model: int, seed: int) -> None:
        super().__init__()
        _check_positions(signal)
        places = torch.tensor(signal.positions, dtype=torch.float64)  # (S, 3)
        places = places / places.norm(dim=1, keepdim=True)
        self.register_buffer("places", places.float(), persistent=False)
        projection = torch.randn(3, d_model, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("place_projection", projection)
        self.time_proj = nn.Linear(1, d_model)

    def forward(
        self, channel: Int64[Tensor, "B C"], n_valid: Int64[Tensor, " B"] | int, n: int
    ) -> Float[Tensor, "B C N D"]:
        """Codes in float32 of ``n`` windows of each channel, of which ``n_valid`` are no padding.

        A channel that is padding gets the place of the first one.
        """
        with torch.autocast(channel.device.type, enabled=False):
            place = F.embedding(channel.clamp(min=0), self.places) @ self.place_projection  # (B, C, D)
            number = torch.arange(n, device=channel.device, dtype=place.dtype)
            share = number / n_valid[:, None] if isinstance(n_valid, Tensor) else (number / max(n_valid, 1))[None]
            time = self.time_proj(share[..., None])  # (B or 1, N, D)
            codes: Tensor = place[:, :, None] + time[:, None]
        return codes


def n_valid_windows(batch: EEGBatch, patch_samples: int) -> Int64[Tensor, " B"]:
    """Windows (B,) in which valid samples begin, at least one."""
    n_windows = batch.eeg.shape[-1] // patch_samples
    return (-(-batch.n_valid // patch_samples)).clamp(min=1, max=max(n_windows, 1))


def valid_windows(batch: EEGBatch, patch_samples: int) -> Bool[Tensor, "B C N"]:
    """Windows of a real channel that begin with a valid sample; the last may end in zeros."""
    start = torch.arange(batch.eeg.shape[-1] // patch_samples, device=batch.eeg.device) * patch_samples  # (N,)
    return (batch.channel >= 0)[:, :, None] & (start < batch.n_valid[:, None])[:, None]


def check_windows(signal: SignalSpec, patch_samples: int, model: str) -> None:
    """Raise ConfigError unless windows of ``patch_samples`` fill ``signal.n_times``; ``model`` is named in it."""
    check_positive("patch_samples", patch_samples)
    if signal.n_times % patch_samples == 0:
        return
    fitting = [p for p in range(10, signal.n_times + 1) if signal.n_times % p == 0]
    near = sorted(sorted(fitting, key=lambda p: (abs(p - patch_samples), p))[:6])
    raise ConfigError(
        f"patch_samples={patch_samples} of {model} does not divide the {signal.n_times} samples of a row "
        f"({signal.n_times / signal.sfreq:g} s at {signal.sfreq:g} Hz); set patch_samples to one of {near}, or cut "
        "longer windows (data.windows)."
    )


def _check_positions(signal: SignalSpec) -> None:
    if lost := signal.unplaced():
        raise ConfigError(
            f"{lost}, and the code of place asks where each is; prepare the store with a montage that places them, or "
            "drop them in data.channels."
        )
