"""Keep a run: history, best and last checkpoint, random state and position, so that a kill at any moment loses nothing.

A checkpoint is written only between optimiser steps inside an epoch, or after an epoch with its validation, so that a
resumed run repeats the same arithmetic in the same order.
"""

import json
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core import LightningModule

from cerebro.errors import ConfigError
from cerebro.files import copy_atomically, write_atomically
from cerebro.nn.processes import is_first_process, made_by_first_process, most_over_processes
from cerebro.signal import RawBatch
from cerebro.training.checkpoint import STAMP, Stamp, weights_sha256
from cerebro.training.evaluate import Evaluation, evaluate
from cerebro.training.health import Collapsed
from cerebro.training.phase import Phase

SHOWN = ("val/nrmse", "val/balanced", "val/participant_auc", "val/participant_f1", "probe/")
"""Beginnings of what the line of an epoch says besides losses."""


@runtime_checkable
class ResumableLoader(Sized, Protocol):
    """Batches whose order is a function of (epoch, step), as ``data.sampling.BatchLoader`` gives them."""

    def __iter__(self) -> Iterator[RawBatch]:
        """Batches from the position that was set."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the position: ``{"epoch": ..., "step": ...}``."""

    def without_signals(self) -> "ResumableLoader":
        """The same batches in the same order, whose signals are not read (``RawBatch.absent_samples``)."""


class NoBatches:
    """A loader without a batch, for a phase that validates on nobody."""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[RawBatch]:
        return iter(())

    def load_state_dict(self, state: dict[str, int]) -> None:
        """There is no position to set."""

    def without_signals(self) -> "NoBatches":
        """No batch either."""
        return self


class Positioned:
    """A loader that starts each epoch where it is told to, whatever Lightning does in between."""

    def __init__(self, loader: ResumableLoader) -> None:
        self.loader = loader
        self.n_batches = len(loader)
        self.epoch, self.step = 0, 0

    def seek(self, epoch: int, step: int) -> None:
        """The next pass starts at batch ``step`` of ``epoch``."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[RawBatch]:
        self.loader.load_state_dict({"epoch": self.epoch, "step": self.step})
        return iter(self.loader)


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived; the state is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Keeper(Callback):
    """History, validation, best and last checkpoints, early stopping and a graceful end on signals.

    Parameters
    ----------
    out : Path
        Folder of the run.
    stamp : Stamp
        What the checkpoints say of themselves.
    transfers : list of dict
        Reports of the transfers that the run started from.
    train, val : loaders
        ``val`` may be of length 0: then the last epoch is the best.
    monitor : str
        Key of the history that picks the best epoch.
    is_lower_better : bool
        Direction of ``monitor``.
    checkpoint_every_steps : int
        Optimiser steps between checkpoints inside an epoch; 0 = only at the end of an epoch.
    patience : int
        Epochs without a better ``monitor`` after which training stops; 0 = never.
    first_patient_epoch : int
        Epoch from which on they are counted: behind those in which the encoder is frozen.
    precision : str
        As given to the trainer.
    say, track : callable
        Take a line for the user, and a row of the history.
    beside : callable
        Gives what stands beside the scores of the first validation and does not change by epoch.
    run_name : str
        Name under which best and last checkpoint stand once more; empty = none.
    """

    def __init__(
        self,
        out: Path,
        stamp: Stamp,
        transfers: list[dict[str, Any]],
        train: Positioned,
        val: ResumableLoader,
        monitor: str,
        is_lower_better: bool,
        checkpoint_every_steps: int,
        patience: int,
        first_patient_epoch: int,
        precision: str,
        say: Callable[[str], None],
        track: Callable[[dict[str, float]], None],
        beside: Callable[[Evaluation], dict[str, float]] = lambda found: {},
        run_name: str = "",
    ) -> None:
        self.out, self.stamp, self.train, self.val = out, stamp, train, val
        self.transfers = transfers
        self.monitor, self.is_lower_better = monitor, is_lower_better
        self.checkpoint_every_steps, self.precision = checkpoint_every_steps, precision
        self.patience, self.first_patient_epoch = patience, first_patient_epoch
        self.say, self.track, self.beside = say, track, beside
        self.run_name = run_name
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"metric": monitor, "value": None, "epoch": None}
        self.position = {"epoch": 0, "step": 0}
        self.seconds = 0.0
        self.best_evaluation: Evaluation | None = None  # of the best epoch, if this process made it
        self._found: Evaluation | None = None  # of this epoch
        self._is_best_lost = False
        self._resumed: dict[str, Any] = {}
        self._signum = 0
        self._since = time.monotonic()
        self._epoch_seconds = 0.0

    # State ------------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beyond Lightning's own state, in plain types."""
        self._count_time()
        return {
            "history": [dict(row) for row in self.history],
            "best": dict(self.best),
            "position": dict(self.position),
            "seconds": self.seconds,
            "epoch_seconds": self._epoch_seconds,
            "random": random_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state back; random state and running sums wait until training starts."""
        self.history = [dict(row) for row in state_dict["history"]]
        self.best = dict(state_dict["best"])
        if self._is_best_lost:
            self.lose_best()
        self.position = dict(state_dict["position"])
        self.seconds = state_dict["seconds"]
        self._epoch_seconds = state_dict["epoch_seconds"]
        self._resumed = state_dict

    def lose_best(self) -> None:
        """Forget the best epoch, whose checkpoint is not there; stays so when Lightning loads the state once more."""
        self._is_best_lost = True
        self.best |= {"value": None, "epoch": None}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stamp the checkpoint and add the running sums of the epoch."""
        assert isinstance(pl_module, Phase)
        stamp = self.stamp.plain()
        stamp["weights_sha256"] = weights_sha256(checkpoint["state_dict"])
        checkpoint[STAMP] = stamp
        checkpoint["transfers"] = self.transfers
        checkpoint["means"] = pl_module.means.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the running sums of the epoch back."""
        assert isinstance(pl_module, Phase)
        pl_module.means.load_state_dict(checkpoint["means"])

    def _save(self, trainer: Trainer, name: str) -> None:
        phase = trainer.lightning_module
        assert isinstance(phase, Phase)
        phase.watch.settle()
        trainer.save_checkpoint(self.out / name)  # every process takes part, the first one writes
        if self.run_name and is_first_process():
            copy_atomically(self.out / name, self.out / named_checkpoint(self.run_name, name))

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._epoch_seconds += now - self._since
        self._since = now

    # Training ---------------------------------------------------------------------------------------------------------
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random state of a resumed run and listen for signals."""
        assert isinstance(pl_module, Phase)
        self._since = time.monotonic()
        if self._resumed:
            restore_random_state(self._resumed["random"])
            pl_module.means.to(pl_module.device)
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self._note_signal)  # Lightning puts the former handlers back when it ends

    def _agree_on_signal(self) -> None:
        """A signal that one process heard counts for all, so that all save at the same step."""
        self._signum = int(most_over_processes(torch.tensor(self._signum)))

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum:  # the second time, at once
            raise Interrupted(signum)
        self._signum = signum
        self.say(f"{signal.Signals(signum).name} received; saving after this step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Point the loader at the epoch."""
        self._count_time()
        self._epoch_seconds = 0.0
        self.train.seek(trainer.current_epoch, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write last.ckpt every so many steps, and before leaving on a signal; never with gradients in flight."""
        if trainer.is_last_batch or trainer.fit_loop._should_accumulate():
            return  # after the last batch comes validation, then on_train_epoch_end saves
        every = self.checkpoint_every_steps
        self._agree_on_signal()
        if self._signum or (every and trainer.global_step % every == 0):
            self.position = {"epoch": trainer.current_epoch, "step": batch_idx + 1}
            self._save(trainer, "last.ckpt")
        if self._signum:
            raise Interrupted(self._signum)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate, add a row to the history, write the checkpoints."""
        phase = pl_module
        assert isinstance(phase, Phase)
        phase.watch.settle()
        means = phase.means.take()
        for line in phase.objective.remarks(means, len(self.train)):
            self.say(line)
        if why := phase.objective.collapse(means):  # before a checkpoint of it is written
            raise Collapsed(f"epoch {trainer.current_epoch + 1} of {phase.name} is no good: {why}.")
        self._found = None
        row = made_by_first_process(lambda: self._row(trainer, phase, means))
        found = self._found
        self.history.append(row)
        self.position = {"epoch": trainer.current_epoch + 1, "step": 0}
        if len(self.val) and self.monitor not in row:
            known = ", ".join(key for key in row if key.startswith("val/"))
            raise ConfigError(f"monitor={self.monitor} is not measured in this phase; set monitor to one of {known}.")
        is_best = self._is_best(row)
        if is_best:
            self.best_evaluation = found
            self.best |= {"value": row.get(self.monitor), "epoch": row["epoch"]}
        elif self.is_out_of_patience():
            trainer.should_stop = True
        if is_best:
            self._save(trainer, "best.ckpt")
        self._save(trainer, "last.ckpt")  # after best.ckpt: a kill in between repeats the epoch
        if is_first_process():
            write_history(self.out / "history.jsonl", self.history)
        self.track({key: value for key, value in row.items() if value is not None})
        self.say(describe_row(phase.name, row, int(trainer.max_epochs or 0), is_best))
        self._agree_on_signal()
        if self._signum:
            raise Interrupted(self._signum)

    def _row(self, trainer: Trainer, phase: Phase, means: dict[str, float]) -> dict[str, Any]:
        """Row of the history; of several processes the first makes it, which validates on all windows."""
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {f"train/{part}": value for part, value in means.items()}
        found = self._found = evaluate(phase, self.val, self.precision) if len(self.val) else None
        row |= {} if found is None else found.rows("val")
        row |= self.beside(found) if found is not None and not self.history else {}
        row |= phase.measured
        phase.measured = {}
        row["lr"] = phase.current_lr()
        self._count_time()
        row["seconds"] = round(self._epoch_seconds, 3)
        return {key: (value if math.isfinite(value) else None) for key, value in row.items()}

    def is_out_of_patience(self) -> bool:
        """Whether the last ``patience`` epochs brought nothing better; False without patience."""
        if not self.patience or not self.history:
            return False
        since = max(self.best["epoch"] or 0, self.first_patient_epoch - 1)
        return bool(self.history[-1]["epoch"] - since >= self.patience)

    def _is_best(self, row: dict[str, Any]) -> bool:
        if not len(self.val):
            return True
        value, best = row[self.monitor], self.best["value"]
        if value is None or best is None:
            return value is not None  # a score that is not finite is never the best
        if value == best:
            return self._has_lower_loss(row)
        return bool(value < best if self.is_lower_better else value > best)

    def _has_lower_loss(self, row: dict[str, Any]) -> bool:
        """Whether ``val/loss`` is lower than that of the best epoch so far: what decides between equal scores."""
        of_best = next(earlier for earlier in self.history if earlier["epoch"] == self.best["epoch"])
        loss, lowest = row.get("val/loss"), of_best.get("val/loss")
        return loss is not None and (lowest is None or bool(loss < lowest))


def named_checkpoint(run_name: str, name: str) -> str:
    """Name that carries the configuration: best.ckpt -> mamba2_eeg_d128_l6_m20_mae_best.ckpt."""
    return f"{run_name}_{name}"


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON line per epoch, atomically."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in history)

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def describe_row(phase: str, row: dict[str, Any], max_epochs: int, is_best: bool) -> str:
    """One line of the history for the user."""
    shown = [f"{key} {value:.4g}" for key, value in row.items() if key.endswith("/loss") and value is not None]
    shown += [f"{key} {value:.3f}" for key, value in row.items() if key.startswith(SHOWN) and value is not None]
    mark = " *" if is_best else ""
    return f"{phase} epoch {row['epoch'] + 1}/{max_epochs}: {', '.join(shown)} ({row['seconds']:.1f} s){mark}"


def random_state() -> dict[str, Any]:
    """State of the global generators of torch, numpy and Python, in plain types."""
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002  the global generator is what is saved here
    assert isinstance(numbers, dict)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the device in use
        "numpy": {
            "key": torch.from_numpy(numbers["state"]["key"].astype(np.int64)),
            "pos": int(numbers["state"]["pos"]),
            "has_gauss": int(numbers["has_gauss"]),
            "gauss": float(numbers["gauss"]),
        },
        "python": [version, list(words), gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the global generators back to ``state``."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
    numbers = state["numpy"]
    key = numbers["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numbers["pos"], numbers["has_gauss"], numbers["gauss"]))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
