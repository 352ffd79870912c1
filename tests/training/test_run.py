import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from cerebro.errors import CerebroError, CheckpointError, ConfigError
from cerebro.files import lock_folder
from cerebro.training.checkpoint import Transfer, read_checkpoint
from cerebro.training.health import NonFiniteLoss
from cerebro.training.keep import Interrupted, Keeper
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.score import Scoring, score_phase
from cerebro.training.tracking import MLflowKeys

N_BATCHES, N_EPOCHS = 4, 3


def build(signal: Any, name: str = "toy", d_model: int = 4, init: tuple[Transfer, ...] = (), **more: Any) -> Phase:
    phase = {key: more.pop(key) for key in ("freeze_encoder_epochs",) if key in more}
    return Phase(
        name,
        signal,
        partial(toy.ToyEncoder, d_model=d_model),
        partial(toy.ToyObjective, **more),
        Optim(lr=1e-2, warmup_epochs=0.5, layer_decay=0.5),
        init,
        **phase,
    )


def train(
    out: Path, lines: list[str] | None = None, ckpt_path: Path | None = None, every: int = 1, **more: Any
) -> dict[str, Any]:
    keys = {
        name: more.pop(name)
        for name in ("overwrite", "patience", "monitor", "monitor_mode", "seed", "run_name", "resume")
        if name in more
    }
    keys["allow_seen_participants"] = more.pop("allow_seen", False)
    trainer = TrainerKeys(more.pop("max_epochs", N_EPOCHS), more.pop("accumulate", 1), accelerator="cpu")
    data = toy.ToyData(N_BATCHES, shift=more.pop("shift", 0))
    data.people |= more.pop("people", {})
    config = {"model": {"name": more.get("name", "toy")}, "data": {}, "trainer": repr(trainer), "extra": repr(more)}
    return fit(
        partial(build, **more),
        data,
        trainer,
        RunKeys(out, mlflow=MLflowKeys(enabled=False), checkpoint_every_steps=every, **keys),
        config,
        ckpt_path,
        (lines if lines is not None else []).append,
    )


def history(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class Killed(BaseException):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, n_saves: int) -> None:
    """Raise behind the ``n``-th checkpoint that a run writes, as a kill between two instructions would."""
    original, count = Keeper._save, [0]

    def save(self: Keeper, trainer: Any, name: str) -> None:
        original(self, trainer, name)
        count[0] += 1
        if count[0] == n_saves:
            raise Killed

    monkeypatch.setattr(Keeper, "_save", save)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(out)
    return out


def test_a_phase_leaves_every_file_of_its_contract(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "config.yaml",
        "best.ckpt",
        "last.ckpt",
        "history.jsonl",
        "showcase.npz",
        "predictions_val.npz",
        "run.json",
    }
    record = json.loads((whole / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["participants"]["val"] == ["toy:06", "toy:07"]
    assert record["weights_sha256"] == read_checkpoint(whole / "best.ckpt").stamp.weights_sha256
    assert record["best"]["value"] == min(row["val/loss"] for row in history(whole))
    with np.load(whole / "predictions_val.npz") as found:
        assert set(found["participant"]) == {"toy:06", "toy:07"}
        assert {"sample", "recording", "target/y", "prediction/y", "known/y"} <= set(found)
    with np.load(whole / "showcase.npz") as found:
        assert list(found["channel_names"]) == ["A", "B", "C"]
        assert found["positions"].shape == (3, 3)


def test_training_lowers_the_loss_below_the_constant(whole: Path) -> None:
    assert history(whole)[-1]["val/nrmse_y"] < 1


@pytest.mark.parametrize("n_saves", range(1, 16))  # every step, and both files of every epoch's end
def test_a_run_resumed_at_any_step_is_bit_identical(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, n_saves)
        with pytest.raises(Killed):
            train(tmp_path)
    torch.manual_seed(99)  # another process starts elsewhere
    np.random.seed(99)  # noqa: NPY002
    train(tmp_path)
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path, whole))
    for key in ("weights_sha256", "last_weights_sha256", "best"):
        assert ours[key] == theirs[key]
    assert history(tmp_path) == history(whole)
    with np.load(tmp_path / "predictions_val.npz") as ours, np.load(whole / "predictions_val.npz") as theirs:
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert read_checkpoint(tmp_path / "last.ckpt").weights["objective.n_starts"] == 1  # start() is never repeated


def test_accumulated_gradients_are_never_split_by_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = train(tmp_path / "whole", accumulate=3)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            train(tmp_path / "killed", accumulate=3)
    assert train(tmp_path / "killed", accumulate=3)["last_weights_sha256"] == reference["last_weights_sha256"]


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before, lines = (whole / "best.ckpt").stat().st_mtime_ns, []
    train(whole, lines)
    assert (whole / "best.ckpt").stat().st_mtime_ns == before
    assert "nothing to do" in lines[-1]


def test_another_config_is_refused_in_the_same_folder_unless_overwritten(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=1)
    with pytest.raises(ConfigError, match=r"another config.*--overwrite true"):
        train(tmp_path, max_epochs=2)
    assert len(history(tmp_path)) == 1
    train(tmp_path, max_epochs=2, overwrite=True)
    assert len(history(tmp_path)) == 2


def test_orphans_of_killed_saves_are_removed_at_start(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.123.part").write_bytes(b"half")
    lines: list[str] = []
    train(tmp_path, lines, max_epochs=1)
    assert not list(tmp_path.glob(".*.part"))
    assert any("removed 1 half-written" in line for line in lines)


def test_early_stopping_ends_a_run_and_stays_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "_is_best", lambda self, row: row["epoch"] == 0)
    train(tmp_path, max_epochs=9, patience=2)
    assert len(history(tmp_path)) == 3
    (tmp_path / "run.json").unlink()
    train(tmp_path, max_epochs=9, patience=2)
    assert len(history(tmp_path)) == 3


def test_patience_waits_until_the_encoder_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "_is_best", lambda self, row: row["epoch"] == 0)
    train(tmp_path, max_epochs=9, patience=2, freeze_encoder_epochs=4)
    assert len(history(tmp_path)) == 4 + 2  # two epochs of the whole model had their chance


def test_no_global_random_state_leaks_out_of_a_run(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(tmp_path, max_epochs=1)
    assert torch.rand(1) == expected


def test_another_phase_takes_the_encoder_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    record = train(tmp_path, lines, ckpt_path=whole / "best.ckpt", name="other", max_epochs=1, freeze_encoder_epochs=9)
    source, ours = read_checkpoint(whole / "best.ckpt"), read_checkpoint(tmp_path / "best.ckpt")
    for name, value in source.weights.items():
        if name.startswith("encoder."):
            assert torch.equal(ours.weights[name], value)
    assert ours.stamp.config_hash != source.stamp.config_hash
    assert ours.weights["objective.n_starts"] == 1
    assert record["warm_start"] == [str(whole / "best.ckpt")]
    assert len(record["transfers"][0]["moved"]) == sum(name.startswith("encoder.") for name in source.weights)
    assert "objective.readout" in lines[1]  # unused
    assert any(line.startswith("new in this phase: 5 tensors") for line in lines)


def test_the_same_phase_in_a_checkpoint_resumes_its_training(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, ckpt_path=whole / "last.ckpt", max_epochs=5)
    assert [row["epoch"] for row in history(tmp_path)] == [0, 1, 2, 3, 4]
    assert history(tmp_path)[:3] == history(whole)


def test_a_checkpoint_of_another_encoder_shape_is_refused_whole(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"tensors of another shape \(first: .* is \(.*expected.*nothing was loaded"
    ):
        train(tmp_path, ckpt_path=whole / "best.ckpt", name="other", d_model=6)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_run_resumed_in_another_folder_takes_its_best_epoch_along(tmp_path: Path) -> None:
    worst_first = {"monitor_mode": "max"}  # so that the first epoch is the best
    before = train(tmp_path / "a", max_epochs=2, **worst_first)
    after = train(tmp_path / "b", ckpt_path=tmp_path / "a" / "last.ckpt", max_epochs=4, **worst_first)
    assert before["best"]["epoch"] == after["best"]["epoch"] == 0
    assert after["weights_sha256"] == before["weights_sha256"] != after["last_weights_sha256"]

    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "last.ckpt").write_bytes((tmp_path / "a" / "last.ckpt").read_bytes())
    lines: list[str] = []
    alone = train(tmp_path / "d", lines, ckpt_path=tmp_path / "c" / "last.ckpt", max_epochs=4, **worst_first)
    assert alone["best"]["epoch"] == 2
    assert any("epoch 1, the best so far, is not in" in line for line in lines)


def test_more_patience_goes_on_with_a_run_that_was_stopped(tmp_path: Path) -> None:
    train(tmp_path / "a", max_epochs=9, patience=2, monitor_mode="max")
    assert len(history(tmp_path / "a")) == 3
    train(tmp_path / "b", ckpt_path=tmp_path / "a" / "last.ckpt", max_epochs=9, patience=4, monitor_mode="max")
    assert len(history(tmp_path / "b")) == 5


def test_a_killed_hand_over_resumes_from_its_own_checkpoint_and_keeps_its_source(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            train(tmp_path, ckpt_path=whole / "best.ckpt", name="other")
    record = train(tmp_path, ckpt_path=tmp_path / "last.ckpt", name="other")
    assert record["warm_start"] == [str(whole / "best.ckpt")]


def test_a_resumed_run_remembers_the_people_of_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "a", max_epochs=1)
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            train(tmp_path / "b", ckpt_path=tmp_path / "a" / "last.ckpt", shift=2, allow_seen=True)
    train(tmp_path / "b", shift=2, allow_seen=True)
    stamp = read_checkpoint(tmp_path / "b" / "last.ckpt").stamp
    assert stamp.trained == [f"toy:{number:02}" for number in range(8)]
    assert stamp.recordings["trained"] == [f"{number:016x}" for number in range(8)]
    assert {"toy:06", "toy:07", "toy:08", "toy:09"} <= set(stamp.seen)


def test_validating_on_people_that_a_source_was_trained_on_is_refused(whole: Path, tmp_path: Path) -> None:
    people = {"train": [0, 1, 2, 3], "val": [4, 5]}
    with pytest.raises(CheckpointError, match=r"2 validation participants were seen.*toy:04, toy:05"):
        train(tmp_path, ckpt_path=whole / "best.ckpt", name="other", people=people)
    assert not (tmp_path / "last.ckpt").exists()


def test_participants_travel_along_the_chain_and_refuse_an_evaluation(whole: Path, tmp_path: Path) -> None:
    source = whole / "best.ckpt"
    with pytest.raises(
        CheckpointError, match=r"2 test participants were seen.*toy:00, toy:01.*--allow_seen_participants"
    ):
        train(tmp_path / "a", ckpt_path=source, name="other", shift=2)
    train(tmp_path / "b", ckpt_path=source, name="other", shift=1, max_epochs=1, allow_seen=True)
    stamp = read_checkpoint(tmp_path / "b" / "best.ckpt").stamp
    assert stamp.trained == [f"toy:{number:02}" for number in range(7)]
    assert stamp.seen == [f"toy:{number:02}" for number in range(9)]
    assert stamp.recordings["trained"] == [f"{number:016x}" for number in range(7)]
    assert stamp.recordings["validated"] == [f"{number:016x}" for number in range(6, 9)]
    scoring = Scoring(tmp_path / "b", 0, TrainerKeys(accelerator="cpu"), allow_seen_participants=False)
    for stage, shift in (("test", 1), ("val", 0)):
        with pytest.raises(CheckpointError, match="were seen"):
            score_phase(stage, build, toy.ToyData(shift=shift), tmp_path / "b" / "best.ckpt", scoring)


def test_people_under_other_names_are_known_by_the_bytes_of_their_recordings(whole: Path, tmp_path: Path) -> None:
    class Renamed(toy.ToyData):
        def participants(self, stage: str) -> tuple[str, ...]:
            return tuple(f"other:{number:02}" for number in self.people[stage])

        participant_keys = toy.ToyData.participant_keys

    scoring = Scoring(tmp_path, 0, TrainerKeys(accelerator="cpu"), allow_seen_participants=False)
    message = r"2 recordings of test participants have the same bytes as some seen while .* \(first: recording 0, "
    with pytest.raises(CheckpointError, match=message):
        score_phase("test", build, Renamed(shift=2), whole / "best.ckpt", scoring)
    score_phase("test", build, Renamed(), whole / "best.ckpt", scoring)  # 8 and 9, seen by nobody
    score_phase("val", build, Renamed(), whole / "best.ckpt", scoring)  # validated, not trained on


def test_scoring_seen_people_when_asked_to_says_so_loudly(whole: Path, tmp_path: Path) -> None:
    scoring = Scoring(tmp_path, 0, TrainerKeys(accelerator="cpu"), allow_seen_participants=True)
    lines = score_phase("test", build, toy.ToyData(shift=2), whole / "best.ckpt", scoring)
    assert lines[0].startswith("WARNING: 2 test participants were seen while ")
    assert "does not say how it does on new people" in lines[0]
    clean = score_phase("test", build, toy.ToyData(), whole / "best.ckpt", scoring)
    assert not any("WARNING" in line for line in clean)


def test_scores_stand_beside_the_constant_predictor(whole: Path, tmp_path: Path) -> None:
    scoring = Scoring(tmp_path, 0, TrainerKeys(accelerator="cpu"), allow_seen_participants=False)
    (tmp_path / ".predictions_test.npz.7.part").write_bytes(b"half")  # of a test that was killed
    with lock_folder(tmp_path, "cerebro fit"), pytest.raises(CerebroError, match=r"being written.*cerebro fit"):
        score_phase("test", build, toy.ToyData(), whole / "best.ckpt", scoring)
    lines = score_phase("test", build, toy.ToyData(), whole / "best.ckpt", scoring)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions_test.npz"]
    assert lines[0].startswith("y: nrmse ")
    assert "constant predictor 1.0000" in lines[0]
    assert "constant predictor 0.5000" in lines[1]
    with np.load(tmp_path / "predictions_test.npz") as found:
        assert set(found["participant"]) == {"toy:08", "toy:09"}


def test_a_side_without_a_window_is_refused(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.ToyData, "test_dataloader", lambda self: toy.ToyLoader([8], 0, 8, False))
    scoring = Scoring(tmp_path, 0, TrainerKeys(accelerator="cpu"), allow_seen_participants=False)
    with pytest.raises(CerebroError, match="there is no window to test: nobody of that side has one"):
        score_phase("test", build, toy.ToyData(), whole / "best.ckpt", scoring)


@pytest.mark.parametrize("epochs", [1, 9])
def test_a_frozen_encoder_does_not_change_at_all(whole: Path, tmp_path: Path, epochs: int) -> None:
    record = train(tmp_path, ckpt_path=whole / "best.ckpt", name="other", freeze_encoder_epochs=epochs)
    receipt = record["freeze"]
    assert receipt["unchanged"] is True
    assert receipt["sha256_before"] == receipt["sha256_after"]
    assert receipt["frozen_parameters"] == 76 + 0 * epochs
    last, source = read_checkpoint(tmp_path / "last.ckpt"), read_checkpoint(whole / "best.ckpt")
    is_same = torch.equal(last.weights["encoder.patch.weight"], source.weights["encoder.patch.weight"])
    assert is_same == (epochs >= N_EPOCHS)
    is_same = torch.equal(
        last.weights["encoder.statistics.running_mean"], source.weights["encoder.statistics.running_mean"]
    )
    assert is_same == (epochs >= N_EPOCHS)


@pytest.mark.parametrize("n_saves", [2, 4, 5, 6, 8])
def test_a_run_resumed_around_the_end_of_freezing_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    reference = train(tmp_path / "whole", freeze_encoder_epochs=1, max_epochs=2)
    with monkeypatch.context() as patch:
        kill_after(patch, n_saves)
        with pytest.raises(Killed):
            train(tmp_path / "killed", freeze_encoder_epochs=1, max_epochs=2)
    record = train(tmp_path / "killed", freeze_encoder_epochs=1, max_epochs=2)
    assert record["last_weights_sha256"] == reference["last_weights_sha256"]
    assert record["freeze"] == reference["freeze"]


def test_an_objective_that_writes_into_the_frozen_encoder_is_caught(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="frozen encoder changed"):
        train(tmp_path, freeze_encoder_epochs=1, writes_encoder=True)


def test_freezing_random_weights_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path, lines, freeze_encoder_epochs=1, max_epochs=1)
    assert any("frozen at random weights" in line for line in lines)


def test_a_loss_that_is_not_finite_stops_at_once_and_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"loss became nan in epoch 1 at step 5; .*nonfinite.json.*model.optim.lr"):
        train(tmp_path, bad_step=5)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found["sample"] == list(range(1008, 1016))
    for name in ("best.ckpt", "last.ckpt"):
        assert all(torch.isfinite(value).all() for value in read_checkpoint(tmp_path / name).weights.values())
    assert not (tmp_path / "run.json").exists()


def test_a_signal_saves_the_state_and_the_run_goes_on_identically(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    original, seen = Keeper.on_train_batch_end, [0]

    def on_train_batch_end(self: Keeper, *arguments: Any) -> None:
        seen[0] += 1
        if seen[0] == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(Interrupted) as caught:
            train(tmp_path, every=0)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_checkpoint(tmp_path / "last.ckpt").content["global_step"] == 6
    record = train(tmp_path, every=0)
    assert record["last_weights_sha256"] == json.loads((whole / "run.json").read_text())["last_weights_sha256"]


@pytest.mark.parametrize("n_saves", [0, 2, 3, 4, 6])
def test_of_epochs_with_equal_scores_the_one_with_the_lowest_loss_is_the_best_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    keys = {"monitor": "val/f1", "monitor_mode": "max", "max_epochs": 5, "every": 0}
    toy.validation_gives(monkeypatch, [0.5, 0.5, 0.5, 0.4, 0.5], [1.0, 0.8, 0.9, 0.1, 0.8])
    if n_saves:
        with monkeypatch.context() as patch:
            kill_after(patch, n_saves)
            with pytest.raises(Killed):
                train(tmp_path, **keys)
    best = train(tmp_path, **keys)["best"]
    assert best == {"metric": "val/f1", "value": 0.5, "epoch": 1}
    assert read_checkpoint(tmp_path / "best.ckpt").content["epoch"] == 1


def test_a_tie_is_no_gain_where_the_loss_is_the_monitor_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.validation_gives(monkeypatch, [0.5, 0.5, 0.5], [1.0, None, 1.0])
    assert train(tmp_path / "loss", max_epochs=3)["best"]["epoch"] == 0
    assert train(tmp_path / "f1", max_epochs=3, monitor="val/f1", monitor_mode="max")["best"]["epoch"] == 0
    toy.validation_gives(monkeypatch, [None, 0.5, 0.5], [0.1, None, 1.0])
    assert train(tmp_path / "late", max_epochs=3, monitor="val/f1", monitor_mode="max")["best"]["epoch"] == 2


def test_an_unknown_monitor_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"val/lose is not measured.*val/loss, .*val/nrmse_y"):
        train(tmp_path, monitor="val/lose")


def test_a_resumed_run_prepares_fixed_windows_as_the_first_process_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, int, int, float]] = []

    def prepare(self: toy.ToyObjective, encoder: Any, windows: Any) -> list[str]:
        samples = torch.cat([batch.sample for batch in windows.batches])
        asked.append((windows.n_windows, windows.n_visits, len(samples), float(self.centre)))
        return ["prepared"]

    monkeypatch.setattr(toy.ToyObjective, "prepare", prepare)
    train(tmp_path / "random crops")
    assert asked == []
    monkeypatch.setattr(toy, "HAS_FIXED_WINDOWS", True)
    lines: list[str] = []
    with monkeypatch.context() as killing:
        kill_after(killing, 5)
        with pytest.raises(Killed):
            train(tmp_path / "fixed", lines)
    train(tmp_path / "fixed", lines)
    assert lines.count("prepared") == 2
    assert asked[0] == asked[1]  # the start's result stands in the weights before it is prepared again
    assert asked[0][:2] == (N_BATCHES * 8, N_EPOCHS * N_BATCHES * 8)
    assert asked[0][3] != 0


def test_best_and_last_stand_under_the_name_of_the_run_too(tmp_path: Path) -> None:
    train(tmp_path, run_name="toy_d4_m20")
    for name in ("best.ckpt", "last.ckpt"):
        assert (tmp_path / f"toy_d4_m20_{name}").samefile(tmp_path / name)


def test_resume_goes_on_with_a_run_and_is_refused_where_there_is_none(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"--resume: .* holds no run to go on with"):
        train(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    with monkeypatch.context() as patch:
        kill_after(patch, 5)
        with pytest.raises(Killed):
            train(tmp_path / "run")
    train(tmp_path / "run", resume=True)
    assert history(tmp_path / "run") == history(whole)
    with pytest.raises(ConfigError, match="give one of the two"):
        train(tmp_path / "run", resume=True, overwrite=True)
