"""The contract of every readout: tokens of an encoder give a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.signal import EEGBatch, SignalSpec

FEWEST_FOR_POWER = 16  # tokens for a standard deviation that is right to a fifth or so (1 / sqrt(2 n))


class Readout(nn.Module, ABC):
    """Prediction from a batch; final classes take ``(encoder, signal, n_outputs, ...)``.

    A readout owns the call of the encoder, because some work before it (a spatial filter) or skip its transformer. It
    never registers the encoder as a submodule. ``tokens`` are the encoder's tokens when the caller has them already;
    a readout that cannot use them says so in its docstring and computes its own.
    """

    reads_tokens: bool = True  # False where a readout cannot use the encoder's tokens
    fewest_tokens: int = 1  # of a channel, below which a prediction means nothing: of one there is no variance
    starts_from_tokens: bool = False  # True where it looks at the training tokens before it learns, see start
    pools: bool = False  # True where tokens that stay the same give the same features at every step, see pooled
    predicts_windows: bool = False  # True where the outputs of a row are a vote of its windows, see window_outputs

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs

    def start(self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]) -> None:
        """Look at the training batches and their tokens, where the readout ``starts_from_tokens``; not on resume.

        Each call of ``batches`` is one pass, in a fixed order.
        """

    @abstractmethod
    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        """Outputs, one row per window."""

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"]) -> Float[Tensor, "B F"]:
        """All that outputs are made of, before anything that learns, where the readout ``pools``.

        Of a frozen encoder they are computed once, and epochs of the head read them in place of tokens.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features that stay the same")

    def of_pooled(self, pooled: Float[Tensor, "B F"]) -> Float[Tensor, "B O"]:
        """Outputs from the features, where the readout ``pools``."""
        raise NotImplementedError(f"{type(self).__name__} has no features that stay the same")

    def window_outputs(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B N O"]:
        """Outputs of each of the N windows (patches) within a row, where the readout ``predicts_windows``.

        Those of windows that are padding mean nothing: ``encoder.valid(batch).any(dim=1)`` says which are real.
        """
        raise NotImplementedError(f"{type(self).__name__} does not predict single windows")
