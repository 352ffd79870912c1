"""A loss or gradient that is not finite stops the run within one step and never reaches a checkpoint."""

import math
from pathlib import Path

import torch
from torch import Tensor

from cerebro.files import write_json
from cerebro.signal import EEGBatch


class NonFiniteLoss(Exception):
    """The loss or its gradient became NaN or infinite; the message is one line."""

    def __init__(self, what: str, value: float, sample: list[int], line: str = "") -> None:
        super().__init__(line or f"the {what} became {value}")
        self.what = what
        self.value = value
        self.sample = sample

    def write(self, path: Path, epoch: int, step: int) -> str:
        """Write the batch's ids to ``path`` and give the line that the user sees."""
        found = {"what": self.what, "value": str(self.value), "epoch": epoch, "step": step, "sample": self.sample}
        write_json(path, found)
        return (
            f"the {self.what} became {self.value} in epoch {epoch} at step {step}; the batch's window numbers are in "
            f"{path}; lower model.optim.lr or look at those windows, then run the same command again."
        )


class Collapsed(Exception):
    """Training is dead: what it learns no longer tells windows apart; the message is one line."""


class Watch:
    """Watches scalars without stalling an accelerator: on a CPU at once, elsewhere one step later.

    On an accelerator the value is copied to the host behind the step's own work, and read when the next one comes.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, Tensor, torch.cuda.Event | None]] = []
        self._sample: Tensor | None = None

    def see(self, what: str, value: Tensor, batch: EEGBatch | None) -> None:
        """Take note of a scalar; raises NonFiniteLoss for one that is not finite, here or in the step before."""
        if batch is not None:
            self.settle()
            self._sample = batch.sample
        value = value.detach()
        if value.is_cuda:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            host = value.to("cpu", non_blocking=True)
            copied.record()
            self._pending.append((what, host, copied))
        else:
            self._pending.append((what, value, None))
            self.settle()

    def settle(self) -> None:
        """Read what is pending; call before a checkpoint is written."""
        pending, self._pending = self._pending, []
        for what, value, copied in pending:
            if copied is not None:
                copied.synchronize()
            number = float(value)
            if not math.isfinite(number):
                sample = [] if self._sample is None else self._sample.tolist()
                raise NonFiniteLoss(what, number, sample)
