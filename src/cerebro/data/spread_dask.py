"""A build's work on the workers of a Dask cluster, through joblib's Dask backend."""

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from cerebro.data.pieces import Outcome
from cerebro.data.spread import Work
from cerebro.data.spread_tasks import Share, run_share, share_out
from cerebro.data.watchdog import end_with_parent
from cerebro.errors import CerebroError, ConfigError

CONNECT_S = 10
SHARES_PER_THREAD = 4  # so that a slow worker does not hold up the end,
MIN_SHARE = 32  # recordings, unless there are too few: each share starts a Python


@dataclass(frozen=True)
class Dask:
    """A Dask cluster whose workers see the same files as this machine.

    Parameters
    ----------
    address : str
        Of its scheduler, such as ``tcp://head-node:8786``.
    """

    address: str

    def check(self) -> None:
        """Raise CerebroError without the packages, an address, or a scheduler and workers that answer."""
        if not self.address:
            raise ConfigError("--dask needs the address of a scheduler; type --dask tcp://HOST:8786.")
        if importlib.util.find_spec("distributed") is None or importlib.util.find_spec("dask") is None:
            raise ConfigError("--dask needs dask and distributed; type pip install 'cerebro-eeg[cluster]'.")
        self._connect().close()

    def spread(self, work: Work, jobs: int) -> Generator[Outcome, None, None]:
        """Outcome of each recording from every worker of the cluster; ``jobs`` is that of the cluster."""
        client = self._connect()
        try:
            _check_view(client, work)
            n_threads = sum(client.nthreads().values())
            n_shares = max(n_threads, min(SHARES_PER_THREAD * n_threads, len(work.entries) // MIN_SHARE))
            yield from share_out(work, lambda shares, _: _DaskTasks(client, shares), n_shares, 1)
        finally:
            client.close()

    def _connect(self) -> Any:
        import distributed

        try:
            client = distributed.Client(self.address, timeout=CONNECT_S)
            client.wait_for_workers(1, timeout=CONNECT_S)
        except (OSError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CerebroError(
                f"no Dask cluster with workers answers at {self.address} ({reason}); start dask scheduler and dask "
                "worker, and type --dask with the address that the scheduler prints."
            ) from None
        return client


class _DaskTasks:
    """Shares in the hands of joblib, in a thread beside the one that follows their journals."""

    def __init__(self, client: Any, shares: Sequence[Share]) -> None:
        self._error = ""
        self._client = client
        self._thread = threading.Thread(target=self._run, args=(shares,), daemon=True)
        self._thread.start()

    def _run(self, shares: Sequence[Share]) -> None:
        try:
            with joblib.parallel_config(backend="dask", client=self._client):
                joblib.Parallel(batch_size=1)(joblib.delayed(run_apart)(share) for share in shares)
        except Exception as error:  # a lost worker, whatever Dask calls it: the share goes to another one
            self._error = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def are_running(self) -> bool:
        return self._thread.is_alive()

    def last_words(self) -> str:
        return self._error

    def cancel(self) -> None:
        self._thread.join(CONNECT_S)  # the lease is gone: the shares end by themselves


def run_apart(share: Share) -> None:
    """Do a share in a Python of its own: workers are daemons, which may have no children, and threads share one."""
    import cloudpickle  # comes with Dask

    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(cloudpickle.dumps(share))
        file.flush()
        command = "import sys; from cerebro.data.spread_dask import run_file; run_file(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", command, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"a share ended early: {last}")


def run_file(path: str) -> None:
    """Do the share that `run_apart` has written, as long as the worker lives."""
    end_with_parent(os.getppid())
    run_share(pickle.loads(Path(path).read_bytes()))


def _check_view(client: Any, work: Work) -> None:
    """Refuse workers that do not see the staging folder."""
    probe = work.staging / "probe"
    word = f"cerebro {id(work)}"
    probe.write_text(word)
    try:
        for worker, answer in client.run(_look, str(probe), on_error="return").items():
            if answer != word:
                raise CerebroError(
                    f"Dask worker {worker} does not see {work.staging} ({' '.join(str(answer).split())[:120]}); set "
                    "--out to a folder that every worker mounts under the same path."
                )
    finally:
        probe.unlink()


def _look(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror or "no answer"
