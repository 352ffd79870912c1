import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonargparse import ArgumentParser, set_parsing_settings

from cerebro.cli import prepare as verbs
from cerebro.cli.data_config import read_config, resolve_paths, split_overrides
from cerebro.cli.main import main
from cerebro.cli.prepare import check, how_to_spread, prepare, store_problems
from cerebro.data.arrays import write_store
from cerebro.data.manifest import FORMAT_VERSION
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import HBN
from cerebro.data.report import BuildReport
from cerebro.data.spread_dask import Dask
from cerebro.data.spread_slurm import Slurm
from cerebro.data.store import Store
from cerebro.errors import CerebroError, ConfigError
from cerebro.files import lock_folder
from cerebro.montage import Montage
from cerebro.simulate.writers import write_bdf

GOOD = """
reader: {class_path: HBN, init_args: {root: tree}}
preprocessing: {sfreq: 100.0, lowpass_hz: 40}
lsb_uV: 1e-1
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A BIDS tree of metadata: two people, one of them with six channels, no signal anywhere."""
    root = tmp_path / "tree"
    rows = [("sub-A", "available"), ("sub-B", "available")]
    for person, _ in rows:
        folder = root / person / "eeg"
        folder.mkdir(parents=True)
        stem = f"{person}_task-RestingState"
        (folder / f"{stem}_eeg.json").write_text('{"SamplingFrequency": 500, "RecordingDuration": 300}')
        (folder / f"{stem}_events.tsv").write_text("onset\tduration\tvalue\n1.0\tn/a\tresting_start\n")
        names = [f"E{i}" for i in range(1, 7 if person == "sub-B" else 129)]
        lines = ["name\ttype\tunits", *(f"{name}\tEEG\tuV" for name in names)]
        (folder / f"{stem}_channels.tsv").write_text("\n".join(lines) + "\n")
    table = ["participant_id\trelease_number\tsex\tage\tRestingState"]
    table += [f"{person}\tR1\tF\t9.0\t{state}" for person, state in rows]
    (root / "participants.tsv").write_text("\n".join(table) + "\n")
    return root


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def make_store(path: Path, positions: np.ndarray) -> Store:
    eeg = {"a": np.ones((3, 400), np.float32)}
    people = pd.DataFrame({"age": [1.0]}, index=["p"])
    montage = Montage("cap", ("A", "B", "C"), positions)
    return write_store(path, eeg, montage, 100.0, {"a": "rest"}, {"a": "p"}, people)


def test_config_is_typed_and_its_paths_belong_to_its_folder(tmp_path):
    config = read_config(write(tmp_path, GOOD))
    assert isinstance(config.reader, HBN)
    assert config.reader.root == tmp_path / "tree"
    assert config.preprocessing == Preprocessing(sfreq=100.0, lowpass_hz=40.0)
    assert (config.lsb_uV, config.max_failed_share) == (0.1, 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("lsb_uV: 1e-1", "lsb_uv: 0.1"), "lsb_uv"),
        (GOOD.replace("lowpass_hz: 40", "lowpass: 40"), "lowpass"),
        (GOOD.replace("lowpass_hz: 40", "lowpass_hz: forty"), "lowpass_hz"),
        (GOOD.replace("lowpass_hz: 40", "lowpass_hz: 70"), "does not fit sfreq"),
        (GOOD.replace("lsb_uV: 1e-1", "max_failed_share: 2"), "max_failed_share"),
        (GOOD.replace("HBN", "os.system"), "outside the allow list"),
        (GOOD.replace("HBN", "pathlib.Path"), "outside the allow list"),
        (GOOD.replace("HBN", "NoReader"), "NoReader"),
        (GOOD.replace("root: tree", "rooot: tree"), "rooot"),
        (GOOD.replace("root: tree", "root: tree, tasks: [Dance]"), "HBN has no task Dance"),
        (GOOD + "lsb_uV: 0.2\n", "second time"),
        (GOOD.replace("1e-1", ".nan"), "the number .nan"),
        ("lsb_uV: 0.1\n", "reader"),
        ("reader: !!python/object/apply:os.system [x]\n", "the tag"),
    ],
)
def test_wrong_configs_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plan_counts_by_rule_and_task_without_a_signal(tree, tmp_path, capsys):
    config = write(tmp_path, GOOD)
    assert prepare([str(config), "--plan", "--json", str(tmp_path / "plan.json")]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["recordings"] == 1
    assert plan["tasks"]["RestingState"]["use"] == 1
    assert plan["tasks"]["RestingState"]["skipped"] == 1
    rules = {rule["rule"]: rule for rule in plan["rules"]}
    assert rules["six-channel-recording"]["count"] == 1
    assert rules["six-channel-recording"]["tasks"] == {"RestingState": 1}
    assert "six-channel-recording" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--out"], ["--json", "x.json", "--out", "store"], ["--out", "store", "--jobs", "0"], ["--outt", "store"]],
)
def test_wrong_arguments_give_one_line(tree, tmp_path, arguments):
    with pytest.raises(ConfigError) as caught:
        prepare([str(write(tmp_path, GOOD)), *arguments])
    assert "\n" not in str(caught.value)


def test_absent_config_and_folder_are_named(tmp_path):
    with pytest.raises(CerebroError, match="not found"):
        prepare([str(tmp_path / "none.yaml"), "--plan"])
    with pytest.raises(CerebroError, match="HBN folder not found"):
        prepare([str(write(tmp_path, GOOD)), "--plan"])


@pytest.mark.parametrize(("failed_share", "code"), [(0.0, 0), (0.05, 0), (0.06, 1)])
def test_exit_code_tells_whether_too_many_failed(tmp_path, monkeypatch, failed_share, code):
    make_store(tmp_path / "store", np.eye(3) * 0.1)
    report = BuildReport(19, 0, 0, 1, (), {"rest": 19}, 19, 1.0, 1, 0, 2, failed_share)
    monkeypatch.setattr(verbs, "build", lambda *_: report)
    assert prepare([str(write(tmp_path, GOOD)), "--out", str(tmp_path / "store")]) == code


def test_check_finds_damage_far_positions_and_nothing_else(tmp_path, capsys):
    store = make_store(tmp_path / "store", np.array([[0.1, 0, 0], [0, 0.1, 0], [np.nan] * 3]))
    assert check([str(store.path)]) == 0
    assert "1 of 3 positions are unknown" in capsys.readouterr().out
    shard = store.path / "shards/00000.i16"
    damaged = bytearray(shard.read_bytes())
    damaged[7] ^= 1
    shard.write_bytes(damaged)
    assert check([str(store.path)]) == 1
    assert "error    shards/00000.i16" in capsys.readouterr().out
    far = make_store(tmp_path / "far", np.eye(3) * 100)
    assert store_problems(far)[0] == ["montage cap: positions beyond 0.3 m; are they in metres?"]


def test_check_of_a_config_lists_its_findings(tree, tmp_path, capsys):
    assert check([str(write(tmp_path, GOOD))]) == 0
    assert "six-channel-recording" in capsys.readouterr().out


def test_hbn_config_of_the_repository_parses():
    path = Path(__file__).resolve().parents[2] / "configs/data/hbn.yaml"
    assert read_config(path).lsb_uV == 0.05


# ------------------------------------------------------------------------------------------------ overrides


def test_every_key_of_a_config_can_be_typed_and_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = ["--reader.init_args.root", "here/tree", "--reader.init_args.tasks=[RestingState]"]
    rest = ["--preprocessing.notch_hz", "45", "--lsb_uV", "0.2", "--max_failed_share", "0.5"]
    config = read_config(write(tmp_path, GOOD), [*reader, *rest])
    assert config.reader.root == tmp_path / "here/tree"
    assert config.reader.tasks == ("RestingState",)
    assert config.preprocessing == Preprocessing(sfreq=100.0, lowpass_hz=40.0, notch_hz=45.0)
    assert (config.lsb_uV, config.max_failed_share) == (0.2, 0.5)


def test_typed_paths_belong_to_the_current_folder_and_written_ones_to_the_config(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = write(tmp_path / "configs", GOOD)
    assert read_config(path).reader.root == tmp_path / "configs/tree"
    assert read_config(path, ["--lsb_uV", "1"]).reader.root == tmp_path / "configs/tree"
    assert read_config(path, ["--reader.init_args.root", "tree"]).reader.root == tmp_path / "elsewhere/tree"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--preprocessing.notch_hzz", "60"], "did you mean preprocessing.notch_hz?"),
        (["--reader.init_args.rooot", "x"], "did you mean root?"),
        (["--reader.init_arg.root", "x"], "did you mean reader.init_args.root?"),
        (["--outt", "x"], "did you mean --out?"),
        (["--max_failed", "0.1"], "did you mean max_failed_share?"),
        (["--max_failed_share", "often"], "max_failed_share"),
        (["--max_failed_share", "2"], "max_failed_share"),
        (["--max_failed_share"], "max_failed_share"),
        (["--reader.class_path", "os.system"], "allow list"),
    ],
)
@pytest.mark.parametrize("verb", [prepare, check])
def test_a_wrong_override_is_one_line_with_the_nearest_key(tree, tmp_path, verb, typed, message):
    if verb is check and typed[0] == "--outt":
        pytest.skip("check writes nothing")
    with pytest.raises(ConfigError) as caught:
        verb([str(write(tmp_path, GOOD)), *typed])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_takes_overrides_of_a_config_and_none_of_a_store(tree, tmp_path, capsys):
    path = write(tmp_path, GOOD.replace("root: tree", "root: nowhere"))
    assert check([str(path), "--reader.init_args.root", str(tree)]) == 0
    store = make_store(tmp_path / "store", np.eye(3) * 0.1)
    with pytest.raises(ConfigError, match="--lsb_uV belongs to a config"):
        check([str(store.path), "--lsb_uV", "1"])


def test_options_of_the_verb_and_overrides_may_stand_in_any_order():
    options = ["--out", "--jobs", "--plan"]
    typed = ["--a.b", "-5", "x.yaml", "--out", "S", "--c=1", "--plan", "--d", "--jobs", "2"]
    assert split_overrides(typed, options) == (
        ["x.yaml", "--out", "S", "--plan", "--jobs", "2"],
        ["--a.b", "-5", "--c=1", "--d"],
    )


class Inner:
    def __init__(self, table: Path) -> None:
        self.table = table


class Outer:
    def __init__(
        self,
        one: Path,
        many: tuple[Path, ...] = (),
        maybe: Path | None = None,
        named: dict[str, Path] = {},  # noqa: B006 - never changed
        inner: list[Inner] = [],  # noqa: B006
        word: str = "word",
    ) -> None:
        self.one, self.many, self.maybe, self.named, self.inner, self.word = one, many, maybe, named, inner, word


@pytest.fixture
def classes_of_this_file():
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro", Inner.__module__])
    yield
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])


def test_paths_are_found_wherever_a_config_may_hold_them(classes_of_this_file, tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Outer, "outer")
    inner = {"class_path": f"{Inner.__module__}.Inner", "init_args": {"table": "e"}}
    given = {"one": "/a", "many": ["b", "/c"], "maybe": "d", "named": {"x": "f"}, "inner": [inner], "word": "g"}
    outer = parser.instantiate(resolve_paths(parser.parse_object({"outer": given}), tmp_path)).outer
    assert (outer.one, outer.many) == (Path("/a"), (tmp_path / "b", Path("/c")))
    assert (outer.maybe, outer.named, outer.word) == (tmp_path / "d", {"x": tmp_path / "f"}, "g")
    assert [part.table for part in outer.inner] == [tmp_path / "e"]


# ------------------------------------------------------------------------------------------------ where it runs


def test_how_to_spread_is_read_from_the_options():
    assert how_to_spread(None, None, None) == (1, None)
    assert how_to_spread(3, None, None) == (3, None)
    assert how_to_spread(None, "tcp://head:8786", None) == (1, Dask("tcp://head:8786"))
    assert how_to_spread(9, None, "") == (9, Slurm())
    assert how_to_spread(9, None, "partition=a,time=01:00:00,mem=4G,cpus=3") == (
        9,
        Slurm(partition="a", time="01:00:00", mem="4G", cpus=3),
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--dask"], "--dask tcp://HOST:8786"),
        (["--dask", "tcp://h:1", "--slurm", "--jobs", "2"], "exclude"),
        (["--dask", "tcp://h:1", "--jobs", "2"], "--jobs does not go with --dask"),
        (["--slurm"], "type --jobs N"),
        (["--jobs", "2", "--slurm", "partitoin=x"], "did you mean partition?"),
        (["--jobs", "2", "--slurm", "cpus=many"], "cpus=many must be a whole number"),
        (["--jobs", "2", "--slurm", "on=moon"], "set on to slurm or local"),
    ],
)
def test_wrong_ways_to_spread_are_refused_in_one_line(tree, tmp_path, capsys, typed, message):
    assert main(["prepare", str(write(tmp_path, GOOD)), "--out", str(tmp_path / "store"), *typed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "store").exists()


# ------------------------------------------------------------------------------------------------ builds from files

FOLDER = r"""
reader:
  class_path: Folder
  init_args:
    {root: files, name: mine, participants: people.csv, participant_column: id, participant_from: '^(P\d+)',
     tasks: {'_': rest}, pattern: '*.bdf'}
preprocessing: {sfreq: 100.0}
"""


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Config of a folder of 24 recordings of twelve people."""
    draw = np.random.default_rng(0)
    for who in range(12):
        for run in range(2):
            eeg = draw.normal(0, 20, (4, 2000)).astype(np.float32)
            write_bdf(tmp_path / "files" / f"P{who:02d}_{run}.bdf", eeg, ("Fp1", "Fp2", "O1", "O2"), 250.0)
    (tmp_path / "people.csv").write_text("id,age\n" + "".join(f"P{who:02d},{20 + who}\n" for who in range(12)))
    return write(tmp_path, FOLDER)


def content(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def begin(config: Path, out: Path, *typed: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cerebro.cli.main", "prepare", str(config), "--out", str(out), *typed]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_failed_recordings_are_listed_by_name_and_too_many_give_exit_1(recordings, tmp_path, capsys):
    for number in range(8):
        (tmp_path / f"files/P{number:02d}_0.bdf").write_bytes(b"no recording")
    assert main(["prepare", str(recordings), "--out", str(tmp_path / "store")]) == 1
    told = capsys.readouterr().out
    named = [line.split()[1] for line in told.splitlines() if line.startswith("failed    P")]
    assert named == [f"P{number:02d}_0:" for number in range(5)]
    assert "3 more; build_report.json names them all" in told
    assert "33.3% of the recordings failed" in told
    report = json.loads((tmp_path / "store/build_report.json").read_text())
    assert list(report["failures"]) == [f"P{number:02d}_0" for number in range(8)]
    assert all("BDF" in reason for reason in report["failures"].values())
    again = ["prepare", str(recordings), "--out", str(tmp_path / "store"), "--max_failed_share", "0.5"]
    assert main(again) == 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_build_continues_to_the_same_bytes(recordings, tmp_path, sent, code):
    out = tmp_path / "store"
    build = begin(recordings, out)
    while len(list((out / "staging").glob("*.json"))) < 3:
        time.sleep(0.01)
        assert build.poll() is None
    build.send_signal(sent)
    told = build.communicate()[1]
    assert build.returncode == code, told
    assert "the same command continues where it stopped" in told
    assert not (out / "manifest.json").exists()
    staged = len(list((out / "staging").glob("*.json")))
    assert 3 <= staged < 24
    for store in (out, tmp_path / "whole"):
        assert main(["prepare", str(recordings), "--out", str(store)]) == 0
    assert content(out) == content(tmp_path / "whole")


def test_a_second_builder_is_refused_and_told_of_the_first(recordings, tmp_path, capsys):
    out = tmp_path / "store"
    first = begin(recordings, out)
    while not (out / ".lock").exists():
        time.sleep(0.01)
        assert first.poll() is None
    line = refused(["prepare", str(recordings), "--out", str(out)], capsys)
    assert f"process {first.pid} on " in line
    assert first.wait() == 0, first.communicate()
    first.communicate()
    assert Store.open(out).verify() == []


def test_a_second_builder_is_refused_before_it_waits_for_torch(recordings, tmp_path):
    """Whose import takes longer than all others together."""
    code = "import sys; from cerebro.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    with lock_folder(tmp_path / "store", "cerebro prepare"):
        command = [sys.executable, "-c", code, "prepare", str(recordings), "--out", str(tmp_path / "store")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert f"process {os.getpid()} on " in done.stderr


def test_what_failed_before_a_signal_was_opened_is_listed_by_name_too(tmp_path, capsys):
    names = ["P1_1", "P2_1", "P3_1"]
    (tmp_path / "windows").mkdir()
    for name in names:
        fixed = {"participant": name[:2], "run": 1, "parent_window_id": [0, 1], "sub_window_id": 0}
        table = pd.DataFrame(fixed | {"window_start": [0.0, 4.0], "window_end": [4.0, 8.0]})
        table["CZ"] = list(np.random.default_rng(0).normal(0, 20, (2, 400)))
        table.to_parquet(tmp_path / f"windows/{name}.parquet")
    (tmp_path / "windows/P2_1.parquet").write_bytes(b"no table")
    keys = "{root: windows, name: w, sfreq: 100.0, window_length: 400}"
    text = f"reader: {{class_path: ParquetWindows, init_args: {keys}}}\npreprocessing: {{sfreq: 100.0}}\n"
    assert main(["prepare", str(write(tmp_path, text)), "--out", str(tmp_path / "store")]) == 1
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if line.startswith("failed    P2_1.parquet: ")]
    assert "no Parquet file" in line
    report = json.loads((tmp_path / "store/build_report.json").read_text())
    assert list(report["failures"]) == ["P2_1.parquet"]


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_clashing_participants_are_one_line(recordings, tmp_path, capsys):
    with open(tmp_path / "people.csv", "a") as table:
        table.write("P03,50\n")
    line = refused(["prepare", str(recordings), "--out", str(tmp_path / "store")], capsys)
    assert "P03" in line
    assert "people.csv" in line


def test_a_store_of_a_newer_version_is_never_replaced(recordings, tmp_path, capsys):
    store = make_store(tmp_path / "store", np.eye(3) * 0.1).path
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "version": FORMAT_VERSION + 1}))
    before = content(store)
    line = refused(["prepare", str(recordings), "--out", str(store)], capsys)
    assert f"has format {FORMAT_VERSION + 1}, newer than {FORMAT_VERSION}" in line
    assert content(store) == before


def test_a_staged_record_that_cannot_be_read_is_one_line(recordings, tmp_path, capsys):
    (tmp_path / "store/staging" / ("a" * 64 + ".json")).mkdir(parents=True)
    line = refused(["prepare", str(recordings), "--out", str(tmp_path / "store")], capsys)
    assert "a" * 64 in line
