"""Predictions of held-out participants -> scores, all made from the same draws of participants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cerebro.errors import DataError
from cerebro.files import read_arrays
from cerebro.metrics.bootstrap import (
    ParticipantBootstrap,
    ParticipantSums,
    balanced_error_sums,
    gain,
    interval,
    nrmse_sums,
    pearson_sums,
    reachable_share,
)
from cerebro.metrics.challenge import competition_score

Array = npt.NDArray[np.float64]
Kind = Literal["regression", "classification"]


@dataclass(frozen=True)
class WindowPredictions:
    """Probabilities of single windows within the rows, where a head predicts them.

    Parameters
    ----------
    participant : list of str (M,)
        As ``corpus:id``.
    target : array (M,)
        Class.
    prediction : array (M, K)
        Probabilities of the classes.
    """

    participant: list[str]
    target: Array
    prediction: Array


@dataclass(frozen=True)
class Predictions:
    """Held-out windows with a known label, of one model or pooled over folds.

    Parameters
    ----------
    participant : list of str (N,)
        As ``corpus:id``.
    target : array (N,)
        Truth.
    prediction : array (N,) or (N, K)
        Values, or of classes their numbers as int64 or the probabilities of K classes.
    n_unknown : int
        Windows without a label, left out.
    recording : list of str (N,), optional
        Number of the recording, where it is known.
    windows : WindowPredictions, optional
        Of single windows, where they were predicted.
    """

    participant: list[str]
    target: Array
    prediction: npt.NDArray[Any]
    n_unknown: int
    recording: list[str] | None = None
    windows: WindowPredictions | None = None

    @property
    def kind(self) -> Kind:
        """What the predictions are."""
        return "classification" if self.prediction.ndim == 2 or self.prediction.dtype.kind == "i" else "regression"


@dataclass(frozen=True)
class Scored:
    """A lower-is-better score per seed, with its resamples."""

    per_seed: list[float]
    resampled: Array  # (resamples,), mean over seeds

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.per_seed))


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Predictions of one run by target.

    Raises
    ------
    DataError
        If the file is not there or holds no prediction.
    """
    if not path.is_file():
        raise DataError(f"{path} not found; run the recipe again, it makes what is missing.")
    file = read_arrays(path)
    found = {}
    participant = file["participant"].astype(str)
    for name in sorted(key.removeprefix("prediction/") for key in file if key.startswith("prediction/")):
        known = file[f"known/{name}"].astype(bool)
        prediction = file[f"prediction/{name}"][known]
        found[name] = Predictions(
            participant[known].tolist(),
            file[f"target/{name}"][known].astype(np.float64),
            prediction.astype(np.int64 if prediction.dtype.kind == "i" else np.float64),
            int((~known).sum()),
            file["recording"][known].astype(str).tolist() if "recording" in file else None,
            _windows(file, name),
        )
    return found


def _windows(file: Mapping[str, npt.NDArray[Any]], target: str) -> WindowPredictions | None:
    if f"window/known/{target}" not in file:
        return None
    known = file[f"window/known/{target}"].astype(bool)
    return WindowPredictions(
        file[f"window/participant/{target}"][known].astype(str).tolist(),
        file[f"window/target/{target}"][known].astype(np.float64),
        file[f"window/prediction/{target}"][known].astype(np.float64),
    )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of all folds as those of one model."""
    return Predictions(
        [name for part in parts for name in part.participant],
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.prediction for part in parts]),
        sum(part.n_unknown for part in parts),
        _joined([part.recording for part in parts]),
        _pooled_windows([part.windows for part in parts]),
    )


def pool_constants(parts: Sequence[Predictions]) -> Predictions:
    """Constants of all folds as one: shares of classes are averaged over the folds.

    Those of single folds would score below chance, since whoever is left out makes their own class rarer among the
    others; every model would seem to gain over them.
    """
    pooled = pool(parts)
    if pooled.prediction.ndim != 2:
        return pooled
    return replace(pooled, prediction=np.broadcast_to(pooled.prediction.mean(axis=0), pooled.prediction.shape))


def _joined(parts: Sequence[list[str] | None]) -> list[str] | None:
    there = [part for part in parts if part is not None]
    return [name for part in there for name in part] if len(there) == len(parts) else None


def _pooled_windows(parts: Sequence[WindowPredictions | None]) -> WindowPredictions | None:
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    return WindowPredictions(
        [name for part in there for name in part.participant],
        np.concatenate([part.target for part in there]),
        np.concatenate([part.prediction for part in there]),
    )


class Table:
    """Scores of all models of a study, made from the same draws of participants.

    ``others`` are participants of whom nothing was predicted.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Sequence[Predictions]]],
        n_resamples: int,
        seed: int,
        others: Sequence[str] = (),
    ) -> None:
        everyone = [*others] + [
            name for model in models.values() for seeds in model.values() for part in seeds for name in part.participant
        ]
        self.models = models
        self.bootstrap = ParticipantBootstrap(everyone, n_resamples, seed)
        self.kinds: dict[str, Kind] = {
            target: seeds[0].kind for model in models.values() for target, seeds in model.items()
        }
        self.scores = {
            (name, target): self._score(target, seeds)
            for name, model in models.items()
            for target, seeds in model.items()
        }
        self._check_paired()

    def _check_paired(self) -> None:
        for target in self.kinds:
            people = {name: set(model[target][0].participant) for name, model in self.models.items() if target in model}
            first, *others = people
            for other in others:
                if people[first] != people[other]:
                    n = len(people[first] ^ people[other])
                    raise DataError(
                        f"{first} and {other} were tested on different participants for {target} ({n} differ); gains "
                        "are paired over the same ones, so give all phases the same data.split."
                    )

    def _score(self, target: str, seeds: Sequence[Predictions]) -> Scored:
        sums = nrmse_sums if self.kinds[target] == "regression" else balanced_error_sums
        return self._scored(seeds, sums)

    def _scored(
        self,
        seeds: Sequence[Predictions],
        sums: Callable[[Sequence[str], npt.ArrayLike, npt.ArrayLike], ParticipantSums],
    ) -> Scored:
        made = [sums(part.participant, part.target, part.prediction) for part in seeds]
        resampled = np.mean([self.bootstrap.resampled(entry) for entry in made], axis=0)
        return Scored([entry.value() for entry in made], resampled)

    def target_entry(self, name: str, target: str) -> dict[str, Any]:
        """Measures of one model on one target, as ``results.json`` holds them."""
        score = self.scores[name, target]
        parts = self.models[name][target]
        entry: dict[str, Any] = {
            "n_windows": len(parts[0].target),
            "n_windows_without_label": parts[0].n_unknown,
            "n_participants": len(set(parts[0].participant)),
        }
        if self.kinds[target] == "regression":
            entry["nrmse"] = estimate_entry(score.mean, score.resampled, score.per_seed)
            if all(np.ptp(part.prediction) > 0 for part in parts):
                correlation = self._scored(parts, pearson_sums)
                entry["pearson"] = estimate_entry(correlation.mean, correlation.resampled, correlation.per_seed)
        else:
            right = [1 - value for value in score.per_seed]
            entry["balanced_accuracy"] = estimate_entry(1 - score.mean, 1 - score.resampled, right)
        return entry

    def competition(self, name: str, targets: tuple[str, str]) -> Scored | None:
        """Competition score of one model; None where it lacks one of the two targets."""
        if any((name, target) not in self.scores for target in targets):
            return None
        first, second = (self.scores[name, target] for target in targets)
        n_seeds = max(len(first.per_seed), len(second.per_seed))
        pairs = zip(_repeated(first.per_seed, n_seeds), _repeated(second.per_seed, n_seeds), strict=True)
        return Scored(
            [competition_score(one, two) for one, two in pairs], 0.3 * first.resampled + 0.7 * second.resampled
        )


def _repeated(values: list[float], n: int) -> list[float]:
    return values * n if len(values) == 1 else values


def estimate_entry(mean: float, resampled: Array, per_seed: Sequence[float]) -> dict[str, Any]:
    """``{"mean", "ci95", "per_seed"}``; null where undefined, so that the file stays JSON."""
    (low, high), n_undefined = interval(resampled)
    entry = {
        "mean": _number(mean),
        "ci95": [_number(low), _number(high)],
        "per_seed": [_number(value) for value in per_seed],
    }
    return {**entry, "n_undefined_resamples": n_undefined} if n_undefined else entry


def gain_entry(better: Scored, worse: Scored, oracle: float) -> dict[str, Any]:
    """Gain of one model over another, and the share of the reachable gap unless ``oracle`` is NaN."""
    per_seed: list[float] = []
    if len(better.per_seed) == len(worse.per_seed) or 1 in (len(better.per_seed), len(worse.per_seed)):
        n_seeds = max(len(better.per_seed), len(worse.per_seed))
        pairs = zip(_repeated(better.per_seed, n_seeds), _repeated(worse.per_seed, n_seeds), strict=True)
        per_seed = [float(gain(one, two)) for one, two in pairs]
    value = float(gain(better.mean, worse.mean))
    entry = {"gain": estimate_entry(value, gain(better.resampled, worse.resampled), per_seed)}
    share = float(reachable_share(better.mean, worse.mean, oracle)) if np.isfinite(oracle) else float("nan")
    if np.isfinite(share):
        entry["reachable_share"] = estimate_entry(share, reachable_share(better.resampled, worse.resampled, oracle), [])
    return entry


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
