"""The optimiser of a phase: AdamW with layer-wise learning rates, warm-up and cosine, all functions of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.objectives.base import Objective


@dataclass(frozen=True)
class Optim:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with linear warm-up and cosine decay per step.

    Parameters
    ----------
    lr : float
        Largest learning rate, > 0.
    min_lr : float
        Learning rate at the end of the cosine, in [0, lr].
    betas : (float, float)
        Decay of the moments, each in [0, 1).
    weight_decay : float
        Decay of matrices, >= 0; biases, norms and single vectors are never decayed.
    warmup_epochs : float
        Epochs of linear warm-up from near 0, >= 0; may be a fraction.
    layer_decay : float
        Factor between the learning rates of neighbouring encoder layers, in (0, 1]; 1 = the same everywhere. The
        objective's own parameters always learn at ``lr``.
    clip_norm : float
        Largest norm of the whole gradient, > 0.
    """

    lr: float = 1e-3
    min_lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    layer_decay: float = 1.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        facts = (
            ("lr", self.lr > 0, self.lr, "a number above 0"),
            ("min_lr", 0 <= self.min_lr <= self.lr, self.min_lr, f"between 0 and lr={self.lr}"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), self.betas, "two numbers in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, self.weight_decay, "0 or more"),
            ("warmup_epochs", self.warmup_epochs >= 0, self.warmup_epochs, "0 or more"),
            ("layer_decay", 0 < self.layer_decay <= 1, self.layer_decay, "above 0 and at most 1"),
            ("clip_norm", self.clip_norm > 0, self.clip_norm, "a number above 0"),
        )
        for name, holds, value, expected in facts:
            numbers = value if isinstance(value, tuple) else (value,)
            if not holds or not all(math.isfinite(number) for number in numbers):
                raise ConfigError(f"optim.{name}={value} cannot be; set model.optim.{name} to {expected}.")

    def build(self, encoder: Encoder, objective: Objective) -> torch.optim.AdamW:
        """AdamW over encoder and objective; each group carries its ``scale`` of the learning rate."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in _trainable(encoder):
            scale = self.layer_decay ** (encoder.n_layers + 1 - encoder.layer_of(name))
            groups.setdefault((scale, is_decayed(name, parameter)), []).append(parameter)
        for name, parameter in _trainable(objective):
            groups.setdefault((1.0, is_decayed(name, parameter)), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": members, "scale": scale, "weight_decay": self.weight_decay if decayed else 0.0}
                for (scale, decayed), members in groups.items()
            ],
            lr=self.lr,
            betas=self.betas,
            fused=True,
        )

    def lr_at(self, step: int, n_steps: int, steps_per_epoch: float) -> float:
        """Learning rate of optimiser step ``step`` (from 0) of ``n_steps``."""
        n_warmup = min(round(self.warmup_epochs * steps_per_epoch), n_steps)
        if step < n_warmup:
            return self.lr * (step + 1) / n_warmup
        done = (step - n_warmup) / max(1, n_steps - n_warmup)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def set_lr(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Give each group ``lr`` times its scale."""
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices and kernels, not biases, norms or single vectors such as a mask token."""
    return not name.endswith("bias") and parameter.numel() > max(parameter.shape, default=1)


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
