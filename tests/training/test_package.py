"""A finished phase as a file and as a folder: both come back to the bit, and nothing damaged or hostile is believed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cerebro.errors import CheckpointError
from cerebro.training.checkpoint import describe_seen, hashed, read_checkpoint
from cerebro.training.foreign import read_source, read_trained
from cerebro.training.package import read_folder, read_package

HERE = Path(__file__).parent
SUPERVISED = [
    "--model.objective=Supervised",
    "--model.objective.target=sex",
    "--model.objective.kind=classification",
    "--model.objective.readout=LinearReadout",
]


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def run(folder: Path, *argv: str) -> int:
    import toy

    from cerebro.cli import fit
    from cerebro.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "DATA_CLASS", toy.ToyData)
        patch.setattr(fit, "ALLOWED_IMPORTS", [*fit.ALLOWED_IMPORTS, "toy"])
        patch.chdir(folder)
        return main(list(argv))


def fit(folder: Path, name: str, *argv: str) -> int:
    common = ["--config", str(HERE / "toy.yaml"), "--trainer.max_epochs=1", "--model.name", name]
    return run(folder, "fit", *common, *argv)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of a classifier that started from another phase, packaged."""
    folder = tmp_path_factory.mktemp("package")
    assert fit(folder, "pre") == 0
    assert fit(folder, "tuned", "--run_name", "mine", *SUPERVISED, "--ckpt_path", "outputs/pre/best.ckpt") == 0
    return folder / "outputs/tuned"


def test_a_named_supervised_run_leaves_a_file_and_a_folder_equal_to_its_best_checkpoint(finished: Path) -> None:
    best = read_checkpoint(finished / "best.ckpt")
    plain = torch.load(finished / "mine_best.pt", weights_only=True)
    assert set(plain) == {"model", "config"}
    for weights in (plain["model"], load_file(finished / "model/model.safetensors")):
        assert weights.keys() == best.weights.keys()
        assert all(torch.equal(weights[name], best.weights[name]) for name in weights)
    assert json.loads((finished / "model/config.json").read_text()).items() <= plain["config"].items()


def test_a_phase_without_a_name_or_a_target_is_packaged_only_when_asked(finished: Path) -> None:
    assert not (finished.parent / "pre/model").exists()
    assert run(finished, "export", "../pre/best.ckpt", "--format", "package", "--out", "shared") == 0
    assert run(finished, "export", "../pre/best.ckpt", "--format", "package", "--out", "shared.pt") == 0
    folder, file = read_package(finished / "shared"), read_package(finished / "shared.pt")
    assert folder is not None
    assert file is not None
    assert folder.config == file.config
    assert folder.config["target"] == {}


def test_the_config_says_what_the_model_is_and_where_it_came_from(finished: Path) -> None:
    config, best = read_folder(finished / "model").config, read_checkpoint(finished / "best.ckpt")
    assert config["target"] == {"name": "sex", "kind": "classification", "classes": ["0", "1"]}
    assert config["signal"]["channels"] == ["A", "B", "C"]
    assert config["model"]["init"] == []
    assert config["weights_sha256"] == best.stamp.weights_sha256
    (link,) = config["started_from"]
    assert link["file"] == "pre/best.ckpt"
    assert link["weights_sha256"] == read_checkpoint(finished.parent / "pre/best.ckpt").stamp.weights_sha256
    assert config["scores"]["val/balanced_accuracy_sex"] >= 0
    assert "2 of 2" not in (finished / "model/README.md").read_text()
    assert "tells the classes of `sex` (0 = 0, 1 = 1)" in (finished / "model/README.md").read_text()


def test_no_participant_is_named_and_each_is_still_known(finished: Path) -> None:
    best = read_checkpoint(finished / "best.ckpt").stamp
    for form in ("mine_best.pt", "model"):
        stamp = read_source(finished / form).stamp
        assert not set(stamp.seen) & set(best.seen)
        assert len(stamp.seen) == len(best.seen) > 0
        assert describe_seen(best.trained, stamp.trained, "test", finished).startswith(f"{len(best.trained)} test")
        assert describe_seen(["toy:nobody"], stamp.seen, "test", finished) == ""
    everything = b"".join(path.read_bytes() for path in (finished / "model").iterdir())
    assert not any(person.encode() in everything for person in best.seen)
    assert hashed(hashed("toy:1")) == hashed("toy:1")


@pytest.mark.parametrize("form", ["mine_best.pt", "model", "model/model.safetensors"])
def test_another_phase_starts_from_a_packaged_model_as_from_its_checkpoint(
    finished: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished.parent.parent
    name = form.replace("/", "_").replace(".", "_")
    assert fit(root, name, *SUPERVISED, "--ckpt_path", f"outputs/tuned/{form}", "--data.shift", "2") == 2
    assert "were seen while" in capsys.readouterr().err
    assert fit(root, name, *SUPERVISED, "--ckpt_path", f"outputs/tuned/{form}") == 0
    assert "(phase tuned): encoder -> encoder" in capsys.readouterr().out
    digest = read_checkpoint(finished / "best.ckpt").stamp.weights_sha256
    assert list(read_checkpoint(root / f"outputs/{name}/best.ckpt").stamp.inputs.values()) == [digest]


def test_a_packaged_model_can_be_scored_and_cannot_be_resumed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished.parent.parent
    given = ["--config", "outputs/tuned/config.yaml", "--out", "scored", "--ckpt_path"]
    lines = []
    for form in ("best.ckpt", "mine_best.pt", "model"):
        assert run(root, "test", *given, f"outputs/tuned/{form}") == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] == lines[2]
    assert run(root, "test", *given, "outputs/tuned/model", "--data.shift", "2") == 2
    assert "test participants were seen" in capsys.readouterr().err
    assert fit(root, "tuned", *SUPERVISED, "--out", "again", "--ckpt_path", "outputs/tuned/mine_best.pt") == 2
    assert "holds no state of training to resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mine_best.pt", "model/model.safetensors", "model/config.json"])
@pytest.mark.parametrize("damage", ["half", "letter", "empty"])
def test_a_damaged_package_gives_one_line(finished: Path, tmp_path: Path, name: str, damage: str) -> None:

    target = tmp_path / "copy"
    shutil.copytree(finished, target)
    file = target / name
    content = file.read_bytes()
    middle = len(content) // 2
    changed = {
        "half": content[:middle],
        "letter": content[: middle - 9] + bytes(255 - byte for byte in content[middle - 9 : middle]) + content[middle:],
        "empty": b"",
    }
    file.write_bytes(changed[damage])
    with pytest.raises(CheckpointError) as error:
        read_source(target / name.split("/")[0])
    assert "\n" not in str(error.value)
    assert name.rpartition("/")[2] in str(error.value)


def test_files_of_two_models_are_no_model(finished: Path, tmp_path: Path) -> None:
    assert run(finished, "export", "../pre/best.ckpt", "--format", "package", "--out", str(tmp_path / "other")) == 0
    text = (finished / "model/config.json").read_text()
    (tmp_path / "other/config.json").write_text(text)
    with pytest.raises(CheckpointError, match="not of one model"):
        read_source(tmp_path / "other")
    (tmp_path / "other/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        read_source(tmp_path / "other")


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = {"model": {}, "config": {"format": "cerebro-package", "extra": Hostile(f"touch {mark}")}}
    torch.save(content, tmp_path / "mine_best.pt")
    for read in (read_source, read_package, read_trained):
        with pytest.raises(CheckpointError, match="could run code"):
            read(tmp_path / "mine_best.pt")
    assert not mark.exists()


def test_export_never_writes_over_what_is_no_package(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("dear diary")
    (tmp_path / "other.pt").write_text("no model")
    for out in ("notes", "other.pt"):
        assert run(tmp_path, "export", str(finished / "best.ckpt"), "--format", "package", "--out", out) == 2
        assert "is no packaged model" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["diary.txt"]


def test_an_export_takes_what_only_the_run_knew_from_the_package_beside_it(finished: Path, tmp_path: Path) -> None:
    assert run(finished, "export", "best.ckpt", "--format", "package", "--out", str(tmp_path / "copy")) == 0
    assert read_folder(tmp_path / "copy").config == read_folder(finished / "model").config
