"""Two layers on the mean token."""

from jaxtyping import Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.nn.pooling import mean_over_valid
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, SignalSpec


class MLPReadout(Readout):
    """Mean of the valid tokens, LayerNorm, Dropout, Linear(d, d/2), GELU, Dropout, Linear(d/2, outputs); Xavier start.

    Parameters
    ----------
    encoder, signal
        What it reads from.
    n_outputs : int
        Outputs O.
    dropout : float
        Dropout before each linear layer, in [0, 1).
    """

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int, dropout: float = 0.1) -> None:
        super().__init__(encoder, signal, n_outputs)
        width = encoder.d_model
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(dropout),
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, n_outputs),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""
        tokens = encoder(batch) if tokens is None else tokens
        outputs: Tensor = self.layers(mean_over_valid(tokens, encoder.valid(batch)))
        return outputs
