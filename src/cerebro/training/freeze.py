"""Keep the encoder exactly as it is for the first epochs, and prove it."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core import LightningModule

from cerebro.training.checkpoint import weights_sha256
from cerebro.training.phase import Phase


class FreezeEncoder(Callback):
    """Freeze the encoder for ``epochs`` epochs: no gradient, no decay, no dropout, no running statistics.

    The receipt holds the SHA-256 of the encoder before and after; they must be equal.

    Parameters
    ----------
    epochs : int
        Epochs to freeze; 0 does nothing.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.receipt: dict[str, Any] = {}
        self._trainable: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """The receipt so far, so that a resumed run proves the same thing."""
        return {"receipt": dict(self.receipt)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the receipt back."""
        self.receipt = dict(state_dict["receipt"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze, unless a resumed run is past the frozen epochs."""
        if trainer.current_epoch < self.epochs:
            self._freeze(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release the encoder at the end of its last frozen epoch, before that epoch's checkpoint is written."""
        if trainer.current_epoch + 1 >= min(self.epochs, trainer.max_epochs or self.epochs):
            self.release(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release an encoder that was still frozen when training stopped early."""
        self.release(pl_module)

    def _freeze(self, phase: LightningModule) -> None:
        assert isinstance(phase, Phase)
        parameters = dict(phase.encoder.named_parameters())
        self._trainable = [name for name, parameter in parameters.items() if parameter.requires_grad]
        if "sha256_after" in self.receipt:  # closed by the run that is resumed with more frozen epochs
            self.receipt = {}
        phase.encoder.requires_grad_(False)
        phase.is_encoder_frozen = True
        phase.train(phase.training)
        if not self.receipt:
            n_all = sum(parameter.numel() for parameter in phase.parameters())
            n_frozen = sum(parameters[name].numel() for name in self._trainable)
            n_trainable = sum(parameter.numel() for parameter in phase.parameters() if parameter.requires_grad)
            self.receipt = {
                "epochs": self.epochs,
                "frozen_parameters": n_frozen,
                "trainable_parameters": n_trainable,
                "all_parameters": n_all,
                "sha256_before": weights_sha256(phase.encoder.state_dict()),
            }

    def n_trainable(self, phase: Phase, max_epochs: int) -> int:
        """Parameters of a released phase that ``max_epochs`` epochs train: none of an encoder frozen in all of them."""
        n_all = sum(parameter.numel() for parameter in phase.parameters() if parameter.requires_grad)
        is_throughout = self.receipt and self.epochs >= max_epochs
        return n_all - (int(self.receipt["frozen_parameters"]) if is_throughout else 0)

    def release(self, phase: LightningModule) -> None:
        """Close the receipt, and let the encoder learn again; does nothing the second time."""
        assert isinstance(phase, Phase)
        if not self.receipt or "sha256_after" in self.receipt:
            return
        after = weights_sha256(phase.encoder.state_dict())
        self.receipt["sha256_after"] = after
        self.receipt["unchanged"] = after == self.receipt["sha256_before"]
        if not self.receipt["unchanged"]:
            raise RuntimeError("the frozen encoder changed; an objective wrote into it during training")
        parameters = dict(phase.encoder.named_parameters())
        for name in self._trainable:
            parameters[name].requires_grad_(True)
        phase.is_encoder_frozen = False
        phase.train(phase.training)
