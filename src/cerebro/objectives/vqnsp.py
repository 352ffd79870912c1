"""LaBraM's tokenizer: code every patch, then rebuild its amplitude and phase spectrum."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_positive
from cerebro.nn.attention import EPS
from cerebro.nn.processes import from_first_process, gather_uneven_rows, mean_over_processes, n_processes
from cerebro.nn.quantizer import CosineCodebook, Quantized, count_codes
from cerebro.nn.transformer import TokenTransformer
from cerebro.objectives.base import Loss, Objective, check_own_channels
from cerebro.signal import EEGBatch, SignalSpec

SpectrumTargets = Literal["official", "sincos"]
TOKENS_FOR_KMEANS = 8192  # with fewer, codes collapse within a few steps


class Standardised(NamedTuple):
    """Values with mean 0 and standard deviation 1 per window, and what was taken away."""

    value: Float[Tensor, "B C N F"]
    mean: Float[Tensor, "B 1 1 1"]
    sd: Float[Tensor, "B 1 1 1"]


class VQNSP(Objective):
    """Vector-quantised neural spectrum prediction (Jiang, Zhao & Lu 2024, arXiv:2405.18765).

    Loss: mean squared error of the amplitudes, of the phases, and the commitment of tokens to their codes.

    Parameters
    ----------
    encoder, signal
        What it reads from. The published encoder has ``qkv_bias=True, qk_norm=False, layer_scale=0``.
    n_codes : int
        Codes K of the codebook.
    code_dim : int
        Width of a code; 32 in the published code, 64 in the paper.
    decoder_depth, decoder_heads : int
        Size of the decoder, which has the encoder's width.
    targets : {"official", "sincos"}
        ``official``: all P bins of the FFT, amplitude and phase angle, each standardised per window. ``sincos``: the
        P // 2 + 1 bins that are not redundant, amplitude standardised per window, phase as its sine and cosine, so that
        -pi and pi are the same.
    decay, revive_below : float
        See `cerebro.nn.quantizer.CosineCodebook`.
    max_patches : int
        Rows of the decoder's time embedding.
    head_std : float
        Standard deviation of the initial weights of the heads around the codebook and of those that predict spectra,
        > 0; 0.02 as published for a width of 200. 1 / sqrt(width) keeps the spread of the tokens, and learns in a
        fraction of the steps at small widths.

    Raises
    ------
    ConfigError
        If the heads do not divide the width, the window has more than ``max_patches`` patches, or ``head_std`` is not
        positive.
    """

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        n_codes: int = 8192,
        code_dim: int = 32,
        decoder_depth: int = 3,
        decoder_heads: int = 10,
        targets: SpectrumTargets = "official",
        decay: float = 0.99,
        revive_below: float = 0.1,
        max_patches: int = 16,
        head_std: float = 0.02,
    ) -> None:
        super().__init__(encoder, signal)
        check_own_channels(type(self).__name__, encoder, signal)
        check_positive("head_std", head_std)
        if encoder.n_patches(signal.n_times) > max_patches:
            raise ConfigError(
                f"the window has {encoder.n_patches(signal.n_times)} patches and the decoder {max_patches} time "
                "embeddings; set max_patches of VQNSP higher or cut shorter windows."
            )
        width, n_samples = encoder.d_model, encoder.patch_samples
        self.spectrum_targets: SpectrumTargets = targets
        n_amplitudes = n_samples if targets == "official" else n_samples // 2 + 1
        n_phases = n_samples if targets == "official" else 2 * n_amplitudes
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.to_code = _two_layers(width, code_dim, head_std)
        self.codebook = CosineCodebook(n_codes, code_dim, decay, revive_below)
        self.from_code = nn.Linear(code_dim, width)
        self.decoder = TokenTransformer(
            width=width,
            depth=decoder_depth,
            n_heads=decoder_heads,
            n_channels=len(signal.channels),
            max_patches=max_patches,
            qkv_bias=True,
            qk_norm=False,
            layer_scale=0.0,
        )
        self.decoder_norm = nn.LayerNorm(width, eps=EPS)
        self.to_amplitude = _two_layers(width, n_amplitudes, head_std)
        self.to_phase = _two_layers(width, n_phases, head_std)

    @torch.no_grad()
    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Set the codebook by k-means on at least 8192 tokens of all processes and one token per code."""
        wanted = max(TOKENS_FOR_KMEANS, self.codebook.n_codes)
        gathered: list[Tensor] = []
        key = torch.zeros(1, dtype=torch.int64)
        was_training = encoder.training
        encoder.eval()
        for batch in batches:
            gathered.append(gather_uneven_rows(self._features(encoder(batch))[encoder.valid(batch)]))  # (M, D)
            key = from_first_process(batch.key[:1])
            if sum(len(tokens) for tokens in gathered) >= wanted:
                break
        encoder.train(was_training)
        if not gathered:
            raise ConfigError("there is no training batch to start the codebook; give the data split participants.")
        self.codebook.start(torch.cat(gathered), key)

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; hands its tokens on."""
        tokens = encoder(batch) if tokens is None else tokens
        valid = encoder.valid(batch)
        quantized = self._quantize(tokens, batch, valid)
        amplitude, phase = self.decode(quantized.vectors, batch, valid)
        wanted_amplitude, wanted_phase = self.targets(encoder, batch)
        amplitude_loss, phase_loss = (
            _mean_square(rebuilt.float(), wanted, valid if batch.is_padded else None)
            for rebuilt, wanted in ((amplitude, wanted_amplitude.value), (phase, wanted_phase.value))
        )
        parts = {
            "amplitude": amplitude_loss.detach(),
            "phase": phase_loss.detach(),
            "commitment": quantized.commitment.detach(),
            "perplexity": quantized.perplexity,
            "share_of_codes_used": quantized.share_used,
        }
        return Loss(amplitude_loss + phase_loss + quantized.commitment, parts, tokens)

    def codes(self, encoder: Encoder, batch: EEGBatch) -> Int64[Tensor, "B C N"]:
        """Code of every patch; 0 where padded."""
        valid = encoder.valid(batch)
        found = self.codebook.codes(self._features(encoder(batch)).flatten(0, 2)).view(valid.shape)
        return torch.where(valid, found, 0)

    def decode(
        self, vectors: Float[Tensor, "M D"], batch: EEGBatch, valid: Bool[Tensor, "B C N"]
    ) -> tuple[Float[Tensor, "B C N F"], Float[Tensor, "B C N G"]]:
        """Amplitude and phase (in the targets' form) from the code vectors of all patches, M = B C N."""
        tokens = self.from_code(vectors).view(*valid.shape, -1)  # (B, C, N, D)
        mixed = self.decoder(tokens, batch.channel, valid if batch.is_padded else None)
        mixed = self.decoder_norm(mixed).view(*valid.shape, -1)
        return self.to_amplitude(mixed), self.to_phase(mixed)

    @torch.no_grad()
    def targets(self, encoder: Encoder, batch: EEGBatch) -> tuple[Standardised, Standardised]:
        """Amplitude and phase spectra of the patches as they are to be rebuilt."""
        valid = encoder.valid(batch)
        patches = batch.eeg.float().unfold(-1, encoder.patch_samples, encoder.patch_stride)  # (B, C, N, P)
        if self.spectrum_targets == "official":
            spectrum = torch.fft.fft(patches)
            return _standardise(spectrum.abs(), valid), _standardise(spectrum.angle(), valid)
        spectrum = torch.fft.rfft(patches)
        angle = spectrum.angle()
        zero, one = angle.new_zeros(len(angle), 1, 1, 1), angle.new_ones(len(angle), 1, 1, 1)
        circle = Standardised(torch.cat([angle.sin(), angle.cos()], dim=-1), zero, one)
        return _standardise(spectrum.abs(), valid), circle

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """First window as it was and as rebuilt from its codes (C, T) in microvolts, and how often each code occurs.

        Amplitudes are standardised per window before they are predicted; mean and standard deviation of the original
        window (for ``official`` those of its phases, too) scale the rebuilt one.
        """
        valid = encoder.valid(batch)
        quantized = self._quantize(encoder(batch), batch, valid)
        predicted_amplitude, predicted_phase = self.decode(quantized.vectors, batch, valid)
        amplitude, phase = self.targets(encoder, batch)
        magnitude = (predicted_amplitude * amplitude.sd + amplitude.mean).clamp(min=0)  # (B, C, N, F)
        if self.spectrum_targets == "official":
            angle = predicted_phase * phase.sd + phase.mean
            rebuilt = torch.fft.ifft(torch.polar(magnitude.float(), angle.float())).real
        else:
            sine, cosine = predicted_phase.chunk(2, dim=-1)
            spectrum = torch.polar(magnitude.float(), torch.atan2(sine, cosine).float())
            rebuilt = torch.fft.irfft(spectrum, n=encoder.patch_samples)
        rebuilt = rebuilt * valid[..., None]  # (B, C, N, P)
        original = batch.eeg.unfold(-1, encoder.patch_samples, encoder.patch_stride) * valid[..., None]
        return {
            "channel": batch.channel[0],  # electrode of each row; -1 pads
            "original": original[0].flatten(1),
            "reconstructed": rebuilt[0].flatten(1),
            "code_counts": count_codes(quantized.codes, self.codebook.n_codes, valid.flatten()).long(),
        }

    def _quantize(self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, valid: Bool[Tensor, "B C N"]) -> Quantized:
        """All patches quantised, padded ones without influence: shapes do not depend on how many those are."""
        features = self._features(tokens).flatten(0, 2)
        quantized: Quantized = self.codebook(features, batch.key[:1], valid.flatten() if batch.is_padded else None)
        return quantized

    def _features(self, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B C N E"]:
        """Tokens at the width of a code, in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            features: Tensor = self.to_code(self.norm(tokens.float()))
            return features


def _two_layers(n_inputs: int, n_outputs: int, std: float) -> nn.Sequential:
    first, second = nn.Linear(n_inputs, n_inputs), nn.Linear(n_inputs, n_outputs)
    for layer in (first, second):
        nn.init.trunc_normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.Tanh(), second)


def _mean_square(
    found: Float[Tensor, "B C N F"], wanted: Float[Tensor, "B C N F"], valid: Bool[Tensor, "B C N"] | None
) -> Float[Tensor, ""]:
    """Mean squared difference over the valid patches (``None``: all) of the global batch; 0 without any."""
    if valid is None and n_processes() == 1:
        return F.mse_loss(found, wanted)
    squares = (found - wanted).square()
    if valid is None:
        return mean_over_processes(squares.sum(), torch.tensor(squares.numel(), device=squares.device))
    return mean_over_processes(torch.where(valid[..., None], squares, 0.0).sum(), valid.sum() * found.shape[-1])


def _standardise(value: Float[Tensor, "B C N F"], valid: Bool[Tensor, "B C N"]) -> Standardised:
    """Mean 0 and standard deviation 1 over the valid patches and bins of a window; a flat window gives zeros."""
    weight = valid[..., None].to(value.dtype)
    count = weight.sum(dim=(1, 2, 3), keepdim=True) * value.shape[-1]
    mean = (value * weight).sum(dim=(1, 2, 3), keepdim=True) / count.clamp(min=1)
    squares = ((value - mean) ** 2 * weight).sum(dim=(1, 2, 3), keepdim=True)
    sd = (squares / (count - 1).clamp(min=1)).sqrt()
    return Standardised((value - mean) / sd.clamp(min=1e-8) * weight, mean, sd)
