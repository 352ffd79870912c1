"""One phase run from an empty folder to run.json: start or resume, hand over weights, train, and leave a record."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor

from cerebro.errors import CheckpointError, ConfigError
from cerebro.files import copy_atomically, lock_folder, remove_orphans, write_atomically, write_json
from cerebro.nn.processes import alone, gather_uneven_rows, is_first_process, made_by_first_process, n_processes
from cerebro.objectives.base import FixedWindows
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.bar import Bar
from cerebro.training.checkpoint import (
    AtomicCheckpoint,
    Checkpoint,
    Stamp,
    TransferReport,
    check_same_signal,
    check_same_tensors,
    read_checkpoint,
    weights_sha256,
)
from cerebro.training.confounds import confound_rows, score_confounds
from cerebro.training.encode_once import Asked, encode_once
from cerebro.training.evaluate import Evaluation, evaluate, write_showcase
from cerebro.training.foreign import read_source, unknown_participants
from cerebro.training.freeze import FreezeEncoder
from cerebro.training.handover import asked_transfers, check_source, hand_over, leave_as_handed_over, warn_frozen
from cerebro.training.health import NonFiniteLoss
from cerebro.training.keep import Keeper, NoBatches, Positioned, ResumableLoader, named_checkpoint, write_history
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.late_registration import leave_finished, run_tags
from cerebro.training.launch import OwnNoise, check_shared, several_processes, strategy_of
from cerebro.training.packaging import data_of, package_run, scores_of, version_tags
from cerebro.training.passes import OncePerWindow, StartBatches
from cerebro.training.phase import Phase
from cerebro.training.pool_once import pool_once
from cerebro.training.probing import Probing
from cerebro.training.process import isolated_randomness, peak_memory_mb, restart_peak_memory, without_hints
from cerebro.training.run_folder import look_into, no_state, nothing_to_resume
from cerebro.training.score import root_device
from cerebro.training.seen import check_unseen
from cerebro.training.stamp import PhaseData, make_stamp, with_participants
from cerebro.training.synchrony import write_synchrony
from cerebro.training.tracking import Tracker


def fit(
    build: Callable[[SignalSpec], Phase],
    data: PhaseData,
    trainer_keys: TrainerKeys,
    keys: RunKeys,
    config: dict[str, Any],
    ckpt_path: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train one phase in ``keys.out``; gives the content of run.json.

    A finished run of the same config, data and sources is left as it is; an unfinished one goes on where it stopped.
    Of the processes that torchrun started each takes its share of every batch; the first alone validates, writes and
    speaks, and what it decides holds for all.

    Parameters
    ----------
    build : callable
        Gives the phase for a signal, with fresh weights.
    data : PhaseData
        The data.
    trainer_keys, keys
        Keys of the trainer and of the run.
    config : dict
        The resolved config, in plain types.
    ckpt_path : Path, optional
        A checkpoint of the same phase is resumed, one of another phase hands its encoder over.
    say : callable
        Takes a line for the user.

    Raises
    ------
    CerebroError
        For anything that the user can mend.
    NonFiniteLoss
        If the loss stopped being finite.
    Collapsed
        If what is learned no longer tells windows apart.
    Interrupted
        On SIGTERM or SIGINT, with the state saved.
    EndedElsewhere
        If another process of the run failed, and this one ends for that reason.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips; warnings stay
    if keys.resume and ckpt_path is None and not any((keys.out / name).exists() for name in ("last.ckpt", "run.json")):
        raise nothing_to_resume(keys.out)
    with several_processes(trainer_keys), _one_writer(keys.out), isolated_randomness(keys.seed):
        if not is_first_process():
            say = _mute
        data.setup("fit")
        say(data.summary())
        phase = build(data.signal)
        check_shared(phase)
        given = None if ckpt_path is None else read_source(ckpt_path)
        is_same_phase = given is not None and given.foreign is None and given.stamp.phase == phase.name
        if given is not None and is_same_phase and not given.content:
            raise no_state(given)
        resumed = given if is_same_phase else None
        transfers = asked_transfers(phase, None if resumed is not None or given is None else given.path, say)
        sources = {str(transfer.source): read_source(transfer.source) for transfer in transfers}
        for transfer in transfers:
            check_source(phase, transfer, sources[str(transfer.source)], data.signal)
        for source in sources.values():
            if line := unknown_participants(source):
                say(line)
        if resumed is not None:
            check_same_signal(resumed, data.signal)
        stamp = make_stamp(phase.name, data, config, list(sources.values()), resumed)
        if n_orphans := made_by_first_process(lambda: remove_orphans(keys.out)):
            say(f"removed {n_orphans} half-written files of a killed run")
        finished, is_begun = made_by_first_process(lambda: look_into(keys, stamp))
        own = read_checkpoint(keys.out / "last.ckpt") if is_begun else None
        if finished is not None:
            return made_by_first_process(partial(leave_finished, finished, phase, data, stamp, trainer_keys, keys, say))
        if own is not None:
            stamp = with_participants(stamp, own.stamp)
        resumed = own or resumed
        if keys.resume and resumed is None:
            raise nothing_to_resume(keys.out)
        for source in (*sources.values(), *([] if resumed is None else [resumed])):
            check_unseen("test", data, source, keys.allow_seen_participants, say)
            check_unseen("val", data, source, keys.allow_seen_participants, say)
        reports: list[TransferReport] = []
        if resumed is None:
            reports = hand_over(phase, transfers, sources, say)
            warn_frozen(phase, reports, say)
            leave_as_handed_over(phase, reports, say)
        else:
            check_same_tensors(resumed.weights, phase.state_dict(), resumed.path, f"resume of phase {phase.name!r}")
            reports = [TransferReport(**report) for report in resumed.content["transfers"]]
        _describe(phase, data, resumed, say)
        if is_first_process():
            write_atomically(keys.out / "config.yaml", _writer(yaml.safe_dump(config, sort_keys=False)))
        return _Run(phase, data, trainer_keys, keys, stamp, reports, resumed, config, say).go()


class _Run:
    """The part of a run that trains and leaves the record."""

    def __init__(
        self,
        phase: Phase,
        data: PhaseData,
        trainer_keys: TrainerKeys,
        keys: RunKeys,
        stamp: Stamp,
        reports: list[TransferReport],
        resumed: Checkpoint | None,
        config: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.phase, self.trainer_keys, self.keys, self.stamp = phase, trainer_keys, keys, stamp
        self.data, self.reports, self.resumed, self.config, self.say = data, reports, resumed, config, say
        self.n_processes = n_processes()
        data.for_device(root_device(trainer_keys))
        self.train = Positioned(data.train_dataloader())
        self.val: ResumableLoader = data.val_dataloader() if data.participants("val") else NoBatches()
        mlflow = keys.mlflow if is_first_process() else replace(keys.mlflow, enabled=False)
        self.tracker = Tracker(mlflow, keys.out, say)
        self.keeper = Keeper(
            keys.out,
            stamp,
            [report.plain() for report in reports],
            self.train,
            self.val,
            keys.monitor,
            keys.monitor_mode == "min",
            keys.checkpoint_every_steps,
            keys.patience,
            0 if phase.freeze_encoder else phase.freeze_encoder_epochs,
            trainer_keys.precision,
            say,
            self.tracker.log,
            self._beside,
            self.keys.run_name,
        )
        self.probing = Probing(keys.probe, data, trainer_keys.precision, keys.seed, say)
        self.n_frozen = trainer_keys.max_epochs if phase.freeze_encoder else phase.freeze_encoder_epochs
        self.freeze = FreezeEncoder(self.n_frozen)
        if len(self.train) == 0:
            raise ConfigError("no training window is left; widen data.windows or data.split (see the counts above).")

    def go(self) -> dict[str, Any]:
        """Train, then finish; the tracker hears of every end."""
        n_epochs_done = 0
        is_stopped = False
        if self.resumed is not None:
            kept = self.resumed.content["callbacks"]["Keeper"]
            self.keeper.load_state_dict(kept)
            n_epochs_done, is_stopped = kept["position"]["epoch"], self.keeper.is_out_of_patience()
            if made_by_first_process(lambda: self._bring_best(self.keeper)):
                self.keeper.lose_best()
            self.freeze.load_state_dict(self.resumed.content["callbacks"]["FreezeEncoder"])
            self.train.seek(n_epochs_done, kept["position"]["step"])
            if is_first_process():
                write_history(self.keys.out / "history.jsonl", self.keeper.history)
        tags = run_tags(self._identity())
        self.tracker.start(self.keys.run_name or self.phase.name, self.config, tags, self.keeper.history)
        self.tracker.log_data(*data_of(self.stamp))
        restart_peak_memory()
        trainer = self._trainer()
        try:
            if n_epochs_done < self.trainer_keys.max_epochs and not is_stopped:
                self._train(trainer)
            result = made_by_first_process(self._finish)
        except NonFiniteLoss as error:  # at the same step in every process
            self.tracker.finish("FAILED", [], None)
            sample = gather_uneven_rows(torch.tensor(error.sample, dtype=torch.int64)).tolist()
            found = NonFiniteLoss(error.what, error.value, sample)
            epoch, step, path = trainer.current_epoch, trainer.global_step, self.keys.out / "nonfinite.json"
            line = made_by_first_process(lambda: found.write(path, epoch, step))
            raise NonFiniteLoss(found.what, found.value, sample, line) from None
        except BaseException as error:
            self.tracker.finish("KILLED" if type(error).__name__ == "Interrupted" else "FAILED", [], None)
            raise
        if is_first_process():
            write_json(self.keys.out / "run.json", result)
        return result

    def _identity(self) -> dict[str, Any]:
        """What the run is, in run.json and for MLflow."""
        return {
            "phase": self.phase.name,
            "transfers": [report.plain() for report in self.reports],
            "git_commit": self.stamp.git_commit,
            "data_hash": self.stamp.data_hash,
            "config_hash": self.stamp.config_hash,
            "inputs": self.stamp.inputs,
        }

    def _beside(self, found: Evaluation) -> dict[str, float]:
        """What age and sex alone score, said once; and which targets no validation window has a label of."""
        for target in found.unscored():
            self.say(f"{target}: no validation window has a known label, so it has no score in this run")
        scores = score_confounds(found, self.data)
        for score in scores:
            self.say(score.line())
        return confound_rows(scores)

    def _bring_best(self, keeper: Keeper) -> bool:
        """Take the best checkpoint of a run along that is resumed in another folder, or say that it is lost (True)."""
        ours = self.keys.out / "best.ckpt"
        if keeper.best["epoch"] is None or ours.exists():
            return False
        theirs = _path(self.resumed).with_name("best.ckpt")
        found = read_checkpoint(theirs).content if theirs.exists() else None
        kept = {} if found is None else found["callbacks"].get("Keeper", {})
        n_rows = keeper.best["epoch"] + 1
        if found is not None and kept.get("history") == keeper.history[:n_rows]:
            write_atomically(ours, lambda file: torch.save(found, file))
            return False
        self.say(
            f"epoch {n_rows}, the best so far, is not in {theirs}; best.ckpt will be the best of the epochs to come"
        )
        return True

    def _trainer(self) -> Trainer:
        devices, n_nodes, strategy = strategy_of(self.trainer_keys)
        with without_hints():
            trainer = Trainer(
                max_epochs=self.trainer_keys.max_epochs,
                accumulate_grad_batches=self.trainer_keys.accumulate_grad_batches,
                precision=self.trainer_keys.precision,
                accelerator=self.trainer_keys.accelerator,
                devices=devices,
                num_nodes=n_nodes,
                strategy=strategy,
                callbacks=[Bar(self.phase.name), OwnNoise(self.keys.seed), self.freeze, self.probing, self.keeper],
                plugins=[AtomicCheckpoint()],
                default_root_dir=self.keys.out,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=0,  # validation is training.evaluate, after each epoch
                use_distributed_sampler=False,
            )
        # Lightning would ask the first process for a signal before every batch, and wait for the device; `Keeper` does.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        return trainer

    def _train(self, trainer: Trainer) -> None:
        device = trainer.strategy.root_device
        self.phase.to(device)
        if self.resumed is None:
            of_labels = self.phase.objective.starts_from_labels
            batches = Positioned(self.train.loader.without_signals()) if of_labels else self.train
            self.phase.eval()
            with torch.no_grad():
                self.phase.objective.start(self.phase.encoder, StartBatches(batches, device))
            self.phase.train()
            self.train.seek(0, 0)
        else:
            self.phase.load_state_dict(self.resumed.weights)
        self._prepare(trainer)
        is_kept = self._encode_once()
        if self.resumed is None and self.phase.objective.starts_from_tokens:
            self._start_from_tokens(device)
        if is_kept and self.phase.objective.pools:
            self._pool_once()
        with without_hints():
            warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # frozen parts are meant to be
            warnings.filterwarnings("ignore", message="You're resuming from .* not resumable")  # `Positioned` is
            warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated")  # not in torch 2.10
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own use of torch
            path = None if self.resumed is None else str(self.resumed.path.absolute())
            trainer.fit(self.phase, train_dataloaders=self.train, ckpt_path=path, weights_only=True)

    def _prepare(self, trainer: Trainer) -> None:
        """Let the objective compute what stays the same over epochs, with the weights that training begins with."""
        if not self.data.has_fixed_windows:
            return
        device, precision = trainer.strategy.root_device, self.trainer_keys.precision
        n_windows = self.data.n_training_windows
        n_visits = self.trainer_keys.max_epochs * len(self.train) * self.data.batch_size
        windows = FixedWindows(OncePerWindow(self.data, device), n_windows, n_visits)
        is_bf16 = precision == "bf16-mixed"
        with alone(), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            for line in self.phase.objective.prepare(self.phase.encoder, windows):
                self.say(line)

    def _encode_once(self) -> bool:
        """Where the encoder is frozen in all epochs and its tokens are all that is read, let it run once, if they fit.

        Gives whether what is made of the signals stays the same over epochs, and is worth keeping.
        """
        n_epochs = self.trainer_keys.max_epochs
        if self.n_frozen < n_epochs or not (
            self.phase.objective.reads_tokens_alone and self.data.has_fixed_windows and self._pays()
        ):
            return False
        description = self.config["model"].get("encoder") or {}
        asked = Asked(self.phase.encoder, description, self.data, self.val, self.trainer_keys.precision)
        pools = self.phase.objective.pools
        otherwise = "its head keeps features" if pools else f"it runs anew in each of the {n_epochs} epochs"
        tokens = encode_once(asked, self.keys.out, otherwise, self.say)
        if tokens is not None:
            self.phase.frozen_tokens = tokens
            self._leave_out_signals()
        return True

    def _pool_once(self) -> None:
        """Let the head keep what it makes of the tokens before anything learns, and forget the tokens."""
        loaders: list[ResumableLoader] = [self.data.evaluation_loader("train"), self.val]
        if self.phase.frozen_tokens is not None:
            loaders = [loader.without_signals() for loader in loaders]
        if pool_once(self.phase, loaders, self.trainer_keys.precision, self.say):
            self.phase.frozen_tokens = None
            self._leave_out_signals()

    def _leave_out_signals(self) -> None:
        self.train.loader = self.train.loader.without_signals()
        self.keeper.val = self.keeper.val.without_signals()

    def _start_from_tokens(self, device: torch.device) -> None:
        """Let heads look at the tokens of the training batches, which a frozen encoder gave before."""
        batches = StartBatches(self.train, device, "tokens that the head starts from")
        is_bf16 = self.trainer_keys.precision == "bf16-mixed"

        def with_tokens() -> Iterator[tuple[EEGBatch, Tensor]]:
            for batch in batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                    tokens = self.phase.tokens_of(batch)
                yield batch, tokens

        self.phase.eval()
        with torch.no_grad():
            self.phase.objective.start_from_tokens(self.phase.encoder, with_tokens)
        self.phase.train()
        self.train.seek(0, 0)

    def _pays(self) -> bool:
        """Whether training visits windows more than once; the last batch of an epoch may be a short one."""
        n_visits = self.trainer_keys.max_epochs * len(self.train) * self.data.batch_size
        return n_visits >= self.data.n_training_windows + self.data.batch_size

    def _finish(self) -> dict[str, Any]:
        out, keeper, phase = self.keys.out, self.keeper, self.phase
        last = read_checkpoint(out / "last.ckpt" if (out / "last.ckpt").exists() else _path(self.resumed))
        if self.freeze.epochs:
            phase.load_state_dict(last.weights)
            self.freeze.release(phase)
        if keeper.best["epoch"] is None or not (out / "best.ckpt").exists():
            self.say(f"{self.keys.monitor} was finite in no epoch trained here; best.ckpt is the last epoch")
            write_atomically(out / "best.ckpt", lambda file: torch.save(last.content, file))
        for name in ("best.ckpt", "last.ckpt") if self.keys.run_name else ():
            copy_atomically(out / name, out / named_checkpoint(self.keys.run_name, name))
        best = read_checkpoint(out / "best.ckpt")
        phase.load_state_dict(best.weights)
        if len(self.val):
            found = keeper.best_evaluation  # none if an earlier process saw the best epoch
            if found is None:
                phase.to(root_device(self.trainer_keys))  # Lightning leaves it on the CPU
                found = evaluate(phase, keeper.val, self.trainer_keys.precision, with_losses=False)
            found.write(out / "predictions_val.npz", self.data.participant_keys())
            write_showcase(out / "showcase.npz", phase, self.val)
            device = root_device(self.trainer_keys)
            write_synchrony(out / "isc.json", phase, self.data, self.trainer_keys.precision, device, self.say)
        write_history(out / "history.jsonl", keeper.history)
        result = {
            **self._identity(),
            "state": "finished",
            "seconds": round(keeper.seconds, 3),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "processes": self.n_processes,
            "parameters": sum(parameter.numel() for parameter in phase.parameters()),
            "trainable": self.freeze.n_trainable(phase, self.trainer_keys.max_epochs),
            "participants": self.stamp.participants,
            "freeze": self.freeze.receipt,
            "warm_start": list(self.stamp.inputs),
            "best": keeper.best,
            "confound": {
                key.removeprefix("confound/"): value
                for key, value in (keeper.history[0] if keeper.history else {}).items()
                if key.startswith("confound/")
            },
            "weights_sha256": weights_sha256(best.weights),
            "last_weights_sha256": weights_sha256(last.weights),
            "mlflow_run_id": self.tracker.run_id,
        }
        folder = package_run(phase, best, self.data, self.keys, scores_of(keeper.best, keeper.history), self.say)
        version = None if folder is None else self.tracker.publish(folder, version_tags(folder))
        if version is not None:
            result["registered"] = version.plain()
        if folder is None and self.keys.mlflow.enabled and self.keys.mlflow.register:
            self.say(f"nothing is registered as {self.keys.mlflow.register}: only supervised phases are")
        self.tracker.finish("FINISHED", [out / "config.yaml", *out.glob("isc.json")], result)
        return result


@contextlib.contextmanager
def _one_writer(out: Path) -> Iterator[None]:
    """Hold the folder of the run; the first process does for all, and the others wait until it does."""
    with lock_folder(out, "cerebro fit") if is_first_process() else contextlib.nullcontext():
        made_by_first_process(lambda: None)
        yield


def _mute(line: str) -> None:
    pass


def _describe(phase: Phase, data: PhaseData, resumed: Checkpoint | None, say: Callable[[str], None]) -> None:
    n_encoder = sum(parameter.numel() for parameter in phase.encoder.parameters())
    n_objective = sum(parameter.numel() for parameter in phase.objective.parameters())
    frozen = "; the encoder is frozen in all epochs" if phase.freeze_encoder else ""
    start = f"; resumed from {resumed.path} at epoch {resumed.content['epoch']}" if resumed is not None else ""
    say(
        f"{phase.name}: {type(phase.encoder).__name__} {n_encoder:,} + {type(phase.objective).__name__} "
        f"{n_objective:,} parameters; {len(data.participants('train'))} participants train, "
        f"{len(data.participants('val'))} validate{frozen}{start}"
    )


def _path(checkpoint: Checkpoint | None) -> Path:
    if checkpoint is None:
        raise CheckpointError("no last.ckpt was written; run the same command again.")
    return checkpoint.path


def _writer(text: str) -> Callable[[Any], None]:
    def write(file: Any) -> None:
        file.write(text.encode())

    return write
