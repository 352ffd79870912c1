"""One phase of training: an encoder, an objective and an optimiser as the one LightningModule."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.nn.processes import n_processes, sum_over_processes
from cerebro.objectives.base import Objective
from cerebro.signal import EEGBatch, RawBatch, SignalSpec
from cerebro.training.checkpoint import Transfer
from cerebro.training.frozen_tokens import FrozenTokens
from cerebro.training.health import Watch
from cerebro.training.means import LossMeans
from cerebro.training.optim import Optim


class Phase(LightningModule):
    """One ``cerebro fit``: the encoder and the objective are built late, when the data has said what it is.

    Parameters
    ----------
    name : str
        Name of the phase. A checkpoint of the same name is resumed; one of another name hands its encoder over.
    signal : SignalSpec
        What the data is; comes from the data module, never from a config.
    encoder : callable
        ``encoder(signal)`` gives the encoder.
    objective : callable
        ``objective(encoder, signal)`` gives the objective.
    optim : Optim
        Optimiser and schedule.
    init : sequence of Transfer
        Weights taken from other phases before training starts.
    transfer : str
        How much of another phase's encoder moves into this one, where a hand-over does not say it by ``only``: ``all``,
        ``none``, or one part of the encoder, such as ``feature_encoder``.
    freeze_encoder_epochs : int
        Epochs in which the encoder stays exactly as it is, >= 0; at least ``max_epochs`` freezes it throughout.
    freeze_encoder : bool
        The encoder stays exactly as it is in all epochs, every part of it, wherever its weights come from.

    Raises
    ------
    ConfigError
        If the name cannot be a folder's, the encoder has no part of the name in ``transfer``, or a number is negative.
    """

    def __init__(
        self,
        name: str,
        signal: SignalSpec,
        encoder: Callable[[SignalSpec], Encoder],
        objective: Callable[[Encoder, SignalSpec], Objective],
        optim: Optim = Optim(),  # noqa: B008  frozen
        init: Sequence[Transfer] = (),
        transfer: str = "all",
        freeze_encoder_epochs: int = 0,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__()
        if not name or "/" in name or name.startswith("."):
            raise ConfigError(f"model.name={name!r} cannot name a folder; set model.name to a word such as pretrain.")
        if freeze_encoder_epochs < 0:
            raise ConfigError(
                f"model.freeze_encoder_epochs={freeze_encoder_epochs} is negative; set it to 0 to train the encoder "
                "from the start."
            )
        self.name = name
        self.signal = signal
        self.optim = optim
        self.init = tuple(init)
        self.transfer = transfer
        self.freeze_encoder_epochs = freeze_encoder_epochs
        self.freeze_encoder = freeze_encoder
        self.is_encoder_frozen = False
        self.encoder = encoder(signal)
        parts = list(dict.fromkeys(key.split(".")[0] for key in self.encoder.state_dict()))
        if transfer not in ("all", "none", *parts):
            raise ConfigError(
                f"model.transfer={transfer!r} is no part of {type(self.encoder).__name__}; set model.transfer to all, "
                f"none or one of {', '.join(parts)}."
            )
        self.objective = objective(self.encoder, signal)
        self.watch = Watch()
        self.means = LossMeans()  # of the epoch
        self.frozen_tokens: FrozenTokens | None = None  # where the encoder need not run
        self.measured: dict[str, float] = {}  # by callbacks at the end of an epoch, for its row of the history

    def train(self, mode: bool = True) -> "Phase":
        """Switch to training or evaluation; a frozen encoder stays in evaluation (dropout, running statistics)."""
        super().train(mode)
        if self.is_encoder_frozen:
            self.encoder.eval()
        return self

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        """Copy the int16 counts to the device."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> EEGBatch:
        """Microvolts, made on the device."""
        return batch.to_microvolts()

    def training_step(self, batch: EEGBatch, batch_idx: int) -> Tensor:
        """Loss of a batch; its parts are summed on the device and read once per epoch.

        Of several processes all see the same number, so that one that is not finite ends them at the same step.
        """
        loss = self.objective(self.encoder, batch, self.known_tokens(batch))
        total: Tensor = loss.total
        self.watch.see("loss", sum_over_processes(total) / n_processes(), batch)
        self.means.add(loss, len(batch))
        return total

    def known_tokens(self, batch: EEGBatch) -> Tensor | None:
        """Tokens (B, C, N, D) of a batch that a frozen encoder gave before; ``None`` if it has to run."""
        return None if self.frozen_tokens is None else self.frozen_tokens.of(self.encoder, batch)

    def tokens_of(self, batch: EEGBatch) -> Tensor:
        """Tokens (B, C, N, D) of a batch: those that a frozen encoder gave before, or those that it gives now."""
        known = self.known_tokens(batch)
        if known is not None:
            return known
        tokens: Tensor = self.encoder(batch)
        return tokens

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One AdamW; its learning rate is set before every step as a function of the step alone."""
        return self.optim.build(self.encoder, self.objective)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate of this step."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        per_epoch = n_steps / max(1, int(self.trainer.max_epochs or 1))
        self.optim.set_lr(optimizer, self.optim.lr_at(self.trainer.global_step, n_steps, per_epoch))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient to ``optim.clip_norm`` and watch that it is finite."""
        gradients = [parameter for parameter in self.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(gradients, self.optim.clip_norm)
        self.watch.see("gradient norm", norm, None)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then let the objective follow (EMA teachers), before anything can be saved."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        n_steps = max(1, int(self.trainer.estimated_stepping_batches))
        self.objective.after_step(self.encoder, (self.trainer.global_step + 1) / n_steps)

    def current_lr(self) -> float:
        """Learning rate of the last step, for the group with scale 1; NaN before the first."""
        optimizer = self.trainer.optimizers[0]
        return max((group["lr"] / group["scale"] for group in optimizer.param_groups), default=math.nan)
