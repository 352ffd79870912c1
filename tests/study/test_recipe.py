from pathlib import Path

import pytest

from cerebro.errors import ConfigError
from cerebro.study.recipe import load_config, read_recipe


def test_phases_come_after_what_they_need_and_variants_are_named(write_recipe):
    sweep = {"mask": {"phase": "pretrain", "key": "model.optim.lr", "values": [0.1, 0.2]}}
    recipe = read_recipe(write_recipe(sweeps=sweep))
    assert list(recipe.phases) == ["tokenizer", "pretrain", "contrastive", "challenge1", "challenge2"]
    assert list(recipe.variants) == ["full", "no_contrastive", "no_auxiliary", "supervised", "mask=0.1", "mask=0.2"]
    assert recipe.final_phases() == ("challenge1", "challenge2")
    assert recipe.pairs == (("no_contrastive", "supervised"),)


def test_data_steps_become_plain_commands_and_name_the_ground_truth(write_recipe):
    path = write_recipe()
    Path("configs/hbn.yaml").write_text("reader: {}\n")
    data = {
        "simulate": {"out": "cohorts/demo", "preset": "demo", "seed": 0},
        "prepare": {"config": "../configs/hbn.yaml", "store": "stores/demo"},
    }
    recipe = read_recipe(write_recipe(data=data))
    assert path.exists()
    assert recipe.commands == (
        ("cerebro", "simulate", "--out", "cohorts/demo", "--preset", "demo", "--seed", "0"),
        ("cerebro", "prepare", "configs/hbn.yaml", "--out", "stores/demo"),
    )
    assert recipe.ground_truth == Path("cohorts/demo/ground_truth.json")
    data["simulate"] |= {"format": "clinical", "channels": "muse"}
    assert read_recipe(write_recipe(data=data)).commands[0][-4:] == ("--format", "clinical", "--channels", "muse")


def test_files_named_in_a_config_take_their_place(write_recipe):
    write_recipe()
    config = load_config(Path("configs/pretrain.yaml"))
    assert config["model"]["encoder"] == {"class_path": "LaBraM", "init_args": {"d_model": 32}}


PHASES = {"a": {"config": "../configs/tokenizer.yaml"}, "b": {"config": "../configs/pretrain.yaml"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweps": {}}, "unknown key 'sweps'; did you mean 'sweeps'"),
        ({"name": None}, "lacks the key 'name'"),
        ({"name": {"x": 1}}, "give a text"),
        ({"name": ""}, "give a text"),
        ({"ground_truth": 3}, "give a text"),
        ({"phases": {"a": {**PHASES["a"], "init": ["x"]}}}, "unknown phase ['x']"),
        ({"phases": {"a": {**PHASES["a"], "tokenizer": [["x"]]}}}, "unknown phase [['x']]"),
        ({"seeds": [0, 0]}, "repeats a seed"),
        ({"seeds": [1.5]}, "whole numbers"),
        ({"ensemble": "yes", "seeds": [0, 1]}, "ensemble='yes'; give true or false"),
        ({"ensemble": True}, "one seed makes no ensemble; add seeds"),
        ({"ablations": {"x": {"drop": ["contrastive"], "seeds": [1]}}}, "some of the recipe's seeds, [0]"),
        ({"ablations": {"x": {"drop": ["contrastive"], "seeds": []}}}, "ablations.x.seeds=[]; give a list"),
        ({"ablations": {"x": {"seeds": [0]}}}, "ablations.x is empty"),
        ({"folds": 0}, "from 1 on"),
        ({"phases": {}}, "phases is empty"),
        ({"baselines": ["forest"]}, "choose from constant, band_power"),
        (
            {"baselines": ["features_boosting"]},
            "there is no key features; add features: PATH of the file that `cerebro",
        ),
        ({"features": "features.parquet"}, "no baseline uses it; add features_logistic or features_boosting"),
        ({"features": ["a"], "baselines": ["features_logistic"]}, "give a text"),
        ({"ablations": {"x": {"drop": ["contrast"]}}}, "unknown phase 'contrast'"),
        ({"ablations": {"x": {"drop": ["tokenizer"]}}}, "'pretrain', which needs it"),
        ({"ablations": {"x": {}}}, "empty"),
        ({"ablations": {"x": {"config": {"challenge1": "nowhere.yaml"}}}}, "config.challenge1: recipes/nowhere.yaml"),
        ({"ablations": {"x": {"only": ["challenge1"], "config": {"pretrain": "a.yaml"}}}}, "config changes 'pretrain'"),
        ({"ablations": {"full": {"drop": ["contrastive"]}}}, "taken"),
        ({"ablations": {"x": {"drop": ["contrastive"], "only": ["challenge1"]}}}, "both drop and only"),
        ({"ablations": {"x": {"only": ["challenge1"], "set": {"pretrain": {"a": 1}}}}}, "leaves out"),
        ({"sweeps": {"x": {"phase": "pretrain", "key": "a.b", "values": 3}}}, "give a list"),
        ({"gains": [["full", "nothing"]]}, "choose from full"),
        ({"probes": {"pretraining": {"targets": ["age"]}}}, "unknown phase 'pretraining'"),
        ({"probes": {"pretrain": {}}}, "probes.pretrain lacks the key 'targets'"),
        ({"probes": {"pretrain": {"targets": []}}}, "name what to probe, each once"),
        ({"probes": {"pretrain": {"targets": ["age", "age"]}}}, "name what to probe, each once"),
        ({"probes": {"pretrain": {"targets": ["age"], "by": "person"}}}, "choose from window, recording"),
        ({"phases": {"a": {"config": "nowhere.yaml"}}, "ablations": None, "gains": None}, "nowhere.yaml not found"),
        ({"phases": {"a": {"conf": "x"}}, "ablations": None, "gains": None}, "did you mean 'config'"),
        (
            {"phases": {"a": {**PHASES["a"], "init": "b"}, "b": {**PHASES["b"], "init": "a"}}},
            "circle (a -> b -> a)",
        ),
        ({"phases": {"a": {**PHASES["a"], "init": "c"}}}, "unknown phase 'c'"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(write_recipe, changes, message):
    path = write_recipe(**changes)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recipes/tiny.yaml" in str(caught.value)


def test_a_missing_recipe_is_refused():
    with pytest.raises(ConfigError, match="not found"):
        read_recipe(Path("nowhere.yaml"))


def test_an_experiment_is_where_every_phase_is_tracked(write_recipe):
    recipe = read_recipe(write_recipe(experiment="eeg_pretraining_mamba2_sweep_mask"))
    assert {phase.overrides["mlflow.experiment"] for phase in recipe.phases.values()} == {
        "eeg_pretraining_mamba2_sweep_mask"
    }
    assert "mlflow.experiment" not in read_recipe(write_recipe()).phases["pretrain"].overrides


def test_baselines_on_features_take_the_file_that_the_recipe_names(write_recipe):
    names = ["constant", "features_logistic", "band_power"]
    recipe = read_recipe(write_recipe(baselines=names, features="processed/features.parquet"))
    assert recipe.baselines == ("features_logistic", "band_power")
    assert recipe.features == Path("processed/features.parquet")
    assert read_recipe(write_recipe()).features == Path()


def test_processing_becomes_a_command_whose_store_is_prepared(write_recipe):
    write_recipe()
    Path("configs/processing.yaml").write_text("input: raw\nstore: stores/mine\n")
    Path("configs/other.yaml").write_text("input: raw\n")
    process = [{"config": "../configs/processing.yaml"}, {"config": "../configs/other.yaml", "out": "results"}]
    recipe = read_recipe(write_recipe(data={"process": process}))
    assert recipe.commands == (
        ("cerebro", "process", "--config", "configs/processing.yaml"),
        ("cerebro", "process", "--config", "configs/other.yaml", "--out", "results"),
    )
    assert recipe.prepared == (Path("stores/mine"), Path("results/stores/primary"))


def test_processing_without_a_store_prepares_none_and_needs_its_config(write_recipe):
    write_recipe()
    Path("configs/processing.yaml").write_text("input: raw\nstore: ''\n")
    recipe = read_recipe(write_recipe(data={"process": {"config": "../configs/processing.yaml"}}))
    assert recipe.prepared == ()
    with pytest.raises(ConfigError, match=r"data\.process lacks the key 'config'"):
        read_recipe(write_recipe(data={"process": {"out": "results"}}))
