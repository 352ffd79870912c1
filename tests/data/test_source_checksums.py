"""Lists of checksums beside a data set, git-annex keys, and what a build says about them."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from cerebro.cli.main import main
from cerebro.data import watchdog
from cerebro.data.build import build
from cerebro.data.checksum_list import annex_key, digests_of, read_checksums, recording_of, write_checksums
from cerebro.data.pieces import Recipe, make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder, Recording
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.source_checksums import freeze, with_checksums
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.simulate.writers import write_bdf

PLAN = Preprocessing(sfreq=50.0, lowpass_hz=20.0)
CONFIG = """
reader:
  class_path: Folder
  init_args:
    root: recordings
    name: mine
    participants: recordings/people.csv
    participant_column: who
    participant_from: "^(.)"
    tasks: {".": rest}
    pattern: "*.bdf"
preprocessing: {sfreq: 50.0, lowpass_hz: 20.0}
"""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch) -> Folder:
    root = tmp_path / "recordings"
    for person in "ab":
        eeg = 30 * np.random.default_rng(ord(person)).standard_normal((2, 500))
        write_bdf(root / f"{person}.bdf", eeg.astype(np.float32), ("Fz", "Cz"), 100.0)
    (root / "a_events.tsv").write_text("onset\tduration\n1.0\t2.0\n")
    (root / "people.csv").write_text("who,age\na,9\nb,8\n")

    def run(work, entries, jobs):
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)
    return Folder(root, "mine", root / "people.csv", "who", "^(.)", {".": "rest"}, pattern="*.bdf")


def rules(store: Path) -> dict[str, str]:
    findings = Store.open(store).findings
    return dict(zip(findings["where"], findings["rule"], strict=True))


def test_sha256sum_verifies_our_list_and_we_read_that_of_sha256sum(tmp_path):
    names = ["plain.bdf", "two words.tsv", "back\\slash", "new\nline", "sub/deep.set"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    file = write_checksums(tmp_path, [tmp_path / name for name in names])
    ours = read_checksums(file)
    assert set(ours.digests) == set(names)
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    assert subprocess.run(["sha256sum", "-c", "--strict", file.name], cwd=tmp_path, capture_output=True).returncode == 0
    for option in ("--text", "--binary", "--tag"):
        made = subprocess.run(["sha256sum", option, *names], cwd=tmp_path, capture_output=True, check=True).stdout
        (tmp_path / f"list{option}").write_bytes(made)
        assert dict(read_checksums(tmp_path / f"list{option}").digests) == dict(ours.digests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("bdf", "bdg", 1), "is damaged"),
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], "is damaged"),
        (lambda text: text.split("\n", 1)[1] + "hello\n", "line 5 is no line of sha256sum"),
        (lambda text: text.split("\n", 1)[1] + "0" * 64 + "  a.bdf\n", "line 5 gives a.bdf a second"),
        (lambda text: "\udcff", "is no text"),
    ],
)
def test_a_damaged_list_is_refused_in_one_line(reader, change, message):
    file, _ = freeze(reader)
    file.write_bytes(change(file.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        with_checksums(reader, reader.scan())
    assert "\n" not in str(caught.value)
    assert "SHA256SUMS" in str(caught.value)


def test_files_of_one_recording_are_known_by_their_names():
    stem = "sub-A/eeg/sub-A_task-rest_run-1"
    for kind in ("_eeg.set", "_eeg.fdt", "_eeg.json", "_events.tsv", "_channels.tsv", ".vmrk"):
        assert recording_of(stem + kind) == stem
    assert recording_of("sub-A/eeg/sub-A_task-rest_run-11_eeg.set") != stem
    assert recording_of("participants.tsv") == "participants"


def test_the_report_counts_what_was_verified_and_what_no_list_names(reader, tmp_path):
    assert build(reader, PLAN, tmp_path / "before").verified == 0
    freeze(reader)
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.verified, report.rules) == (2, 2, ())
    assert "verified         2" in report.table()
    eeg = 30 * np.random.default_rng(0).standard_normal((2, 500))
    write_bdf(reader.root / "c.bdf", eeg.astype(np.float32), ("Fz", "Cz"), 100.0)
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.verified) == (3, 2)
    findings = Store.open(tmp_path / "store").findings
    assert list(findings[findings["rule"] == "not-in-checksums"]["where"]) == ["c"]


@pytest.mark.parametrize("name", ["a.bdf", "a_events.tsv"])
def test_any_file_of_a_recording_that_differs_or_is_gone_costs_that_recording(reader, tmp_path, name):
    freeze(reader)
    build(reader, PLAN, tmp_path / "store")
    file = reader.root / name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    report = build(reader, PLAN, tmp_path / "store")  # also one that was stored before
    assert (report.read, report.failed) == (1, 1)
    assert rules(tmp_path / "store") == {"a": "checksum-differs"}
    assert str(file) in report.rules[0].examples[0]
    if name != "a.bdf":
        file.unlink()
        report = build(reader, PLAN, tmp_path / "other")
        assert "is listed in SHA256SUMS and absent" in report.rules[0].examples[0]


def test_a_table_of_all_that_differs_ends_the_build(reader, tmp_path):
    freeze(reader)
    (reader.root / "people.csv").write_text("who,age\na,9\nb,7\n")
    with pytest.raises(DataError, match=r"people\.csv differs from SHA256SUMS") as caught:
        build(reader, PLAN, tmp_path / "store")
    assert "\n" not in str(caught.value)


def test_listed_files_that_are_absent_are_counted_once(reader, tmp_path):
    for name in ("x.bdf", "y.bdf"):
        (reader.root / name).write_bytes(b"")
    file, _ = freeze(reader)
    for name in ("x.bdf", "y.bdf"):
        (reader.root / name).unlink()
    (finding,) = with_checksums(reader, reader.scan()).findings
    assert (finding.rule, finding.severity, finding.where) == ("listed-file-absent", "skipped", file.name)
    assert finding.detail == "2 of 6 listed files are absent, such as x.bdf"


def test_freezing_again_adds_new_files_and_refuses_changed_ones(reader):
    file, n_files = freeze(reader)
    assert n_files == 4
    (reader.root / "b.json").write_text("{}")
    assert freeze(reader) == (file, 5)
    (reader.root / "a.bdf").write_bytes(b"x")
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"a\.bdf differs from SHA256SUMS"):
        freeze(reader)
    assert file.read_bytes() == before


def test_a_folder_behind_a_link_is_frozen_and_damage_in_it_costs_one_recording(tmp_path):
    root, disk = tmp_path / "root", tmp_path / "disk"
    for path in (root / "a.csv", disk / "b.csv", disk / "c.csv", root / ".git/annex/a.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Fz,Cz,marker\n" + "1.5,2.5,0\n" * 500)
    (root / "linked").symlink_to(disk, target_is_directory=True)
    table = TableFormat(sfreq=100.0, marker_column="marker")
    reader = Folder(root, "mine", participant_from="([abc])$", tasks={".": "rest"}, pattern="**/*.csv", table=table)
    assert [entry.participant for entry in reader.scan().entries] == ["a", "b", "c"]
    file, n_files = freeze(reader)
    assert (sorted(read_checksums(file).digests), n_files) == (["a.csv", "linked/b.csv", "linked/c.csv"], 3)
    (disk / "b.csv").write_bytes(b"no table")
    scan = with_checksums(reader, reader.scan())
    assert [entry.participant for entry in scan.entries] == ["a", "c"]
    assert "b.csv" in " ".join(finding.where for finding in scan.findings if finding.severity == "failed")


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_link_of_git_annex_names_what_the_file_must_be(reader, tmp_path, algorithm):
    source = reader.root / "b.bdf"
    content = source.read_bytes()
    key = f"{algorithm.upper()}E-s{len(content)}--{hashlib.new(algorithm, content).hexdigest()}.bdf"
    stored = tmp_path / ".git/annex/objects/aa/bb" / key / key
    stored.parent.mkdir(parents=True)
    source.rename(stored)
    source.symlink_to(os.path.relpath(stored, source.parent))
    assert annex_key(source).digest == digests_of(source)[algorithm]
    report = build(reader, PLAN, tmp_path / "store")
    assert (report.read, report.verified) == (2, 1)
    stored.write_bytes(content[:-1] + b"x")
    report = build(reader, PLAN, tmp_path / "store")
    assert rules(tmp_path / "store")["b"] == "checksum-differs"
    assert "git-annex key" in report.rules[0].examples[0]


def test_check_freezes_a_config_and_prepare_verifies(reader, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert main(["check", str(tmp_path / "config.yaml"), "--freeze"]) == 0
    assert "SHA256SUMS: 4 files" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "config.yaml")]) == 0
    (reader.root / "people.csv").write_text("who,age\n")
    assert main(["check", str(tmp_path / "config.yaml")]) == 2
    error = capsys.readouterr().err
    assert "people.csv differs" in error
    assert error.count("\n") == 1
    assert main(["check", str(tmp_path), "--freeze"]) == 2


class Hanging(Folder):
    """A parser that a file has caught: it works for ever, or asks for all memory."""

    what = "work"

    def load(self, entry) -> Recording:
        while self.what == "work":
            sum(range(1000))
        while self.what == "wait":
            time.sleep(1)
        np.ones(10**14, np.uint8)
        raise AssertionError


def make_in_child(reader: Folder, staging: Path) -> int:
    """How a child that reads the first recording ended."""
    entry = reader.scan().entries[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside other threads
        child = os.fork()
    if child == 0:
        make_piece(Recipe(reader, PLAN, 0.05, "code"), entry, (), staging)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("what", ["work", "wait"])
def test_a_reader_that_hangs_ends_its_process_and_is_named_at_the_next_look(reader, tmp_path, monkeypatch, what):
    monkeypatch.setattr(watchdog, "CPU_S", 0.2)
    monkeypatch.setattr(watchdog, "WALL_S", 30.0 if what == "work" else 0.5)
    hanging = Hanging(reader.root, "mine", reader.participants, "who", "^(.)", {".": "rest"}, pattern="*.bdf")
    hanging.what = what
    status = make_in_child(hanging, tmp_path)
    assert (os.WTERMSIG(status) == signal.SIGPROF) if what == "work" else (os.WEXITSTATUS(status) == 1)
    outcome = make_piece(Recipe(hanging, PLAN, 0.05, "code"), hanging.scan().entries[0], (), tmp_path)
    assert outcome.failure.rule == "reader-hung"
    assert "a.bdf" in outcome.failure.detail
    assert not list(tmp_path.glob("*.hung"))


class HangingOnce(Hanging):
    """Hangs on the first recording alone."""

    def load(self, entry) -> Recording:
        return super().load(entry) if entry.key == "a" else Folder.load(self, entry)


@pytest.mark.slow
def test_a_hanging_reader_costs_one_recording_of_a_build(reader, tmp_path, monkeypatch):
    monkeypatch.undo()  # children, with the limits as they are
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    hanging = HangingOnce(reader.root, "mine", reader.participants, "who", "^(.)", {".": "rest"}, pattern="*.bdf")
    try:
        report = build(hanging, PLAN, tmp_path / "store")
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (report.read, report.failed) == (1, 1)
    assert rules(tmp_path / "store") == {"a": "reader-hung"}


def test_a_reader_that_asks_for_all_memory_costs_one_recording(reader, tmp_path, monkeypatch):
    hungry = Hanging(reader.root, "mine", reader.participants, "who", "^(.)", {".": "rest"}, pattern="*.bdf")
    hungry.what = "eat"
    outcome = make_piece(Recipe(hungry, PLAN, 0.05, "code"), hungry.scan().entries[0], (), tmp_path)
    assert outcome.failure.rule == "memory-exceeded"
    assert "\n" not in outcome.failure.detail
    np.ones(10**6)  # the limit is gone
