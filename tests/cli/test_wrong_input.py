"""What a user types wrong, through the command line: one line on standard error, exit code 2, nothing half-written.

Proved elsewhere with the same strength: nested keys and hostile files on toy classes (tests/cli/test_fit.py), keys of a
data config (test_prepare.py), numbers of a simulation (test_simulate.py), arguments of a study (test_study.py), every
YAML refusal (tests/test_yaml_safety.py), phases in a circle and unknown phases (tests/study/test_recipe.py), a second
writer on one folder (tests/test_files.py), signals while fitting (tests/training/test_run.py) and while preparing
(tests/data/test_build.py), which also fills the disk at 20 moments.
"""

import errno
import inspect
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cerebro.cli import fit as fit_verbs
from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.data.pieces import Outcome, make_piece
from cerebro.montage import Montage
from cerebro.simulate.writers import write_bdf

CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.eye(3) * 0.09)
OTHER_CAP = Montage("other", ("Fz", "Cz", "Oz"), np.eye(3) * 0.09)
PEOPLE = tuple(f"p{number:02}" for number in range(10))
ENCODER = {
    "class_path": "LaBraM",
    "init_args": {"patch_samples": 100, "conv_stride": 10, "conv_channels": 2, "depth": 1, "n_heads": 2},
}
PHASE = {
    "model": {
        "name": "first",
        "encoder": ENCODER,
        "objective": {
            "class_path": "WeightedSum",
            "init_args": {
                "weights": {"factor": 1.0},
                "terms": {
                    "factor": {
                        "class_path": "Supervised",
                        "init_args": {"target": "p_factor", "readout": {"class_path": "LinearReadout"}},
                    }
                },
            },
        },
    },
    "data": {
        "store": "store",
        "windows": {"class_path": "SlidingWindows", "init_args": {"duration_s": 2.0, "stride_s": 2.0}},
        "split": {"val_ratio": 0.2, "test_releases": ["R5"]},
        "targets": ["p_factor"],
        "batch_size": 4,
        "batches_per_epoch": 2,
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "mlflow": {"enabled": False},
}
FOLDER = {
    "reader": {
        "class_path": "Folder",
        "init_args": {
            "root": "recordings",
            "name": "mine",
            "participants": "people.csv",
            "participant_column": "who",
            "participant_from": "^(.)",
            "tasks": {".": "rest"},
            "pattern": "*.bdf",
        },
    },
    "preprocessing": {"sfreq": 100.0, "highpass_hz": 0.5, "lowpass_hz": 40.0},
}


def make_store(path: Path, montage: Montage) -> None:
    """Ten people with 8 s each; two are of R5, and one of those who may train has no p_factor."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "p_factor": [np.nan, *np.linspace(-1, 1, len(PEOPLE) - 1)],
            "release_number": ["R1"] * (len(PEOPLE) - 2) + ["R5"] * 2,
        },
        index=pd.Index(PEOPLE, name="participant_id"),
    )
    eeg = {name: draw.normal(0, 30, (3, 800)).astype(np.float32) for name in PEOPLE}
    tasks = dict.fromkeys(PEOPLE, "rest")
    releases = dict(zip(PEOPLE, table["release_number"], strict=True))
    people = dict(zip(PEOPLE, PEOPLE, strict=True))
    write_store(path, eeg, montage, 100.0, tasks, people, table, corpus="HBN", releases=releases)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores, a config, a folder of recordings and one trained phase, made by `cerebro fit`."""
    folder = tmp_path_factory.mktemp("wrong")
    make_store(folder / "store", CAP)
    make_store(folder / "other", OTHER_CAP)
    (folder / "phase.yaml").write_text(yaml.safe_dump(PHASE))
    (folder / "data.yaml").write_text(yaml.safe_dump(FOLDER))
    (folder / "people.csv").write_text("who,age\na,9\nb,8\n")
    for person in "ab":
        eeg = 30 * np.random.default_rng(ord(person)).standard_normal((3, 1000)).astype(np.float32)
        write_bdf(folder / "recordings" / f"{person}.bdf", eeg, ("EEG Fz", "EEG Cz", "EEG Pz"), 100.0)
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "phase.yaml"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _no_shape_checks_around_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, the check that data are `PhaseData` opens the store, inside the check instead of `fit`."""
    for name in ("_parts", "fit_phase", "score_phase"):
        monkeypatch.setattr(fit_verbs, name, inspect.unwrap(getattr(fit_verbs, name)))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare in this process: the same code without seconds of imports in children."""

    def run(work: Any, entries: Any, jobs: int) -> Iterator[Outcome]:
        for entry in entries:
            yield make_piece(work.recipe, entry, work.available.get(entry.key, ()), work.staging)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)


@pytest.fixture
def work(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to spoil, as current folder."""
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def refused(argv: list[str], words: tuple[str, ...], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command that must be refused in one line with these words, and leave no new file."""
    capsys.readouterr()
    before = files(work)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("cerebro")
    for word in words:
        assert word in error
    assert files(work) == before


FIT = ["fit", "--config", "phase.yaml", "--out", "new"]
NEXT = [*FIT, "--model.name", "second", "--ckpt_path"]
PREPARE = ["prepare", "data.yaml", "--out", "new"]
OBJECTIVE = "model.objective.init_args"

TYPED = {
    "unknown config key": ([*FIT, "--model.optm.lr", "1"], "did you mean model.optim.lr?"),
    "unknown config key of a class": ([*FIT, "--model.encoder.init_args.dept", "1"], "LaBraM; did you mean depth?"),
    "wrong type": ([*FIT, "--data.batch_size", "many"], "data.batch_size: found many, expected int"),
    "wrong type in a class": (
        [*FIT, "--model.encoder.init_args.depth", "x"],
        "found x, expected int; mend the config or type --model.encoder.init_args.depth VALUE",
    ),
    "misspelt class": ([*FIT, "--model.encoder", "LaBram"], "class LaBram is unknown in model.encoder; did you mean L"),
    "misspelt windows": ([*FIT, "--data.windows", "FilmWindow"], "did you mean FilmWindows?"),
    "class outside the allow list": ([*FIT, "--model.objective", "os.system"], "os.system is outside the allow list"),
    "missing config file": (["fit", "--config", "nope.yaml"], "config nope.yaml not found"),
    "config that is a folder": (["fit", "--config", "store"], "config store not found"),
    "missing checkpoint": ([*FIT, "--ckpt_path", "nope.ckpt"], "checkpoint nope.ckpt not found"),
    "missing best.ckpt": (["test", "--config", "phase.yaml", "--out", "empty"], "train that phase first"),
    "address of a checkpoint": ([*FIT, "--ckpt_path", "https://x.org/a.ckpt"], "cerebro loads files only"),
    "missing store": ([*FIT, "--data.store", "nope"], "run `cerebro prepare CONFIG.yaml --out nope`"),
    "store that is a file": ([*FIT, "--data.store", "phase.yaml"], "store phase.yaml was not found"),
    "negative batch": ([*FIT, "--data.batch_size", "-4"], "batch_size=-4 must be larger than 0"),
    "negative seed": ([*FIT, "--seed", "-1"], "seed=-1 is negative"),
    "wrong unit": ([*FIT, "--data.windows.init_args.duration_s", "2000"], "shorter than 2000 s"),
    "unknown target": ([*FIT, "--data.targets", "[iq]"], "target 'iq' is unknown"),
    "folder that cannot be made": ([*FIT[:3], "--out", "phase.yaml/x"], "cannot be made or written as a folder"),
    "another config in a used folder": (
        ["fit", "--config", "phase.yaml", "--model.optim.lr", "0.1"],
        "another config; choose another --out, or add --overwrite true",
    ),
    "missing data config": (["prepare", "nope.yaml", "--out", "new"], "config nope.yaml not found"),
    "prepare into a foreign folder": (["prepare", "data.yaml", "--out", "recordings"], "holds other files"),
    "check of nothing": (["check", "nope"], "store nope was not found"),
    "report without results": (["report", "empty"], "holds no study"),
    "unknown verb": (["fti"], "type one of simulate"),
    "unknown option": (["doctor", "--foo"], "cerebro doctor --help"),
}


@pytest.mark.parametrize(("argv", "said"), TYPED.values(), ids=TYPED.keys())
def test_a_mistake_on_the_command_line(
    argv: list[str], said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(argv, (said,), work, capsys)


def term(**changes: object) -> dict[str, object]:
    given = PHASE["model"]["objective"]["init_args"]["terms"]["factor"]  # type: ignore[index]
    return {"model": {"objective": {"init_args": {"terms": {"factor": given | changes}}}}}


WRITTEN = {
    "key of a nested class": (
        term(init_args={"target": "p_factor", "readout": {"class_path": "LinearReadout"}, "los": "mse"}),
        "los is unknown to Supervised",
    ),
    "nested class": (term(class_path="Superviced"), "class Superviced is unknown in model.objective.terms"),
    "nested class outside the allow list": (term(class_path="subprocess.run"), "outside the allow list"),
    "key twice": ("data: {store: a}\ndata: {store: b}\n", "second time"),
    "learning rate that is no number": ("model: {optim: {lr: .nan}}\n", "the number .nan"),
    "tag": ("data: !!python/object/apply:os.system ['touch hit']\n", "the tag"),
    "alias bomb": (
        "a: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"b{i}: &a{i + 1} [{','.join([f'*a{i}'] * 10)}]\n" for i in range(8)),
        "more than 100,000 values",
    ),
    "file that is not there": ({"model": {"encoder": "parts/nope.yaml"}}, "paths in a YAML are relative to that file"),
}


@pytest.mark.parametrize("suffix", ["yaml", "txt"])
@pytest.mark.parametrize(("content", "said"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_mistake_in_a_second_config(
    content: object, said: str, suffix: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = work / f"second.{suffix}"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    refused([*FIT[:3], "--config", file.name, "--out", "new"], (said,), work, capsys)


class Bomb:
    """Runs a command when a pickle that holds it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hit",)


def test_checkpoint_of_another_encoder_shape(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deeper = [*NEXT, "outputs/first/best.ckpt", "--model.encoder.init_args.depth", "2"]
    refused(deeper, ("best.ckpt does not fit", "missing", "nothing was loaded", "same encoder config"), work, capsys)


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_checkpoint_of_other_channels(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors of equal shape, and row 2 of the channel embedding would mean another electrode."""
    argv = [*NEXT, "outputs/first/best.ckpt"] if verb == "fit" else [verb, "--config", "phase.yaml"]
    refused([*argv, "--data.store", "other"], ("other channels", "Pz there, Oz here", "train this phase"), work, capsys)


@pytest.mark.parametrize("kind", ["bomb in a zip", "bomb", "truncated", "text", "foreign"])
def test_a_file_that_is_no_checkpoint_runs_nothing(
    kind: str, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    whole = (work / "outputs/first/best.ckpt").read_bytes()
    bad = work / "bad.ckpt"
    if kind in ("bomb in a zip", "foreign"):
        torch.save({"state_dict": Bomb() if kind != "foreign" else {}}, bad)
    else:
        bad.write_bytes({"bomb": pickle.dumps(Bomb()), "truncated": whole[:-9000], "text": b"hello"}[kind])
    for path in ("bad.ckpt", str(bad)):
        refused(
            [*NEXT, path],
            ("bad.ckpt", "train that phase" if kind in ("truncated", "text") else "cerebro fit"),
            work,
            capsys,
        )
    refused(["test", "--config", "phase.yaml", "--ckpt_path", "bad.ckpt"], ("bad.ckpt",), work, capsys)
    assert not (work / "hit").exists()


def test_evaluation_participants_that_a_checkpoint_has_seen(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = ["--data.split.test_releases", "[R1]"]
    said = ("participants were seen", "HBN:p", "--allow_seen_participants true")
    refused(["test", "--config", "phase.yaml", "--ckpt_path", "outputs/first/best.ckpt", *moved], said, work, capsys)


def test_a_participant_without_labels_is_masked_and_counted(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FIT) == 0
    assert "p_factor missing in 4 windows" in capsys.readouterr().out


def test_a_damaged_store_is_refused_by_fit_or_found_by_check(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = work / "store/shards/00000.i16"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert main(["check", "store"]) == 1
    assert "00000.i16" in capsys.readouterr().out
    shard.write_bytes(content[:-4096])
    refused(FIT, ("00000.i16", "cerebro prepare"), work, capsys)


def outcome(work: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(PREPARE)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out


def no_recording(path: Path) -> None:
    path.write_text("hello\n")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def without_known_channels(path: Path) -> None:
    write_bdf(path, np.ones((2, 1000), np.float32), ("ECG ECG", "EEG A2-A1"), 100.0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_recording, "has no BDF header"),
        (truncated, "is truncated"),
        (without_known_channels, "no channel that montage 10-05 knows (found ECG ECG, EEG A2-A1)"),
    ],
)
def test_a_recording_that_cannot_be_used_is_one_line_of_the_report(
    spoil: Callable[[Path], None], said: str, work: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two fails: more than its share, exit 1, the store of the other; both fail: exit 1 and no store."""
    spoil(work / "recordings/a.bdf")
    code, printed = outcome(work, capsys)
    assert code == 1
    lines = [line for line in printed.splitlines() if said in line]
    assert len(lines) == 1
    assert "a.bdf" in lines[0] or "a:" in lines[0]
    assert (work / "new/manifest.json").exists()
    spoil(work / "recordings/b.bdf")
    shutil.rmtree(work / "new")
    code, printed = outcome(work, capsys)
    assert code == 1
    assert "no store was written" in printed
    assert not (work / "new/manifest.json").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("root", "nope", "nope"),
        ("root", "empty", "empty"),
        ("participants", "nope.csv", "nope.csv"),
        ("participant_column", "whom", "whom"),
        ("participant_from", "^.", "no group"),
        ("pattern", "*.edf", "*.edf"),
    ],
)
def test_a_data_config_that_fits_no_folder(
    key: str, value: str, said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((work / "data.yaml").read_text())
    config["reader"]["init_args"][key] = value
    (work / "data.yaml").write_text(yaml.safe_dump(config))
    refused(PREPARE, (said,), work, capsys)


def test_a_full_disk_while_preparing(
    work: Path, in_process: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(PREPARE) == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("cerebro: ")
    assert "disk is full" in error
    assert "Traceback" not in error
    assert not (work / "new/manifest.json").exists()
    assert not list((work / "new").rglob("*.part"))
    assert main(PREPARE) == 0  # the same command continues
