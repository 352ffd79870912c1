import errno
import json
import multiprocessing
import os
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
