"""What a recording is like, as a model is given it: strength, spectrum and coupling of its channels, and its embedding.

A recording is what has one number in ``EEGBatch.recording``; its rows are one channel each, or windows of all.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.nn.pooling import mean_over_valid
from cerebro.signal import EEGBatch, SignalSpec

Array = npt.NDArray[np.float64]
BANDS = ((1.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0), (48.0, 52.0), (58.0, 62.0), (64.0, 100.0))
"""Bands in Hz; the two narrow ones are those of power lines. What lies above half of the rate counts as missing."""
SEGMENT_S = 2.0
BLOCK_SAMPLES = 1 << 16  # in float64 at a time
SMALLEST_SHARE = 1e-5  # of a band in the power of a channel: less is rounding and the stop band of filters


@dataclass(frozen=True)
class Described:
    """A recording in natural logarithms of strength and shares, and Fisher's z; NaN where a channel is absent.

    Parameters
    ----------
    participant : int
        Number of the person.
    amplitude : array (S,)
        Log standard deviation in microvolts of each channel of the signal.
    spectrum : array (S, F)
        Log share of each of ``BANDS`` in the power of the channel.
    coupling : array (S, S)
        Inverse hyperbolic tangent of the correlation of two channels; NaN on the diagonal.
    embedding : array (D,)
        Mean token.
    """

    participant: int
    amplitude: Array
    spectrum: Array
    coupling: Array
    embedding: Array


@dataclass
class _Sums:
    """What is added up of one recording."""

    participant: int
    power: Array
    band: Array
    product: Array
    n_together: Array
    n: Array
    embedding: Array
    n_rows: int = 0
    waiting: dict[int, list[tuple[int, Tensor]]] = field(default_factory=dict)  # by start: rows of single channels


class Describer:
    """Describes recordings from batches in which rows of one recording follow each other.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode; it is run on every batch.
    signal : SignalSpec
        Channels that ``EEGBatch.channel`` counts.
    """

    def __init__(self, encoder: Encoder, signal: SignalSpec) -> None:
        self.encoder, self.signal = encoder, signal
        self.found: dict[int, Described] = {}
        self._open: dict[int, _Sums] = {}

    @torch.no_grad()
    def add(self, batch: EEGBatch, tokens: Tensor | None = None) -> None:
        """Take a batch; ``tokens`` are ``encoder(batch)`` where they are known."""
        tokens = self.encoder(batch) if tokens is None else tokens
        pooled = mean_over_valid(tokens.float(), self.encoder.valid(batch)).cpu().double().numpy()
        for row, (recording, person) in enumerate(
            zip(batch.recording.tolist(), batch.participant.tolist(), strict=True)
        ):
            if recording not in self._open:
                self._close()
                self._open[recording] = self._begin(person, pooled.shape[1])
            sums = self._open[recording]
            sums.embedding += pooled[row]
            sums.n_rows += 1
            n_valid = int(batch.n_valid[row])
            channel = batch.channel[row].cpu().numpy()
            is_real = channel >= 0
            eeg = batch.eeg[row, torch.from_numpy(is_real).to(batch.eeg.device), :n_valid]
            self._add_row(sums, channel[is_real], eeg.float())

    def finish(self) -> dict[int, Described]:
        """What every recording is like, by its number."""
        self._close()
        return self.found

    def _begin(self, person: int, width: int) -> _Sums:
        n = len(self.signal.channels)
        shape = (n, len(BANDS))
        zeros = np.zeros
        return _Sums(person, zeros(n), zeros(shape), zeros((n, n)), zeros((n, n)), zeros(n), zeros(width))

    def _add_row(self, sums: _Sums, channel: npt.NDArray[np.int64], eeg: Tensor) -> None:
        sfreq = self.signal.sfreq
        n_segment = min(round(SEGMENT_S * sfreq), eeg.shape[1])
        n_segments = eeg.shape[1] // max(n_segment, 1)
        if not n_segments or not len(channel):
            return
        pieces = rearrange(eeg[:, : n_segments * n_segment], "c (m n) -> c m n", n=n_segment)
        pieces = pieces - pieces.mean(dim=2, keepdim=True)
        spectrum = torch.fft.rfft(pieces * torch.hann_window(n_segment, device=eeg.device)).abs().square()
        power = spectrum.sum(dim=1).cpu().double().numpy()  # (C, frequencies)
        frequency = np.fft.rfftfreq(n_segment, 1 / sfreq)
        whole = power[:, frequency >= BANDS[0][0]].sum(axis=1)
        for number, (low, high) in enumerate(BANDS):
            inside = (frequency >= low) & (frequency < high)
            share = power[:, inside].sum(axis=1) if high <= sfreq / 2 and inside.any() else np.nan
            sums.band[channel, number] += share
        sums.power[channel] += whole
        sums.n[channel] += eeg.shape[1]
        if len(channel) > 1:
            self._correlate(sums, channel, eeg)
        else:
            sums.product[channel, channel] += float(eeg.double().square().sum())
            sums.waiting.setdefault(eeg.shape[1], []).append((int(channel[0]), eeg[0]))

    def _correlate(self, sums: _Sums, channel: npt.NDArray[np.int64], eeg: Tensor) -> None:
        place = np.ix_(channel, channel)
        for start in range(0, eeg.shape[1], BLOCK_SAMPLES):
            double = eeg[:, start : start + BLOCK_SAMPLES].double()
            sums.product[place] += (double @ double.T).cpu().numpy()
        sums.n_together[np.ix_(channel, channel)] += eeg.shape[1]

    def _close(self) -> None:
        """Describe the recording that has ended; its channels that came row by row are compared now."""
        for number, sums in self._open.items():
            for rows in sums.waiting.values():
                channel = np.array([one for one, _ in rows], np.int64)
                diagonal = sums.product[channel, channel]
                self._correlate(sums, channel, torch.stack([eeg for _, eeg in rows]))
                sums.product[channel, channel] = diagonal
            self.found[number] = _described(sums)
        self._open = {}


def _described(sums: _Sums) -> Described:
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(sums.n > 0, np.diag(sums.product) / sums.n, np.nan)
        amplitude = 0.5 * np.log(np.maximum(variance, 1e-12))
        share = np.where((sums.power > 0)[:, None], sums.band / sums.power[:, None], np.nan)
        spectrum = np.log(np.maximum(share, SMALLEST_SHARE))
        deviation = np.sqrt(variance)
        together = np.where(sums.n_together > 0, sums.product / sums.n_together, np.nan)
        correlation = together / (deviation[:, None] * deviation[None])
        coupling = np.arctanh(np.clip(correlation, -0.99, 0.99))
    np.fill_diagonal(coupling, math.nan)
    return Described(sums.participant, amplitude, spectrum, coupling, sums.embedding / max(sums.n_rows, 1))
