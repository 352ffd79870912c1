import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cerebro.metrics.bootstrap import ParticipantBootstrap, interval
from cerebro.metrics.participants import gather_units, resampled_scores
from cerebro.training.class_report import COLUMNS, class_lines, write_participants
from cerebro.training.evaluate import Evaluation

KEYS = tuple(f"clinic:{number:02}" for number in range(20))


def evaluation(
    label: list[float], chance: list[float], who: list[int], recording: list[int] | None = None, windows: int = 0
) -> Evaluation:
    """One row each; with ``windows`` as many windows in each row, whose chances differ by 0.1."""
    p = np.asarray(chance)
    person, run = np.asarray(who), np.asarray(recording if recording is not None else range(len(who)))
    arrays: dict[str, Any] = {
        "sample": np.arange(len(p)),
        "recording": run,
        "participant": person,
        "target/remission": np.asarray(label),
        "known/remission": ~np.isnan(label),
        "prediction/remission": np.stack([1 - p, p], axis=1),
    }
    if windows:
        moved = np.clip(p[:, None] + 0.1 * (np.arange(windows) - (windows - 1) / 2), 0, 1).reshape(-1)
        repeated = {name: np.repeat(arrays[f"{name}"], windows) for name in ("participant", "recording")}
        arrays |= {f"window/{name}/remission": values for name, values in repeated.items()}
        arrays["window/target/remission"] = np.repeat(label, windows)
        arrays["window/known/remission"] = np.repeat(~np.isnan(label), windows)
        arrays["window/prediction/remission"] = np.stack([1 - moved, moved], axis=1)
    return Evaluation({}, arrays)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture
def clinic() -> Evaluation:
    random = np.random.default_rng(4)
    who = [number for number in range(18) for _ in range(2)]
    label = [float(number < 8) for number in who]
    return evaluation(label, np.clip(random.normal(0.35 + 0.3 * np.array(label), 0.25), 0, 1).tolist(), who, windows=3)


def test_a_test_says_the_scores_of_participants_and_of_windows_with_intervals(clinic: Evaluation) -> None:
    by_participant, by_window = class_lines(clinic, KEYS)
    assert by_participant.startswith("remission by participant: AUC 0.")
    assert ", 18 participants (8 of class 1)" in by_participant
    assert ", 108 windows (48 of class 1) of 18 participants" in by_window
    for line in (by_participant, by_window):
        for name in ("AUC", "balanced accuracy", "F1", "precision", "recall", "accuracy"):
            assert re.search(rf"{name} [01]\.\d\d \[[01]\.\d\d, [01]\.\d\d\], ", line), "every score has its interval"


def test_intervals_are_those_of_a_study_of_the_same_people(clinic: Evaluation) -> None:
    auc = re.search(r"AUC \S+ \[(\S+), (\S+)\]", class_lines(clinic, KEYS)[0])
    known = [clinic.arrays[name] for name in ("recording", "target/remission", "prediction/remission")]
    units = gather_units([KEYS[number] for number in clinic.arrays["participant"]], *known)
    bounds, _ = interval(resampled_scores(units, ParticipantBootstrap(KEYS[:18], 2000, seed=0))["auc"])
    assert auc is not None
    assert auc.groups() == tuple(f"{bound:.2f}" for bound in bounds)


def test_scores_of_one_class_are_said_to_be_undefined() -> None:
    (line,) = class_lines(evaluation([1.0, 1.0], [0.2, 0.8], [0, 1]), KEYS)
    assert "AUC undefined, " in line
    assert "recall 0.50 [" in line


def test_draws_without_one_of_the_classes_are_counted() -> None:
    (line,) = class_lines(evaluation([0.0, 0.0, 1.0], [0.1, 0.2, 0.7], [0, 1, 2]), KEYS)
    assert "AUC 1.00 [1.00, 1.00]" in line
    assert "; up to " in line
    assert line.endswith(" of 2,000 draws left out, where a score is undefined")


def test_labels_of_recordings_are_said_to_be_no_labels_of_participants() -> None:
    note, line = class_lines(evaluation([0.0, 1.0, 0.0, 1.0], [0.2, 0.7, 0.1, 0.6], [0, 0, 1, 1], [0, 1, 2, 3]), KEYS)
    assert note.startswith("remission: participants have no label of their own: their recordings differ in it")
    assert line.startswith("remission by recording: AUC 1.00 ")
    assert line.endswith("4 recordings (2 of class 1) of 2 participants")


def test_without_a_label_there_is_no_line_and_no_table(tmp_path: Path) -> None:
    nobody = evaluation([float("nan")], [0.5], [0], windows=2)
    assert class_lines(nobody, KEYS) == []
    assert not write_participants(tmp_path / "participants_test.tsv", nobody, KEYS)
    assert not list(tmp_path.iterdir())


def test_the_table_holds_a_line_for_each_participant(tmp_path: Path) -> None:
    found = evaluation([0.0, 1.0, 1.0], [0.25, 0.9, 0.5], [12, 3, 3], windows=3)  # "12" comes before "3" as a text
    assert write_participants(tmp_path / "participants_test.tsv", found, KEYS)
    first, second = rows_of(tmp_path / "participants_test.tsv")
    assert tuple(first) == COLUMNS
    assert (first["participant"], first["truth"], first["predicted"]) == ("clinic:03", "1", "1")
    assert (first["probability"], first["recordings"], first["rows"], first["windows"]) == ("0.700000", "2", "2", "6")
    assert float(first["sd"]) == pytest.approx(np.std([0.9, 0.5], ddof=1), abs=1e-6)
    assert float(first["sd_windows"]) == pytest.approx(np.std([0.8, 0.9, 1.0, 0.4, 0.5, 0.6], ddof=1), abs=1e-6)
    assert (second["participant"], second["rows"], second["sd"]) == ("clinic:12", "1", "")
    assert float(second["sd_windows"]) == pytest.approx(0.1)


def test_the_table_holds_recordings_where_these_have_the_label_and_nothing_of_rows(tmp_path: Path) -> None:
    by_recording = evaluation([0.0, 1.0], [0.2, 0.7], [0, 0], [4, 5])
    assert write_participants(tmp_path / "a.tsv", by_recording, KEYS)
    assert [(row["recording"], row["truth"], row["windows"]) for row in rows_of(tmp_path / "a.tsv")] == [
        ("4", "0", ""),
        ("5", "1", ""),
    ]
    assert not write_participants(tmp_path / "b.tsv", evaluation([0.0, 1.0], [0.2, 0.7], [0, 0], [4, 4]), KEYS)
