"""Probe a checkpoint: one pass of its encoder over both sides, a probe per target, a table and a file."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, DataError
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.metrics.identity import RULE
from cerebro.progress import progress
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import Checkpoint, check_same_signal, check_same_tensors
from cerebro.training.embedding import Embedded, embed, pooled
from cerebro.training.evaluate import write_npz
from cerebro.training.foreign import read_trained
from cerebro.training.keys import TrainerKeys
from cerebro.training.prober import MAX_PEOPLE, PARTICIPANT, Predicted, Prober, ProbeScore
from cerebro.training.probing import check_targets
from cerebro.training.process import isolated_randomness
from cerebro.training.score import root_device
from cerebro.training.seen import check_unseen
from cerebro.training.stamp import PhaseData

Side = Literal["val", "test"]
Row = Literal["window", "recording"]


@dataclass(frozen=True)
class ProbeRun:
    """What is probed, and how.

    Parameters
    ----------
    targets : tuple of str
        Labels of windows, columns of the participants table, ``participant``.
    out : Path
        Folder for ``probe_<side>.json``, ``probe_<side>.npz`` and ``predictions_probe_<side>.npz``.
    side : {"val", "test"}
        Whom the probes are scored on; they are always fitted to training participants.
    max_windows : int
        Windows of each side at most, evenly spaced; 0 = all.
    max_people : int
        Candidates at most when the participant is probed; 0 = everyone.
    n_resamples : int
        Draws of participants behind each interval.
    seed : int
        Seed of draws and groups.
    trainer : TrainerKeys
        Accelerator and precision.
    allow_seen_participants : bool
        Score participants that went into the weights.
    by : {"window", "recording"}
        What a row is: a window, or a recording, whose embedding is the mean over its windows (of all its channels,
        where windows hold one channel each).
    """

    targets: tuple[str, ...]
    out: Path
    trainer: TrainerKeys
    side: Side = "val"
    max_windows: int = 20_000
    max_people: int = MAX_PEOPLE
    n_resamples: int = 2000
    seed: int = 0
    allow_seen_participants: bool = False
    by: Row = "window"

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("nothing to probe; add --targets, such as --targets p_factor,age,sex,participant.")
        for name, least in (("max_windows", 0), ("max_people", 0), ("n_resamples", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be {least} or more; set --{name}.")
        if self.max_people == 1:
            raise ConfigError("max_people=1 leaves nobody to confuse a person with; set --max_people to 2 or more.")


def probe_checkpoint(build: Callable[[SignalSpec], Encoder], data: PhaseData, path: Path, run: ProbeRun) -> list[str]:
    """Probe the encoder of ``path``; gives the lines that the user sees.

    Validation refuses participants that were trained on, a test those that were validated on as well.

    Raises
    ------
    CheckpointError
        If the checkpoint does not fit the config, or has seen the participants.
    ConfigError
        If a target is unknown.
    DataError
        If none of the targets can be probed.
    """
    checkpoint = read_trained(path)
    lines: list[str] = []
    with isolated_randomness(run.seed), lock_folder(run.out, "cerebro probe"):
        remove_orphans(run.out)
        data.setup("fit")
        check_targets(run.targets, data)
        check_unseen(run.side, data, checkpoint, run.allow_seen_participants, lines.append)
        check_same_signal(checkpoint, data.signal)
        encoder = build(data.signal)
        _load(encoder, checkpoint)
        device = root_device(run.trainer)
        encoder.to(device)
        data.for_device(device)
        train, held_out = (
            embed(encoder, data.evaluation_loader(side, run.max_windows), run.trainer.precision, f"embed {side}")
            for side in ("train", run.side)
        )
        if run.by == "recording":
            train, held_out = pooled(train, "recording"), pooled(held_out, "recording")
        prober = Prober(data, train, held_out, run.n_resamples, run.max_people, run.seed, run.by)
        scores, predicted, left_out = _probe_all(prober, run.targets)
        if not scores:
            raise DataError("; ".join(f"{target}: {why}" for target, why in left_out.items()) + "; nothing was probed.")
        write_npz(run.out / f"probe_{run.side}.npz", _arrays(train, held_out, data))
        write_npz(run.out / f"predictions_probe_{run.side}.npz", prediction_arrays(predicted, held_out, data))
        file = run.out / f"probe_{run.side}.json"
        write_json(file, _content(checkpoint, data, run, train, held_out, scores, left_out))
    lines.append(
        f"{path} (phase {checkpoint.stamp.phase}): {len(train):,} training {run.by}s to fit to, {len(held_out):,} of "
        f"{run.side} participants to score; embedding: {_embedding(run, train)}"
    )
    lines += [*table(scores), *notes(scores)]
    lines += [f"{target} left out: {why}" for target, why in left_out.items()]
    return [*lines, f"{file} is written, the embeddings and predictions beside it"]


def prediction_arrays(
    predicted: Mapping[str, Predicted],
    held_out: Embedded,
    data: PhaseData,
    which: Literal["probe", "constant"] = "probe",
) -> dict[str, Any]:
    """Predictions of probes, or of the constants beside them, in the form of ``predictions_test.npz``.

    A row for each of ``held_out``: ``participant`` by ``corpus:id``, ``target/<name>``, ``known/<name>`` (False where
    nothing was predicted) and ``prediction/<name>``, of classes and people their numbers as int64.
    """
    keys = np.asarray(data.participant_keys(), np.str_)
    arrays: dict[str, Any] = {"participant": keys[held_out.participant]}
    for target, found in predicted.items():
        values = found.prediction if which == "probe" else found.constant
        known = np.zeros(len(held_out), bool)
        truth, prediction = np.full(len(held_out), np.nan), np.zeros(len(held_out), values.dtype)
        known[found.row], truth[found.row], prediction[found.row] = True, found.truth, values
        arrays |= {f"known/{target}": known, f"target/{target}": truth, f"prediction/{target}": prediction}
    return arrays


def table(scores: Sequence[ProbeScore]) -> list[str]:
    """One line per probe, in columns."""
    head = ("target", "by", "score", "", "95 % interval", "constant", "age and sex", "rows")
    rows = [head]
    for one in scores:
        rows.append(
            (
                one.target,
                one.level,
                one.metric,
                _shown(one.value),
                _interval(one.ci95),
                _shown(one.constant),
                "" if math.isnan(one.confound) else f"{_shown(one.confound)} {_interval(one.confound_ci95)}",
                f"{one.n_scored:,} of {one.n_participants} participants",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def notes(scores: Sequence[ProbeScore]) -> list[str]:
    """What has to be known to read the table, each thing once."""
    found = [f"{one.target}: {one.note}" for one in scores if one.note]
    found += [
        f"{one.target} by {one.level}: {one.n_undefined:,} draws of its {one.n_participants} participants have equal "
        "labels and are left out of the interval, which is too narrow"
        for one in scores
        if one.n_undefined
    ]
    return [
        "nrmse: lower is better; balanced_accuracy: higher is better; intervals over participants",
        *dict.fromkeys(found),
    ]


def _probe_all(prober: Prober, targets: Sequence[str]) -> tuple[list[ProbeScore], dict[str, Predicted], dict[str, str]]:
    """Scores by row and by participant, what was predicted by row, and why a target has none."""
    scores: list[ProbeScore] = []
    predicted: dict[str, Predicted] = {}
    left_out: dict[str, str] = {}
    for target in progress(targets, "probes", "target", stays=False):
        try:
            predicted[target] = found = prober.predict(target)
            scores.append(prober.score(target, found, prober.level))
            of_people = prober.by_participant(target)
            scores += [] if of_people is None else [of_people]
        except DataError as error:
            left_out[target] = str(error).rstrip(".")
    return scores, predicted, left_out


def _load(encoder: Encoder, checkpoint: Checkpoint) -> None:
    name = "encoder."
    weights = {key.removeprefix(name): value for key, value in checkpoint.weights.items() if key.startswith(name)}
    what = f"encoder of phase {checkpoint.stamp.phase!r}"
    check_same_tensors(weights, encoder.state_dict(), checkpoint.path, what)
    encoder.load_state_dict(weights)


def _arrays(train: Embedded, held_out: Embedded, data: PhaseData) -> dict[str, Any]:
    keys = np.asarray(data.participant_keys(), np.str_)
    sides = (train, held_out)
    return {
        "embedding": np.concatenate([side.feature for side in sides]),
        "sample": np.concatenate([side.sample for side in sides]),
        "recording": np.concatenate([side.recording for side in sides]),
        "participant": keys[np.concatenate([side.participant for side in sides])],
        "is_train": np.repeat([True, False], [len(side) for side in sides]),
    }


def _content(
    checkpoint: Checkpoint,
    data: PhaseData,
    run: ProbeRun,
    train: Embedded,
    held_out: Embedded,
    scores: Sequence[ProbeScore],
    left_out: dict[str, str],
) -> dict[str, Any]:
    targets: dict[str, dict[str, Any]] = {}
    for one in scores:
        targets.setdefault(one.target, {})[one.level] = one.plain()
    content = {
        "checkpoint": str(checkpoint.path),
        "phase": checkpoint.stamp.phase,
        "weights_sha256": checkpoint.stamp.weights_sha256,
        "data_hash": data.data_hash,
        "side": run.side,
        "seed": run.seed,
        "n_resamples": run.n_resamples,
        "max_windows": run.max_windows,
        "by": run.by,
        "asked": list(run.targets),
        f"n_{run.by}s": {"train": len(train), run.side: len(held_out)},
        "embedding": _embedding(run, train),
        "targets": targets,
        "left_out": left_out,
    }
    return content | ({"participant_rule": RULE, "max_people": run.max_people} if PARTICIPANT in targets else {})


def _embedding(run: ProbeRun, train: Embedded) -> str:
    pooling = "mean over the windows of a recording of the " if run.by == "recording" else ""
    return f"{pooling}mean token of a window over real channels and samples, {train.feature.shape[1]} numbers"


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _interval(ci95: tuple[float, float]) -> str:
    return "undefined" if math.isnan(ci95[0]) else f"[{ci95[0]:.4f}, {ci95[1]:.4f}]"
