"""One pass over windows in a fixed order: losses, predictions, scores. Validation, test and predict all come here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cerebro.files import write_atomically
from cerebro.metrics.classification import balanced_accuracy
from cerebro.metrics.participants import Unit, Units, class_scores, gather_units
from cerebro.metrics.regression import nrmse
from cerebro.progress import progress
from cerebro.signal import EEGBatch, RawBatch
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
        ``prediction/<name>``; empty predictions if the objective predicts nothing. Where it predicts single windows
        within a row, ``window/prediction/<name>`` (M, K) and what they belong to: ``window/participant/<name>``,
        ``window/recording/<name>``, ``window/number/<name>`` (within the row), ``window/target/<name>``,
        ``window/known/<name>``.
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

    def units(self) -> dict[str, list[Units]]:
        """What is scored of each classification: participants (or the largest unit with a label), and single windows.

        Windows stand second, where the objective predicts them; without any known label both are empty.
        """
        found: dict[str, list[Units]] = {}
        for score in self.scores():
            if score.metric != "balanced_accuracy":
                continue
            of_windows = f"window/prediction/{score.target}" in self.arrays
            found[score.target] = [self._units("", score.target, None)]
            found[score.target] += [self._units("window/", score.target, "window")] if of_windows else []
        return found

    def _units(self, of: Literal["", "window/"], target: str, unit: Unit | None) -> Units:
        """Units of a target from the arrays of rows, or from those of windows."""
        end = f"/{target}" if of else ""
        known = self.arrays[f"{of}known/{target}"]
        participant, recording, truth, prediction = (
            self.arrays[f"{of}{name}"][known]
            for name in (f"participant{end}", f"recording{end}", f"target/{target}", f"prediction/{target}")
        )
        return gather_units(participant, recording, truth, prediction, unit)

    def rows(self, stage: str) -> dict[str, float]:
        """Losses and scores by name: ``val/loss``, ``val/nrmse_p_factor``, ``val/participant_f1_remission``, ..."""
        named = {f"{stage}/{part}": value for part, value in self.losses.items()}
        named |= {f"{stage}/{score.metric}_{score.target}": score.value for score in self.scores()}
        for target, levels in self.units().items():
            for units in levels:
                scores = class_scores(units)
                named |= {f"{stage}/{units.unit}_{name}_{target}": value for name, value in scores.items()}
        return named

    def write(self, path: Path, participant_keys: tuple[str, ...]) -> None:
        """Write the arrays as ``.npz``, participants by their ``corpus:id``."""
        keys = np.asarray(participant_keys, dtype=np.str_)
        numbers = [name for name in self.arrays if name == "participant" or name.startswith("window/participant/")]
        write_npz(path, self.arrays | {name: keys[self.arrays[name]] for name in numbers})


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
                if tokens is None and phase.objective.reads_tokens_alone and batch.has_signal:
                    tokens = phase.encoder(batch)  # once for loss and predictions
                if with_losses:
                    loss = phase.objective(phase.encoder, batch, tokens)
                    means.add(loss, len(batch))
                    tokens = tokens if loss.tokens is None else loss.tokens
                found = {"sample": batch.sample, "recording": batch.recording, "participant": batch.participant}
                found |= {f"target/{name}": value for name, value in batch.targets.items()}
                found |= {f"known/{name}": value for name, value in batch.known.items()}
                found |= _predicted(phase, batch, tokens)
                for name, value in found.items():
                    collected.setdefault(name, []).append(value.detach())
    finally:
        phase.train(was_training)
    return Evaluation(
        losses=means.take(),
        arrays={name: torch.cat(values).cpu().numpy() for name, values in collected.items()},
    )


def _predicted(phase: Phase, batch: EEGBatch, tokens: Tensor | None = None) -> dict[str, Tensor]:
    """Predictions of the rows of a batch and, where there are any, of the real windows within them."""
    whole = phase.objective.predict(phase.encoder, batch, tokens)
    windows = phase.objective.predict_windows(phase.encoder, batch, tokens)
    found = {f"prediction/{name}": value.float() for name, value in whole.items()}
    for name, (value, is_real) in windows.items():
        row, number = is_real.nonzero(as_tuple=True)  # (M,) each, row by row
        found[f"window/prediction/{name}"] = value[row, number].float()
        found[f"window/participant/{name}"] = batch.participant[row]
        found[f"window/recording/{name}"] = batch.recording[row]
        found[f"window/number/{name}"] = number
        if name in batch.targets:
            found[f"window/target/{name}"] = batch.targets[name][row]
            found[f"window/known/{name}"] = batch.known[name][row]
    return found


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
