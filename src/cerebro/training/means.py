"""Means of a loss and its parts over many batches, each weighted by the windows behind it."""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cerebro.nn.processes import gather_rows, is_first_process, n_processes, sum_over_processes
from cerebro.objectives.base import Loss


class LossMeans:
    """Running sums of the parts of a loss; they stay on the device until `take` reads them.

    A batch without a label adds nothing to the mean of a supervised loss, and one with few labels little, so that the
    mean is that over the labelled windows whatever the size of the batches. Of several processes each adds its own
    batches, and what is read is of all of them.
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
        sums, counts = self._of_all_processes()
        means = {part: value / counts[part] if counts[part] else math.nan for part, value in sums.items()}
        if self.terms:  # a term without a single label adds nothing
            known = [weight * means[term] for term, weight in self.terms.items() if not math.isnan(means[term])]
            means["loss"] = sum(known) if known else math.nan
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """The sums on the host; of several processes, which must all ask, one for each."""
        if n_processes() > 1:
            shares = gather_rows(self._numbers()[None])  # (processes, 2, parts)
            sums, totals = (dict(zip(self.sums, shares[:, row].T, strict=True)) for row in (0, 1))
            return {"sums": sums, "counts": totals, "terms": self.terms}
        counts = {part: n.cpu() if isinstance(n, Tensor) else n for part, n in self.counts.items()}
        return {"sums": {part: value.cpu() for part, value in self.sums.items()}, "counts": counts, "terms": self.terms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sums back: each process its own, or the first those of all if their number was another."""
        self.sums, self.counts, self.terms = dict(state["sums"]), dict(state["counts"]), dict(state["terms"])
        for part, value in self.sums.items():
            n = value.numel()
            if n != n_processes():
                is_mine = float(is_first_process())
                self.sums[part], self.counts[part] = value.sum() * is_mine, _total(self.counts[part]) * is_mine
            elif n > 1:
                self.sums[part] = value[dist.get_rank()].float()
                count = self.counts[part]
                assert isinstance(count, Tensor)
                self.counts[part] = float(count[dist.get_rank()])

    def to(self, device: Any) -> None:
        """Move the sums to a device."""
        self.sums = {part: value.to(device) for part, value in self.sums.items()}
        self.counts = {part: n.to(device) if isinstance(n, Tensor) else n for part, n in self.counts.items()}

    def _of_all_processes(self) -> tuple[dict[str, float], dict[str, float]]:
        """Sums and counts by part."""
        sums, counts = sum_over_processes(self._numbers()).tolist()
        return dict(zip(self.sums, sums, strict=True)), dict(zip(self.counts, counts, strict=True))

    def _numbers(self) -> Tensor:
        """Sums and counts of this process (2, parts), on the host."""
        return torch.tensor(
            [[float(value) for value in self.sums.values()], [float(count) for count in self.counts.values()]],
            dtype=torch.float64,
        )


def _total(count: float | Tensor) -> float:
    return float(count.sum()) if isinstance(count, Tensor) else count
