"""Several objectives at once: ``sum of weight x term``."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.objectives.base import FixedWindows, Loss, Objective
from cerebro.signal import EEGBatch, SignalSpec


class WeightedSum(Objective):
    """Weighted sum of named terms that share one encoding of the unmasked batch where they need it.

    A term of weight 0 is left out altogether. Parts of the loss are logged as ``term/part``.

    Parameters
    ----------
    encoder, signal
        What is trained.
    terms : dict of builders of an `Objective`
        Terms by name, computed in this order.
    weights : dict of float
        Weight of each term, at least 0, e.g. ``{codes: 1.0, p_factor: 0.15}``.

    Raises
    ------
    ConfigError
        If terms and weights do not have the same names, a weight is negative, or all are 0.
    """

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """Those of the terms that have a weight, such as ``m50_codes_p_factor``."""
        return "_".join(str(term) for name, term in settings["terms"].items() if settings["weights"].get(name))

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        terms: dict[str, Callable[[Encoder, SignalSpec], Objective]],
        weights: dict[str, float],
    ) -> None:
        super().__init__(encoder, signal)
        if set(terms) != set(weights):
            raise ConfigError(
                f"weights name {', '.join(sorted(weights)) or 'nothing'} and terms "
                f"{', '.join(sorted(terms)) or 'nothing'}; give every term a weight (0 leaves it out), and only those."
            )
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"weights.{name}={weight} must be 0 or larger and finite; 0 leaves the term out.")
        if not any(weights.values()):
            raise ConfigError("every weight is 0, so nothing would be learned; set one of weights above 0.")
        built = {
            name: build(encoder, signal) for name, build in terms.items()
        }  # all, so that none shifts another's start
        self.weights = {name: float(weights[name]) for name in terms if weights[name] > 0}
        self.terms = nn.ModuleDict({name: built[name] for name in self.weights})
        self.starts_from_labels = all(term.starts_from_labels for _, term in self._terms())
        self.starts_from_tokens = any(term.starts_from_tokens for _, term in self._terms())
        self.reads_tokens_alone = all(term.reads_tokens_alone for _, term in self._terms())

    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        """Start each term; ``batches`` must bear being iterated once per term, terms of labels alone share one pass."""
        of_labels = [term for _, term in self._terms() if term.starts_from_labels]
        seen = batches if of_labels else ()
        labels = [replace(batch, eeg=batch.eeg.new_empty(*batch.eeg.shape[:2], 0)) for batch in seen]
        for _, term in self._terms():
            term.start(encoder, labels if term.starts_from_labels else batches)

    def start_from_tokens(self, encoder: Encoder, batches: Callable[[], Iterable[tuple[EEGBatch, Tensor]]]) -> None:
        """Let the terms whose heads ask for it look at the training tokens."""
        for _, term in self._terms():
            if term.starts_from_tokens:
                term.start_from_tokens(encoder, batches)

    def prepare(self, encoder: Encoder, windows: FixedWindows) -> list[str]:
        """Prepare each term."""
        return [f"{name}: {line}" for name, term in self._terms() for line in term.prepare(encoder, windows)]

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        """Loss of a batch."""
        losses: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for name, term in self._terms():
            loss = term(encoder, batch, tokens)
            tokens = loss.tokens if tokens is None else tokens
            losses.append(self.weights[name] * loss.total)
            parts[name] = loss.total.detach()
            parts.update({f"{name}/{part}": value for part, value in loss.parts.items()})
            counts.update({name if part == "loss" else f"{name}/{part}": n for part, n in loss.counts.items()})
        return Loss(torch.stack(losses).sum(), parts, tokens, counts, self.weights)

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Hand the step on to each term."""
        for _, term in self._terms():
            term.after_step(encoder, progress)

    def predict(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Mapping[str, Tensor]:
        """Predictions of all terms."""
        found: dict[str, Tensor] = {}
        for _, term in self._terms():
            found.update(term.predict(encoder, batch, tokens))
        return found

    def predict_windows(
        self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Predictions of single windows of all terms."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for _, term in self._terms():
            found.update(term.predict_windows(encoder, batch, tokens))
        return found

    def represent(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Vectors of all terms, as ``term/name``."""
        return {
            f"{name}/{kind}": value
            for name, term in self._terms()
            for kind, value in term.represent(encoder, batch).items()
        }

    def remarks(self, means: Mapping[str, float], n_batches: int) -> list[str]:
        """Lines of all terms, each with its name."""
        return [f"{name}: {line}" for name, term in self._terms() for line in term.remarks(_of(name, means), n_batches)]

    def collapse(self, means: Mapping[str, float]) -> str:
        """Of the first term that is dead."""
        found = ((name, term.collapse(_of(name, means))) for name, term in self._terms())
        return next((f"{name}: {line}" for name, line in found if line), "")

    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        """Arrays of all terms, as ``term/array``."""
        return {
            f"{name}/{array}": value
            for name, term in self._terms()
            for array, value in term.showcase(encoder, batch).items()
        }

    def _terms(self) -> list[tuple[str, Objective]]:
        return [(name, term) for name, term in self.terms.items() if isinstance(term, Objective)]


def _of(name: str, means: Mapping[str, float]) -> dict[str, float]:
    """Means of the parts of one term."""
    return {part.removeprefix(f"{name}/"): value for part, value in means.items() if part.startswith(f"{name}/")}
