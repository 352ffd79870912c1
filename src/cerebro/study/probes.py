"""Probes of a study's phases: what frozen embeddings tell of held-out people, beside band power and the constant.

`cerebro probe` writes the predictions of each run; here stand their names in the results, and what the same probes say
of the logarithm of band power of the same rows (`training.prober`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cerebro.data.module import EEGData, Stage
from cerebro.dsp.spectrum import BANDS
from cerebro.files import read_arrays, read_json, write_atomically
from cerebro.progress import progress
from cerebro.study.baselines import log_band_power, open_data, runs_of_first, save_arrays, window_baselines
from cerebro.study.scores import Predictions, pool, read_predictions
from cerebro.training.embedding import Embedded, pooled
from cerebro.training.probe_report import prediction_arrays
from cerebro.training.prober import MAX_PEOPLE, PARTICIPANT, Prober

PREDICTIONS = "predictions_probe_test.npz"
"""What ``cerebro probe --side test`` leaves in the folder of a run."""


def probe_names(study: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(Phase, target) -> name in the results: ``probe/target``, or ``probe/phase.target`` where two phases probe it."""
    asked = [(phase, target) for phase, entry in _probes(study).items() for target in entry["targets"]]
    every = [target for _, target in asked]
    return {
        (phase, target): f"probe/{target}" if every.count(target) == 1 else f"probe/{phase}.{target}"
        for phase, target in asked
    }


def probe_predictions(study: Mapping[str, Any], folder: Path) -> dict[str, dict[str, list[Predictions]]]:
    """Variant -> name -> predictions per seed, folds pooled; a target that was left out in every fold is not in it."""
    names = probe_names(study)
    parts: dict[tuple[str, str, int], list[Predictions]] = {}
    for chain in study["chains"]:
        for phase, run in chain["runs"].items():
            predicted = read_predictions(folder / run / PREDICTIONS) if phase in _probes(study) else {}
            for target, found in predicted.items():
                parts.setdefault((chain["variant"], names[phase, target], chain["seed"]), []).append(found)
    models: dict[str, dict[str, list[Predictions]]] = {name: {} for name in study["variants"]}
    place = {name: number for number, name in enumerate(names.values())}  # as the recipe has them
    for (variant, name, _), found_parts in sorted(parts.items(), key=lambda entry: place[entry[0][1]]):
        models[variant].setdefault(name, []).append(pool(found_parts))
    return models


def probe_baseline_predictions(study: Mapping[str, Any], folder: Path) -> dict[str, dict[str, list[Predictions]]]:
    """Baseline -> name -> predictions, folds pooled (one entry: baselines have no seed); of features there are none."""
    names = probe_names(study)
    models: dict[str, dict[str, list[Predictions]]] = {name: {} for name in ("constant", *study["baselines"])}
    for baseline in window_baselines(study):
        parts: dict[str, list[Predictions]] = {}
        for phase, run in runs_of_first(study, _probes(study)):
            for target, found in read_predictions(probe_baseline_path(folder, baseline, run)).items():
                parts.setdefault(names[phase, target], []).append(found)
        models[baseline] = {name: [pool(found)] for name, found in parts.items()}
    return models


def probe_baseline_path(folder: Path, baseline: str, run: str) -> Path:
    """Where the predictions of a baseline lie that belong to the probes of a run."""
    return folder / "baselines" / f"{baseline}-probe-{Path(run).name}.npz"


def make_probe_baselines(study: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Write what the constant and band power predict of what was probed, where it is not there yet.

    Parameters
    ----------
    study : mapping
        ``study.json``.
    folder : Path
        Folder of the study.
    say : callable
        Takes each line about the progress.
    """
    names = window_baselines(study)
    for phase, run in runs_of_first(study, _probes(study)):
        probed = read_arrays(folder / run / PREDICTIONS)
        if all(_answers(probed, probe_baseline_path(folder, name, run)) for name in names):
            continue
        say(f"baselines of the probes of {Path(run).name}: {', '.join(names)} ...")
        entry, record = _probes(study)[phase], read_json(folder / run / "probe_test.json")
        targets = tuple(target for target in entry["targets"] if target != PARTICIPANT)
        data = open_data(folder / run / "config.yaml", targets)
        sides = (band_powers(data, side, entry["by"], record["max_windows"]) for side in ("train", "test"))
        train, test = with_means(*sides)
        prober = Prober(data, train, test, 0, record.get("max_people", MAX_PEOPLE), record["seed"], entry["by"])
        found = {target: prober.predict(target) for target in read_predictions(folder / run / PREDICTIONS)}
        for name in names:
            arrays = prediction_arrays(found, test, data, "constant" if name == "constant" else "probe")
            write_atomically(probe_baseline_path(folder, name, run), partial(save_arrays, arrays))


def _answers(probed: Mapping[str, npt.NDArray[Any]], path: Path) -> bool:
    """Whether a file holds predictions of the rows and targets of ``probed``."""
    if not path.is_file():
        return False
    found = read_arrays(path)
    return found.keys() == probed.keys() and np.array_equal(found["participant"], probed["participant"])


def band_powers(data: EEGData, stage: Stage, by: Literal["window", "recording"], n_most: int = 0) -> Embedded:
    """Logarithm of the mean power density in each band and channel as features (N, channels x bands) of a side.

    Sequences of windows are taken window by window, and the logarithms are averaged. NaN stands for a channel that a
    row does not hold. ``n_most`` is as in `EEGData.evaluation_loader`.
    """
    samples = int(data.store.index["segment_samples"].max())  # of a window of a sequence; 0 = rows are windows
    rows: list[list[npt.NDArray[Any]]] = []
    labels: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in data.targets}
    for raw in progress(data.evaluation_loader(stage, n_most), f"band power, {stage}", "batch", stays=False):
        batch = raw.to_microvolts()
        power = log_band_power(batch, data.signal.sfreq, samples)  # (B, C, K)
        placed = np.full((len(batch), len(data.signal.channels), len(BANDS)), np.nan, np.float32)
        row, channel = np.nonzero(batch.channel.numpy() >= 0)
        placed[row, batch.channel.numpy()[row, channel]] = power[row, channel]
        numbers = (batch.sample, batch.recording, batch.participant)
        rows.append([placed.reshape(len(batch), -1), *(number.numpy().astype(np.int64) for number in numbers)])
        for name in data.targets:
            values = batch.targets[name].numpy().astype(np.float64)
            labels[name].append(np.where(batch.known[name].numpy(), values, np.nan))
    feature, sample, recording, participant = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    targets = {name: np.concatenate(parts) for name, parts in labels.items()}
    side = Embedded(feature, sample, recording, participant, targets)
    return pooled(side, "recording") if by == "recording" else side


def with_means(train: Embedded, test: Embedded) -> tuple[Embedded, Embedded]:
    """Both sides with the training mean of a feature where a row has none; 0 where no training row has it."""
    is_there = np.isfinite(train.feature)
    total, count = np.where(is_there, train.feature, 0).sum(axis=0), is_there.sum(axis=0)
    mean = total / np.maximum(count, 1)
    first, second = (
        Embedded(
            np.where(np.isfinite(side.feature), side.feature, mean).astype(np.float32),
            side.sample,
            side.recording,
            side.participant,
            side.targets,
        )
        for side in (train, test)
    )
    return first, second


def _probes(study: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Phase -> ``targets`` and ``by``; a study of an earlier version has none."""
    found: Mapping[str, Mapping[str, Any]] = study.get("probes", {})
    return found
