import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from cerebro.errors import ConfigError, DataError
from cerebro.training.checkpoint import read_checkpoint
from cerebro.training.embedding import Embedded, embed
from cerebro.training.evaluate import Evaluation
from cerebro.training.keep import Keeper
from cerebro.training.keys import ProbeKeys, RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.prober import Prober, holds_classes
from cerebro.training.run import fit
from cerebro.training.stamp import config_hash
from cerebro.training.tracking import MLflowKeys

TARGETS = ("age", "y", "sex", "participant")


class SameTargets(toy.ToyData):
    """The label ``y`` is a trait of people here, a function of their age, so that it has a confound baseline."""

    def participant_values(self, names: Any) -> dict[str, np.ndarray]:
        found = super().participant_values(names)
        if "y" in names:
            found["y"] = np.arange(10, dtype=np.float32) ** 2 % 7 * 2
        return found


def build(signal: Any) -> Phase:
    return Phase("toy", signal, toy.ToyEncoder, toy.ToyObjective, Optim(lr=1e-2, warmup_epochs=0.5))


def train(
    out: Path,
    probe: ProbeKeys = ProbeKeys(),  # noqa: B008  frozen
    lines: list[str] | None = None,
    data: toy.ToyData | None = None,
    **keys: Any,
) -> dict[str, Any]:
    return fit(
        build,
        data or toy.ToyData(4),
        TrainerKeys(3, accelerator="cpu"),
        RunKeys(out, probe=probe, mlflow=MLflowKeys(enabled=False), checkpoint_every_steps=1, **keys),
        {"model": {"name": "toy"}, "data": {}, "trainer": {}},
        None,
        (lines if lines is not None else []).append,
    )


def history(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "run"
    train(out, ProbeKeys(TARGETS))
    return out


def test_training_is_the_same_to_the_bit_with_and_without_probes(whole: Path, tmp_path: Path) -> None:
    plain = train(tmp_path)
    probed = json.loads((whole / "run.json").read_text())
    for key in ("weights_sha256", "last_weights_sha256", "best"):
        assert plain[key] == probed[key]
    rest = [{key: value for key, value in row.items() if not key.startswith("probe/")} for row in history(whole)]
    assert history(tmp_path) == rest
    ours, theirs = (read_checkpoint(folder / "last.ckpt").content["callbacks"] for folder in (tmp_path, whole))
    assert torch.equal(ours["Keeper"]["random"]["torch"], theirs["Keeper"]["random"]["torch"])


def test_every_epoch_has_its_rows(whole: Path) -> None:
    for row in history(whole):
        found = {key.removeprefix("probe/") for key in row if key.startswith("probe/")}
        assert found == {"nrmse_age", "nrmse_y", "balanced_accuracy_sex", "participant", "participant_chance"}
        assert row["probe/participant_chance"] == 0.5


def test_what_is_in_the_windows_is_found_in_their_embeddings(whole: Path) -> None:
    assert history(whole)[-1]["probe/nrmse_y"] < 0.9


@pytest.mark.parametrize("n_saves", [3, 4, 9, 10, 14])
def test_a_resumed_run_with_probes_is_bit_identical(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_saves: int
) -> None:
    class Killed(BaseException):
        pass

    original, count = Keeper._save, [0]

    def save(self: Keeper, trainer: Any, name: str) -> None:
        original(self, trainer, name)
        count[0] += 1
        if count[0] == n_saves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_save", save)
        with pytest.raises(Killed):
            train(tmp_path, ProbeKeys(TARGETS))
    train(tmp_path, ProbeKeys(TARGETS))
    assert history(tmp_path) == history(whole)
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path, whole))
    assert ours["last_weights_sha256"] == theirs["last_weights_sha256"]


def test_probes_come_every_so_many_epochs_and_say_once_what_they_are(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path, ProbeKeys(("y",), every_epochs=2), lines)
    assert ["probe/nrmse_y" in row for row in history(tmp_path)] == [False, True, False]
    train(tmp_path / "each", ProbeKeys(("y",)), lines)
    assert sum(line.startswith("probe of y: nrmse by window, fitted to") for line in lines) == 2


def test_a_target_that_nobody_has_is_left_out_with_a_line(tmp_path: Path) -> None:
    lines: list[str] = []
    train(tmp_path, ProbeKeys(("blank", "y")), lines)
    assert [line for line in lines if "blank" in line] == [
        "probe of blank left out: no training window has a label 'blank'"
    ]
    assert all("probe/nrmse_y" in row for row in history(tmp_path))


def test_wrong_keys_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"probe target 'iq' is neither .* \(y, sex\)"):
        train(tmp_path, ProbeKeys(("iq",)))
    nobody = toy.ToyData(4)
    nobody.people["val"] = []
    with pytest.raises(ConfigError, match="val_ratio"):
        train(tmp_path, ProbeKeys(("y",)), data=nobody)
    with pytest.raises(ConfigError, match=r"probe\.every_epochs=0"):
        ProbeKeys(("y",), every_epochs=0)
    with pytest.raises(ConfigError, match="twice"):
        ProbeKeys(("y", "y"))
    assert not (tmp_path / "last.ckpt").exists()


def test_a_run_without_probes_has_the_hash_that_it_had_before_there_were_any() -> None:
    config: dict[str, Any] = {"model": {"init": []}, "data": {}}
    assert config_hash(config) == config_hash(config | {"probe": {"targets": [], "max_windows": 512}})
    assert config_hash(config) != config_hash(config | {"probe": {"targets": ["age"]}})


def test_an_embedding_is_the_mean_token_and_the_pass_leaves_the_encoder_as_it_was() -> None:
    encoder = toy.ToyEncoder(toy.SIGNAL).train()
    encoder.block.eval()  # a frozen part
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    loader = toy.ToyData().evaluation_loader("train", 16)
    state = torch.get_rng_state()
    found = embed(encoder, loader, "32-true", "test")
    assert torch.equal(state, torch.get_rng_state())
    assert encoder.training
    assert not encoder.block.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():
        expected = torch.cat([encoder.eval()(raw.to_microvolts()).mean(dim=(1, 2)) for raw in loader])
    np.testing.assert_allclose(found.feature, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.isnan(found.targets["y"][::7]).all()  # labels that are not known
    assert len(found) == 16


def test_padding_does_not_enter_an_embedding() -> None:
    encoder = toy.ToyEncoder(toy.SIGNAL)
    (raw,) = toy.ToyData().evaluation_loader("train", 8)
    whole = embed(encoder, [raw], "32-true", "test")
    raw.channel[:, 2] = -1
    raw.n_valid[:] = 10
    raw.is_padded = True
    raw.counts[:, 10:] = 30000
    raw.counts[:, :, 2] = 30000
    cut = embed(encoder, [raw], "32-true", "test")
    with torch.no_grad():
        alone = encoder.eval()(raw.to_microvolts())[:, :2, :1].mean(dim=(1, 2))
    np.testing.assert_allclose(cut.feature, alone.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(whole.feature, cut.feature)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    encoder = toy.ToyEncoder(toy.SIGNAL)
    torch.nn.init.constant_(encoder.block.bias, float("nan"))
    with pytest.raises(DataError, match="embeddings of 8 of 8 windows are not finite"):
        embed(encoder, toy.ToyData().evaluation_loader("train", 8), "32-true", "test")


def planted(seed: int) -> tuple[toy.ToyData, Embedded, Embedded]:
    """Embeddings that hold the age of the person and nothing else."""
    data, draw = toy.ToyData(), np.random.default_rng(seed)
    age = data.participant_values(("age",))["age"]
    sides = []
    for people in (np.array([0, 1, 3, 4, 5]), np.array([6, 7, 8, 9])):
        who = np.repeat(people, 12)
        feature = draw.normal(size=(len(who), 3)).astype(np.float32)
        feature[:, 0] += 3 * age[who]
        sides.append(Embedded(feature, np.arange(len(who)), who, who, {}))
    return data, *sides


def test_the_mean_over_a_participants_windows_is_probed_beside_the_windows() -> None:
    data, *sides = planted(0)
    prober = Prober(data, *sides)
    by_window, by_participant = prober.by_row("age"), prober.by_participant("age")
    assert by_participant is not None
    assert (by_window.n_scored, by_participant.n_scored) == (48, 4)
    assert max(by_participant.value, by_window.value) < 0.5 < by_window.constant
    for score in (by_window, by_participant):
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert score.n_participants_fitted == 5
    assert prober.by_participant("participant") is None


def test_the_same_seed_gives_the_same_numbers() -> None:
    data, *sides = planted(0)
    first, again = (Prober(data, *sides, seed=3).by_row("age").plain() for _ in range(2))
    assert first == again
    assert Prober(data, *sides, seed=4).by_row("age").plain()["ci95"] != first["ci95"]


@pytest.mark.parametrize(
    ("target", "values", "is_class"),
    [
        ("sex", [0.0], True),
        ("age", [0.0, 1.0, 2.0], False),
        ("state", [0.0, 1.0], True),
        ("grade", [3.0, 4.0, 5.0], False),
        ("grade", [0.0, 0.5, 1.0], False),
        ("grade", list(map(float, range(11))), False),
    ],
)
def test_classes_are_told_from_numbers_by_a_stated_rule(target: str, values: list[float], is_class: bool) -> None:
    assert holds_classes(target, np.array(values)) is is_class


# ------------------------------------------------------------------------------------------------ confound baseline


def test_the_confound_baseline_stands_once_beside_the_score_and_in_the_record(tmp_path: Path) -> None:
    lines: list[str] = []
    record = train(tmp_path, lines=lines, data=SameTargets(4))
    rows = history(tmp_path)
    assert ["confound/nrmse_y" in row for row in rows] == [True, False, False]
    assert record["confound"] == {"nrmse_y": rows[0]["confound/nrmse_y"]}
    said = [line for line in lines if "from age alone" in line]
    assert len(said) == 1
    assert said[0].endswith("(fitted to 6 participants, age missing for 1)")


def test_labels_of_windows_have_no_confound_baseline(tmp_path: Path) -> None:
    record = train(tmp_path)
    assert record["confound"] == {}


def test_a_baseline_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("cerebro.training.confounds.COVARIATES", ("blank",))
    assert train(tmp_path, lines=lines, data=SameTargets(4))["confound"] == {}
    assert "y: no confound baseline: of no training participant with a label is blank known" in lines


def test_a_validation_without_any_known_label_is_said_and_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    batch = toy.ToyLoader.batch

    def unknown(self: toy.ToyLoader, epoch: int, step: int) -> Any:
        made = batch(self, epoch, step)
        if not self.is_training:
            made.known["y"] = torch.zeros_like(made.known["y"])
        return made

    monkeypatch.setattr(toy.ToyLoader, "batch", unknown)
    train(tmp_path, lines=lines)
    assert lines.count("y: no validation window has a known label, so it has no score in this run") == 1
    assert all(row["val/nrmse_y"] is None for row in history(tmp_path))


def test_unscored_names_the_targets_without_a_label() -> None:
    arrays = {
        "participant": np.zeros(3, np.int64),
        "target/a": np.full(3, np.nan),
        "known/a": np.zeros(3, bool),
        "prediction/a": np.zeros(3),
        "target/b": np.arange(3.0),
        "known/b": np.ones(3, bool),
        "prediction/b": np.zeros(3),
    }
    assert Evaluation({}, arrays).unscored() == ["a"]
