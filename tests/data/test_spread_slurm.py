"""Builds on a real Slurm that the test starts on the loopback; skipped where Slurm is not installed."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from npy_reader import Arrays, content, write_recording

from cerebro.data import spread_slurm
from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.spread_slurm import Slurm
from cerebro.errors import ConfigError

PLAN = Preprocessing()
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={socket}
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmUser=root
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def stop(pid_file: Path) -> None:
    """End the daemon that wrote a pid file, and wait until it has gone."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm of one node on the loopback; gives the folder of its logs."""
    pytest.importorskip("submitit", reason="the extra cluster is not installed")
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} absent; apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root, which starts its daemons")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    munge = Path("/tmp") / f"cerebro-munge-{os.getpid()}"  # munged trusts no folder that others can write in
    munge.mkdir(mode=0o755)
    key = munge / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    user = pwd.getpwnam("munge")
    for path in (munge, key):
        os.chown(path, user.pw_uid, user.pw_gid)
    listens = munge / "socket"
    command = ["munged", f"--socket={listens}", f"--key-file={key}", f"--pid-file={munge}/pid", "--force"]
    command += [f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
    subprocess.run(command, check=True, user="munge", group="munge", extra_groups=[], capture_output=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 100
    host = socket.gethostname().split(".")[0]
    text = CONF.format(host=host, port=free_port(), node_port=free_port(), folder=folder, socket=listens, memory=memory)
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        subprocess.run(["slurmctld"], check=True, capture_output=True)
        subprocess.run(["slurmd"], check=True, capture_output=True)
        for _ in range(100):
            told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout
            if told.strip() == "idle":
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"Slurm did not come up: {told}; {(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield folder
    finally:
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "pid"):
            stop(pid_file)
        shutil.rmtree(munge)


@pytest.fixture
def reader(tmp_path: Path) -> Arrays:
    (tmp_path / "source").mkdir()
    for number in range(10):
        note = {3: "_short", 4: "_ecg", 5: "_bug"}.get(number, "")
        write_recording(tmp_path / "source", f"sub{number:02d}{note}", seed=number, n_times=2500 + 10 * number)
    return Arrays(tmp_path / "source")


def queue() -> list[str]:
    asked = subprocess.run(["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True, check=True)
    return asked.stdout.split()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_array_of_a_real_slurm_gives_the_same_bytes(slurm, reader, tmp_path, monkeypatch):
    monkeypatch.setattr(spread_slurm, "SQUEUE_POLL_S", 1.0)
    array = Slurm(partition="main", time="00:10:00", mem="500M", cpus=1)
    build(reader, PLAN, tmp_path / "clean")
    build(reader, PLAN, tmp_path / "store", jobs=3, cluster=array)
    assert content(tmp_path / "store") == content(tmp_path / "clean")

    with pytest.raises(ConfigError, match=r"Slurm refused the array: .*partition"):
        build(reader, PLAN, tmp_path / "refused", jobs=3, cluster=Slurm(partition="nowhere", mem="500M", cpus=1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cancelled_tasks_are_submitted_again_and_an_interrupted_builder_cancels_its_own(
    slurm, reader, tmp_path, monkeypatch
):
    import threading

    monkeypatch.setattr(spread_slurm, "SQUEUE_POLL_S", 1.0)
    array = Slurm(partition="main", time="00:10:00", mem="500M", cpus=1)
    for number in range(20, 26):
        write_recording(reader.root, f"sub{number}_slow", seed=number)
    reader.slow_s = 4.0
    build(reader, PLAN, tmp_path / "clean", jobs=2)
    reader.opened()

    def cancel_what_runs() -> None:
        while not reader.opened():
            time.sleep(0.2)
        subprocess.run(["scancel", "--state=RUNNING", *queue()[:1]], check=False)

    canceller = threading.Thread(target=cancel_what_runs)
    canceller.start()
    build(reader, PLAN, tmp_path / "store", jobs=3, cluster=array)
    canceller.join()
    assert content(tmp_path / "store") == content(tmp_path / "clean")

    reader.opened()

    def interrupt() -> None:
        while not reader.opened():
            time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        build(reader, PLAN, tmp_path / "interrupted", jobs=3, cluster=array)
    interrupter.join()
    for _ in range(100):
        if not queue():
            break
        time.sleep(0.3)
    assert queue() == []
    build(reader, PLAN, tmp_path / "interrupted", jobs=2)
    assert content(tmp_path / "interrupted") == content(tmp_path / "clean")
