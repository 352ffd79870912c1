"""Score or apply a checkpoint: validate, test, predict."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Trainer

from cerebro.errors import DataError
from cerebro.files import lock_folder, remove_orphans
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import check_same_signal, check_same_tensors
from cerebro.training.class_report import class_lines, write_participants
from cerebro.training.confounds import score_confounds
from cerebro.training.evaluate import Evaluation, evaluate
from cerebro.training.foreign import read_trained
from cerebro.training.keys import TrainerKeys
from cerebro.training.launch import device_here, launched
from cerebro.training.phase import Phase
from cerebro.training.process import isolated_randomness, without_hints
from cerebro.training.seen import check_unseen
from cerebro.training.stamp import PhaseData

Stage = Literal["val", "test", "predict"]


@dataclass(frozen=True)
class Scoring:
    """How to score.

    Parameters
    ----------
    out : Path
        Folder for ``predictions_<stage>.npz`` and, of a classification, ``participants_<stage>.tsv``.
    seed : int
        Seed of the phase that is built before its weights are loaded.
    trainer : TrainerKeys
        Accelerator and precision.
    allow_seen_participants : bool
        Score participants that went into the weights.
    """

    out: Path
    seed: int
    trainer: TrainerKeys
    allow_seen_participants: bool


def score_phase(
    stage: Stage, build: Callable[[SignalSpec], Phase], data: PhaseData, path: Path, scoring: Scoring
) -> list[str]:
    """Pass over the windows of a stage with the weights of ``path``; gives the lines that the user sees.

    Validation refuses participants that were trained on, a test refuses those that were validated on as well.

    Raises
    ------
    CheckpointError
        If the checkpoint does not fit the config, or has seen the participants.
    CerebroError
        If another process writes into ``scoring.out``.
    """
    checkpoint = read_trained(path)
    lines: list[str] = []
    with isolated_randomness(scoring.seed):
        data.setup(stage)
        if stage != "predict":
            check_unseen(stage, data, checkpoint, scoring.allow_seen_participants, lines.append)
        check_same_signal(checkpoint, data.signal)
        phase = build(data.signal)
        check_same_tensors(checkpoint.weights, phase.state_dict(), path, f"all of phase {phase.name!r}")
        phase.load_state_dict(checkpoint.weights)
        device = root_device(scoring.trainer)
        phase.to(device)
        data.for_device(device)
        loaders = {"val": data.val_dataloader, "test": data.test_dataloader, "predict": data.predict_dataloader}
        with lock_folder(scoring.out, f"cerebro, scores of {stage}"):
            remove_orphans(scoring.out)
            found = evaluate(phase, loaders[stage](), scoring.trainer.precision, with_losses=stage == "val", what=stage)
            if not found.arrays:
                raise DataError(
                    f"there is no window to {stage}: nobody of that side has one (recordings too short, or of another "
                    "task); correct data.split or data.windows, or leave such people out of the store."
                )
            target = scoring.out / f"predictions_{stage}.npz"
            found.write(target, data.participant_keys())
            table = scoring.out / f"participants_{stage}.tsv"
            has_table = stage != "predict" and write_participants(table, found, data.participant_keys())
    if stage != "predict":
        lines += [
            *score_lines(found),
            *class_lines(found, data.participant_keys()),
            *(one.line() for one in score_confounds(found, data)),
        ]
    also = f", the people behind them to {table}" if has_table else ""
    return [*lines, f"{len(found.arrays['sample']):,} windows written to {target}{also}"]


def score_lines(found: Evaluation) -> list[str]:
    """Losses and scores, each score beside that of a constant."""
    lines = [f"{part} {value:.4g}" for part, value in found.losses.items()]
    for score in found.scores():
        if not score.n_windows:
            lines.append(f"{score.target}: no window with a known label, so there is no score")
            continue
        better = "lower is better" if score.metric == "nrmse" else "higher is better"
        lines.append(
            f"{score.target}: {score.metric} {score.value:.4f} ({better}), constant predictor {score.constant:.4f}, "
            f"{score.n_windows:,} windows of {score.n_participants} participants"
        )
    return lines or ["this phase predicts no target, so there is nothing to score"]


def root_device(keys: TrainerKeys) -> torch.device:
    """Device that the trainer would take."""
    launch = launched()
    if launch is not None:
        return device_here(launch, keys)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips; warnings stay
    with without_hints():
        trainer = Trainer(
            accelerator=keys.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    return trainer.strategy.root_device
