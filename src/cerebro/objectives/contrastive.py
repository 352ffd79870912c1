"""InfoNCE over people who saw the same at the same time."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import check_positive
from cerebro.nn.pooling import mean_over_valid
from cerebro.nn.processes import gather_rows
from cerebro.objectives.base import Loss, Objective
from cerebro.signal import EEGBatch, SignalSpec


class Contrastive(Objective):
    """Pull windows of equal ``pair`` and different participant together, push other pairs away.

    Each positive is set against all negatives (rows of another pair) and the mean over the positives of a row is taken.
    Rows of the same pair and participant, and rows without a pair, take no part. Similarities are cosines of the
    projected mean token (Oord et al. 2018, arXiv:1807.03748; Chen et al. 2020, arXiv:2002.05709).

    Parameters
    ----------
    encoder, signal
        What is trained.
    temperature : float
        Similarities are divided by it; larger than 0.
    learnable : bool
        Whether the temperature is learned, from ``temperature`` on.
    projection_width : int
        Outputs of the two-layer projection head.
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
        check_positive("temperature", temperature)
        check_positive("projection_width", projection_width)
        width = encoder.d_model
        self.projection = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, projection_width)
        )
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learnable)

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch; hands its tokens on. A batch without a positive gives zero."""
        tokens = encoder(batch) if tokens is None else tokens
        rows = gather_rows(self.project(encoder, batch, tokens))  # (B, E)
        similarity = rows @ rows.T
        positive, negative = relations(gather_rows(batch.pair), gather_rows(batch.participant))
        temperature = self.log_temperature.exp().clamp(min=0.01)
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
        }
        return Loss(total, parts, tokens)

    def project(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B E"]:
        """Unit vectors of the windows, in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            return F.normalize(self.projection(mean_over_valid(tokens.float(), encoder.valid(batch))), dim=-1)

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


def relations(pair: Tensor, participant: Tensor) -> tuple[Bool[Tensor, "B B"], Bool[Tensor, "B B"]]:
    """Which rows are positives of each other (same pair, other participant) and which negatives (other pair)."""
    has_pair = (pair >= 0)[:, None] & (pair >= 0)[None, :]
    same = pair[:, None] == pair[None, :]
    return has_pair & same & (participant[:, None] != participant[None, :]), has_pair & ~same


def _mean(value: Float[Tensor, "B B"], chosen: Bool[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Mean of the chosen entries; 0 if there is none."""
    return torch.where(chosen, value, 0.0).sum() / chosen.sum().clamp(min=1)
