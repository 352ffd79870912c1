import contextlib
import errno
import json
import multiprocessing
import os
import socket
import time

import pytest

from cerebro.errors import CerebroError, DataError
from cerebro.files import lock_folder, read_json, write_atomically, write_json


def test_a_failing_write_leaves_the_old_file_and_no_part(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})

    def fail(file):
        file.write(b"half")
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        write_atomically(target, fail)
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_says_what_to_do_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"disk is full while writing .*a\.json.*run the same command again"):
        write_atomically(target, full)
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": ')
    with pytest.raises(DataError, match=r"x\.json is no valid JSON"):
        read_json(path)


def _hold(folder, seconds):
    with lock_folder(folder, "test"):
        (folder / "ready").touch()
        time.sleep(seconds)


def _start_holder(folder, seconds):
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(folder, seconds))
    process.start()
    while not (folder / "ready").exists():
        time.sleep(0.02)
    return process


def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path):
    holder = _start_holder(tmp_path, 60)
    try:
        with (
            pytest.raises(CerebroError, match=rf"being written by process {holder.pid} .*\(test\)"),
            lock_folder(tmp_path, "b"),
        ):
            pass
    finally:
        holder.kill()
        holder.join()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    holder = _start_holder(tmp_path, 60)
    holder.kill()
    holder.join()
    with lock_folder(tmp_path, "b"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_of_another_host_stays_and_the_way_out_is_named(tmp_path):
    there = {"host": "elsewhere", "pid": 1, "started": 0.0, "purpose": "cerebro fit"}
    (tmp_path / ".lock").write_text(json.dumps(there))
    with (
        pytest.raises(CerebroError, match=r"on elsewhere .*or remove .*\.lock if it has ended"),
        lock_folder(tmp_path, "b"),
    ):
        pass
    assert json.loads((tmp_path / ".lock").read_text()) == there


def _race(folder, start, n_rounds, taken):
    for number in range(n_rounds):
        start.wait()
        with contextlib.suppress(CerebroError), lock_folder(folder / str(number), "race"):
            mark = folder / str(number) / f"holds-{os.getpid()}"
            mark.touch()
            time.sleep(0.01)
            taken.put((number, len(list(mark.parent.glob("holds-*")))))
            mark.unlink()


@pytest.mark.parametrize("is_stale", [False, True])
def test_of_processes_that_start_together_one_at_a_time_holds_the_folder(tmp_path, is_stale):
    n_rounds, n_processes = 25, 4
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": 0.0, "purpose": "dead"}
    for number in range(n_rounds):
        (tmp_path / str(number)).mkdir()
        if is_stale:
            (tmp_path / str(number) / ".lock").write_text(json.dumps(dead))
    context = multiprocessing.get_context("fork")
    start, taken = context.Barrier(n_processes), context.Queue()
    processes = [context.Process(target=_race, args=(tmp_path, start, n_rounds, taken)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [taken.get(timeout=10) for _ in range(taken.qsize())]
    assert {number for number, _ in found} == set(range(n_rounds))
    assert {holders for _, holders in found} == {1}
    assert not list(tmp_path.rglob(".lock*"))
