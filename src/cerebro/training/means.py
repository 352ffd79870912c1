"""Means of a loss and its parts over many batches, each weighted by the windows behind it."""

import math
from typing import Any

from torch import Tensor

from cerebro.objectives.base import Loss


class LossMeans:
    """Running sums of the parts of a loss; they stay on the device until `take` reads them.

    A batch without a label adds nothing to the mean of a supervised loss, and one with few labels little, so that the
    mean is that over the labelled windows whatever the size of the batches.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float | Tensor] = {}
        self.terms: dict[str, float] = {}

    def add(self, loss: Loss, n_windows: int) -> None:
        """Add the loss of a batch of ``n_windows``."""
        self.terms = loss.terms
        for part, value in {"loss": loss.total, **loss.parts}.items():
            count = loss.counts.get(part, n_windows)
            self.sums[part] = self.sums.get(part, 0.0) + value.detach().float() * count
            self.counts[part] = self.counts.get(part, 0.0) + count

    def take(self) -> dict[str, float]:
        """Means since the last call, and start anew; NaN for a part that no window stands behind."""
        counts = {part: float(count) for part, count in self.counts.items()}
        means = {part: float(value) / counts[part] if counts[part] else math.nan for part, value in self.sums.items()}
        if self.terms:  # a term without a single label adds nothing
            known = [weight * means[term] for term, weight in self.terms.items() if not math.isnan(means[term])]
            means["loss"] = sum(known) if known else math.nan
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """The sums on the host."""
        counts = {part: n.cpu() if isinstance(n, Tensor) else n for part, n in self.counts.items()}
        return {"sums": {part: value.cpu() for part, value in self.sums.items()}, "counts": counts, "terms": self.terms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sums back."""
        self.sums, self.counts, self.terms = dict(state["sums"]), dict(state["counts"]), dict(state["terms"])

    def to(self, device: Any) -> None:
        """Move the sums to a device."""
        self.sums = {part: value.to(device) for part, value in self.sums.items()}
        self.counts = {part: n.to(device) if isinstance(n, Tensor) else n for part, n in self.counts.items()}
