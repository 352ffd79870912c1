"""One linear layer on the mean token."""

from jaxtyping import Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.nn.attention import EPS
from cerebro.nn.pooling import mean_over_valid
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, SignalSpec


class LinearReadout(Readout):
    """Mean of the valid tokens, LayerNorm, Linear: the published fine-tuning head of LaBraM.

    Parameters
    ----------
    encoder, signal
        What it reads from.
    n_outputs : int
        Outputs O.
    dropout : float
        Dropout before the linear layer, in [0, 1).
    """

    pools = True

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int, dropout: float = 0.0) -> None:
        super().__init__(encoder, signal, n_outputs)
        self.norm = nn.LayerNorm(encoder.d_model, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.d_model, n_outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""
        return self.of_pooled(self.pooled(encoder, batch, encoder(batch) if tokens is None else tokens))

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B D"]:
        """Mean of the valid tokens."""
        return mean_over_valid(tokens, encoder.valid(batch))

    def of_pooled(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """Outputs from the mean."""
        outputs: Tensor = self.head(self.dropout(self.norm(pooled)))
        return outputs
