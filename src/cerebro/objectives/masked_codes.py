"""LaBraM's pretraining: predict the tokenizer's codes of hidden patches."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_between
from cerebro.nn.attention import EPS
from cerebro.nn.processes import mean_over_processes, sum_over_processes
from cerebro.nn.quantizer import count_codes
from cerebro.nn.sample_rows import SampleRows
from cerebro.objectives.base import FixedWindows, Loss, Objective, check_own_channels
from cerebro.objectives.masks import random_mask
from cerebro.objectives.vqnsp import VQNSP
from cerebro.signal import EEGBatch, SignalSpec


class FrozenTokenizer(nn.Module):
    """Encoder and VQNSP of a tokenizer phase, always in evaluation mode and never trained.

    Its state dict is that of the whole tokenizer phase: ``encoder.*`` and ``objective.*``.

    Parameters
    ----------
    signal : SignalSpec
        Channels and window length.
    encoder : builder of the tokenizer's encoder
    objective : builder of the tokenizer's VQNSP
    """

    def __init__(
        self,
        signal: SignalSpec,
        encoder: Callable[[SignalSpec], Encoder],
        objective: Callable[[Encoder, SignalSpec], VQNSP],
    ) -> None:
        super().__init__()
        self.encoder = encoder(signal)
        self.objective = objective(self.encoder, signal)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenTokenizer":
        """Stay in evaluation mode whatever the phase around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: EEGBatch) -> Int64[Tensor, "B C N"]:
        """Code of every patch; 0 where padded."""
        return self.objective.codes(self.encoder, batch)


class CodeTable:
    """Codes of windows that were coded before, by the number of the window; on the device, two bytes a code.

    Parameters
    ----------
    sample : (W,)
        Numbers of the windows (``EEGBatch.sample``).
    codes : (W, C, N)
        Their codes, 0 where padded.
    """

    def __init__(self, sample: Int64[Tensor, " W"], codes: Int[Tensor, "W C N"]) -> None:
        self.codes = codes
        self.rows = SampleRows(sample)

    def of(self, batch: EEGBatch) -> Int64[Tensor, "B C N"]:
        """Codes of a batch, all of whose windows must be in the table."""
        return self.codes[self.rows.of(batch.sample), : batch.eeg.shape[1]].long()


class MaskedCodes(Objective):
    """Hide patches and predict their codes from the others; symmetric: once more with hidden and visible exchanged.

    Loss: cross-entropy on hidden patches, the sum of both passes (Jiang, Zhao & Lu 2024, arXiv:2405.18765).

    Parameters
    ----------
    encoder, signal
        What is trained.
    tokenizer : builder of a `FrozenTokenizer`
        Gives the codes; its weights come from a tokenizer phase.
    mask_ratio : float
        Share of patches to hide, in (0, 1).
    symmetric : bool
        Whether the second pass with the complement of the mask is made.

    cache_mb : int
        The codes of the training windows are computed once and kept where they take no more than this, >= 0 (0: never).
        Windows that are cut at random places are coded in every step, and so are all where training visits fewer
        windows than there are.

    Raises
    ------
    ConfigError
        If ``cache_mb`` is negative, or tokenizer and encoder cut a window into different patches.
    """

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """``m50_codes``."""
        return f"m{100 * settings['mask_ratio']:g}_codes"

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        tokenizer: Callable[[SignalSpec], FrozenTokenizer],
        mask_ratio: float = 0.5,
        symmetric: bool = True,
        cache_mb: int = 1024,
    ) -> None:
        super().__init__(encoder, signal)
        check_own_channels(type(self).__name__, encoder, signal)
        check_between("mask_ratio", mask_ratio, 0, 1)
        self.mask_ratio = mask_ratio
        self.symmetric = symmetric
        if cache_mb < 0:
            raise ConfigError(f"cache_mb={cache_mb} is negative; set cache_mb to 0 to code every window anew.")
        self.cache_mb = cache_mb
        self._table: CodeTable | None = None
        self.tokenizer = tokenizer(signal)
        theirs, ours = self.tokenizer.encoder, encoder
        if (theirs.patch_samples, theirs.patch_stride) != (ours.patch_samples, ours.patch_stride):
            raise ConfigError(
                f"the tokenizer cuts patches of {theirs.patch_samples} samples every {theirs.patch_stride} and the "
                f"encoder of {ours.patch_samples} every {ours.patch_stride}; give both the same patch_samples."
            )
        self.norm = nn.LayerNorm(encoder.d_model, eps=EPS)
        self.head = nn.Linear(encoder.d_model, self.tokenizer.objective.codebook.n_codes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def prepare(self, encoder: Encoder, windows: FixedWindows) -> list[str]:
        """Code every training window once, if that is less work and the codes fit ``cache_mb``."""
        self._table = None
        if not self.cache_mb or windows.n_visits <= windows.n_windows:
            return []
        samples: list[Tensor] = []
        codes: list[Tensor] = []
        kind = torch.int16 if self.head.out_features <= torch.iinfo(torch.int16).max else torch.int32
        for batch in windows.batches:
            found = self.tokenizer(batch).to(kind)  # (B, C, N)
            needed_mb = windows.n_windows * found[0].numel() * found.element_size() / 1e6
            if needed_mb > self.cache_mb:
                return [
                    f"the codes of {windows.n_windows:,} windows would take {needed_mb:,.0f} MB, more than "
                    f"cache_mb={self.cache_mb}: they are computed in every step"
                ]
            samples.append(batch.sample)
            codes.append(found)
        n_most = max(part.shape[1] for part in codes)
        padded = [F.pad(part, (0, 0, 0, n_most - part.shape[1])) for part in codes]
        self._table = CodeTable(torch.cat(samples), torch.cat(padded))
        n_bytes = self._table.codes.numel() * self._table.codes.element_size()
        return [f"codes of {len(self._table.codes):,} training windows computed once ({n_bytes / 1e6:,.1f} MB)"]

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; ``tokens`` of the unmasked batch are of no use here."""
        is_known = self.training and self._table is not None
        codes = self._table.of(batch) if is_known and self._table is not None else self.tokenizer(batch)
        return self.loss(encoder, batch, codes)

    def loss(self, encoder: Encoder, batch: EEGBatch, codes: Int64[Tensor, "B C N"]) -> Loss:
        """Loss of a batch whose codes are known."""
        codes = codes.flatten(1)  # (B, C N)
        valid = encoder.valid(batch)
        mask = random_mask(valid, self.mask_ratio, batch.key)
        local = encoder.embed(batch)
        passes = [(mask.hidden, mask.hidden_index, mask.hidden_counts)]
        if self.symmetric:
            passes.append((~mask.hidden, mask.visible_index, mask.visible_counts))
        losses, accuracies = [], []
        for hidden, index, counts in passes:
            logits = self.logits(encoder, local, batch, hidden, index)  # (B, L, K)
            target = codes.gather(1, index)
            losses.append(_mean(F.cross_entropy(logits.transpose(1, 2), target, reduction="none"), counts))
            accuracies.append(_mean((logits.detach().argmax(dim=-1) == target).float(), counts))
        total = torch.stack(losses).sum()
        in_use = sum_over_processes(count_codes(codes.flatten(), self.head.out_features, weight=valid.flatten()))
        parts = {
            "cross_entropy": total.detach() / len(passes),
            "accuracy": torch.stack(accuracies).mean(),
            "most_frequent_code": in_use.max() / in_use.sum().clamp(min=1),  # accuracy of always saying this one
        }
        return Loss(total, parts)

    def logits(
        self,
        encoder: Encoder,
        local: Float[Tensor, "B C N D"],
        batch: EEGBatch,
        hidden: Bool[Tensor, "B C N"],
        index: Int64[Tensor, "B L"],
    ) -> Float[Tensor, "B L K"]:
        """Logits of the codes of the patches at ``index`` of the flattened (C N), with ``hidden`` ones hidden."""
        logits: Tensor = self.head(self.norm(encoder.mix_subset(local, batch, hidden, out=index)))
        return logits.float()

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Share of hidden patches whose code was found, by channel (C,) and by patch (N,)."""
        codes = self.tokenizer(batch)
        mask = random_mask(encoder.valid(batch), self.mask_ratio, batch.key)
        logits = self.logits(encoder, encoder.embed(batch), batch, mask.hidden, mask.hidden_index)
        right = torch.zeros(codes.flatten(1).shape, device=codes.device)
        found = logits.argmax(dim=-1) == codes.flatten(1).gather(1, mask.hidden_index)
        right = right.scatter_(1, mask.hidden_index, found.float()).view(codes.shape) * mask.hidden
        by_channel = torch.zeros(2, len(encoder.signal.channels) + 1, device=codes.device)  # row 0 takes padding
        row = (batch.channel + 1).flatten()
        by_channel[0].index_add_(0, row, right.sum(dim=2).flatten())
        by_channel[1].index_add_(0, row, mask.hidden.sum(dim=2).flatten().float())
        return {
            "accuracy_by_channel": (by_channel[0] / by_channel[1])[1:],  # NaN where nothing was hidden
            "accuracy_by_patch": right.sum(dim=(0, 1)) / mask.hidden.sum(dim=(0, 1)),
        }


def _mean(value: Float[Tensor, "B L"], counts: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean of the entries of the global batch that count; 0 if none does."""
    return mean_over_processes(torch.where(counts, value, 0.0).sum(), counts.sum())
