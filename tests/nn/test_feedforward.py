from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cerebro.nn import feedforward
from cerebro.nn.feedforward import feed_forward


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    rows=st.integers(1, 50),
    n_threads=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_result_and_gradients_are_those_of_the_plain_layers(
    shape: list[int],
    rows: int,
    n_threads: int,
    seed: int,
    of_threads: Callable[[int], AbstractContextManager[None]],
) -> None:
    torch.manual_seed(seed)
    first, second = nn.Linear(6, 40), nn.Linear(40, 6)
    x = torch.randn(*shape, 6, requires_grad=True)
    weight = torch.randn(*shape, 6)
    parameters = [x, *first.parameters(), *second.parameters()]
    plain = second(F.relu(first(x)))
    wanted = torch.autograd.grad((plain * weight).sum(), parameters)
    with pytest.MonkeyPatch.context() as patch, of_threads(n_threads):
        patch.setattr(feedforward, "ROWS", rows)
        ours = feed_forward(x, first, second)
        found = torch.autograd.grad((ours * weight).sum(), parameters)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_are_the_same_to_the_bit_whichever_thread_takes_which_tokens(
    of_threads: Callable[[int], AbstractContextManager[None]],
) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(16, 256), nn.Linear(256, 16)
    x, weight = torch.randn(1500, 16, requires_grad=True), torch.randn(1500, 16)
    parameters = [x, *first.parameters(), *second.parameters()]
    with of_threads(3):
        runs = [torch.autograd.grad((feed_forward(x, first, second) * weight).sum(), parameters) for _ in range(8)]
    assert all(torch.equal(mine, again) for run in runs for mine, again in zip(runs[0], run, strict=True))


def test_the_hidden_layer_is_not_kept() -> None:
    first, second = nn.Linear(8, 512), nn.Linear(512, 8)
    x = torch.randn(300, 8, requires_grad=True)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        feed_forward(x, first, second)
    assert sum(kept.values()) < 300 * 512 * 4  # tokens and weights, far below one hidden layer
