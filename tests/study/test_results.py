import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cerebro.errors import DataError
from cerebro.metrics.bootstrap import ParticipantBootstrap
from cerebro.metrics.regression import nrmse
from cerebro.study.classes import class_entry, common_unit
from cerebro.study.convergence import convergence
from cerebro.study.execute import run_plan
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe
from cerebro.study.results import make_results, read_references
from cerebro.study.scores import Predictions, Table, gain_entry, pool, pool_constants, read_predictions
from cerebro.study.table import results_table


def test_results_follow_the_fixed_schema(study_folder):
    make_results(study_folder)
    results = json.loads((study_folder / "results.json").read_text())
    assert list(results["variants"]) == ["full", "no_auxiliary", "no_contrastive", "supervised"]  # sorted in the file
    entry = results["variants"]["full"]["response_time"]["nrmse"]
    assert set(entry) == {"mean", "ci95", "per_seed"}
    assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]
    full = results["variants"]["full"]
    expected = 0.3 * full["response_time"]["nrmse"]["mean"] + 0.7 * full["p_factor"]["nrmse"]["mean"]
    assert full["score"]["mean"] == pytest.approx(expected, abs=1e-5)
    assert full["train_seconds"] == 5 * 12.5
    assert results["variants"]["supervised"]["train_seconds"] == 2 * 12.5
    assert full["peak_memory_mb"] == 512.0
    assert full["convergence"] == {phase: {"steps": 160.0, "seconds": 24.0} for phase in ("challenge1", "challenge2")}
    assert results["baselines"]["constant"]["p_factor"]["nrmse"]["mean"] >= 1
    assert results["references"]["p_factor"] == {"oracle": 0.3, "reference": 0.6}


def test_a_variant_has_converged_where_it_first_comes_within_a_percent_of_its_best(tmp_path):
    study = {
        "final_phases": ["challenge1"],
        "chains": [{"variant": "full", "runs": {"pretrain": "p", "challenge1": str(seed)}} for seed in (0, 1)],
    }
    for seed, values in enumerate(([0.92, 0.905, 0.9, 0.95], [0.62, 0.6, None, 0.601])):
        (tmp_path / str(seed)).mkdir()
        rows = [{"step": 10 * (i + 1), "seconds": 2.0, "val/nrmse_x": value} for i, value in enumerate(values)]
        (tmp_path / str(seed) / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        best = {"metric": "val/nrmse_x", "value": min(value for value in values if value), "epoch": 2}
        (tmp_path / str(seed) / "run.json").write_text(json.dumps({"best": best}))
    assert convergence(study, tmp_path, "full") == {"challenge1": {"steps": 20.0, "seconds": 4.0}}
    assert convergence(study, tmp_path, "other") == {}


def test_references_are_those_of_the_release_that_was_held_out(tmp_path):
    truth = {
        "oracle_nrmse": {"p_factor": 0.5},
        "reference_nrmse": {"p_factor": 0.7},
        "holdout": {"release": "R5", "oracle_nrmse": {"p_factor": 0.4}, "reference_nrmse": {"p_factor": 0.6}},
        "participants": {"sub-A": {"release": "R5"}, "sub-B": {"release": "R5"}, "sub-C": {"release": "R1"}},
    }
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    path = str(tmp_path / "ground_truth.json")
    held_out = read_references(path, ["p_factor"], ["HBN:sub-A", "HBN:sub-B"])
    assert held_out == {"p_factor": {"oracle": 0.4, "reference": 0.6}}
    mixed = read_references(path, ["p_factor"], ["HBN:sub-A", "HBN:sub-C"])
    assert mixed == {"p_factor": {"oracle": 0.5, "reference": 0.7}}


def test_references_of_a_cohort_without_releases_are_those_of_all(tmp_path):
    truth = {"oracle_auc": {"remission": 0.9}, "oracle_nrmse": {"remission": 0.5}, "participants": {"A": {"sex": "F"}}}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    found = read_references(str(tmp_path / "ground_truth.json"), ["remission"], ["windows:A"], ["remission"])
    assert found == {"remission": {"oracle_auc": 0.9}}


def test_scores_are_those_of_windows_with_a_label(study_folder):
    results = make_results(study_folder)
    run = next(run for run in results["phases"] if run["phase"] == "challenge2" and "full" in run["variants"])
    with np.load(study_folder / run["folder"] / "predictions_test.npz") as file:
        known = file["known/p_factor"]
        expected = nrmse(file["target/p_factor"][known], file["prediction/p_factor"][known])
    assert results["variants"]["full"]["p_factor"]["nrmse"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert results["variants"]["full"]["p_factor"]["n_windows_without_label"] == 3


def test_gains_are_paired_and_name_the_share_of_the_reachable_gap(study_folder):
    results = make_results(study_folder)
    assert list(results["gains"]) == [
        "full over no_contrastive",
        "full over no_auxiliary",
        "full over supervised",
        "full over constant",
        "full over band_power",
        "no_contrastive over supervised",
    ]
    entry = results["gains"]["full over supervised"]["p_factor"]
    full, supervised = (results["variants"][name]["p_factor"]["nrmse"]["mean"] for name in ("full", "supervised"))
    assert entry["gain"]["mean"] == pytest.approx((supervised - full) / supervised, abs=1e-5)
    assert entry["reachable_share"]["mean"] == pytest.approx((supervised - full) / (supervised - 0.3), abs=1e-5)
    assert entry["gain"]["ci95"][0] > 0
    same = results["gains"]["full over no_auxiliary"]["p_factor"]["gain"]
    assert same["ci95"] == [0, 0]  # the same predictions: paired draws leave no difference


def test_the_table_has_the_constant_beside_every_score(study_folder):
    table = results_table(make_results(study_folder))
    for word in ("constant", "band_power", "oracle", "full over no_contrastive", "24 held-out", "13 phase runs, 2"):
        assert word in table
    assert "nan" not in table.lower()


def test_two_thousand_resamples_of_a_study_are_seeded(study_folder):
    first, second = make_results(study_folder, seed=1), make_results(study_folder, seed=1)
    assert first == second
    assert make_results(study_folder, seed=2) != first


def test_an_unfinished_study_is_refused(study_folder):
    next(study_folder.glob("phases/challenge1*/predictions_test.npz")).unlink()
    with pytest.raises(DataError, match="run the recipe again"):
        make_results(study_folder)
    with pytest.raises(DataError, match="holds no study"):
        make_results(Path("nowhere"))


def windows(people, shift=0.0, n_seeds=1):
    made = []
    for seed in range(n_seeds):
        y = np.arange(len(people) * 2, dtype=float)
        made.append(Predictions([name for name in people for _ in range(2)], y, y + shift + seed, 0))
    return made


def test_variants_tested_on_different_people_are_refused():
    models = {"a": {"x": windows(["p", "q"])}, "b": {"x": windows(["p", "r"])}}
    with pytest.raises(DataError, match=r"different participants for x \(2 differ\)"):
        Table(models, n_resamples=10, seed=0)


def test_seeds_are_paired_and_a_baseline_without_seeds_stands_against_each():
    table = Table({"a": {"x": windows("pqrs", 1.0, 3)}, "b": {"x": windows("pqrs", 2.0)}}, n_resamples=50, seed=0)
    a, b = table.scores["a", "x"], table.scores["b", "x"]
    assert len(a.per_seed) == 3
    assert a.mean == pytest.approx(np.mean(a.per_seed))
    assert len(gain_entry(a, b, oracle=float("nan"))["gain"]["per_seed"]) == 3
    assert "reachable_share" not in gain_entry(a, b, oracle=float("nan"))


def test_classification_scores_balanced_accuracy_and_pools_folds(write_recipe, fake_cerebro, monkeypatch):
    recipe = read_recipe(write_recipe(ablations={"supervised": {"only": ["challenge1"]}}, folds=2, gains=None))
    out = Path("runs/folds")
    assert run_plan(plan_study(recipe, out), fake_cerebro(is_classification=True), say=lambda line: None) == 0
    monkeypatch.setattr("cerebro.study.results.baseline_predictions", lambda study, folder: {})
    results = make_results(out)
    entry = results["variants"]["full"]["response_time"]
    assert results["measures"]["response_time"] == "balanced_accuracy"
    assert entry["n_windows"] == 2 * 237
    assert 0.5 < entry["balanced_accuracy"]["mean"] <= 1
    assert "balanced accuracy" in results_table(results)
    assert "probabilities of all folds are pooled" in results_table(results)


def test_a_study_scores_participants_and_windows_with_intervals(write_recipe, fake_cerebro, monkeypatch):
    recipe = read_recipe(write_recipe(ablations=None, gains=None, ground_truth="truth.json"))
    truth = {"oracle_nrmse": {"p_factor": 0.9}, "oracle_auc": {"p_factor": 0.95}, "reference_auc": {"p_factor": 0.85}}
    Path("truth.json").write_text(json.dumps(truth))
    out = Path("runs/classes")
    assert run_plan(plan_study(recipe, out), fake_cerebro(is_classification=True), say=lambda line: None) == 0
    path = next(out.glob("phases/challenge2*/predictions_test.npz"))
    with np.load(path) as file:
        arrays = dict(file)
    row = np.repeat(np.arange(len(arrays["participant"])), 2)
    for name, values in {**arrays, "known": arrays["known/p_factor"]}.items():
        if name in ("participant", "recording", "known", "target/p_factor", "prediction/p_factor"):
            key = f"window/{name}" if "/" in name else f"window/{name}/p_factor"
            arrays[key] = values[row]
    np.savez(path, **arrays)
    monkeypatch.setattr("cerebro.study.results.baseline_predictions", lambda study, folder: {})
    results = make_results(out)
    entry = results["variants"]["full"]["p_factor"]
    known = arrays["known/p_factor"]
    people = sorted(set(arrays["participant"][known].tolist()))
    mine = [(arrays["participant"] == name) & known for name in people]
    chance = [arrays["prediction/p_factor"][rows, 1].mean() for rows in mine]
    label = [arrays["target/p_factor"][rows][0] for rows in mine]
    assert entry["participant"]["auc"]["mean"] == pytest.approx(roc_auc_score(label, chance), abs=1e-6)
    low, high = entry["participant"]["f1"]["ci95"]
    assert low < entry["participant"]["f1"]["mean"] < high
    assert entry["participant"]["f1"]["per_seed"] == [entry["participant"]["f1"]["mean"]]
    assert entry["n_units"] == {
        "participant": [label.count(0.0), label.count(1.0)],
        "window": [2 * int((arrays["target/p_factor"][known] == n).sum()) for n in (0, 1)],
    }
    assert set(entry["window"]) == {"auc", "balanced_accuracy", "f1", "precision", "recall", "accuracy"}
    assert results["references"] == {"p_factor": {"oracle_auc": 0.95, "reference_auc": 0.85}}, (
        "no NRMSE among accuracies"
    )
    lines = results_table(results).splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("p_factor by participant (")]
    assert lines[at + 1].split()[:3] == ["AUC", "balanced", "accuracy"]
    assert lines[at + 2].split() == ["oracle", "(trait", "known)", "0.9500"]
    assert lines[at + 4].startswith("full ")
    assert f"{entry['participant']['auc']['mean']:.4f} [" in lines[at + 4]
    assert any(line.startswith("p_factor by window (") for line in lines)
    assert not any("folds are pooled" in line for line in lines)


def test_labels_that_differ_between_recordings_are_scored_by_recording_in_every_model():
    who, label = ["a", "a", "b", "b"], np.array([0.0, 1.0, 0.0, 1.0])
    chance = np.stack([1 - label, label], axis=1)
    known = Predictions(who, label, chance, 0, recording=["1", "2", "3", "4"])
    unknown = Predictions(who, label, chance, 0)
    assert common_unit({"full": {"task": [known]}}, "task") == "recording"
    assert common_unit({"full": {"task": [known]}, "constant": {"task": [unknown]}}, "task") == "row"
    entry = class_entry([known, known], "recording", ParticipantBootstrap("ab", 20))
    assert entry["recording"]["auc"] == {"mean": 1.0, "ci95": [1.0, 1.0], "per_seed": [1.0, 1.0]}
    assert entry["n_units"] == {"recording": [2, 2]}


def test_the_constant_of_folds_is_one_constant_that_scores_as_chance():
    label = np.array([0.0, 1.0] * 3)
    share = (label.sum() - label) / 5  # of class 1 among the five others
    folds = [
        Predictions([f"p{n}"], label[n : n + 1], np.array([[1 - share[n], share[n]]]), 0) for n in range(len(label))
    ]
    bootstrap = ParticipantBootstrap([f"p{n}" for n in range(6)], 50)
    alone = class_entry([pool(folds)], "participant", bootstrap)["participant"]
    assert (alone["auc"]["mean"], alone["balanced_accuracy"]["mean"]) == (0.0, 0.0)
    together = class_entry([pool_constants(folds)], "participant", bootstrap)["participant"]
    assert (together["auc"]["mean"], together["balanced_accuracy"]["mean"]) == (0.5, 0.5)
    numbers = [Predictions(["p"], np.ones(1), np.full(1, value), 0) for value in (1.0, 2.0)]
    assert pool_constants(numbers).prediction.tolist() == [1.0, 2.0], "of a regression each fold keeps its mean"


def test_predictions_are_read_without_windows_that_lack_a_label(study_folder):
    path = next(study_folder.glob("phases/challenge1*/predictions_test.npz"))
    found = read_predictions(path)["response_time"]
    assert (len(found.target), found.n_unknown, found.kind) == (237, 3, "regression")


def test_a_cohort_without_releases_gives_the_scores_of_all(tmp_path):
    truth = {"participants": {"sub-001": {}}, "oracle_nrmse": {"remission": 0.4}, "reference_nrmse": {"remission": 0.6}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = read_references(str(tmp_path / "truth.json"), ["remission"], ["primary:sub-001"])
    assert found == {"remission": {"oracle": 0.4, "reference": 0.6}}
