"""A study of a classification: the pages' fixture with labels by participant, and windows in one of its phases."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cerebro.report.page import write_report
from cerebro.study.results import make_results


def classify(folder: Path, with_windows: bool = True, by_recording: bool = False) -> None:
    """Turn the predictions of a finished study into probabilities of two classes."""
    for path in [*folder.glob("phases/*/predictions_test.npz"), *folder.glob("baselines/*.npz")]:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        (target,) = [name.removeprefix("target/") for name in arrays if name.startswith("target/")]
        label = (arrays[f"target/{target}"] > 0).astype(float)
        if by_recording:
            arrays["recording"] = np.arange(len(label)) // 5  # two of each participant
            label = (arrays["recording"] % 2).astype(float)
        value = 1 / (1 + np.exp(-2 * arrays[f"prediction/{target}"]))
        arrays[f"target/{target}"], arrays[f"prediction/{target}"] = label, np.stack([1 - value, value], axis=1)
        if with_windows and "phases" in path.parts:
            row = np.repeat(np.arange(len(label)), 3)
            for name in ("participant", "recording", "known", "target", "prediction"):
                source = arrays[name if name in arrays else f"{name}/{target}"]
                arrays[f"window/{name}/{target}"] = source[row]
        np.savez(path, **arrays)


def add_history(folder: Path, key: str, values: list[float | None]) -> None:
    for path in folder.glob("phases/challenge2*/history.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row, value in zip(rows, values, strict=True):
            row[key] = value
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def page(study_folder):
    classify(study_folder)
    truth = {"oracle_auc": {"p_factor": 0.93}, "reference_auc": {"p_factor": 0.81}}
    Path("ground_truth.json").write_text(json.dumps(truth))
    add_history(study_folder, "val/participant_auc_p_factor", [None, 0.5, 0.6, 0.7, 0.7, 0.8, 0.8, 0.8])
    make_results(study_folder)
    return write_report(study_folder, Path("page.html")).read_text(), study_folder


def section(page: str) -> str:
    start = page.index("Classes by participant</h2>")
    return page[start : page.index("</section>", start)]


def test_a_page_shows_curves_people_and_training_of_a_classification(page):
    text = section(page[0])
    for words in ("ROC curve by participant", "Precision against recall", "Probability of class 1 of each tested"):
        assert text.count(words) == 2, "one of each target"
    assert text.count("Scores of validation participants per epoch") == 1, "only one target has such a history"
    assert "AUC by participant" in text
    assert "one standard deviation over its windows" in text
    ids = re.findall(r'id="([^"]+)"', page[0])
    assert len(ids) == len(set(ids))


def test_the_table_has_the_numbers_of_the_results_and_the_oracle(page):
    text, results = section(page[0]), json.loads((page[1] / "results.json").read_text())
    assert "<td>0.93</td>" in text
    for model in (results["variants"]["full"], results["baselines"]["band_power"]):
        assert f"{model['p_factor']['participant']['auc']['mean']:.2f} <small>[" in text
    assert f"{results['variants']['full']['p_factor']['window']['f1']['mean']:.2f} <small>[" in text
    counts = results["variants"]["full"]["p_factor"]["n_units"]["participant"]
    order = [
        text.index(f"<td>{name}</td>") for name in ("constant", "band power", "full", "no contrastive", "no auxiliary")
    ]
    assert order == sorted(order), "baselines first, then variants as the recipe has them"
    assert f"{counts[0]} of class 0, {counts[1]} of class 1 by participant" in text


def test_labels_of_recordings_are_shown_by_recording(study_folder):
    classify(study_folder, with_windows=False, by_recording=True)
    Path("ground_truth.json").write_text("{}")
    make_results(study_folder)
    text = section(write_report(study_folder, Path("page.html")).read_text())
    assert "ROC curve by recording" in text
    assert "one standard deviation over its rows" in text
    assert "by participant;" not in text


def test_a_test_of_one_class_has_a_table_and_no_curves(study_folder):
    classify(study_folder)
    for path in study_folder.glob("*/**/*.npz"):
        with np.load(path) as file:
            arrays = {name: np.zeros_like(file[name]) if "target/" in name else file[name] for name in file.files}
        np.savez(path, **arrays)
    Path("ground_truth.json").write_text("{}")
    make_results(study_folder)
    text = section(write_report(study_folder, Path("page.html")).read_text())
    assert "undefined" in text
    assert "ROC curve" not in text


def test_a_study_of_regressions_has_no_such_section(study_folder):
    make_results(study_folder)
    assert "Classes by participant" not in write_report(study_folder, Path("page.html")).read_text()
