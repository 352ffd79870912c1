"""Masked window modelling: rebuild hidden windows of a sequence from the others, MAE or BERT style."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.dsp.spectrum import power_spectrum
from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_between, check_one_of, check_positive
from cerebro.nn.processes import mean_over_processes
from cerebro.objectives.base import Loss, Objective, check_own_channels
from cerebro.objectives.masks import SequenceMask, rounded_share, sequence_mask
from cerebro.randomness import keys_within, normal
from cerebro.signal import EEGBatch, SignalSpec

MaskingStyle = Literal["mae", "bert"]
N_SHOWN = 8  # windows that a report shows
MOST_WITHOUT_LEAK = 0.2  # mask ratio of the named configs; above it "bert" warns

_log = logging.getLogger(__name__)


class Rebuilt(NamedTuple):
    """Masked windows, standardised, as they are and as they were rebuilt; those that do not count are filled in."""

    mask: SequenceMask
    target: Float[Tensor, "B C L P"]
    predicted: Float[Tensor, "B C L P"]
    n_samples: Int64[Tensor, "B C L"]  # of each window, without padding behind the end of the recording
    scale: Float[Tensor, "B C"]  # microvolts


class MaskedWindows(Objective):
    """Rebuild masked windows from the others (He et al. 2022, arXiv:2111.06377; Devlin et al. 2019, arXiv:1810.04805).

    Each channel of each row is a sequence of its own; a window is a patch of the encoder. ``round(mask_ratio * n)`` of
    the n valid windows are masked, halves rounded up, drawn from the row's key and the channel. Windows are
    standardised, microvolts over the deviation of their channel. Loss: mean over the masked windows of the mean squared
    error over their samples; samples behind the end of a recording do not count.

    ``mae``: all masked windows are zeroed in the input, before the encoder sees anything of them; where and when they
    are stays known. ``bert``: of n masked windows, in the order in which they were drawn, ``round(0.8 n)`` are zeroed,
    those up to ``round(0.9 n)`` become Gaussian noise of standard deviation 1, and the others stay as they are. Those
    can be copied from the input, so that the groups are logged apart: ``mse_zeroed`` alone compares with ``mae``.

    Logged beside the loss: ``explained``, 1 - mse / variance of the masked windows (0: no better than their mean, 1:
    all; below 0 early in training), and ``unmasked_sequences``, the share of sequences too short for the ratio to mask
    any window; they teach nothing.

    Parameters
    ----------
    encoder, signal
        What is trained; patches must not overlap.
    mask_ratio : float
        Share of the windows of a sequence to mask, in (0, 1).
    masking_style : {"mae", "bert"}
        ``bert`` above a ratio of 0.2 warns that unchanged windows leak.
    scale_uV : float
        Standard deviation in microvolts by which windows are divided where the data carry none, > 0; the encoder's.

    Raises
    ------
    ConfigError
        If the ratio masks no window of the longest sequence or all of them, a number is out of range, or the encoder
        has overlapping patches or other channels than the recordings.
    """

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """``m20_mae``."""
        return f"m{100 * settings['mask_ratio']:g}_{settings['masking_style']}"

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        mask_ratio: float = 0.2,
        masking_style: MaskingStyle = "mae",
        scale_uV: float = 20.0,
    ) -> None:
        super().__init__(encoder, signal)
        check_own_channels(type(self).__name__, encoder, signal)
        check_between("mask_ratio", mask_ratio, 0, 1)
        check_one_of("masking_style", masking_style, ("mae", "bert"))
        check_positive("scale_uV", scale_uV)
        if encoder.patch_stride != encoder.patch_samples:
            raise ConfigError(
                f"{type(encoder).__name__} cuts patches of {encoder.patch_samples} samples every "
                f"{encoder.patch_stride}, and MaskedWindows needs them side by side, or a hidden one would be seen in "
                "others; set model.encoder to Mamba2, Transformer or LaBraM."
            )
        _check_ratio(mask_ratio, encoder.n_patches(signal.n_times))
        if masking_style == "bert" and mask_ratio > MOST_WITHOUT_LEAK:
            _log.warning(
                "masking_style=bert with mask_ratio=%g: a tenth of the masked windows stays in the input and can be "
                "copied, so that the loss leaks; read mse_zeroed, or set masking_style to mae",
                mask_ratio,
            )
        self.mask_ratio = mask_ratio
        self.masking_style: MaskingStyle = masking_style
        self.scale_uV = scale_uV
        self.decoder = nn.Linear(encoder.d_model, encoder.patch_samples)
        nn.init.trunc_normal_(self.decoder.weight, std=0.02)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; zero, with a zero gradient, if nothing is masked. Unmasked ``tokens`` are of no use here."""
        rebuilt = self.rebuild(encoder, batch)
        mask, counts = rebuilt.mask, rebuilt.mask.counts
        is_there = _is_there(rebuilt) if batch.is_padded else None
        error = _mean_of_samples((rebuilt.predicted - rebuilt.target).square(), rebuilt.n_samples, is_there)
        total = _mean(error, counts)
        has_windows = encoder.valid(batch).any(dim=2)  # (B, C)
        parts: dict[str, Tensor] = {"mse": total.detach()}
        parts["explained"] = _explained(parts["mse"], rebuilt, is_there)
        parts["unmasked_sequences"] = _mean((mask.n_hidden == 0).float(), has_windows)
        groups = dict.fromkeys(["loss", "mse", "explained"], counts.sum()) | {"unmasked_sequences": has_windows.sum()}
        if self.masking_style == "bert":
            for name, members in zip(("mse_zeroed", "mse_noised", "mse_unchanged"), _bert_groups(mask), strict=True):
                parts[name], groups[name] = _mean(error.detach(), members), members.sum()
        return Loss(total, parts, counts=groups)

    def rebuild(self, encoder: Encoder, batch: EEGBatch) -> Rebuilt:
        """Masked windows of a batch, as they are and as rebuilt from what the style leaves of the input."""
        valid = encoder.valid(batch)  # (B, C, N)
        n_patches, n_samples = valid.shape[2], encoder.patch_samples
        mask = sequence_mask(valid, self.mask_ratio, batch.key, batch.channel)
        scale = batch.scale(self.scale_uV)
        scale = torch.where(scale > 0, scale, self.scale_uV)  # of a flat channel, whose windows are zeros
        windows = _windows(batch.eeg, n_patches, n_samples)
        zeroed, noised, _ = _bert_groups(mask) if self.masking_style == "bert" else (mask.counts, None, None)
        hidden = torch.zeros_like(valid).scatter_(2, mask.drawn, zeroed)  # each place is there once
        shown_batch = batch  # an encoder that hides inputs needs no copy of it
        if noised is not None or not encoder.hides_inputs:
            is_noise = None if noised is None else torch.zeros_like(valid).scatter_(2, mask.drawn, noised)
            emptied = hidden if is_noise is None else hidden | is_noise
            shown = torch.where(emptied[..., None], 0.0, windows)  # the one copy of the batch
            if noised is not None:
                _add_noise(shown, mask, noised, scale, batch)
            shown_batch = replace(batch, eeg=shown.flatten(2))
        out = (mask.drawn + n_patches * torch.arange(valid.shape[1], device=valid.device)[:, None]).flatten(1)
        mixed = encoder.mix_subset(encoder.embed(shown_batch), shown_batch, hidden, out=out)  # (B, C L, D)
        predicted: Tensor = self.decoder(mixed).float()
        target = _take(windows, mask.drawn) / scale[:, :, None, None]
        left = batch.n_valid[:, None, None] - mask.drawn * n_samples
        return Rebuilt(mask, target, predicted.view_as(target), left.clamp(0, n_samples), scale)

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Up to eight zeroed windows as recorded and as rebuilt, in microvolts, and the mean spectra of all of them.

        The shown ones are the first that was drawn in each of the first sequences. ``channel``, ``window`` and
        ``deviation_uV`` (R,) say where each is from and by what it was divided; {} if nothing was masked.
        """
        rebuilt = self.rebuild(encoder, batch)
        zeroed = _bert_groups(rebuilt.mask)[0] if self.masking_style == "bert" else rebuilt.mask.counts
        is_whole = zeroed & (rebuilt.n_samples == encoder.patch_samples)  # (B, C, L)
        if not bool(is_whole.any()):
            return {}
        original, predicted = (value * rebuilt.scale[:, :, None, None] for value in (rebuilt.target, rebuilt.predicted))
        first = is_whole & (is_whole.cumsum(dim=2) == 1)
        row, channel, entry = (places[:N_SHOWN] for places in first.nonzero(as_tuple=True))
        spectra = []
        for windows in (original[is_whole], predicted[is_whole]):  # (M, P)
            frequency_hz, density = power_spectrum(windows.double().cpu().numpy(), encoder.signal.sfreq)
            spectra.append(torch.from_numpy(density.mean(axis=0)))
        return {
            "channel": batch.channel[row, channel],
            "window": rebuilt.mask.drawn[row, channel, entry],
            "deviation_uV": rebuilt.scale[row, channel],
            "original": original[row, channel, entry],
            "reconstructed": predicted[row, channel, entry],
            "frequency_hz": torch.from_numpy(frequency_hz),
            "spectrum_original": spectra[0],
            "spectrum_reconstructed": spectra[1],
            "n_windows": is_whole.sum(),
        }


def _check_ratio(ratio: float, n_windows: int) -> None:
    """Refuse a ratio that masks none of the windows of the longest sequence, or all."""
    n_masked = rounded_share(n_windows, ratio)
    if 0 < n_masked < n_windows:
        return
    if n_windows < 2:
        raise ConfigError(
            f"the longest sequence has {n_windows} window(s), so that masking leaves nothing to rebuild or nothing to "
            "rebuild it from; set model.encoder.init_args.patch_samples smaller, or data.windows to longer sequences."
        )
    low, high = ceil(500 / n_windows) / 1000, (ceil(1000 - 500 / n_windows) - 1) / 1000
    raise ConfigError(
        f"mask_ratio={ratio:g} masks {n_masked} of the {n_windows} windows of the longest sequence; set mask_ratio to "
        f"{low:g} ... {high:g}, which masks some and leaves some."
    )


def _bert_groups(mask: SequenceMask) -> tuple[Bool[Tensor, "B C L"], Bool[Tensor, "B C L"], Bool[Tensor, "B C L"]]:
    """Masked entries that are zeroed, become noise, and stay: up to round(0.8 n), up to round(0.9 n), the others."""
    place = torch.arange(mask.drawn.shape[2], device=mask.drawn.device)
    n_zeroed, n_changed = ((tenths * mask.n_hidden + 5) // 10 for tenths in (8, 9))
    is_zeroed, is_changed = place < n_zeroed[:, :, None], place < n_changed[:, :, None]
    return is_zeroed, is_changed & ~is_zeroed, mask.counts & ~is_changed


def _add_noise(
    shown: Float[Tensor, "B C N P"],
    mask: SequenceMask,
    noised: Bool[Tensor, "B C L"],
    scale: Float[Tensor, "B C"],
    batch: EEGBatch,
) -> None:
    """Add noise of standard deviation 1 (times ``scale``) to the windows of ``noised``, which are zeros, in place."""
    n_batch, n_channels, n_patches, n_samples = shown.shape
    most = max((9 * n + 5) // 10 - (8 * n + 5) // 10 for n in range(mask.drawn.shape[2] + 1))  # of one sequence
    entry = noised.byte().argsort(dim=2, descending=True, stable=True)[:, :, :most]  # (B, C, M), those of noise first
    window, counts = mask.drawn.gather(2, entry), noised.gather(2, entry)
    keys = keys_within(batch.key, batch.channel)  # (B, C), the sequences' own
    keys = keys_within(keys.flatten(), window.flatten(0, 1)).flatten()  # (B C M)
    noise = normal(keys, n_samples, stream=2).view(*window.shape, n_samples)
    noise = noise * (counts * scale[:, :, None])[..., None]
    sequence = torch.arange(n_batch * n_channels, device=window.device).view(n_batch, n_channels, 1)
    shown.view(-1, n_samples).index_add_(0, (sequence * n_patches + window).flatten(), noise.flatten(0, 2))


def _windows(eeg: Float[Tensor, "B C T"], n_patches: int, n_samples: int) -> Float[Tensor, "B C N P"]:
    """The windows of a batch side by side; samples that fill none are left out."""
    return rearrange(eeg[..., : n_patches * n_samples], "b c (n p) -> b c n p", p=n_samples)


def _take(windows: Float[Tensor, "B C N P"], index: Int64[Tensor, "B C L"]) -> Float[Tensor, "B C L P"]:
    """Windows at ``index`` of each sequence."""
    return windows.gather(2, index[..., None].expand(-1, -1, -1, windows.shape[-1]))


def _is_there(rebuilt: Rebuilt) -> Bool[Tensor, "B C L P"]:
    """Samples that the recording has."""
    place = torch.arange(rebuilt.target.shape[-1], device=rebuilt.target.device)
    return place < rebuilt.n_samples[..., None]


def _mean_of_samples(
    value: Float[Tensor, "B C L P"], n_samples: Int64[Tensor, "B C L"], is_there: Bool[Tensor, "B C L P"] | None
) -> Float[Tensor, "B C L"]:
    """Mean over the samples that are there (``None``: all); 0 without any."""
    if is_there is None:
        return value.mean(dim=-1)
    return torch.where(is_there, value, 0.0).sum(dim=-1) / n_samples.clamp(min=1)


def _mean(value: Float[Tensor, "*entries"], counts: Bool[Tensor, "*entries"]) -> Float[Tensor, ""]:
    """Mean of the entries of the global batch that count; 0 if none does."""
    return mean_over_processes(torch.where(counts, value, 0.0).sum(), counts.sum())


def _explained(mse: Float[Tensor, ""], rebuilt: Rebuilt, is_there: Bool[Tensor, "B C L P"] | None) -> Float[Tensor, ""]:
    """``1 - mse / variance`` of the masked windows of the batch; 0 where these do not vary."""
    counts = rebuilt.mask.counts
    mean = _mean(_mean_of_samples(rebuilt.target, rebuilt.n_samples, is_there), counts)
    square = _mean(_mean_of_samples(rebuilt.target.square(), rebuilt.n_samples, is_there), counts)
    variance = square - mean.square()
    return torch.where(variance > 0, 1 - mse / variance.clamp(min=1e-12), 0.0)
