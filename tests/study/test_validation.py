"""A study whose final phases predict nothing ends with what validation found of them."""

import json
from pathlib import Path
from typing import Any

from cerebro.study.table import results_table
from cerebro.study.validation import validation

STUDY: dict[str, Any] = {
    "chains": [
        {"variant": variant, "seed": seed, "fold": 0, "runs": {"pretrain": f"{variant}{seed}"}}
        for variant in ("full", "mask_ratio=0.5")
        for seed in (0, 1)
    ]
}


def write_runs(folder: Path) -> None:
    for number, chain in enumerate(STUDY["chains"]):
        run = folder / chain["runs"]["pretrain"]
        run.mkdir()
        rows = [
            {"epoch": epoch, "train/loss": 9.0, "val/loss": 1.0 + number + 0.5 * (epoch != 1), "val/explained": None}
            for epoch in range(3)
        ]
        (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "run.json").write_text(json.dumps({"best": {"epoch": 1}}))


def test_figures_are_those_of_the_best_epoch_and_means_over_seeds(tmp_path: Path) -> None:
    write_runs(tmp_path)
    assert validation(STUDY, tmp_path, {"pretrain"}) == {
        "pretrain": {"full": {"val/loss": 1.5}, "mask_ratio=0.5": {"val/loss": 3.5}}
    }
    assert validation(STUDY, tmp_path, set()) == {}


def test_the_table_of_a_sweep_over_a_pretraining_has_a_row_for_each_value(tmp_path: Path) -> None:
    write_runs(tmp_path)
    cost = {"train_seconds": 61.2, "peak_memory_mb": 1024.0}
    results = {
        "name": "sweep",
        "measures": {},
        "score_targets": [],
        "variants": {"full": cost, "mask_ratio=0.5": cost},
        "validation": validation(STUDY, tmp_path, {"pretrain"}),
    }
    lines = results_table(results).splitlines()
    assert lines[0].startswith("sweep: no phase predicts a target")
    assert [line.split() for line in lines[3:6]] == [
        ["val/loss", "train", "peak"],
        ["full", "1.5000", "61", "s", "1,024", "MB"],
        ["mask_ratio=0.5", "3.5000", "61", "s", "1,024", "MB"],
    ]
