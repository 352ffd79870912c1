"""Several processes of one run, as ``torchrun`` starts them: who they are, how they meet, and how they end together."""

import contextlib
import itertools
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.core import LightningModule
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from cerebro.errors import CerebroError, ConfigError
from cerebro.nn.processes import is_first_process, n_processes
from cerebro.training.keys import TrainerKeys

_runs = itertools.count()  # of this process, the same number in all of them
LONGEST_WAIT = timedelta(days=1)  # of the others, while the first process validates


@dataclass(frozen=True)
class Launch:
    """Place of this process among those of a run.

    Parameters
    ----------
    rank, n : int
        Number of this process, and how many there are.
    local_rank, n_local : int
        The same on this machine.
    """

    rank: int
    n: int
    local_rank: int
    n_local: int


class EndedElsewhere(Exception):
    """Another process of this run failed, and has said why; the message is empty unless it could not."""

    def __init__(self, exit_code: int, line: str = "") -> None:
        super().__init__(line)
        self.exit_code = exit_code


def launched() -> Launch | None:
    """Place of this process; ``None`` unless torchrun started several."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    rank, n, local_rank, n_local = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    return Launch(rank, n, local_rank, n_local)


def device_here(launch: Launch, keys: TrainerKeys) -> torch.device:
    """Device of this process.

    Raises
    ------
    ConfigError
        If this machine has fewer GPUs than processes.
    """
    if keys.accelerator == "cpu" or (keys.accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if torch.cuda.device_count() < launch.n_local:
        raise ConfigError(
            f"torchrun started {launch.n_local} processes on this machine, which has {torch.cuda.device_count()} GPUs; "
            "give torchrun one process for each GPU (--nproc_per_node), or add --trainer.accelerator cpu."
        )
    return torch.device("cuda", launch.local_rank)


@contextlib.contextmanager
def several_processes(keys: TrainerKeys) -> Iterator[None]:
    """Let the processes of a run know each other; of those that fail the first to do so tells why, the others are mute.

    Does nothing in a process that is alone.

    Raises
    ------
    EndedElsewhere
        If another process failed first, or went away.
    ConfigError
        If the machine lacks GPUs, or machines have different numbers of processes.
    """
    launch = launched()
    if launch is None:
        yield
        return
    try:
        if launch.n % launch.n_local:
            raise ConfigError(
                f"{launch.n} processes are not the same number on every machine; give torchrun the same "
                "--nproc_per_node everywhere."
            )
        device = device_here(launch, keys)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = PrefixStore(f"cerebro/run {next(_runs)}", _store())  # a later run must not meet this one's notes
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.n, timeout=LONGEST_WAIT)
        with warnings.catch_warnings():
            if launch.rank:
                warnings.simplefilter("ignore")  # the first process shows them
            yield
    except BaseException as error:
        code = _exit_code(error)
        if not is_first_to_fail(code):
            raise EndedElsewhere(_code_of_first(code)) from None
        if (type(error) is RuntimeError and "gloo" in str(error)) or isinstance(error, dist.DistError):
            line = "another process of this run went away; the same command continues from the last checkpoint."
            raise EndedElsewhere(1, line) from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CerebroError):
        return 2
    return int(getattr(error, "exit_code", 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1))


def speaks() -> bool:
    """Whether this process tells the user of the run: the first one, or one that is alone."""
    launch = launched()
    return launch is None or launch.rank == 0


def is_first_to_fail(code: int) -> bool:
    """Whether no other process of this run failed before, so that this one says why; True in one that is alone."""
    return launched() is None or _claims_failure(code)


@cache
def _claims_failure(code: int) -> bool:
    try:
        place = _store().add("cerebro/failures", 1)
        if place == 1:
            _store().set("cerebro/exit_code", str(code))
    except dist.DistError:  # torchrun, which keeps the store, has ended
        return False
    return bool(place == 1)


def _code_of_first(code: int) -> int:
    """Exit code of the process that failed first; ``code`` if that cannot be known any more."""
    try:
        return int(_store().get("cerebro/exit_code"))
    except dist.DistError:
        return code


@cache
def _store() -> Any:
    """What torchrun keeps for the processes of a run to leave notes in."""
    return next(rendezvous("env://"))[0]


def strategy_of(keys: TrainerKeys) -> tuple[int, int, Strategy | str]:
    """Devices of this machine, machines, and Lightning's strategy.

    Parameters that a loss does not reach are looked for in every step: encoders are frozen and released, mask tokens
    are used in some phases only, and which these are may differ by process. Buffers are not copied: those that change
    in training (codebooks, teachers) are the same on every process.
    """
    launch = launched()
    if launch is None:
        return 1, 1, "auto"
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(), find_unused_parameters=True, broadcast_buffers=False
    )
    return launch.n_local, launch.n // launch.n_local, strategy


def check_shared(phase: nn.Module) -> None:
    """Refuse a phase that several processes cannot train as one would.

    Raises
    ------
    ConfigError
        In one line.
    """
    if n_processes() == 1:
        return
    for name, module in phase.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{name} is a {type(module).__name__}, whose statistics would be those of each process's share of the "
                "batch; train this phase in one process, without torchrun."
            )


class OwnNoise(Callback):
    """Give every process but the first a random stream of its own, a function of seed, process, epoch and batch.

    Dropout would otherwise hide the same places on all of them. The first goes on with the stream that a single process
    has; the numbers of an objective come from the batch's keys and do not ask.

    Parameters
    ----------
    seed : int
        Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin the stream of this batch."""
        if not is_first_process():
            place = (self.seed, dist.get_rank(), trainer.current_epoch, batch_idx)
            torch.manual_seed(abs(hash(place)) % 2**63)
