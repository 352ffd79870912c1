import math
from itertools import pairwise

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError
from cerebro.training.optim import Optim


@settings(deadline=None, max_examples=25)
@given(n_steps=st.integers(1, 500), warmup=st.floats(0, 3), per_epoch=st.floats(1, 100))
def test_the_learning_rate_rises_to_lr_and_falls_to_min_lr(n_steps: int, warmup: float, per_epoch: float) -> None:
    optim = Optim(lr=1e-3, min_lr=1e-5, warmup_epochs=warmup)
    rates = [optim.lr_at(step, n_steps, per_epoch) for step in range(n_steps)]
    n_warmup = min(round(warmup * per_epoch), n_steps)
    assert all(a < b for a, b in pairwise(rates[:n_warmup]))
    assert all(a >= b for a, b in pairwise(rates[n_warmup:]))
    assert 0 < min(rates) <= max(rates) <= 1e-3
    assert optim.lr_at(n_steps, n_steps, per_epoch) == pytest.approx(1e-5 if n_warmup < n_steps else 1e-3, rel=1e-6)


def test_biases_norms_and_single_vectors_are_not_decayed_and_lower_layers_learn_slower() -> None:
    encoder = toy.ToyEncoder(toy.SIGNAL)
    objective = toy.ToyObjective(encoder, toy.SIGNAL)
    objective.register_parameter("frozen", torch.nn.Parameter(torch.ones(2, 2), requires_grad=False))
    optimizer = Optim(lr=1.0, weight_decay=0.3, layer_decay=0.5).build(encoder, objective)
    name_of = {id(parameter): name for name, parameter in [*encoder.named_parameters(), *objective.named_parameters()]}
    found = {
        name_of[id(parameter)]: (group["weight_decay"], group["scale"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "patch.weight": (0.3, 0.25),
        "patch.bias": (0.0, 0.25),
        "mask_token": (0.0, 0.25),
        "statistics.weight": (0.0, 0.25),
        "statistics.bias": (0.0, 0.25),
        "block.weight": (0.3, 0.5),
        "block.bias": (0.0, 0.5),
        "readout.linear.weight": (0.0, 1.0),  # one output: a single vector
        "readout.linear.bias": (0.0, 1.0),
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", math.nan), ("lr", 0.0), ("lr", math.inf), ("weight_decay", -1.0), ("layer_decay", 1.5), ("min_lr", 1.0)],
)
def test_impossible_numbers_are_refused_with_their_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"optim\.{key}=.*set model\.optim\.{key}"):
        Optim(**{key: value})  # type: ignore[arg-type]
