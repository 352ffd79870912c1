"""The mean over seeds, and its place among the scores of a study."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebro.errors import DataError
from cerebro.study.ensembles import ensemble_predictions, mean_of_seeds
from cerebro.study.execute import run_plan
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe
from cerebro.study.results import make_results
from cerebro.study.scores import Predictions, WindowPredictions, read_predictions
from cerebro.study.table import results_table

PEOPLE = ["HBN:a", "HBN:a", "HBN:b"]
TRUTH = np.array([0.0, 0.0, 1.0])


def of_classes(seed: int, n_classes: int = 2, windows: bool = True) -> Predictions:
    random = np.random.default_rng(seed)
    chance = random.dirichlet(np.ones(n_classes), (2, 3))
    return Predictions(
        PEOPLE, TRUTH, chance[0], 4, ["1", "2", "3"], WindowPredictions(PEOPLE, TRUTH, chance[1]) if windows else None
    )


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.integers(2, 4))
def test_probabilities_of_rows_and_windows_are_averaged_and_stay_probabilities(seeds, n_classes):
    parts = [of_classes(seed, n_classes) for seed in seeds]
    made = mean_of_seeds(parts, "full, remission")
    assert made.windows is not None
    for found, each in (
        (made.prediction, [part.prediction for part in parts]),
        (made.windows.prediction, [part.windows.prediction for part in parts if part.windows]),
    ):
        assert found == pytest.approx(sum(each) / len(seeds), abs=1e-12)
        assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert (made.participant, made.recording, made.n_unknown) == (PEOPLE, ["1", "2", "3"], 4)


def test_values_are_averaged_and_windows_that_one_seed_lacks_are_refused():
    numbers = [Predictions(PEOPLE, TRUTH, np.full(3, value), 0) for value in (1.0, 2.0, 6.0)]
    assert mean_of_seeds(numbers, "x").prediction.tolist() == [3.0, 3.0, 3.0]
    assert mean_of_seeds([of_classes(0, windows=False), of_classes(1, windows=False)], "x").windows is None
    with pytest.raises(DataError, match="full, x: seeds were tested on different rows"):
        mean_of_seeds([of_classes(0), of_classes(1, windows=False)], "full, x")


@pytest.mark.parametrize(
    "changes",
    [
        {"participant": ["HBN:a", "HBN:b", "HBN:b"]},
        {"target": 1 - TRUTH},
        {"recording": ["1", "3", "2"]},
        {"windows": WindowPredictions(PEOPLE, 1 - TRUTH, np.full((3, 2), 0.5))},
        {"windows": WindowPredictions(PEOPLE[:2], TRUTH[:2], np.full((2, 2), 0.5))},
    ],
)
def test_seeds_that_were_tested_on_different_rows_are_refused(changes):
    with pytest.raises(DataError, match="different rows"):
        mean_of_seeds([of_classes(0), replace(of_classes(1), **changes)], "full, x")


def test_numbers_of_classes_are_not_averaged():
    numbers = Predictions(PEOPLE, TRUTH, np.array([0, 1, 1]), 0)
    with pytest.raises(DataError, match="numbers of classes have no mean"):
        mean_of_seeds([numbers, numbers], "full, x")


def test_only_variants_of_several_seeds_and_studies_that_ask_for_it_have_ensembles():
    models = {"full": {"x": [of_classes(0), of_classes(1)]}, "quick": {"x": [of_classes(2)]}, "probed": {}}
    assert list(ensemble_predictions({"ensemble": True}, models)) == ["full (ensemble of 2)"]
    assert ensemble_predictions({"ensemble": False}, models) == ensemble_predictions({}, models) == {}


def test_a_study_scores_the_mean_of_its_seeds_beside_them(write_recipe, fake_cerebro, monkeypatch):
    ablations = {"supervised": {"only": ["challenge1"]}, "once": {"drop": ["contrastive"], "seeds": [1]}}
    recipe = read_recipe(write_recipe(ablations=ablations, gains=None, seeds=[0, 1], ensemble=True))
    out = Path("runs/ensemble")
    plan = plan_study(recipe, out)
    assert run_plan(plan, fake_cerebro(), say=lambda line: None) == 0
    runs = {(chain.variant, chain.seed): chain.runs for chain in plan.chains}
    paths = {key: out / "phases" / f"challenge1-{found['challenge1']}" for key, found in runs.items()}
    for (_, seed), folder in paths.items():
        with np.load(folder / "predictions_test.npz") as file:
            arrays = dict(file)
        noise = np.random.default_rng(seed).normal(size=len(arrays["participant"]))
        arrays["prediction/response_time"] = arrays["target/response_time"] + noise
        np.savez(folder / "predictions_test.npz", **arrays)
    monkeypatch.setattr("cerebro.study.results.baseline_predictions", lambda study, folder: {})
    results = make_results(out)
    assert list(results["ensembles"]) == ["full (ensemble of 2)", "supervised (ensemble of 2)"]
    found = [read_predictions(paths["full", seed] / "predictions_test.npz")["response_time"] for seed in (0, 1)]
    error = np.mean([part.prediction for part in found], axis=0) - found[0].target
    entry = results["ensembles"]["full (ensemble of 2)"]["response_time"]["nrmse"]
    assert entry["mean"] == pytest.approx(np.sqrt(np.mean(error**2)) / found[0].target.std(), rel=1e-5)
    assert entry["per_seed"] == [entry["mean"]]
    single = results["variants"]["full"]["response_time"]["nrmse"]
    assert len(single["per_seed"]) == 2
    assert entry["mean"] < min(single["per_seed"]), "errors of its own that a seed makes go down"
    pairs = [pair for pair in results["gains"] if pair.startswith("full (ensemble of 2) over ")]
    assert pairs == ["full (ensemble of 2) over full", "full (ensemble of 2) over supervised (ensemble of 2)"]
    assert results["gains"][pairs[0]]["response_time"]["gain"]["mean"] > 0
    table = results_table(results)
    row = f"full (ensemble of 2)  {entry['mean']:.4f} ["
    assert " ".join(row.split()) in " ".join(table.split())
    assert "scores are means over seeds (full 2, supervised 2, once 1); an ensemble is the mean over seeds" in table
    assert len(results["variants"]["once"]["response_time"]["nrmse"]["per_seed"]) == 1
