import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cerebro.cli.main import main
from cerebro.data.arrays import write_store
from cerebro.errors import ConfigError
from cerebro.montage import Montage
from cerebro.study.execute import people_in
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe


def store_of(path, names, same=()):
    """A store with a recording of each name; ``same`` are pairs of names of one person."""
    eeg = {f"{name}/rest": np.random.default_rng(n).normal(size=(2, 200)).astype("f4") for n, name in enumerate(names)}
    table = pd.DataFrame(index=pd.Index(names, name="participant_id"))
    table["same_person_as"] = [dict(same).get(name) for name in names]
    write_store(
        path,
        eeg,
        Montage("two", ("Cz", "Pz"), np.eye(2, 3) * 0.09),
        100.0,
        tasks=dict.fromkeys(eeg, "rest"),
        people=dict(zip(eeg, names, strict=True)),
        participants=table,
    )


def planned(write_recipe, count_people, **changes):
    recipe = read_recipe(write_recipe(folds="leave_one_out", gains=None, **changes))
    return plan_study(recipe, Path("runs/tiny"), code_version="test", count_people=count_people)


def test_leave_one_out_has_a_fold_for_each_person_of_the_store(write_recipe):
    plan = planned(write_recipe, lambda store: {"stores/demo": 7}[store.as_posix()], ablations=None)
    assert {chain.fold for chain in plan.chains} == set(range(7))
    assert plan.recipe.n_folds == 7
    assert not plan.uncounted
    for run in plan.runs:
        assert f"--data.split.n_folds 7 --data.split.fold {run.fold}" in shlex.join(run.fit)


def test_names_of_one_person_count_once(tmp_path):
    store_of(tmp_path / "store", ["a", "b", "c", "d"], same=[("d", "b")])
    assert people_in(tmp_path / "store") == 3
    assert people_in(tmp_path / "nowhere") == 0


def test_people_of_a_mixture_are_not_counted(tmp_path):
    (tmp_path / "mixture.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a mixture of several; give the number of folds"):
        people_in(tmp_path)


def test_without_the_store_two_folds_stand_in_and_it_is_said(write_recipe):
    plan = planned(write_recipe, lambda store: 0, ablations=None)
    assert plan.uncounted == (Path("stores/demo"),)
    assert {chain.fold for chain in plan.chains} == {0, 1}


@pytest.mark.parametrize("n_people", [1, 2])
def test_too_few_people_are_refused(write_recipe, n_people):
    with pytest.raises(ConfigError, match=rf"needs 3 people .* stores/demo holds {n_people}"):
        planned(write_recipe, lambda store: n_people, ablations=None)


def test_final_phases_on_stores_of_different_people_are_refused(write_recipe):
    other = {"elsewhere": {"set": {"challenge1": {"data.store": "stores/other"}}}}
    with pytest.raises(
        ConfigError, match=r"7 people in stores/demo, 5 people in stores/other; test all of them on one"
    ):
        planned(write_recipe, lambda store: 7 if store.name == "demo" else 5, ablations=other)


def test_a_store_that_only_pretraining_reads_is_not_counted(write_recipe):
    other = {"elsewhere": {"set": {"pretrain": {"data.store": "stores/other"}}}}
    plan = planned(write_recipe, lambda store: {"stores/demo": 4}[store.as_posix()], ablations=other)
    assert plan.recipe.n_folds == 4


def test_a_dry_run_without_the_store_says_that_the_number_is_not_known(write_recipe, capsys):
    path = write_recipe(folds="leave_one_out", ablations=None, gains=None)
    assert main(["run", str(path), "--dry-run"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("# folds: leave_one_out has as many folds as there are people in stores/demo, ")
    assert line.endswith("which is not prepared yet: their number is not known")


def test_a_dry_run_with_the_store_prints_every_fold(write_recipe, capsys):
    path = write_recipe(folds="leave_one_out", ablations=None, gains=None)
    store_of(Path("stores/demo"), ["a", "b", "c"])
    assert main(["run", str(path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("cerebro fit") for line in lines) == 3 * 5
    assert "not known" not in json.dumps(lines)


def test_another_word_is_refused(write_recipe):
    with pytest.raises(ConfigError, match="a whole number from 1 on, or leave_one_out"):
        read_recipe(write_recipe(folds="leave_two_out"))
