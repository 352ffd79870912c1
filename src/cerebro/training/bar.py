"""A progress bar over the batches of a phase, with its rate; reads nothing from the device."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core import LightningModule
from tqdm import tqdm

from cerebro.progress import close_bar, progress_bar


class Bar(Callback):
    """Progress over all epochs of a phase.

    Parameters
    ----------
    name : str
        Name of the phase.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the place where a resumed run goes on."""
        per_epoch = int(trainer.num_training_batches)
        self._bar = progress_bar(self.name, "batch", per_epoch * int(trainer.max_epochs or 1))
        done = trainer.current_epoch * per_epoch + trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._bar.update(min(done, trainer.current_epoch * per_epoch + per_epoch - 1) if done else 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One batch further."""
        if self._bar is not None:
            self._bar.update(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            close_bar(self._bar)
            self._bar = None
