import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from npy_reader import Arrays, content, write_recording

from cerebro.data import build as building
from cerebro.data import seal as sealing
from cerebro.data import shards, spread
from cerebro.data.build import build
from cerebro.data.pieces import make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Entry, Event, Reader, Scan
from cerebro.data.splits import ParticipantSplit
from cerebro.data.store import Store
from cerebro.errors import CerebroError, DataError
from cerebro.files import lock_folder

PLAN = Preprocessing()
N_RECORDINGS = 12


@pytest.fixture
def reader(tmp_path: Path) -> Arrays:
    root = tmp_path / "source"
    root.mkdir()
    for number in range(N_RECORDINGS):
        note = {3: "_short", 4: "_ecg"}.get(number, "")
        write_recording(root, f"sub{number:02d}{note}", seed=number, n_times=2500 + 10 * number)
    return Arrays(root)


@pytest.fixture
def in_process(monkeypatch):
    """Work in this process: the same code without seconds of imports in children."""

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr(spread, "run_in_children", run)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 5 * shards.ALIGNMENT)  # several shards


def test_report_counts_read_repaired_skipped_and_failed(reader, in_process, tmp_path):
    write_recording(reader.root, "sub50_bug", seed=50)
    np.save(reader.root / "sub51_nan.npy", np.full((3, 2500), np.nan, np.float32))
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.repaired, report.skipped, report.failed) == (11, 1, 2, 2)
    assert {rule.rule: rule.count for rule in report.rules} == {
        "no-electrode": 1,
        "too-short": 1,
        "unlisted": 1,
        "reader-error": 1,
        "unusable-recording": 1,
    }
    assert report.failed_share == pytest.approx(2 / 13)
    assert "ZeroDivisionError: a bug in a reader" in report.table()
    assert json.loads((tmp_path / "store/build_report.json").read_text())["read"] == 11
    store = Store.open(tmp_path / "store")
    assert "sub51_nan" not in set(store.recordings["key"])
    assert store.findings["severity"].value_counts().to_dict() == {"skipped": 2, "failed": 2, "repaired": 1}
    assert report.hours == pytest.approx(store.index["n_times"].sum() / 360_000)


def test_second_build_opens_no_signal_and_changes_no_byte(reader, in_process, tmp_path):
    build(reader, PLAN, tmp_path / "store")
    assert len(reader.opened()) == N_RECORDINGS
    before = content(tmp_path / "store")
    build(reader, PLAN, tmp_path / "store")
    assert reader.opened() == []
    assert content(tmp_path / "store") == before


def test_only_what_changed_is_read_again(reader, in_process, tmp_path):
    out = tmp_path / "store"
    build(reader, PLAN, out)
    reader.opened()
    write_recording(reader.root, "sub05", seed=99, n_times=2550)
    write_recording(reader.root, "sub77", seed=77)
    (reader.root / "sub02.npy").unlink()
    build(reader, PLAN, out)
    assert reader.opened() == ["sub05", "sub77"]
    fresh = tmp_path / "fresh"
    build(reader, PLAN, fresh)
    assert content(out) == content(fresh)


@pytest.mark.parametrize("change", ["plan", "gain", "lsb"])
def test_another_plan_reader_setting_or_scale_reads_all_again(reader, in_process, tmp_path, change):
    out = tmp_path / "store"
    build(reader, PLAN, out)
    reader.opened()
    plan = Preprocessing(lowpass_hz=40.0) if change == "plan" else PLAN
    reader.gain = 2.0 if change == "gain" else 1.0
    build(reader, plan, out, lsb_uV=0.1 if change == "lsb" else 0.05)
    assert len(reader.opened()) == N_RECORDINGS
    assert Store.open(out).verify() == []


def test_changed_events_reseal_without_opening_a_signal(reader, in_process, tmp_path, monkeypatch):
    out = tmp_path / "store"
    build(reader, PLAN, out)
    reader.opened()
    first = Store.open(out)
    scan = reader.scan()
    entries = [Entry(e.key, e.participant, "film", e.path, events=(Event(2.0, "stop"),)) for e in scan.entries]
    monkeypatch.setattr(Arrays, "scan", lambda self: Scan(entries, scan.findings, scan.participants))
    build(reader, PLAN, out)
    second = Store.open(out)
    assert reader.opened() == []
    assert set(second.recordings["task"]) == {"film"}
    assert second.data_hash != first.data_hash
    assert second.verify() == []


def test_same_signal_under_two_names_is_kept_once(reader, in_process, tmp_path):
    (reader.root / "sub90.npy").write_bytes((reader.root / "sub06.npy").read_bytes())
    report = build(reader, PLAN, tmp_path / "store")
    assert report.read == N_RECORDINGS - 1
    (twin,) = [rule for rule in report.rules if rule.rule == "same-signal-twice"]
    assert twin.examples == ("sub90: same bytes as sub06: sub90 and sub06 count as one person",)


def test_two_names_of_one_signal_are_never_on_two_sides(reader, in_process, tmp_path, monkeypatch):
    (reader.root / "sub90.npy").write_bytes((reader.root / "sub06.npy").read_bytes())
    np.save(reader.root / "sub90b.npy", np.load(reader.root / "sub07.npy") + 1)  # of sub90 too, and there only once
    build(reader, PLAN, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert {"sub06", "sub90"} <= set(store.recordings["participant"])
    for seed in range(40):
        sides = ParticipantSplit(0.3, 0.3, seed).sides(store.participants, store.recordings)
        assert [{"sub06", "sub90"} <= set(side) for side in (sides.train, sides.val, sides.test)].count(True) == 1


def test_stale_and_damaged_staged_pieces_are_never_used(reader, in_process, tmp_path, monkeypatch):
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(building, "seal", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(reader, PLAN, out)
    pieces = sorted((out / "staging").glob("*.i16"))
    assert len(pieces) == N_RECORDINGS - 1
    flipped = bytearray(pieces[0].read_bytes())
    flipped[100] ^= 1
    pieces[0].write_bytes(flipped)
    pieces[1].write_bytes(pieces[1].read_bytes()[:-2])
    pieces[2].with_suffix(".json").write_text("{")
    write_recording(reader.root, "sub05", seed=99)  # its staged piece is stale now
    reader.opened()
    build(reader, PLAN, out)
    assert 3 <= len(reader.opened()) <= 4  # the three above, and sub05 unless it was one of them
    build(reader, PLAN, tmp_path / "fresh")
    assert content(out) == content(tmp_path / "fresh")


def test_a_damaged_table_is_mended_by_building_again(reader, in_process, tmp_path):
    out = tmp_path / "store"
    build(reader, PLAN, out)
    before = content(out)
    (out / "index.npy").write_bytes(b"x")
    build(reader, PLAN, out)
    assert content(out) == before


def test_second_builder_is_refused_and_told_of_the_first(reader, tmp_path):
    with (
        lock_folder(tmp_path / "store", "cerebro prepare"),
        pytest.raises(CerebroError, match=f"process {os.getpid()}"),
    ):
        build(reader, PLAN, tmp_path / "store")
    assert reader.opened() == []


def test_a_folder_of_other_files_is_refused(reader, tmp_path):
    with pytest.raises(DataError, match="holds other files"):
        build(reader, PLAN, reader.root)


def test_without_a_usable_recording_no_store_is_sealed(tmp_path, in_process):
    (tmp_path / "source").mkdir()
    write_recording(tmp_path / "source", "sub00_bug", seed=0)
    report = build(Arrays(tmp_path / "source"), PLAN, tmp_path / "store")
    assert (report.read, report.failed, report.failed_share) == (0, 1, 1.0)
    with pytest.raises(DataError, match="is unfinished"):
        Store.open(tmp_path / "store")


def test_full_disk_names_the_bytes_and_leaves_nothing_half_written(reader, in_process, tmp_path, monkeypatch):
    clean, out = tmp_path / "clean", tmp_path / "store"
    build(reader, PLAN, clean)
    generator = random.Random(0)
    write, left = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(handle)

    for attempt in range(20):
        left = generator.randrange(70)  # a whole build takes 80 or more
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DataError, match=r"^[^\n]*disk is full[^\n]* bytes[^\n]*$"):
                build(reader, PLAN, out / str(attempt))
        assert not list(out.rglob(".*.part"))
        for store in out.glob("*"):
            with contextlib.suppress(DataError):
                assert Store.open(store).verify() == []
    build(reader, PLAN, out / "0")
    assert content(out / "0") == content(clean)


@pytest.fixture
def small_disk(tmp_path):
    """``resize(n_bytes)`` makes or resizes a file system of its own in memory, at ``tmp_path / "disk"``."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(n_bytes: int) -> None:
        options = f"size={n_bytes}" + (",remount" if os.path.ismount(disk) else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here ({done.stderr.decode().strip()})")

    yield resize
    if os.path.ismount(disk):
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_of_20_sizes_that_fills_up_harms_no_store_and_continues_with_more_space(
    reader, in_process, tmp_path, small_disk
):
    """Each size: an older store lies there; the build that adds to it fails in one line, later goes on where it was."""
    disk, old, out = tmp_path / "disk", tmp_path / "old", tmp_path / "disk" / "store"
    build(reader, PLAN, old)
    for number in range(20, 50):
        write_recording(reader.root, f"sub{number}", seed=number)
    build(reader, PLAN, tmp_path / "clean")
    before, clean = content(old), content(tmp_path / "clean")
    n_full = 0
    for share in np.linspace(0, 0.95, 20):
        shutil.rmtree(out, ignore_errors=True)
        small_disk(1 << 26)
        shutil.copytree(old, out)
        n_needed = 2 * sum(path.stat().st_size for path in (tmp_path / "clean").rglob("*"))  # pieces and shards
        small_disk(int(shutil.disk_usage(disk).used + share * n_needed) // 4096 * 4096 + 8192)
        with contextlib.suppress(DataError), reported_full(out):
            build(reader, PLAN, out)
        if (out / "staging").exists():
            n_full += 1
            assert not list(out.rglob(".*.part"))
            assert Store.open(out).verify() == []
            assert {name: digest for name, digest in content(out).items() if "staging" not in name} == before
            staged = len(list((out / "staging").glob("*.json")))
            reader.opened()
            small_disk(1 << 26)
            build(reader, PLAN, out)
            assert len(reader.opened()) <= 30 - staged + 1
        assert content(out) == clean
    assert n_full >= 15


@contextlib.contextmanager
def reported_full(out: Path):
    """Let a build fail for want of space alone, in one line with the bytes that it needs."""
    try:
        yield
    except DataError as error:
        told = str(error)
        is_good = re.match(r"^the disk is full[^\n]*needs [\d,]+ bytes[^\n]*$", told) and str(out) in told
        if not is_good:
            pytest.fail(told)
        raise


def test_bytes_needed_are_known_before_writing(reader, in_process, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "free_bytes", lambda folder: 100)
    with pytest.raises(DataError, match=r"needs 6,\d\d\d bytes and 100 bytes are left"):
        build(reader, PLAN, tmp_path / "store")


def build_in_child(reader: Reader, out: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside other threads
        child = os.fork()
    if child == 0:
        os.close(2)
        os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(BaseException):
            build(reader, PLAN, out)
        os._exit(0)
    return child


def test_kill_at_any_moment_then_again_gives_the_same_bytes(reader, in_process, tmp_path):
    clean, out = tmp_path / "clean", tmp_path / "store"
    started = time.perf_counter()
    build(reader, PLAN, clean)
    duration = time.perf_counter() - started
    generator = random.Random(0)
    for attempt in range(8):
        child = build_in_child(reader, out)
        time.sleep(duration * generator.random() * (0.3 if attempt < 4 else 1.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    build(reader, PLAN, out)
    assert content(out) == content(clean)
    assert Store.open(out).verify() == []


@pytest.mark.parametrize("step", [0, 9, 17, 22, 25, 28, 31, 34])
def test_kill_between_any_two_moves_of_the_seal_loses_nothing(reader, in_process, tmp_path, monkeypatch, step):
    clean, out = tmp_path / "clean", tmp_path / "store"
    build(reader, PLAN, out)  # an older store lies there already
    write_recording(reader.root, "sub01", seed=101)
    build(reader, PLAN, clean)
    replace = os.replace
    left = step

    def stop(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(sealing.os, "replace", stop)
        with contextlib.suppress(KeyboardInterrupt):
            build(reader, PLAN, out)
    reader.opened()
    build(reader, PLAN, out)
    assert len(reader.opened()) <= 1
    assert content(out) == content(clean)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_any_number_of_children_gives_the_bytes_of_one_process_in_another_order(reader, tmp_path, monkeypatch, jobs):
    build(reader, PLAN, tmp_path / "children", jobs=jobs)

    def reversed_run(work, entries, jobs):
        for entry in reversed(entries):
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr(spread, "run_in_children", reversed_run)
    build(reader, PLAN, tmp_path / "one")
    assert content(tmp_path / "one") == content(tmp_path / "children")


def test_a_recording_that_ends_its_process_is_one_failure(reader, tmp_path, monkeypatch):
    write_recording(reader.root, "sub07_crash", seed=70)

    def run(work, entries, jobs):
        for entry in entries:
            if "crash" in entry.key:
                (work.markers / "x.began").write_text(entry.key)
                raise spread.BrokenProcessPool("A process was terminated")
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr(spread, "run_in_children", run)
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.failed) == (N_RECORDINGS - 1, 1)
    assert [rule.examples[0].split(":")[0] for rule in report.rules if rule.rule == "reader-crashed"] == ["sub07_crash"]


@pytest.mark.slow
def test_a_killed_child_costs_one_recording(reader, tmp_path):
    write_recording(reader.root, "sub07_crash", seed=70)
    report = build(reader, PLAN, tmp_path / "store", jobs=2)
    assert (report.read, report.failed) == (N_RECORDINGS - 1, 1)
    assert [rule.examples[0].split(":")[0] for rule in report.rules if rule.rule == "reader-crashed"] == ["sub07_crash"]


SCRIPT = """
import sys
from pathlib import Path
from npy_reader import Arrays
from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
build(Arrays(Path(sys.argv[1])), Preprocessing(), Path(sys.argv[2]), jobs=2)
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_kills_of_a_parallel_build_give_the_same_bytes(reader, tmp_path):
    for number in range(20, 120):
        write_recording(reader.root, f"sub{number}", seed=number)
    clean, out = tmp_path / "clean", tmp_path / "store"
    command = [sys.executable, "-c", SCRIPT, str(reader.root)]
    started = time.perf_counter()
    subprocess.run([*command, str(clean)], check=True, capture_output=True)
    duration = time.perf_counter() - started
    generator, n_killed = random.Random(0), 0
    while n_killed < 100:
        with subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(duration * generator.uniform(0.3, 1.05))
            if child.poll() is None:
                child.kill()
                n_killed += 1
            else:  # it was faster: look at what it made, and begin anew
                assert child.returncode == 0
                assert content(out) == content(clean)
                shutil.rmtree(out)
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert content(out) == content(clean)
