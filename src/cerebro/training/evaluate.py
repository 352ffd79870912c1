"""One pass over windows in a fixed order: losses, predictions, scores. Validation, test and predict all come here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cerebro.files import write_atomically
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.regression import nrmse
from cerebro.progress import progress
from cerebro.signal import RawBatch
from cerebro.training.means import LossMeans
from cerebro.training.phase import Phase

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Score:
    """Score of one target beside what a constant gets.

    Parameters
    ----------
    target, metric : str
        ``nrmse`` (lower is better) of a regression, ``balanced_accuracy`` (higher is better) of a classification.
    value, constant : float
        Score, and the score of the best constant on the same windows (1 for NRMSE, 1 / classes otherwise).
    n_windows, n_participants : int
        What was scored; windows without a label are left out.
    """

    target: str
    metric: str
    value: float
    constant: float
    n_windows: int
    n_participants: int


@dataclass(frozen=True)
class Evaluation:
    """What a pass over windows found.

    Parameters
    ----------
    losses : dict
        Mean of each part of the loss, weighted by the windows behind it; NaN without any.
    arrays : dict of array (N, ...)
        ``sample``, ``recording``, ``participant`` (numbers), ``target/<name>``, ``known/<name>``,
        ``prediction/<name>``; empty predictions if the objective predicts nothing.
    """

    losses: dict[str, float]
    arrays: dict[str, Array]

    def scores(self) -> list[Score]:
        """Scores of every target that was predicted and is known for some window."""
        found = []
        for key, prediction in self.arrays.items():
            if not key.startswith("prediction/"):
                continue
            target = key.removeprefix("prediction/")
            if f"target/{target}" not in self.arrays:
                continue
            known = self.arrays[f"known/{target}"]
            truth, prediction = self.arrays[f"target/{target}"][known], prediction[known]
            n_participants = len(np.unique(self.arrays["participant"][known]))
            if prediction.ndim == 2:
                metric, value, constant = "balanced_accuracy", balanced_accuracy(truth, prediction), float("nan")
                if len(truth):
                    constant = 1 / len(np.unique(truth))
            else:
                metric, value, constant = "nrmse", nrmse(truth, prediction), 1.0
            found.append(Score(target, metric, float(value), constant, len(truth), n_participants))
        return found

    def unscored(self) -> list[str]:
        """Targets that were predicted and whose label is known for no window at all."""
        return [score.target for score in self.scores() if not score.n_windows]

    def rows(self, stage: str) -> dict[str, float]:
        """Losses and scores by name, such as ``val/loss`` and ``val/nrmse_p_factor``."""
        named = {f"{stage}/{part}": value for part, value in self.losses.items()}
        return named | {f"{stage}/{score.metric}_{score.target}": score.value for score in self.scores()}

    def write(self, path: Path, participant_keys: tuple[str, ...]) -> None:
        """Write the arrays as ``.npz``, participants by their ``corpus:id``."""
        keys = np.asarray(participant_keys, dtype=np.str_)
        write_npz(path, self.arrays | {"participant": keys[self.arrays["participant"]]})


def evaluate(
    phase: Phase, batches: Iterable[RawBatch], precision: str, with_losses: bool = True, what: str = "validate"
) -> Evaluation:
    """Pass over ``batches`` without gradients, in evaluation mode; the phase's mode is restored.

    A bar called ``what`` shows how far it is, and goes away at the end.
    """
    was_training = phase.training
    device = next(phase.parameters()).device
    means = LossMeans()
    collected: dict[str, list[Tensor]] = {}
    phase.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            for raw in progress(batches, what, "batch", stays=False):
                batch = raw.to(device, non_blocking=True).to_microvolts()
                tokens = phase.known_tokens(batch)
                if tokens is None and phase.objective.reads_tokens_alone:
                    tokens = phase.encoder(batch)  # once for loss and predictions
                if with_losses:
                    loss = phase.objective(phase.encoder, batch, tokens)
                    means.add(loss, len(batch))
                    tokens = tokens if loss.tokens is None else loss.tokens
                found = {"sample": batch.sample, "recording": batch.recording, "participant": batch.participant}
                found |= {f"target/{name}": value for name, value in batch.targets.items()}
                found |= {f"known/{name}": value for name, value in batch.known.items()}
                for name, value in phase.objective.predict(phase.encoder, batch, tokens).items():
                    found[f"prediction/{name}"] = value.float()
                for name, value in found.items():
                    collected.setdefault(name, []).append(value.detach())
    finally:
        phase.train(was_training)
    return Evaluation(
        losses=means.take(),
        arrays={name: torch.cat(values).cpu().numpy() for name, values in collected.items()},
    )


def write_showcase(path: Path, phase: Phase, batches: Iterable[RawBatch]) -> None:
    """Write ``Objective.showcase`` of the first batch, with the names and positions of the channels."""
    arrays: dict[str, Array] = {
        "channel_names": np.asarray(phase.signal.channels, dtype=np.str_),
        "positions": np.asarray(phase.signal.positions, dtype=np.float64),
    }
    device = next(phase.parameters()).device
    was_training = phase.training
    phase.eval()
    with torch.no_grad():
        for raw in batches:
            batch = raw.to(device).to_microvolts()
            for name, value in phase.objective.showcase(phase.encoder, batch).items():
                value = torch.as_tensor(value).detach().cpu()
                arrays[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            break
    phase.train(was_training)
    write_npz(path, arrays)


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays atomically as ``.npz`` without pickles."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
