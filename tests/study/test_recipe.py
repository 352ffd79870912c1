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
        ({"folds": 0}, "from 1 on"),
        ({"phases": {}}, "phases is empty"),
        ({"baselines": ["forest"]}, "choose from constant, band_power"),
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
