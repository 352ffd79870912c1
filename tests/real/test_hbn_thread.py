"""Signals simulated onto 20 real HBN recordings go all the way: store, tokenizer, Challenge 1, held-out people."""

import json
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml

import cerebro.cli.fit  # noqa: F401  Lightning logs to the stream there is when it is imported: not that of one test
from cerebro.cli.main import main
from cerebro.data.readers import HBN
from cerebro.data.store import Store
from cerebro.simulate.writers import write_set

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = {"R1": 3, "R2": 2, "R3": 2, "R5": 3}
TASKS = (("contrastChangeDetection", 1), ("ThePresent", 0))
SPLIT = ["--data.split.val_ratio", "0.3"]
SMALL = [
    *("--data.store", "store", "--data.batch_size", "8", "--data.batches_per_epoch", "2", "--data.max_eval_windows"),
    *("16", "--trainer.max_epochs", "1", "--mlflow.enabled", "false"),
]


def chosen(reader: HBN) -> list:
    """Both tasks of the first people of each release who did both, and pressed a button in the first."""
    by_person = defaultdict(dict)
    for entry in reader.scan(require_signals=False).entries:
        if (entry.task, entry.run) in TASKS:
            by_person[entry.release, entry.participant][entry.task] = entry
    entries, left = [], dict(PEOPLE)
    for (release, _), both in sorted(by_person.items()):
        names = [event.name for entry in both.values() for event in entry.events]
        has_all = len(both) == 2 and "right_buttonPress" in names and names.count("video_start") == 1
        if has_all and left[release]:
            left[release] -= 1
            entries += both.values()
    return entries


@pytest.mark.slow
def test_simulated_signals_on_real_metadata_are_prepared_trained_on_and_tested(
    hbn_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = HBN(hbn_tree)
    entries = chosen(reader)
    assert len(entries) == 20
    for entry in entries:
        n_times = round(100 * json.loads(entry.path.with_suffix(".json").read_text())["RecordingDuration"])
        rng = np.random.default_rng(zlib.crc32(entry.key.encode()))
        eeg = 20 * rng.standard_normal((129, n_times), dtype=np.float32)
        write_set(entry.path, eeg, reader.montage().channels, 100.0)

    config = yaml.safe_load((ROOT / "configs/data/hbn.yaml").read_text())
    config["reader"]["init_args"]["root"] = "hbn"
    Path("data.yaml").write_text(yaml.safe_dump(config))
    assert main(["prepare", "data.yaml", "--out", "store"]) == 0
    report = json.loads(Path("store/build_report.json").read_text())
    assert (report["read"], report["failed"]) == (20, 0)
    assert {rule["rule"]: rule["count"] for rule in report["rules"]}["signal-missing"] == 7885 - 20
    assert main(["check", "store"]) == 0
    store = Store.open(Path("store"))
    assert sorted(store.recordings["key"]) == sorted(entry.key for entry in entries)
    assert store.participants["release_number"].value_counts().to_dict() == PEOPLE

    for phase in ("tokenizer", "challenge1"):
        path = str(ROOT / "configs/demo" / f"{phase}.yaml")
        source = (
            ["--model.init", json.dumps([{"source": "outputs/tokenizer/best.ckpt"}])] if phase != "tokenizer" else []
        )
        # the tokenizer's encoder has no q/k norm; with its shape, Challenge 1 can start from it
        encoder = ["--model.encoder", str(ROOT / "configs/encoders/labram_tiny_tokenizer.yaml")]
        capsys.readouterr()
        assert main(["fit", "--config", path, *encoder, *source, *SPLIT, *SMALL]) == 0, capsys.readouterr().err
        run = json.loads(Path(f"outputs/{phase}/run.json").read_text())
        assert run["state"] == "finished"
        assert len(run["participants"]["train"]) == 5
        assert len(run["participants"]["val"]) == 2
    assert main(["test", "--config", "outputs/challenge1/config.yaml"]) == 0
    assert "3 participants" in capsys.readouterr().out
    with np.load("outputs/challenge1/predictions_test.npz") as found:
        tested = set(found["participant"].tolist())
        assert tested == {f"HBN:{entry.participant}" for entry in entries if entry.release == "R5"}
        known, truth = found["known/response_time"], found["target/response_time"]
        assert known.sum() > 20
        assert ((truth[known] > 0) & (truth[known] < 2.6)).all()
        assert np.isfinite(found["prediction/response_time"]).all()
