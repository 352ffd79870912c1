"""A pass over windows by a phase whose predictions are written beside its windows, so that every score is known."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.objectives.base import Loss, Objective
from cerebro.signal import EEGBatch, RawBatch, SignalSpec
from cerebro.training.evaluate import Evaluation, evaluate
from cerebro.training.keep import describe_row
from cerebro.training.phase import Phase

KEYS = tuple(f"toy:{number:02}" for number in range(10))
N_PEOPLE, N_ROWS, N_WINDOWS = 8, 3, 4


class Known(Objective):
    """Says ``chance`` of the row, and ``chance`` moved by each window's number of which the last rows' are not real."""

    has_windows = True

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        return Loss(encoder.patch.weight.sum() * 0)

    def predict(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Mapping[str, Tensor]:
        return {"sex": two(chance_of(batch.sample))}

    def predict_windows(
        self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        if not self.has_windows:
            return {}
        number = torch.arange(N_WINDOWS)
        each = (chance_of(batch.sample)[:, None] + 0.01 * number).clamp(0, 1)  # (B, N)
        return {"sex": (two(each), number < 1 + batch.sample[:, None] % N_WINDOWS)}


def two(chance: Tensor) -> Tensor:
    return torch.stack([1 - chance, chance], dim=-1)


def chance_of(sample: Tensor) -> Tensor:
    return (sample * 37 % 100).float() / 100


def label_of(who: np.ndarray) -> np.ndarray:
    return (who % 2).astype(np.float32)


class Rows:
    """Batches of ``N_ROWS`` rows of each participant, two recordings each; labels by person or by recording."""

    def __init__(self, by_recording: bool = False, n_known: int = N_PEOPLE) -> None:
        self.by_recording, self.n_known = by_recording, n_known

    def __len__(self) -> int:
        return N_ROWS

    def __iter__(self) -> Iterator[RawBatch]:
        who = np.arange(N_PEOPLE)
        for row in range(N_ROWS):
            sample, recording = who * N_ROWS + row, 2 * who + row % 2
            label = label_of(recording if self.by_recording else who)
            yield RawBatch(
                counts=torch.zeros(N_PEOPLE, 20, 3, dtype=torch.int16),
                microvolts_per_count=torch.ones(N_PEOPLE),
                channel=torch.arange(3).expand(N_PEOPLE, 3).contiguous(),
                n_valid=torch.full((N_PEOPLE,), 20),
                key=torch.from_numpy(sample),
                sample=torch.from_numpy(sample),
                recording=torch.from_numpy(recording),
                participant=torch.from_numpy(who),
                pair=torch.full((N_PEOPLE,), -1),
                targets={"sex": torch.from_numpy(label)},
                known={"sex": torch.from_numpy(who < self.n_known)},
                is_padded=False,
            )


def evaluated(rows: Rows, objective: type[Objective] = Known) -> Evaluation:
    signal: SignalSpec = toy.SIGNAL
    return evaluate(Phase("toy", signal, toy.ToyEncoder, objective), rows, "32-true")


class WithoutWindows(Known):
    has_windows = False


def test_a_classification_is_scored_by_participant() -> None:
    rows = evaluated(Rows(), WithoutWindows).rows("val")
    sample = torch.arange(N_PEOPLE * N_ROWS)
    mean = chance_of(sample).numpy().reshape(N_PEOPLE, N_ROWS).mean(axis=1)
    label = label_of(np.arange(N_PEOPLE))
    assert rows["val/participant_auc_sex"] == pytest.approx(roc_auc_score(label, mean))
    assert rows["val/participant_f1_sex"] == pytest.approx(f1_score(label, mean > 0.5))
    names = {"auc", "balanced_accuracy", "f1", "precision", "recall", "accuracy"}
    assert {key for key in rows if key.startswith("val/participant")} == {f"val/participant_{n}_sex" for n in names}
    assert "val/balanced_accuracy_sex" in rows, "the score by row stays"
    assert not [key for key in rows if key.startswith("val/window")], "nothing was predicted for single windows"


def test_single_windows_are_scored_where_they_are_predicted() -> None:
    found = evaluated(Rows())
    arrays = found.arrays
    sample = torch.arange(N_PEOPLE * N_ROWS)
    n_real = 1 + sample.numpy() % N_WINDOWS
    assert len(arrays["window/prediction/sex"]) == n_real.sum(), "padding is no window"
    person, number = arrays["window/participant/sex"], arrays["window/number/sex"]
    assert (np.bincount(person) == n_real.reshape(N_PEOPLE, N_ROWS).sum(axis=1)).all()
    assert (arrays["window/recording/sex"] // 2 == person).all()
    assert (arrays["window/target/sex"] == label_of(person)).all()
    assert sorted(number.tolist()) == sorted(n for real in n_real for n in range(real))
    expected = roc_auc_score(arrays["window/target/sex"], arrays["window/prediction/sex"][:, 1])
    assert found.rows("val")["val/window_auc_sex"] == pytest.approx(expected)


def test_labels_of_recordings_are_scored_by_recording_and_not_by_participant() -> None:
    rows = evaluated(Rows(by_recording=True), WithoutWindows).rows("val")
    assert "val/recording_auc_sex" in rows
    assert not [key for key in rows if key.startswith("val/participant")]


def test_a_score_of_one_class_is_missing_in_the_history() -> None:
    rows = evaluated(Rows(n_known=1)).rows("val")
    assert math.isnan(rows["val/participant_auc_sex"])
    rows = evaluated(Rows(n_known=0)).rows("val")
    assert math.isnan(rows["val/participant_f1_sex"]), "it is named, so that it can be monitored"
    assert math.isnan(rows["val/window_f1_sex"])


def test_windows_without_a_label_take_no_part() -> None:
    (people, windows) = evaluated(Rows(n_known=5)).units()["sex"]
    assert (people.unit, len(people)) == ("participant", 5)
    assert (windows.unit, set(windows.participant.tolist())) == ("window", {"0", "1", "2", "3", "4"})


def test_predictions_name_the_participants_of_windows_too(tmp_path: Path) -> None:
    evaluated(Rows()).write(tmp_path / "predictions_test.npz", KEYS)
    with np.load(tmp_path / "predictions_test.npz") as file:
        assert set(file["participant"]) == set(KEYS[:N_PEOPLE])
        assert set(file["window/participant/sex"]) == set(KEYS[:N_PEOPLE])
        assert len(file["window/participant/sex"]) == len(file["window/prediction/sex"])


def test_the_line_of_an_epoch_shows_the_scores_of_participants() -> None:
    row: dict[str, Any] = {"epoch": 0, "seconds": 1.0, "val/participant_f1_sex": 0.75, "val/participant_auc_sex": None}
    line = describe_row("finetune", row, 5, True)
    assert "val/participant_f1_sex 0.750" in line
    assert "auc" not in line
