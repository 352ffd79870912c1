"""What validation participants share in a film, measured on the vectors of a trained phase: ``isc.json``."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from cerebro.errors import DataError
from cerebro.files import write_json
from cerebro.metrics.correlated_components import CorrelatedComponents, standard_windows
from cerebro.metrics.representation import alignment, effective_rank, synchrony, time_courses, uniformity
from cerebro.progress import progress
from cerebro.signal import EEGBatch
from cerebro.training.phase import Phase
from cerebro.training.stamp import PhaseData

N_SHUFFLES = 200
MOST_SPREAD = 2000  # windows, evenly spaced, of which the spread is taken
MOST_SAMPLES = 200  # of a window, evenly spaced, that a component is compared by
RECORDING = "recording"  # kind of vector: a correlated component of the EEG itself

Array = npt.NDArray[Any]


def write_synchrony(
    path: Path, phase: Phase, data: PhaseData, precision: str, device: torch.device, say: Callable[[str], None]
) -> None:
    """Measure the vectors that the objective gives (`Objective.represent`) on films, write and say it; else nothing.

    Beside them stands what a linear method finds without a network: the strongest correlated component of the films
    that training participants saw, of which the samples of a window are its vector.

    Parameters
    ----------
    path : Path
        File to write.
    phase : Phase
        With the weights that are measured; is left on ``device``.
    data : PhaseData
        Gives the windows of films of validation participants.
    precision : str
        As given to the trainer.
    device : torch.device
        Where to compute.
    say : callable
        Takes one line per film and kind of vector.
    """
    vectors, sample = _vectors(phase, data, precision, device)
    if not vectors:
        return
    film, time_ms, person = data.film_places(sample)
    names, number = np.unique(np.asarray(film), return_inverse=True)
    moment = np.unique(np.stack([number, time_ms]), axis=1, return_inverse=True)[1].reshape(-1)  # of a film
    found: dict[str, Any] = {"n_shuffles": N_SHUFFLES, "films": [], "spread": {}}
    some = np.arange(min(len(sample), MOST_SPREAD)) * len(sample) // min(len(sample), MOST_SPREAD)
    for kind, value in (_recorded(data, device, say) | vectors).items():
        for at, name in enumerate(names):
            here = number == at
            course = time_courses(value[here], person[here], time_ms[here])
            row = {"film": str(name), "vectors": kind, **asdict(synchrony(*course, N_SHUFFLES))}
            found["films"].append({key: _finite(one) for key, one in row.items()})
            say(_line(row))
    for kind, value in vectors.items():
        found["spread"][kind] = {
            "alignment": _finite(alignment(value, moment, person)),
            "uniformity": _finite(uniformity(value[some])),
            "effective_rank": effective_rank(value[some]),
            "n_dimensions": value.shape[1],
        }
    write_json(path, found)


def _vectors(
    phase: Phase, data: PhaseData, precision: str, device: torch.device
) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
    """Vectors (N, E) by kind, and their windows (N,); {} if the objective gives none, or there is no film."""
    collected: dict[str, list[torch.Tensor]] = {}
    samples: list[torch.Tensor] = []
    was_training = phase.training
    phase.to(device).eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            for batch in _film_batches(data, "val", device):
                vectors = phase.objective.represent(phase.encoder, batch)
                if not vectors:
                    break
                samples.append(batch.sample)
                for name, value in vectors.items():
                    collected.setdefault(name, []).append(value.float())
    finally:
        phase.train(was_training)
    sample = torch.cat(samples).cpu().numpy() if samples else np.empty(0, np.int64)
    return {name: torch.cat(values).cpu().numpy() for name, values in collected.items()}, sample


def _recorded(data: PhaseData, device: torch.device, say: Callable[[str], None]) -> dict[str, Array]:
    """Samples of the strongest component in each validation window (N, E), in the order of `_vectors`; {} without one.

    It is found on the films of training participants.
    """
    moments: dict[tuple[str, int], int] = {}
    shared = CorrelatedComponents(len(data.signal.channels))
    for batch in _film_batches(data, "train", device):
        film, time_ms, person = data.film_places(batch.sample.cpu().numpy())
        moment = [moments.setdefault(place, len(moments)) for place in zip(film, time_ms.tolist(), strict=True)]
        shared.add(_all_channels(batch, shared.n_channels), np.asarray(moment), person)
    try:
        (strongest,) = shared.find(1).filters.astype(np.float32)
    except DataError as error:
        say(f"isc of films, {RECORDING}: unknown, for among training participants {error}")
        return {}
    rows = []
    for batch in _film_batches(data, "val", device):
        course = np.einsum("c,nct->nt", strongest, standard_windows(_all_channels(batch, shared.n_channels)))
        n = min(course.shape[1], MOST_SAMPLES)
        rows.append(course[:, np.arange(n) * course.shape[1] // n])
    return {RECORDING: np.concatenate(rows)}


def _film_batches(data: PhaseData, side: Literal["train", "val"], device: torch.device) -> Iterator[EEGBatch]:
    for raw in progress(data.film_dataloader(side), f"films ({side})", "batch", stays=False):
        yield raw.to(device, non_blocking=True).to_microvolts()


def _all_channels(batch: EEGBatch, n_channels: int) -> Array:
    """Windows (B, C, T) with a row for every channel of the signal, 0 where the recording lacks it."""
    eeg = batch.eeg.new_zeros(len(batch), n_channels, batch.eeg.shape[2])
    row, place = torch.nonzero(batch.channel >= 0, as_tuple=True)
    eeg[row, batch.channel[row, place]] = batch.eeg[row, place]
    return eeg.cpu().numpy()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(row: dict[str, Any]) -> str:
    place = f"isc of {row['film']}, {row['vectors']}:"
    if not math.isfinite(row["isc"]):
        return f"{place} unknown, for {row['n_people']} people who share moments are too few"
    return (
        f"{place} {row['isc']:.3f} (shuffled {row['shuffled_mean']:.3f}, 95 % below {row['shuffled_q95']:.3f}; p "
        f"{row['p']:.3f}); moment found {row['moment_found']:.1%} (chance {row['moment_chance']:.1%}), "
        f"{row['n_people']} people, {row['n_times']} moments"
    )
