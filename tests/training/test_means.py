"""Means of losses over batches are those over the windows behind them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cerebro.objectives.base import Loss
from cerebro.training.means import LossMeans


def supervised(errors: Any, known: Any) -> Loss:
    """What `Supervised` gives for a batch."""
    n = torch.as_tensor(known).sum()
    total = torch.as_tensor(np.where(known, errors, 0.0)).sum() / n.clamp(min=1)
    return Loss(total, {"mse": total, "known": n / len(known)}, counts={"loss": n, "mse": n})


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_mean_is_over_labelled_windows_whatever_the_size_of_the_batches(size: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors, codes, known = rng.random(n), rng.random(n), rng.random(n) < 0.4
    alone, both = LossMeans(), LossMeans()
    for first in range(0, n, size):
        part = slice(first, first + size)
        term = supervised(errors[part], known[part])
        alone.add(term, len(errors[part]))
        code = torch.tensor(codes[part].mean())
        parts = {"codes": code, "trait": term.total}
        weights = {"codes": 1.0, "trait": 0.5}
        both.add(Loss(code + 0.5 * term.total, parts, None, {"trait": term.counts["loss"]}, weights), len(errors[part]))
    found, expected = alone.take(), errors[known].mean() if known.any() else math.nan
    assert found["mse"] == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert found["known"] == pytest.approx(known.mean(), rel=1e-5)
    total = codes.mean() + (0.5 * expected if known.any() else 0.0)
    assert both.take()["loss"] == pytest.approx(total, rel=1e-5)


def test_sums_go_on_where_they_were_saved() -> None:
    whole, first, second = LossMeans(), LossMeans(), LossMeans()
    losses = [supervised([1.0, 2.0], [True, False]), supervised([3.0, 4.0], [True, True])]
    for loss in losses:
        whole.add(loss, 2)
    first.add(losses[0], 2)
    second.load_state_dict(first.state_dict())
    second.add(losses[1], 2)
    assert second.take() == whole.take() == {"loss": 8 / 3, "mse": pytest.approx(8 / 3), "known": 0.75}
    assert whole.take() == {}
