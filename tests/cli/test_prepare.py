import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.cli import prepare as verbs
from cerebro.cli.prepare import check, prepare, read_config, store_problems
from cerebro.data.arrays import write_store
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import HBN
from cerebro.data.report import BuildReport
from cerebro.data.store import Store
from cerebro.errors import CerebroError, ConfigError
from cerebro.montage import Montage

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
