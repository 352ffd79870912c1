"""Keys of a phase under other names."""

import pytest

from cerebro.errors import ConfigError
from cerebro.training.other_names import given_names, in_usual_names, usual_flag


@pytest.mark.parametrize(
    ("typed", "usual"),
    [
        ("--data-path", "--data.store"),
        ("--data_path=a=b-c", "--data.store=a=b-c"),
        ("--output-dir", "--out"),
        ("--freeze-backbone=false", "--model.freeze_encoder=false"),
        ("--pretrain-config=x-y.yaml", "--pretrain_config=x-y.yaml"),
        ("--data.store", "--data.store"),
        ("data-path", "data-path"),
        ("--data-pathway", "--data-pathway"),
    ],
)
def test_a_flag_has_one_usual_name(typed: str, usual: str) -> None:
    assert usual_flag(typed) == usual


def test_a_config_in_usual_names_keeps_everything_else() -> None:
    content = {
        "data_path": "a",
        "output_dir": "",
        "freeze_backbone": False,
        "pretrain_config": "p.yaml",
        "model": {"name": "x"},
        "out": "there",
    }
    assert in_usual_names(content, "here") == {
        "model": {"name": "x", "freeze_encoder": False},
        "out": "there",
        "data": {"store": "a"},
    }
    assert content["model"] == {"name": "x"}


def test_two_values_of_one_key_are_refused_and_two_equal_ones_are_not() -> None:
    with pytest.raises(ConfigError, match=r"f.yaml gives data_path a and data.store b, which are one key"):
        given_names({"data_path": "a", "data": {"store": "b"}}, "f.yaml")
    assert given_names({"data_path": "a", "data": {"store": "a"}}, "f.yaml") == {"data.store": "a"}
    assert given_names({"freeze_backbone": True, "model": {"freeze_encoder": "true"}}, "f") == {
        "model.freeze_encoder": True
    }
