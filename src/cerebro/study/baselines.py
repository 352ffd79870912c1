"""What a study must beat: the constant, and a linear model of band power, on the same windows and splits.

Both are fitted to the training participants of a final phase and predict its test participants. The penalty and the
shrinkage of the linear model are chosen on training participants left out of the fit (``metrics.probe``). Baselines on
a file of features stand beside them (``feature_baselines``).
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cerebro.data.module import EEGData, Stage
from cerebro.dsp.spectrum import band_power
from cerebro.errors import ConfigError
from cerebro.files import read_arrays, sha256_file, write_atomically
from cerebro.metrics.probe import fit_logistic, fit_ridge
from cerebro.progress import progress
from cerebro.signal import EEGBatch
from cerebro.study.feature_baselines import predict_from_features
from cerebro.study.feature_file import FeatureFile, check_features, read_features
from cerebro.study.recipe import FEATURE_BASELINES
from cerebro.study.scores import Predictions, read_predictions

Array = npt.NDArray[np.float64]

MAX_WINDOWS = 20_000  # to fit a linear model; above it, every k-th batch is taken
MIN_POWER = 1e-3  # microvolt^2 / Hz: flat channels would have a logarithm of minus infinity


@dataclass(frozen=True)
class Windows:
    """Windows of one side, as a linear model takes them.

    Parameters
    ----------
    participant : list of str (N,)
        As ``corpus:id``.
    recording : array (N,)
        Number of the recording.
    feature : array (N, F)
        Logarithm of band power by channel and band; F = 0 where it was not asked for.
    target, known : dict of array (N,)
        Labels by target, and whether they are known.
    """

    participant: list[str]
    recording: npt.NDArray[np.int64]
    feature: npt.NDArray[np.float32]
    target: dict[str, Array]
    known: dict[str, npt.NDArray[np.bool_]]


def baseline_path(folder: Path, baseline: str, run: str) -> Path:
    """Where the predictions of a baseline lie that belong to a run (``phases/<phase>-<identity>``)."""
    return folder / "baselines" / f"{baseline}-{Path(run).name}.npz"


def baseline_runs(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(phase, run) of the final runs whose data the baselines share; see `runs_of_first`."""
    return runs_of_first(study, study["final_phases"])


def runs_of_first(study: Mapping[str, Any], phases: Collection[str]) -> list[tuple[str, str]]:
    """(phase, run) of ``phases`` in the first variant and seed, every fold: baselines see the same data in all."""
    first = study["chains"][0]
    return [
        (phase, run)
        for chain in study["chains"]
        if (chain["variant"], chain["seed"]) == (first["variant"], first["seed"])
        for phase, run in chain["runs"].items()
        if phase in phases
    ]


def window_baselines(study: Mapping[str, Any]) -> tuple[str, ...]:
    """Baselines that see the windows of a run themselves, the constant first."""
    return ("constant", *(name for name in study["baselines"] if name not in FEATURE_BASELINES))


def make_baselines(study: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Write the predictions of the constant and of every baseline of the recipe, where they are not there yet.

    Those on features are made anew where the file of features has changed.

    Parameters
    ----------
    study : mapping
        ``study.json``.
    folder : Path
        Folder of the study.
    say : callable
        Takes each line about the progress.
    """
    of_features = [name for name in study["baselines"] if name in FEATURE_BASELINES]
    digest = _digest(Path(study["features"])) if of_features else ""
    features: FeatureFile | None = None  # read for the first run that needs it
    for _, run in baseline_runs(study):
        missing = [name for name in window_baselines(study) if not baseline_path(folder, name, run).is_file()]
        outdated = [name for name in of_features if not _is_of(digest, baseline_path(folder, name, run))]
        tested = read_predictions(folder / run / "predictions_test.npz")
        if not (missing or outdated) or not tested:
            continue
        say(f"baselines of {Path(run).name}: {', '.join([*missing, *outdated])} ...")
        data = open_data(folder / run / "config.yaml")
        n_classes = {name: _n_classes(of_run) for name, of_run in tested.items()}
        if missing:
            _make_window_baselines(missing, data, n_classes, folder, run)
        for name in outdated:
            features = features or read_features(Path(study["features"]))
            recording, _ = data.labels("test")
            people = np.asarray(data.participant_keys(), np.str_)[data.store.index["participant"][recording]]
            arrays: dict[str, npt.NDArray[Any]] = {
                "participant": people,
                "recording": recording,
                "features": np.array(digest),
            }
            for target, n in n_classes.items():
                arrays.update(predict_from_features(name, features, data, target, n, say))
            write_atomically(baseline_path(folder, name, run), partial(save_arrays, arrays))


def _make_window_baselines(
    names: list[str], data: EEGData, n_classes: Mapping[str, int], folder: Path, run: str
) -> None:
    train, test = (_windows(data, stage, "band_power" in names) for stage in ("train", "test"))
    for name in names:
        predict = _constant if name == "constant" else _linear
        arrays: dict[str, npt.NDArray[Any]] = {
            "participant": np.asarray(test.participant, np.str_),
            "recording": test.recording,
        }
        for target, n in n_classes.items():
            arrays[f"target/{target}"] = test.target[target]
            arrays[f"known/{target}"] = test.known[target]
            arrays[f"prediction/{target}"] = predict(train, test, target, n)
        write_atomically(baseline_path(folder, name, run), partial(save_arrays, arrays))


def _n_classes(of_run: Predictions) -> int:
    """Classes that a run predicts; 0 = values."""
    return int(of_run.prediction.shape[1]) if of_run.kind == "classification" else 0


def _digest(features: Path) -> str:
    check_features(features)
    return sha256_file(features)


def _is_of(digest: str, path: Path) -> bool:
    """Whether predictions are there and made of the file of features with this SHA-256."""
    return path.is_file() and str(read_arrays(path).get("features", "")) == digest


def save_arrays(arrays: Mapping[str, npt.NDArray[Any]], file: BinaryIO) -> None:
    """Write arrays as ``.npz``, without pickles."""
    np.savez(file, allow_pickle=False, **arrays)


def _constant(train: Windows, test: Windows, target: str, n_classes: int) -> Array:
    """Mean of the training windows, or with classes the shares of each, for every test window."""
    truth = train.target[target][train.known[target]]
    if not n_classes:
        return np.full(len(test.participant), truth.mean())
    shares = np.bincount(truth.astype(np.int64), minlength=n_classes) / len(truth)
    return np.repeat(shares[None, :], len(test.participant), axis=0)


def _linear(train: Windows, test: Windows, target: str, n_classes: int) -> Array:
    """Ridge, or with classes logistic regression: probabilities (N, K), 0 for a class that nobody trained on has."""
    known = train.known[target]
    people = [name for name, is_known in zip(train.participant, known, strict=True) if is_known]
    fit = fit_logistic if n_classes else fit_ridge
    found = fit(train.feature[known], train.target[target][known], people).predict(test.feature)
    return np.pad(found, ((0, 0), (0, n_classes - found.shape[1]))) if n_classes else found


def _windows(data: EEGData, stage: Stage, with_power: bool) -> Windows:
    """Read every window of a side; at most about ``MAX_WINDOWS`` of the training side."""
    loader = data.evaluation_loader(stage)
    keys = np.asarray(data.participant_keys(), np.str_)
    every = math.ceil(len(data.rows(stage)) / MAX_WINDOWS) if stage == "train" else 1
    rows, recordings, features = [], [], []
    targets: dict[str, list[Array]] = {name: [] for name in data.targets}
    known: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in data.targets}
    samples = int(data.store.index["segment_samples"].max())  # of a window of a sequence; 0 = rows are windows
    for number, raw in enumerate(progress(loader, f"baselines, {stage}", "batch", stays=False)):
        if number % every:
            continue
        batch = raw.to_microvolts()
        rows.append(batch.participant.numpy())
        recordings.append(batch.recording.numpy().astype(np.int64))
        if with_power:
            power = log_band_power(batch, data.signal.sfreq, samples)  # (B, C, K)
            placed = np.zeros((len(batch), len(data.signal.channels), power.shape[-1]), np.float32)
            sample, channel = np.nonzero(batch.channel.numpy() >= 0)
            placed[sample, batch.channel.numpy()[sample, channel]] = power[sample, channel]
            features.append(placed.reshape(len(batch), -1))
        for name in data.targets:
            targets[name].append(batch.targets[name].numpy().astype(np.float64))
            known[name].append(batch.known[name].numpy())
    n_windows = sum(map(len, rows))
    return Windows(
        [str(name) for name in keys[np.concatenate(rows)]],
        np.concatenate(recordings),
        np.concatenate(features) if features else np.zeros((n_windows, 0), np.float32),
        {name: np.concatenate(parts) for name, parts in targets.items()},
        {name: np.concatenate(parts) for name, parts in known.items()},
    )


def log_band_power(batch: EEGBatch, sfreq: float, samples: int) -> npt.NDArray[np.float64]:
    """Logarithm (base 10) of band power, (B, C, K); of sequences the mean over their whole windows of ``samples``."""
    eeg = batch.eeg.numpy()
    if not samples:
        return np.asarray(np.log10(np.maximum(band_power(eeg, sfreq), MIN_POWER)))
    windows = eeg.reshape(*eeg.shape[:2], -1, samples)  # (B, C, N, P)
    power = np.log10(np.maximum(band_power(windows, sfreq), MIN_POWER))  # (B, C, N, K)
    n_whole = np.maximum(batch.n_valid.numpy() // samples, 1)
    is_whole = np.arange(windows.shape[2]) < n_whole[:, None]  # (B, N)
    return np.asarray((power * is_whole[:, None, :, None]).sum(axis=2) / n_whole[:, None, None])


def open_data(config: Path, targets: tuple[str, ...] | None = None) -> EEGData:
    """Data module of a finished run, from its resolved config; with other ``targets`` if they are given."""
    content = yaml.safe_load(config.read_text())["data"]
    if targets is not None:
        content["targets"] = list(targets)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EEGData, "data")
    try:
        data: EEGData = parser.instantiate(parser.parse_object({"data": content})).data
    except ArgumentError as error:
        raise ConfigError(f"{config}: data cannot be opened ({' '.join(str(error).split())}).") from None
    return data
