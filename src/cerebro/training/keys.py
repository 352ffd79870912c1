"""The keys of a phase config that are not of the model or the data: those of the trainer and of the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cerebro.errors import ConfigError
from cerebro.training.tracking import MLflowKeys


@dataclass(frozen=True)
class TrainerKeys:
    """The few keys of Lightning's Trainer that a phase config sets.

    Parameters
    ----------
    max_epochs : int
        Epochs, > 0.
    accumulate_grad_batches : int
        Batches per optimiser step, > 0.
    precision : str
        ``32-true`` or ``bf16-mixed``.
    accelerator : str
        ``auto`` takes a GPU if there is one.
    devices : int
        Devices of each process: 1. ``torchrun`` starts several processes.
    """

    max_epochs: int = 10
    accumulate_grad_batches: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        for name in ("max_epochs", "accumulate_grad_batches", "devices"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} must be 1 or more; set trainer.{name}.")
        if self.devices > 1:
            raise ConfigError(
                f"trainer.devices={self.devices}: a process trains on one device; leave it at 1 and start as many "
                f"processes: torchrun --nproc_per_node={self.devices} -m cerebro fit ..."
            )


@dataclass(frozen=True)
class ProbeKeys:
    """Linear probes of the encoder while it trains; they change nothing of the training.

    Parameters
    ----------
    targets : tuple of str
        Labels of the windows, columns of the participants table, and ``participant`` for who it is; empty = no probe.
    every_epochs : int
        Epochs between probes, > 0.
    max_windows : int
        Windows to fit to and to score, evenly spaced over those of each side, > 0.
    """

    targets: tuple[str, ...] = ()
    every_epochs: int = 1
    max_windows: int = 512

    def __post_init__(self) -> None:
        for name in ("every_epochs", "max_windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"probe.{name}={getattr(self, name)} must be 1 or more; set probe.{name}.")
        if len(set(self.targets)) < len(self.targets):
            raise ConfigError(f"probe.targets names one twice ({', '.join(self.targets)}); name each once.")


@dataclass(frozen=True)
class RunKeys:
    """How a run is kept.

    Parameters
    ----------
    out : Path
        Folder of the run.
    seed : int
        Seed of the initial weights and of everything that asks a global generator.
    monitor : str
        Key of the history that picks the best epoch, e.g. ``val/loss`` or ``val/nrmse_p_factor``.
    monitor_mode : str
        ``min`` or ``max``.
    checkpoint_every_steps : int
        Optimiser steps between checkpoints inside an epoch; 0 = only at the end of an epoch.
    patience : int
        Epochs without improvement after which training stops, counted from the end of ``freeze_encoder_epochs`` on;
        0 = never.
    overwrite : bool
        Start anew in a folder that holds another run.
    resume : bool
        Insist on a run to go on with; without it the same command goes on where there is one, and begins elsewhere.
    run_name : str
        Name of the run in MLflow; empty = that of the phase. Under any other name best.ckpt and last.ckpt stand once
        more, as ``<run_name>_best.ckpt`` and ``<run_name>_last.ckpt``.
    allow_seen_participants : bool
        Evaluate on participants that went into the weights.
    mlflow : MLflowKeys
        Where the run is tracked.
    probe : ProbeKeys
        What is probed while it trains.
    """

    out: Path
    seed: int = 0
    monitor: str = "val/loss"
    monitor_mode: Literal["min", "max"] = "min"
    checkpoint_every_steps: int = 200
    patience: int = 0
    overwrite: bool = False
    resume: bool = False
    run_name: str = ""
    allow_seen_participants: bool = False
    mlflow: MLflowKeys = MLflowKeys()  # noqa: RUF009  frozen
    probe: ProbeKeys = ProbeKeys()

    def __post_init__(self) -> None:
        for name in ("seed", "checkpoint_every_steps", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative; set {name} to 0 or more.")
        if self.resume and self.overwrite:
            raise ConfigError("--resume goes on with a run and --overwrite begins it anew; give one of the two.")
        if "/" in self.run_name or self.run_name.startswith("."):
            raise ConfigError(f"run_name={self.run_name!r} cannot name a file; set run_name to {{name}} or {{model}}")
