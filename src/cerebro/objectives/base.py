"""The contract of every objective: an encoder and a batch give a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

from cerebro.encoders.base import Encoder, in_words
from cerebro.errors import ConfigError
from cerebro.nn.sample_rows import SampleRows
from cerebro.signal import EEGBatch, SignalSpec


@dataclass
class Loss:
    """What an objective gives for a batch.

    Parameters
    ----------
    total : Tensor
        Scalar that is minimised.
    parts : dict of scalar Tensor
        What is logged, detached or not; never read back on the host within a step.
    tokens : Tensor, optional
        Tokens of the unmasked batch if the objective computed them, so that the terms of a sum share one encoding.
    counts : dict of scalar Tensor
        Windows behind a part, and under ``loss`` behind the total, where they are not all windows of the batch: a mean
        over an epoch weights by them.
    terms : dict of float
        Parts whose weighted sum is the total; the total of an epoch is then that sum of the parts' means.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None
    counts: dict[str, Tensor] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FixedWindows:
    """Training windows that are cut at the same place at every visit.

    Parameters
    ----------
    batches : iterable of EEGBatch
        Every training window once, on the encoder's device.
    n_windows : int
        How many those are.
    n_visits : int
        Windows that the whole training draws, with repeats; the same for a run that is resumed in the middle.
    """

    batches: Iterable[EEGBatch]
    n_windows: int
    n_visits: int


class PooledSamples:
    """What an objective that ``pools`` reads of samples whose tokens stay the same, by the number of the sample.

    Parameters
    ----------
    sample : int64 (W,)
        Numbers of the samples (``EEGBatch.sample``), each once.
    features : (W, F)
        Their features, `Objective.pooled`.
    """

    def __init__(self, sample: Int64[Tensor, " W"], features: Float[Tensor, "W F"]) -> None:
        self.rows = SampleRows(sample)
        self.features = features

    def of(self, batch: EEGBatch) -> Float[Tensor, "B F"]:
        """Features of a batch, all of whose samples must be known."""
        row = self.rows.of(batch.sample.to(self.features.device))
        return self.features[row].to(batch.sample.device)


class Objective(nn.Module, ABC):
    """Loss of an encoder on a batch; final classes take ``(encoder, signal, ...)``.

    An objective owns its heads, codebooks and teachers, and never registers the encoder as a submodule: the phase owns
    it. Randomness is a function of ``batch.key``.
    """

    starts_from_labels: bool = False  # True where ``start`` looks at labels alone: no signal is read for it
    starts_from_tokens: bool = False  # True where ``start_from_tokens`` is to be called
    reads_tokens_alone: bool = False  # True where loss and predictions need ``encoder(batch)`` and labels, no signal
    pools: bool = False  # True where loss and predictions need ``pooled`` and labels, and not the tokens themselves
    pooled_samples: "PooledSamples | None" = None  # read for batches without signals where no tokens are given

    def __init__(self, encoder: Encoder, signal: SignalSpec) -> None:
        super().__init__()

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """Name of the constructor's arguments, for folders and files; that of the class unless a class says more.

        In ``settings`` an objective within has its own name.
        """
        return in_words(cls.__name__)

    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Run once after the hand-over of weights and never on resume: k-means, a teacher's copy, target statistics.

        ``batches`` are training batches in a fixed order, on the encoder's device; take as many as needed.
        """

    def start_from_tokens(self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]) -> None:
        """Run once behind ``start``, never on resume, where heads look at the tokens that they will read.

        Each call of ``batches`` is one pass over the training batches and their tokens, in a fixed order. A frozen
        encoder does not run anew for it.
        """

    def prepare(self, encoder: Encoder, windows: FixedWindows) -> list[str]:
        """Run before the first step of every process, of a resumed run too, where training windows are always the same.

        What does not change over epochs can be computed once here; gives lines for the user.
        """
        return []

    def pooled(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor) -> Float[Tensor, "B F"]:
        """What loss and predictions read of the tokens, where the objective ``pools``: nothing of it learns."""
        raise NotImplementedError(f"{type(self).__name__} reads the tokens themselves")

    @abstractmethod
    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch. ``tokens`` are ``encoder(batch)`` when another term of a sum computed them already.

        Of several processes each has its share of the batch, and gives the loss of all of it: see
        `cerebro.nn.processes.mean_over_processes`.
        """

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Run after each optimiser step; ``progress`` in [0, 1] is the share of the phase that is done."""

    def predict(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Mapping[str, Tensor]:
        """Predictions by target: (B,) values of a regression, (B, K) probabilities of a classification; {} if none.

        ``tokens`` are ``encoder(batch)`` where the caller has them already.
        """
        return {}

    def predict_windows(
        self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Predictions of the windows within each row, by target: probabilities (B, N, K), and which are real (B, N).

        Empty where the head does not predict single windows.
        """
        return {}

    def represent(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Vectors of the windows (B, E) whose likeness across people is measured, by name; {} if there are none."""
        return {}

    def remarks(self, means: Mapping[str, float], n_batches: int) -> list[str]:
        """Lines for the user after an epoch of ``n_batches``, from the means of the parts of its training loss."""
        return []

    def collapse(self, means: Mapping[str, float]) -> str:
        """Why training is dead, from the means of the parts of its loss over an epoch; empty if it lives."""
        return ""

    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Arrays for the report from one validation batch, by name; {} if there is nothing to show."""
        return {}


def check_own_channels(objective: str, encoder: Encoder, signal: SignalSpec) -> None:
    """Refuse an encoder whose tokens are not those of the recording's channels, where each is compared with its own.

    Raises
    ------
    ConfigError
        In one line.
    """
    if encoder.signal.channels != signal.channels:
        raise ConfigError(
            f"{objective} compares every channel of a recording ({len(signal.channels)}) with its own tokens, and "
            f"{type(encoder).__name__} gives those of {len(encoder.signal.channels)} others; use it with objectives on "
            "tokens alone (Supervised, Contrastive), or map the channels in data.channels."
        )
