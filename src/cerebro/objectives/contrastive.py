"""InfoNCE over people who saw the same at the same time."""

from collections.abc import Iterable, Mapping
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_positive
from cerebro.nn.pooling import mean_over_valid
from cerebro.nn.processes import gather_rows
from cerebro.objectives.base import Loss, Objective
from cerebro.signal import EEGBatch, SignalSpec

LEAST_TEMPERATURE = 0.01  # a learned one stays above, or the softmax becomes a maximum
BATCHES_TO_LOOK_AT = 200  # for a pair, before training starts
WITHOUT_POSITIVE = "share_of_batches_without_positive"


class Contrastive(Objective):
    """Pull windows of equal ``pair`` and different participant together, push other pairs away.

    Each positive is set against all negatives (rows of another pair) and the mean over the positives of a row is taken.
    Rows of the same pair and participant, and rows without a pair, take no part. Similarities are cosines of the
    projected mean token (Oord et al. 2018, arXiv:1807.03748; Chen et al. 2020, arXiv:2002.05709).

    The batch is that of all processes together: every row meets the rows of the others, and with gradients averaged
    over processes encoder, projection and temperature learn as they would on one process.

    Logged beside the loss: the mean cosine of positives and of negatives, alignment (mean squared distance of
    positives) and uniformity (logarithm of the mean of ``exp(-2 d^2)`` over all pairs of rows; both lower is better,
    Wang & Isola 2020, arXiv:2005.10242), the share of rows that have a positive, and that of batches that have none.

    Parameters
    ----------
    encoder, signal
        What is trained.
    temperature : float
        Similarities are divided by it; at least 0.01.
    learnable : bool
        Whether the temperature is learned, from ``temperature`` on.
    projection_width : int
        Outputs of the two-layer projection head.

    Raises
    ------
    ConfigError
        If the temperature is too small, or ``start`` finds no training batch that gives something to learn.
    """

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        temperature: float = 0.07,
        learnable: bool = False,
        projection_width: int = 128,
    ) -> None:
        super().__init__(encoder, signal)
        if not LEAST_TEMPERATURE <= temperature < float("inf"):
            raise ConfigError(f"temperature={temperature} is below {LEAST_TEMPERATURE} or not finite; set it to 0.07.")
        check_positive("projection_width", projection_width)
        width = encoder.d_model
        self.projection = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, projection_width)
        )
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learnable)

    @torch.no_grad()
    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Change nothing; look for a batch in which a window has a positive and a negative."""
        n_batches = n_windows = n_with_pair = n_with_positive = 0
        for batch in islice(batches, BATCHES_TO_LOOK_AT):
            pair = gather_rows(batch.pair)
            positive, negative = relations(pair, gather_rows(batch.participant))
            has_positive = positive.any(dim=1)
            if bool((has_positive & negative.any(dim=1)).any()):
                return
            n_batches, n_windows = n_batches + 1, n_windows + len(pair)
            n_with_pair += int((pair >= 0).sum())
            n_with_positive += int(has_positive.sum())
        raise ConfigError(
            f"no window of the first {n_batches} training batches has a positive (same pair, another participant) "
            f"beside a negative (another pair): of {n_windows:,} windows {n_with_pair:,} have a pair and "
            f"{n_with_positive:,} a positive; set data.order to pairs and data.windows to FilmWindows, EyesWindows or "
            "TaskPairs."
        )

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; hands its tokens on. A batch without a positive gives zero, and is counted."""
        tokens = encoder(batch) if tokens is None else tokens
        rows = gather_rows(self.project(encoder, batch, tokens))  # (B, E)
        similarity = rows @ rows.T
        positive, negative = relations(gather_rows(batch.pair), gather_rows(batch.participant))
        temperature = self.log_temperature.exp().clamp(min=LEAST_TEMPERATURE)
        logits = similarity / temperature
        against = torch.where(negative, logits, -torch.inf).logsumexp(dim=1, keepdim=True)  # (B, 1)
        against = torch.where(negative.any(dim=1, keepdim=True), against, -1e4)
        each = F.softplus(against - logits)  # -log(exp(p) / (exp(p) + sum of exp(n)))
        n_positive = positive.sum(dim=1)
        per_row = torch.where(positive, each, 0.0).sum(dim=1) / n_positive.clamp(min=1)
        n_anchors = (n_positive > 0).sum()
        total = per_row.sum() / n_anchors.clamp(min=1)
        cosine, squared = similarity.detach(), 2 - 2 * similarity.detach()
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        parts = {
            "info_nce": total.detach(),
            "positive_similarity": _mean(cosine, positive),
            "negative_similarity": _mean(cosine, negative),
            "alignment": _mean(squared, positive),
            "uniformity": _mean((-2 * squared).exp(), others).clamp(min=1e-12).log(),
            "temperature": temperature.detach(),
            "share_of_anchors": n_anchors / len(rows),
            WITHOUT_POSITIVE: (n_anchors == 0).to(rows.dtype),
        }
        counts = {
            "loss": n_anchors,  # what has no anchor is no part of a mean over batches
            "info_nce": n_anchors,
            "positive_similarity": n_positive.sum(),
            "negative_similarity": negative.sum(),
            "alignment": n_positive.sum(),
            WITHOUT_POSITIVE: torch.ones_like(n_anchors),
        }
        return Loss(total, parts, tokens, counts)

    def project(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B E"]:
        """Unit vectors of the windows, in float32 at least."""
        with torch.autocast(tokens.device.type, enabled=False):
            return F.normalize(self.projection(self._mean_token(encoder, batch, tokens)), dim=-1)

    @torch.no_grad()
    def represent(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Mean token of each window (what the next phase builds on), and its projection (what the loss compares)."""
        tokens = encoder(batch)
        return {
            "embedding": self._mean_token(encoder, batch, tokens),  # (B, D)
            "projection": self.project(encoder, batch, tokens),  # (B, E)
        }

    def remarks(self, means: Mapping[str, float], n_batches: int) -> list[str]:
        """Say how many training batches had no positive."""
        n_without = round(means.get(WITHOUT_POSITIVE, 0.0) * n_batches)
        if not n_without:
            return []
        return [
            f"WARNING {n_without:,} of {n_batches:,} training batches had no positive pair and taught nothing; set "
            "data.order to pairs"
        ]

    @torch.no_grad()
    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Cosines of all windows (B, B), of the positive and of the negative ones."""
        rows = self.project(encoder, batch, encoder(batch))
        similarity = rows @ rows.T
        positive, negative = relations(batch.pair, batch.participant)
        return {
            "similarity": similarity,
            "similarity_positive": similarity[positive],
            "similarity_negative": similarity[negative],
        }

    def _mean_token(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B D"]:
        """Mean of the tokens that are no padding, in float32 at least."""
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        return mean_over_valid(wide, encoder.valid(batch))


def relations(pair: Tensor, participant: Tensor) -> tuple[Bool[Tensor, "B B"], Bool[Tensor, "B B"]]:
    """Which rows are positives of each other (same pair, other participant) and which negatives (other pair)."""
    has_pair = (pair >= 0)[:, None] & (pair >= 0)[None, :]
    same = pair[:, None] == pair[None, :]
    return has_pair & same & (participant[:, None] != participant[None, :]), has_pair & ~same


def _mean(value: Float[Tensor, "B B"], chosen: Bool[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Mean of the chosen entries; 0 if there is none."""
    return torch.where(chosen, value, 0.0).sum() / chosen.sum().clamp(min=1)
