"""``folds: leave_one_out``: as many folds as there are people in the store that the final phases test on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cerebro.errors import ConfigError
from cerebro.study.recipe import Recipe

FEWEST = 3  # one to train on, one to validate on, one to test
STAND_IN = 2  # folds of a plan that only checks the recipe, while the store is not there


def tested_stores(recipe: Recipe, configs: Mapping[Path, Mapping[str, Any]]) -> tuple[Path, ...]:
    """Stores of the final phases of all variants, each once, sorted."""
    found: set[Path] = set()
    for ablation in recipe.variants.values():
        for name in recipe.final_phases():
            if name in ablation.kept:
                phase = recipe.phases[name]
                data = configs[ablation.configs.get(name, phase.config)].get("data")
                own = data.get("store", "") if isinstance(data, dict) else ""
                overrides = {**phase.overrides, **ablation.overrides.get(name, {})}
                found.add(Path(str(overrides.get("data.store", own))))
    return tuple(sorted(found))


def with_folds(
    recipe: Recipe, configs: Mapping[Path, Mapping[str, Any]], count_people: Callable[[Path], int]
) -> tuple[Recipe, tuple[Path, ...]]:
    """A recipe whose number of folds is known, and the stores that are not there: then two folds stand in for all.

    Parameters
    ----------
    recipe : Recipe
        As it was read.
    configs : mapping
        Path -> content of every config of the recipe.
    count_people : callable
        Store -> people in it, 0 where it is not there.

    Raises
    ------
    ConfigError
        If the people are too few, or final phases test on stores with different numbers of them.
    """
    if not recipe.leaves_one_out:
        return recipe, ()
    counts = {store: count_people(store) for store in tested_stores(recipe, configs)}
    absent = tuple(store for store, n in counts.items() if not n)
    if absent:
        return replace(recipe, n_folds=STAND_IN), absent
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{n} people in {store.as_posix()}" for store, n in counts.items())
        raise ConfigError(
            f"recipe {recipe.path}: folds: leave_one_out, but the final phases test on {found}; test all of them on "
            "one store, or write a recipe for each."
        )
    store, n_people = next(iter(counts.items()))
    if n_people < FEWEST:
        raise ConfigError(
            f"recipe {recipe.path}: folds: leave_one_out needs {FEWEST} people (one trains, one validates, one is left "
            f"out), and {store.as_posix()} holds {n_people}; prepare more recordings."
        )
    return replace(recipe, n_folds=n_people), ()
