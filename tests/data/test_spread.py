"""Builds whose work is shared out over tasks: the same bytes, whatever dies on the way."""

import contextlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from npy_reader import Arrays, content, write_recording

from cerebro.data import spread_tasks
from cerebro.data.build import build
from cerebro.data.pieces import Recipe, code_version
from cerebro.data.preprocess import Preprocessing
from cerebro.data.spread import Work
from cerebro.data.spread_dask import Dask
from cerebro.data.spread_slurm import Slurm
from cerebro.data.spread_tasks import LEASE, Share, end_tasks_of_killed_builds, share_out, work_share
from cerebro.errors import CerebroError, ConfigError

PLAN = Preprocessing()
N_RECORDINGS = 10


@pytest.fixture
def reader(tmp_path: Path) -> Arrays:
    root = tmp_path / "source"
    root.mkdir()
    for number in range(N_RECORDINGS):
        note = {3: "_short", 4: "_ecg", 5: "_bug"}.get(number, "")
        write_recording(root, f"sub{number:02d}{note}", seed=number, n_times=2500 + 10 * number)
    return Arrays(root)


@pytest.fixture
def clean(reader: Arrays, tmp_path: Path) -> dict[str, str]:
    """Files of a store that one process has built."""
    build(reader, PLAN, tmp_path / "clean")
    reader.opened()
    return content(tmp_path / "clean")


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="the extra cluster is not installed")


class Threads:
    """Tasks as threads of this process; the first ``n_lost`` shares of all attempts end after ``n_kept`` recordings."""

    def __init__(self, n_lost: int = 0, n_kept: int = 1, leaves_marker: bool = False) -> None:
        self.n_lost, self.n_kept, self.leaves_marker = n_lost, n_kept, leaves_marker
        self.shares: list[Share] = []
        self.threads: list[threading.Thread] = []
        self.is_cancelled = False

    def submit(self, shares: Sequence[Share], logs: Path) -> "Threads":
        self.threads = [threading.Thread(target=self._work, args=(share,)) for share in shares]
        self.shares += shares
        for thread in self.threads:
            thread.start()
        return self

    def _work(self, share: Share) -> None:
        if self.shares.index(share) >= self.n_lost:
            work_share(share)
            return
        lost = share.work.entries[self.n_kept :]
        part = spread_tasks.replace(share.work, entries=share.work.entries[: self.n_kept])
        work_share(Share(part, share.jobs))
        kept = [line for line in share.journal.read_bytes().splitlines(True) if b"ended" not in line]
        share.journal.write_bytes(b"".join(kept) + b'{"outcome": {"recor')  # it dies while it writes
        if self.leaves_marker and lost:
            (share.work.markers / "x.began").write_text(lost[0].key)

    def are_running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def last_words(self) -> str:
        return "out of memory"

    def cancel(self) -> None:
        for thread in self.threads:
            thread.join()
        self.is_cancelled = True


class OnThreads:
    def __init__(self, tasks: Threads) -> None:
        self.tasks = tasks

    def check(self) -> None:
        pass

    def spread(self, work: Work, jobs: int) -> Iterator:
        return share_out(work, self.tasks.submit, jobs, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look often; and in tasks that are threads, work without children, whose start takes a second."""
    monkeypatch.setattr(spread_tasks, "JOURNAL_POLL_S", 0.02)


@pytest.fixture
def in_process(monkeypatch):
    from cerebro.data import spread
    from cerebro.data.pieces import make_piece

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr(spread, "run_in_children", run)


def test_children_of_a_build_that_ends_early_end_without_a_word(reader, tmp_path, capfd):
    """A full disk, say; a failure of loky's thread would be pytest's."""
    from cerebro.data import spread

    for number in range(20, 34):
        write_recording(reader.root, f"sub{number}", seed=number)
    recipe = Recipe(reader, PLAN, 0.05, "code")
    work = Work(recipe, tuple(reader.scan().entries), {}, tmp_path, tmp_path)
    for n_done in (3, 4, 5):
        with contextlib.closing(spread.run_in_children(work, work.entries, 2)) as outcomes:
            for _ in range(n_done):
                next(outcomes)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("n_tasks", [1, 2, 4, 30])
def test_any_number_of_tasks_gives_the_same_bytes(reader, in_process, clean, tmp_path, n_tasks):
    tasks = Threads()
    build(reader, PLAN, tmp_path / "store", jobs=n_tasks, cluster=OnThreads(tasks))
    assert content(tmp_path / "store") == clean
    assert len(tasks.shares) == min(n_tasks, N_RECORDINGS)
    keys = [entry.key for entry in reader.scan().entries]
    assert [[entry.key for entry in share.work.entries] for share in tasks.shares] == [
        keys[number :: len(tasks.shares)] for number in range(len(tasks.shares))
    ]


@pytest.mark.parametrize("leaves_marker", [False, True])
@pytest.mark.parametrize("n_lost", [1, 3, 4])
def test_what_dead_tasks_leave_is_done_by_others_and_nothing_twice(
    reader, in_process, clean, tmp_path, n_lost, leaves_marker
):
    tasks = Threads(n_lost, leaves_marker=leaves_marker)
    build(reader, PLAN, tmp_path / "store", jobs=3, cluster=OnThreads(tasks))
    assert content(tmp_path / "store") == clean
    done = set()
    for share in tasks.shares:  # those of one attempt after another
        keys = [entry.key for entry in share.work.entries]
        assert not done & set(keys)
        done |= set(keys[:1] if tasks.shares.index(share) < n_lost else keys)
    assert done == {path.stem for path in reader.root.glob("*.npy")}


def test_a_recording_that_ends_two_tasks_is_one_failure_by_name(reader, in_process, tmp_path):
    once = build(reader, PLAN, tmp_path / "once", cluster=OnThreads(Threads(n_lost=2, n_kept=4, leaves_marker=True)))
    assert (once.read, list(once.failures)) == (N_RECORDINGS - 2, ["sub05_bug"])  # sub04 and sub08 were open once each
    twice = build(reader, PLAN, tmp_path / "twice", cluster=OnThreads(Threads(n_lost=3, n_kept=0, leaves_marker=True)))
    assert (twice.read, sorted(twice.failures)) == (N_RECORDINGS - 3, ["sub00", "sub05_bug"])
    assert twice.failures["sub00"] == "2 tasks died while they read it: a damaged file, or not enough memory"


def test_tasks_that_die_before_they_open_a_recording_are_an_error(reader, in_process, tmp_path):
    tasks = Threads(n_lost=99, n_kept=0)
    with pytest.raises(CerebroError, match=r"^tasks ended before they opened a recording \(out of memory\)[^\n]*$"):
        build(reader, PLAN, tmp_path / "store", jobs=2, cluster=OnThreads(tasks))
    assert tasks.is_cancelled


def test_what_a_task_cannot_do_is_the_builders_error(reader, in_process, clean, tmp_path, monkeypatch):
    from cerebro.data import shards

    with monkeypatch.context() as patch:
        patch.setattr(shards, "free_bytes", lambda folder: 100)
        with pytest.raises(CerebroError, match=r"needs 6,\d\d\d bytes and 100 bytes are left"):
            build(reader, PLAN, tmp_path / "store", jobs=2, cluster=OnThreads(Threads()))
    build(reader, PLAN, tmp_path / "store", jobs=2, cluster=OnThreads(Threads()))
    assert content(tmp_path / "store") == clean


def make_share(reader: Arrays, folder: Path, **changes) -> Share:
    markers = folder / "spread-x" / "0" / "0"
    markers.mkdir(parents=True)
    (folder / "spread-x" / LEASE).touch()
    recipe = Recipe(reader, PLAN, 0.05, code_version(reader))
    work = Work(recipe, tuple(reader.scan().entries), {}, folder, markers)
    return Share(spread_tasks.replace(work, **changes), 1)


def test_a_task_that_begins_again_does_not_do_twice_what_its_journal_has(reader, in_process, tmp_path):
    share = make_share(reader, tmp_path)
    work_share(share)
    lines = share.journal.read_bytes().splitlines(True)
    share.journal.write_bytes(b"".join(lines[:4]) + b'{"outc')
    reader.opened()
    work_share(share)
    assert len(reader.opened()) == N_RECORDINGS - 4
    read = [line for line in spread_tasks._new_lines(share.journal, 0)[0] if "outcome" in line]
    assert len({line["outcome"]["recording"] for line in read}) == len(read) == N_RECORDINGS


def test_a_machine_that_does_not_see_the_recordings_says_so(reader, in_process, tmp_path):
    entries = tuple(spread_tasks.replace(entry, path=tmp_path / "elsewhere") for entry in reader.scan().entries)
    share = make_share(reader, tmp_path, entries=entries)
    work_share(share)
    assert "does not see" in share.journal.read_text()


def test_a_task_ends_with_its_lease(reader, tmp_path):
    for number in range(3):
        write_recording(reader.root, f"sub0{number}_slow", seed=number)
    reader.slow_s = 60.0
    share = make_share(reader, tmp_path)
    (tmp_path / "share").write_bytes(pickle.dumps(share))
    code = "import sys; from cerebro.data.spread_dask import run_file; run_file(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "share")]) as task:
        while not reader.opened():
            time.sleep(0.05)
            assert task.poll() is None
        end_tasks_of_killed_builds(tmp_path)
    assert task.returncode == 1
    assert not list(tmp_path.glob("spread-*"))


def test_local_tasks_of_submitit_give_the_same_bytes(submitit, reader, clean, tmp_path):
    build(reader, PLAN, tmp_path / "store", jobs=3, cluster=Slurm(on="local", cpus=1))
    assert content(tmp_path / "store") == clean


def tasks_of(folder: Path) -> list[psutil.Process]:
    """Python processes that work on shares of a build, and their children."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and any(str(folder) in word for word in words):
            found.append(process)
    return found


def build_apart(reader: Arrays, out: Path, jobs: int = 3) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from pathlib import Path; from npy_reader import Arrays; from cerebro.data.build import build;"
        "from cerebro.data.preprocess import Preprocessing; from cerebro.data.spread_slurm import Slurm;"
        f"build(Arrays(Path(sys.argv[1]), slow_s={reader.slow_s}), Preprocessing(), Path(sys.argv[2]),"
        f"jobs={jobs}, cluster=Slurm(on='local', cpus=1))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(reader.root), str(out)], stderr=subprocess.PIPE)


def until_a_recording_is_open(reader: Arrays, builder: "subprocess.Popen[bytes]") -> bool:
    """Whether a task opened one; else the builder has ended."""
    while builder.poll() is None:
        if reader.opened():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_kills_of_tasks_and_builders_give_the_same_bytes(submitit, reader, tmp_path):
    for number in range(20, 50):
        write_recording(reader.root, f"sub{number}_slow", seed=number)
    build(reader, PLAN, tmp_path / "clean")
    draw, out, n_tasks_killed, n_builders_killed = random.Random(0), tmp_path / "store", 0, 0
    while n_builders_killed < 4 or n_tasks_killed < 4:
        reader.opened()
        builder = build_apart(reader, out)
        for _ in range(draw.randrange(1, 4)):  # a builder outlives the deaths of its tasks
            if until_a_recording_is_open(reader, builder) and (tasks := tasks_of(out)):
                time.sleep(draw.uniform(0, 0.5))
                with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
                    draw.choice(tasks).kill()
                    n_tasks_killed += 1
        if until_a_recording_is_open(reader, builder):
            builder.kill()  # its tasks live on, until the next one withdraws their lease
            n_builders_killed += 1
            builder.communicate()
        else:
            assert builder.returncode == 0, builder.communicate()
            builder.communicate()
            assert content(out) == content(tmp_path / "clean")
            shutil.rmtree(out)
    builder = build_apart(reader, out)
    _, told = builder.communicate()
    assert builder.returncode == 0, told
    assert content(out) == content(tmp_path / "clean")
    assert tasks_of(out) == []


def test_a_terminated_builder_ends_its_tasks(submitit, reader, tmp_path):
    write_recording(reader.root, "sub00_slow", seed=0)
    reader.slow_s = 60.0
    out = tmp_path / "store"
    builder = build_apart(reader, out, jobs=2)
    while "sub00_slow" not in reader.opened():
        time.sleep(0.1)
        assert builder.poll() is None
    assert tasks_of(out)
    builder.send_signal(signal.SIGINT)
    builder.communicate()
    assert builder.returncode != 0
    assert tasks_of(out) == []


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"at_once": 0}])
def test_numbers_of_a_slurm_array_are_checked(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Slurm(**wrong).check()


def test_without_slurm_or_a_package_one_line_says_what_to_do(monkeypatch):
    from cerebro.data import spread_dask, spread_slurm

    monkeypatch.setattr(spread_slurm.shutil, "which", lambda name: None)
    monkeypatch.setattr(spread_slurm.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="needs the command sbatch"):
        Slurm().check()
    Slurm(on="local").check()
    monkeypatch.setattr(spread_dask.importlib.util, "find_spec", lambda name: None)
    for cluster in (Slurm(), Dask("tcp://127.0.0.1:1")):
        with pytest.raises(ConfigError, match=r"pip install 'cerebro-eeg\[cluster\]'"):
            cluster.check()
    with pytest.raises(ConfigError, match="--dask tcp://HOST:8786"):
        Dask("").check()


@pytest.fixture
def dask_cluster():
    """Two workers on the loopback, in processes of their own."""
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, processes=True
    ) as cluster:
        yield cluster


def test_dask_workers_give_the_same_bytes(dask_cluster, reader, clean, tmp_path):
    build(reader, PLAN, tmp_path / "store", cluster=Dask(dask_cluster.scheduler_address))
    assert content(tmp_path / "store") == clean


def test_a_scheduler_that_does_not_answer_is_named(reader, tmp_path, monkeypatch):
    from cerebro.data import spread_dask

    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    monkeypatch.setattr(spread_dask, "CONNECT_S", 0.5)
    with pytest.raises(CerebroError, match=r"^no Dask cluster with workers answers at tcp://127.0.0.1:1 [^\n]*$"):
        build(reader, PLAN, tmp_path / "store", cluster=Dask("tcp://127.0.0.1:1"))
    assert not (tmp_path / "store").exists()
