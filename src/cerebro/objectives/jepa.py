"""JEPA: predict what a slowly moving teacher makes of hidden tokens from the visible ones."""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_positive
from cerebro.nn.attention import take
from cerebro.nn.postnorm import PostNormDecoder
from cerebro.nn.processes import mean_over_processes, most_over_processes, n_processes, sum_over_processes
from cerebro.objectives.base import Loss, Objective
from cerebro.objectives.block_masks import DiskMask, Masking
from cerebro.signal import EEGBatch, SignalSpec


class JEPA(Objective):
    """Joint-embedding prediction (Assran et al. 2023, arXiv:2301.08243; for EEG Guetschel et al. 2024, 2403.11772).

    The context's tokens alone go through the encoder. A predictor turns a mask token at the place and time of each
    target token into what the teacher makes of it, seeing the whole window: the mean of its last layers, normalised to
    mean 0 and variance 1 over the width. Loss: mean absolute difference.

    The teacher is a moving average of the encoder behind the local tokens, which both share; its momentum rises with a
    cosine. It is copied after the hand-over of weights and kept in checkpoints.

    The targets change while the teacher learns, so that losses of two epochs are not comparable. Logged beside the
    loss, therefore: ``relative_l1``, its share of what it would be for who knows each place and time and nothing of the
    window (their mean over the batch, for want of the true one); below 1 learning about the EEG begins, and it should
    choose the best epoch (``monitor``). ``feature_variance``, how much the target of one place and time varies over the
    windows of a batch (1 = nothing else varies, 0 = all windows look alike), and ``effective_rank`` of these
    variations, 1 to the width: ``(sum of eigenvalues)^2 / sum of their squares`` of the covariance. A run in which they
    stay below their limits for an epoch is dead, and is stopped.

    Parameters
    ----------
    encoder, signal
        What is trained; the encoder must place single tokens (`SignalJEPA`, `LaBraM`).
    mask : builder of a `Masking`
        Called with the signal and the tokens per channel of the longest window.
    predictor_depth, predictor_heads, predictor_feedforward : int
        Size of the predictor, a transformer decoder whose memory is the encoded context.
    dropout : float
        Rate in the predictor, on what each branch adds, in [0, 1).
    momentum : (float, float)
        Share of itself that the teacher keeps in a step, at the start and at the end of training, in [0, 1].
    teacher_layers : int
        Last layers whose mean is the target.
    least_variance, least_rank : float
        Limits of ``feature_variance`` and ``effective_rank`` over an epoch; 0 never stops.

    Raises
    ------
    ConfigError
        If the encoder cannot place single tokens or has fewer layers, or a number is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        mask: Callable[[SignalSpec, int], Masking] = DiskMask,
        predictor_depth: int = 4,
        predictor_heads: int = 8,
        predictor_feedforward: int = 2048,
        dropout: float = 0.0,
        momentum: tuple[float, float] = (0.999, 0.99999),
        teacher_layers: int = 4,
        least_variance: float = 1e-4,
        least_rank: float = 1.1,
    ) -> None:
        super().__init__(encoder, signal)
        if type(encoder).positions is Encoder.positions or encoder.n_layers == 0:
            raise ConfigError(
                f"JEPA asks an encoder to mix any list of tokens, and {type(encoder).__name__} with "
                f"{encoder.n_layers} layers cannot; set model.encoder to SignalJEPA with a depth of 1 or more."
            )
        check_positive("predictor_depth", predictor_depth)
        if not 1 <= teacher_layers <= encoder.n_layers:
            raise ConfigError(
                f"teacher_layers={teacher_layers} and the encoder has {encoder.n_layers} layers; set teacher_layers to "
                f"1 ... {encoder.n_layers}."
            )
        if not 0 <= momentum[0] <= momentum[1] <= 1:
            raise ConfigError(f"momentum={list(momentum)} must rise within [0, 1]; set it to [0.999, 0.99999].")
        self.momentum, self.teacher_layers = momentum, teacher_layers
        self.least_variance, self.least_rank = least_variance, least_rank
        self.mask = mask(encoder.signal, encoder.n_patches(signal.n_times))
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(encoder.d_model), std=0.02))
        self.predictor = PostNormDecoder(
            encoder.d_model, predictor_depth, predictor_heads, predictor_feedforward, dropout
        )
        self.teacher = deepcopy(encoder).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "JEPA":
        """Switch to training or evaluation; the teacher is always in evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Copy the encoder into the teacher."""
        self.teacher.load_state_dict(encoder.state_dict())

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; ``tokens`` of the unmasked batch are of no use here."""
        local = encoder.embed(batch)
        target = self.targets(batch, local)  # (B, C N, D)
        error, counts, _ = self._errors(encoder, batch, local, target)
        total = mean_over_processes(torch.where(counts, error, 0.0).sum(), counts.sum())
        variance, rank, of_place = _spread(target, self._padding(encoder, batch))
        parts = {
            "l1": total.detach(),
            "relative_l1": torch.where(of_place > 0, total.detach() / of_place.clamp(min=1e-12), 1.0),
            "feature_variance": variance,
            "effective_rank": rank,
        }
        return Loss(total, parts)

    @torch.no_grad()
    def targets(self, batch: EEGBatch, local: Float[Tensor, "B C N D"]) -> Float[Tensor, "B M D"]:
        """What the teacher makes of every token: mean of its last layers, normalised; float32, over the flat (C N)."""
        placed = (local.detach() + self.teacher.positions(batch)).flatten(1, 2)
        layers = self.teacher.last_layers(placed, self.teacher_layers, self._padding(self.teacher, batch))
        mean = torch.stack(layers).mean(dim=0)
        return F.layer_norm(mean.float(), mean.shape[-1:])

    def _errors(
        self, encoder: Encoder, batch: EEGBatch, local: Float[Tensor, "B C N D"], target: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B R G L"], Bool[Tensor, "B R G L"], Tensor]:
        """Mean absolute difference of every target token, which of them count, and their places in the flat (C N)."""
        drawn = self.mask(encoder.valid(batch), batch.channel, batch.key, batch.is_padded)
        n_batch, n_contexts, n_targets, n_tokens = drawn.target.shape
        positions = encoder.positions(batch).flatten(1, 2)
        placed = local.flatten(1, 2) + positions
        width = placed.shape[-1]
        shown = take(placed, drawn.context.flatten(1)).view(n_batch * n_contexts, -1, width)
        shown_counts = None if drawn.is_full else drawn.context_counts.flatten(0, 1)
        context = encoder.contextualise(shown, shown_counts)  # (B R, V, D)
        asked = take(positions, drawn.target.flatten(1)) + self.mask_token
        asked = asked.view(n_batch * n_contexts * n_targets, n_tokens, width)
        memory = context.repeat_interleave(n_targets, dim=0)
        asked_counts, memory_counts = None, None
        if not drawn.is_full:
            asked_counts = drawn.target_counts.flatten(0, 2)
            memory_counts = drawn.context_counts.flatten(0, 1).repeat_interleave(n_targets, dim=0)
        predicted = self.predictor(asked, memory, asked_counts, memory_counts).float()
        wanted = take(target, drawn.target.flatten(1)).view_as(predicted)
        error = (predicted - wanted).abs().mean(dim=-1).view(drawn.target.shape)
        return error, drawn.target_counts, drawn.target

    @torch.no_grad()
    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Let the teacher follow: its local parts are the encoder's, the others a moving average."""
        first, last = self.momentum
        momentum = last - (last - first) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        shared: tuple[list[Tensor], list[Tensor]] = ([], [])
        averaged: tuple[list[Tensor], list[Tensor]] = ([], [])
        for (name, mine), theirs in zip(self.teacher.named_parameters(), encoder.parameters(), strict=True):
            chosen = shared if name.split(".")[0] in encoder.local_parts else averaged
            chosen[0].append(mine)
            chosen[1].append(theirs)
        torch._foreach_copy_(*shared)
        torch._foreach_lerp_(*averaged, 1 - momentum)

    def collapse(self, means: Mapping[str, float]) -> str:
        """Why a run is dead, from the means of the parts of its training loss over an epoch; empty if it lives."""
        variance, rank = means.get("feature_variance", math.inf), means.get("effective_rank", math.inf)
        if variance >= self.least_variance and rank >= self.least_rank:
            return ""
        return (
            f"the teacher's features collapsed: over the windows of a batch they vary by {variance:.2g} (limit "
            f"{self.least_variance:g}) in {rank:.2f} directions (limit {self.least_rank:g}); lower model.optim.lr, "
            "raise momentum, or set least_variance and least_rank to 0 to go on all the same"
        )

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Mean absolute difference by channel (C,) and by token in time (N,); NaN where nothing was hidden."""
        local = encoder.embed(batch)
        error, counts, where = self._errors(encoder, batch, local, self.targets(batch, local))
        _, n_channels, n_patches, _ = local.shape
        by_token = torch.zeros(2, len(batch), n_channels * n_patches, device=error.device)
        flat = where.flatten(1)
        by_token[0].scatter_add_(1, flat, torch.where(counts, error, 0.0).flatten(1))
        by_token[1].scatter_add_(1, flat, counts.float().flatten(1))
        by_token = by_token.view(2, len(batch), n_channels, n_patches)
        by_channel = torch.zeros(2, len(encoder.signal.channels) + 1, device=error.device)  # row 0 takes padding
        by_channel.index_add_(1, (batch.channel + 1).flatten(), by_token.sum(dim=3).flatten(1))
        by_patch = by_token.sum(dim=(1, 2))
        return {
            "error_by_channel": (by_channel[0] / by_channel[1])[1:],
            "error_by_patch": by_patch[0] / by_patch[1],
        }

    def _padding(self, encoder: Encoder, batch: EEGBatch) -> Bool[Tensor, "B M"] | None:
        return encoder.valid(batch).flatten(1) if batch.is_padded else None


def _spread(
    target: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Variance of a place's and time's target over the windows, effective rank and mean size of these variations.

    The windows are those of the global batch, of which each process has its share.
    """
    weight = target.new_ones(target.shape[:2]) if valid is None else valid.to(target.dtype)
    if n_processes() > 1:  # a share may lack the places that only longer windows of another have
        n_more = int(most_over_processes(torch.tensor(target.shape[1], device=target.device))) - target.shape[1]
        target, weight = F.pad(target, (0, 0, 0, n_more)), F.pad(weight, (0, n_more))
    n_windows = sum_over_processes(weight.sum(dim=0))  # (M,)
    mean = sum_over_processes((target * weight[..., None]).sum(dim=0)) / n_windows.clamp(min=1)[:, None]
    away = ((target - mean) * weight[..., None]).flatten(0, 1)  # (B M, D)
    n_free = (n_windows - 1).clamp(min=0)
    covariance = sum_over_processes(away.T @ away) / n_free.sum().clamp(min=1)
    trace = covariance.diagonal().sum()
    rank = trace.square() / covariance.square().sum().clamp(min=1e-24)
    # a mean over n windows holds the window itself, which makes variations smaller by the root of (n - 1) / n
    grown = torch.where(n_free > 0, n_windows / n_free.clamp(min=1), 0.0).sqrt()
    sizes = sum_over_processes((away.view_as(target).abs().mean(dim=-1) * grown).sum())
    sizes = sizes / sum_over_processes((weight * (n_free > 0)).sum()).clamp(min=1)
    return trace / target.shape[-1], rank, sizes
