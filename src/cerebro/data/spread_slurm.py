"""A build's work as a Slurm array through submitit."""

import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from cerebro.data.pieces import Outcome
from cerebro.data.spread import Work
from cerebro.data.spread_tasks import Share, run_share, share_out
from cerebro.errors import CerebroError, ConfigError, check_positive

SQUEUE_POLL_S = 10.0


@dataclass(frozen=True)
class Slurm:
    """Where and with what each task of the array runs; each key is that of ``sbatch``.

    Parameters
    ----------
    partition, account, qos : str
        "" leaves the choice to the cluster.
    time : str
        Time limit of a task, such as ``04:00:00``; what it has not done by then goes to another one.
    mem : str
        Memory of a task.
    cpus : int
        Processes of a task that read and filter.
    at_once : int
        Tasks that run at a time.
    on : {"slurm", "local"}
        ``local`` runs the tasks as processes of this machine, to try a command without a cluster.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = "24:00:00"
    mem: str = "8G"
    cpus: int = 2
    at_once: int = 256
    on: Literal["slurm", "local"] = "slurm"

    def check(self) -> None:
        """Raise ConfigError without submitit or a Slurm to submit to."""
        check_positive("cpus", self.cpus)
        check_positive("at_once", self.at_once)
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError("--slurm needs the package submitit; type pip install 'cerebro-eeg[cluster]'.")
        if self.on == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "--slurm needs the command sbatch, which this machine has not; type it on a machine that submits to "
                "Slurm, or try it here with --slurm on=local."
            )

    def spread(self, work: Work, jobs: int) -> Generator[Outcome, None, None]:
        """Outcome of each recording from an array of ``jobs`` tasks."""
        return share_out(work, self._submit, jobs, self.cpus)

    def _submit(self, shares: Sequence[Share], logs: Path) -> "_Array":
        import submitit

        executor = submitit.AutoExecutor(folder=logs, cluster=self.on)
        chosen = {"partition": self.partition, "account": self.account, "qos": self.qos}
        executor.update_parameters(
            name="cerebro-prepare",
            timeout_min=30 * 24 * 60,  # of the local kind, which knows no slurm_time
            cpus_per_task=self.cpus,
            slurm_time=self.time,
            slurm_mem=self.mem,
            slurm_array_parallelism=self.at_once,
            **{f"slurm_{name}": value for name, value in chosen.items() if value},
        )
        try:
            jobs = executor.map_array(run_share, shares)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, ValueError) as error:
            reason = [line for line in str(error).splitlines() if "sbatch" in line or "error" in line.lower()]
            raise ConfigError(
                f"Slurm refused the array: {' '.join((reason or [str(error)])[-1].split())[:300]}; change the keys of "
                "--slurm (partition, account, qos, time, mem, cpus)."
            ) from None
        array = _Array(jobs, logs, self.on)
        tqdm.write(f"submitted {len(jobs)} tasks as {array.name}", file=sys.stderr)
        return array


class _Array:
    """Tasks of one array, looked after with Slurm's own commands: ``sacct`` is not everywhere."""

    def __init__(self, jobs: Sequence[Any], logs: Path, on: str) -> None:
        self._jobs = jobs
        self._logs = logs
        self._on = on
        self._looked_at, self._was_running = time.monotonic(), True
        self._id = jobs[0].job_id.split("_")[0]
        self.name = f"Slurm job {self._id} (squeue -j {self._id} shows them)" if on == "slurm" else "local processes"

    def are_running(self) -> bool:
        if self._on == "local":
            return any(not job.done() for job in self._jobs)
        if self._was_running and time.monotonic() - self._looked_at > SQUEUE_POLL_S:
            self._was_running = self._is_queued()
            self._looked_at = time.monotonic()
        return self._was_running

    def last_words(self) -> str:
        for log in sorted(self._logs.glob("*.err")):
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            if lines and re.search(r"error|killed|cancelled|limit", lines[-1], re.IGNORECASE):
                return lines[-1][:200]
        return ""

    def cancel(self) -> None:
        if self._on == "local":
            for job in self._jobs:
                if not job.done():
                    job.cancel()
            for job in self._jobs:
                _wait(job._process)
        elif self._was_running:
            subprocess.run(["scancel", self._id], capture_output=True, check=False)

    def _is_queued(self) -> bool:
        """Whether Slurm still has a task of the array that waits or runs; a silent Slurm is asked again later."""
        asked = subprocess.run(
            ["squeue", "-h", "-j", self._id, "-o", "%T"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            return bool(asked.stdout.strip())
        if "Invalid job id" in asked.stderr:  # it has ended, and Slurm has forgotten it
            return False
        logging.getLogger(__name__).warning("squeue does not answer (%s); asking again.", asked.stderr.strip()[:200])
        return True


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise CerebroError(f"process {process.pid} of this build did not end and was killed.") from error
