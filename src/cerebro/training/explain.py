"""What a classifier makes of a recording: its probability, that of each window alone, and what carried it.

What carried it is what changes when it is taken away (occlusion; Zeiler & Fergus 2014, arXiv:1311.2901). A channel is
taken away by marking it as padding, which no encoder sees. A moment is taken away by hiding its windows from the
encoder and leaving their tokens out of the readout, so that nothing of them is left in tokens that mix time.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cerebro.progress import progress
from cerebro.signal import EEGBatch
from cerebro.training.phase import Phase
from cerebro.training.rows import RecordingRows

Array = npt.NDArray[np.float64]
MOST_MOMENTS = 40  # of a recording; more windows are taken away several at a time
SAME = 1e-5  # tokens that differ by less are the same


@dataclass(frozen=True)
class Explained:
    """What a classifier makes of one recording, for K classes.

    Parameters
    ----------
    probability : array (K,)
        Mean over the rows of the recording.
    windows : array (N, K)
        Of each window alone, or of those around it where the readout takes more tokens (`Readout.fewest_tokens`); NaN
        where it was not used.
    channels : dict of int to array (K,)
        Channel of the signal -> probability minus that without the channel; empty where there is one channel only.
    moments : list of (first, stop, array (K,))
        Windows ``first`` to ``stop`` (excluded), and probability minus that without them; empty where there is one.
    """

    probability: Array
    windows: Array
    channels: dict[int, Array]
    moments: list[tuple[int, int, Array]]


@torch.no_grad()
def explain(phase: Phase, target: str, recording: RecordingRows, n_windows: int, what: str) -> Explained:
    """Predict, and take channels and moments away one by one; a bar called ``what`` shows how far it is.

    Parameters
    ----------
    phase : Phase
        In evaluation mode.
    target : str
        Target of its classification.
    recording : RecordingRows
        The recording.
    n_windows : int
        Windows of the recording.
    what : str
        Name of the bar.
    """
    explainer = _Explainer(phase, target, recording, n_windows)
    moments = explainer.moments()
    channels = explainer.channels()
    n_steps = len(moments) + len(channels)
    bar = progress(range(n_steps), what, "occlusion", stays=False)
    steps = iter(bar)
    found_channels = {}
    for channel in channels:
        next(steps)
        found_channels[channel] = explainer.probability - explainer.without_channel(channel)
    found_moments = []
    for first, stop in moments:
        next(steps)
        found_moments.append((first, stop, explainer.probability - explainer.without_moment(first, stop)))
    bar.close()
    return Explained(explainer.probability, explainer.windows(), found_channels, found_moments)


class _Explainer:
    """One recording and its tokens."""

    def __init__(self, phase: Phase, target: str, recording: RecordingRows, n_windows: int) -> None:
        self.phase, self.target, self.recording, self.n_windows = phase, target, recording, n_windows
        self.encoder = phase.encoder
        self.reads_tokens = bool(getattr(phase.objective.readout, "reads_tokens", True))
        device = next(phase.parameters()).device
        self.batches = [batch.to(device) for batch in recording.batches]
        self.local = [self.encoder.embed(batch) if self.reads_tokens else None for batch in self.batches]
        self.tokens = [
            None if local is None else self.encoder.mix(local, batch)
            for local, batch in zip(self.local, self.batches, strict=True)
        ]
        self.each = torch.cat([self._predict(b, t) for b, t in zip(self.batches, self.tokens, strict=True)])  # (R, K)
        self.probability = _numpy(self.each.mean(dim=0))
        self._has_own_channels: bool | None = None

    def _predict(self, batch: EEGBatch, tokens: Tensor | None) -> Tensor:
        return self.phase.objective.predict(self.encoder, batch, tokens)[self.target].float()

    def windows(self) -> Array:
        """Probabilities (N, K) of each window alone, mean over the rows that hold it."""
        total = np.zeros((self.n_windows, self.each.shape[1]))
        count = np.zeros(self.n_windows)
        rows = iter(self.recording.rows)
        for batch, tokens in zip(self.batches, self.tokens, strict=True):
            mine = [next(rows) for _ in range(len(batch))]
            voted = self.phase.objective.predict_windows(self.encoder, batch, tokens).get(self.target)
            for window in range(max(row.n for row in mine)):
                if voted is not None:
                    found, is_real = voted[0][:, window].float(), voted[1][:, window]
                else:
                    found, is_real = self._alone(batch, tokens, window)
                for at in torch.nonzero(is_real)[:, 0].tolist():
                    total[mine[at].first + window] += _numpy(found[at])
                    count[mine[at].first + window] += 1
        return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)

    def _alone(self, batch: EEGBatch, tokens: Tensor | None, window: int) -> tuple[Tensor, Tensor]:
        """Prediction (B, K) from the tokens of one window of each row, and which rows (B,) have it.

        Where the readout takes more tokens than a window has, those around it are taken along.
        """
        length = self.recording.window_samples
        is_there = batch.n_valid > window * length
        first, stop = self._span(batch, tokens, window)
        n_valid = (batch.n_valid - first * length).clamp(min=0, max=(stop - first) * length)
        piece = replace(batch, eeg=batch.eeg[..., first * length : stop * length], n_valid=n_valid, is_padded=True)
        if tokens is None or not self._is_aligned(batch, tokens):
            return self._predict(piece, None), is_there
        n = self._tokens_per_window(batch, tokens)
        return self._predict(piece, tokens[:, :, first * n : stop * n]), is_there

    def _span(self, batch: EEGBatch, tokens: Tensor | None, window: int) -> tuple[int, int]:
        """First window, and the one behind the last, of as many around ``window`` as the readout needs."""
        n_windows = batch.eeg.shape[2] // self.recording.window_samples
        n_tokens = 1 if tokens is None else self._tokens_per_window(batch, tokens)
        n_needed = min(-(-int(getattr(self.phase.objective.readout, "fewest_tokens", 1)) // n_tokens), n_windows)
        first = max(0, min(window - n_needed // 2, n_windows - n_needed))
        return first, first + n_needed

    def _is_aligned(self, batch: EEGBatch, tokens: Tensor) -> bool:
        """Whether no token reaches over the border of a window."""
        n_windows = batch.eeg.shape[2] // self.recording.window_samples
        return tokens.shape[2] == n_windows * self.encoder.n_patches(self.recording.window_samples)

    def _tokens_per_window(self, batch: EEGBatch, tokens: Tensor) -> int:
        return max(1, tokens.shape[2] * self.recording.window_samples // batch.eeg.shape[2])

    def channels(self) -> list[int]:
        """Channels of the signal that are there; none where there is only one."""
        found = sorted({int(one) for batch in self.batches for one in batch.channel.flatten().tolist() if one >= 0})
        return found if len(found) > 1 else []

    def without_channel(self, channel: int) -> Array:
        """Probability (K,) without a channel: rows of that channel alone go, in others it is padding."""
        kept = []
        for batch, tokens in zip(self.batches, self.tokens, strict=True):
            is_it = batch.channel == channel  # (B, C)
            less = replace(
                batch,
                eeg=batch.eeg.masked_fill(is_it[..., None], 0.0),
                channel=batch.channel.masked_fill(is_it, -1),
                is_padded=True,
            )
            is_left = (less.channel >= 0).any(dim=1)
            if not bool(is_left.any()):
                continue
            if batch.channel.shape[1] == 1:  # rows of one channel each: the others stay as they are
                kept.append(self._predict(batch, tokens)[is_left])
                continue
            kept.append(self._predict(less, self._tokens_without(batch, less, tokens, is_it))[is_left])
        return _numpy(torch.cat(kept).mean(dim=0))

    def _tokens_without(self, batch: EEGBatch, less: EEGBatch, tokens: Tensor | None, is_it: Tensor) -> Tensor | None:
        """Tokens without a channel: those that are there, where channels were seen not to mix; else encoded again."""
        if tokens is None:
            return None
        if self._has_own_channels:
            return tokens
        again: Tensor = self.encoder(less)
        if self._has_own_channels is None:
            others = (~is_it & (batch.channel >= 0))[..., None, None]
            size = float(tokens.abs().max().clamp(min=1e-6))
            self._has_own_channels = float(((again - tokens).abs() * others).max()) <= SAME * size
        return again

    def moments(self) -> list[tuple[int, int]]:
        """Windows that are taken away together; none where all would be."""
        used = max((row.first + row.n for row in self.recording.rows), default=0)
        n_each = -(-used // MOST_MOMENTS)
        found = [(first, min(first + n_each, used)) for first in range(0, used, n_each)]
        return found if len(found) > 1 else []

    def without_moment(self, first: int, stop: int) -> Array:
        """Probability (K,) without the windows from ``first`` to ``stop``; rows of nothing else go."""
        length = self.recording.window_samples
        kept: list[Tensor] = []
        place = 0
        for number, batch in enumerate(self.batches):
            for row in range(len(batch)):
                where = self.recording.rows[place]
                begin, end = max(first - where.first, 0), min(stop - where.first, where.n)
                if begin >= end:
                    kept.append(self.each[place])
                elif end - begin < where.n:
                    kept.append(self._cut(number, row, begin * length, end * length))
                place += 1
        return _numpy(torch.stack(kept).mean(dim=0))

    def _cut(self, number: int, row: int, begin: int, end: int) -> Tensor:
        """Prediction (K,) of a row without its samples from ``begin`` to ``end``."""
        one = _row(self.batches[number], row)
        n_cut = min(end, int(one.n_valid[0])) - begin
        gone = torch.zeros(one.eeg.shape[2], dtype=torch.bool, device=one.eeg.device)
        gone[begin:end] = True
        rest = replace(one, eeg=one.eeg[..., ~gone], n_valid=one.n_valid - n_cut, is_padded=True)
        local = self.local[number]
        if local is None:
            return self._predict(replace(one, eeg=one.eeg.masked_fill(gone, 0.0)), None)[0]
        if not self._is_aligned(one, local):
            return self._predict(rest, None)[0]
        n = self._tokens_per_window(one, local)
        length = self.recording.window_samples
        hidden = torch.zeros(local.shape[2], dtype=torch.bool, device=local.device)
        hidden[begin // length * n : end // length * n] = True
        is_hidden = hidden.expand(1, *local.shape[1:3])
        if self.encoder.hides_inputs:
            tokens = self.encoder.mix(local[row : row + 1], one, is_hidden)
        else:
            tokens = self.encoder(replace(one, eeg=one.eeg.masked_fill(gone, 0.0)), is_hidden)
        return self._predict(rest, tokens[:, :, ~hidden])[0]


def _row(batch: EEGBatch, row: int) -> EEGBatch:
    """One row of a batch."""
    some = slice(row, row + 1)
    return replace(
        batch,
        eeg=batch.eeg[some],
        channel=batch.channel[some],
        n_valid=batch.n_valid[some],
        key=batch.key[some],
        sample=batch.sample[some],
        recording=batch.recording[some],
        participant=batch.participant[some],
        pair=batch.pair[some],
        deviation=batch.deviation[some],
    )


def _numpy(value: Tensor) -> Array:
    return value.detach().cpu().double().numpy()
