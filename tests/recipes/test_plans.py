"""The printed plan of every recipe is the stored one, with a number in place of each hash."""

import re
from pathlib import Path

import pytest

from cerebro.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
HASH = re.compile(r"(?<=-)[0-9a-f]{10}(?=/| |$)", re.MULTILINE)


def planned(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Plan of a recipe; hashes depend on code and data, so that each becomes its number of first appearance."""
    monkeypatch.chdir(ROOT)
    assert main(["run", f"recipes/{name}.yaml", "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("# the data are not")]
    numbers: dict[str, str] = {}
    return HASH.sub(lambda match: numbers.setdefault(match[0], f"<{len(numbers) + 1}>"), "\n".join(lines) + "\n")


@pytest.mark.parametrize("name", RECIPES)
def test_the_printed_plan_is_the_stored_one(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned(name, capsys, monkeypatch)
    stored = Path(__file__).with_name("plans") / f"{name}.txt"
    (tmp_path / stored.name).write_text(plan)
    assert stored.is_file(), f"store the plan of a new recipe: copy {tmp_path / stored.name} to {stored}"
    assert plan == stored.read_text(), f"if the change is meant, copy {tmp_path / stored.name} to {stored}"


@pytest.mark.parametrize(("name", "n_runs"), [("demo", 13), ("eegmat", 28)])
def test_variants_share_the_runs_that_they_have_in_common(
    name: str, n_runs: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(name, capsys, monkeypatch)
    outs = re.findall(r"^cerebro fit .* --out (\S+)$", plan, re.MULTILINE)
    assert len(outs) == len(set(outs)) == n_runs
    assert set(re.findall(r"[\w/]+-<\d+>(?=/best.ckpt)", plan)) <= set(outs)
    assert max(map(int, re.findall(r"<(\d+)>", plan))) == n_runs


def test_eegmat_leaves_out_each_of_seven_folds_in_every_phase(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("eegmat", capsys, monkeypatch)
    folds = re.findall(r"^cerebro fit --config configs/eegmat/(\w+).yaml .*--data.split.fold (\d)", plan, re.MULTILINE)
    for phase, n_variants in (("tokenizer", 1), ("pretrain", 1), ("arithmetic", 2)):
        assert sorted(fold for name, fold in folds if name == phase) == sorted("0123456" * n_variants)
