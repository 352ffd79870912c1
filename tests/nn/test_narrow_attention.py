from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cerebro.nn import narrow_attention as narrow
from cerebro.nn.narrow_attention import is_narrow, narrow_attention


def heads(n_batch: int, n_heads: int, n_tokens: int, width: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    packed = torch.randn(n_batch, n_tokens, n_heads, width, generator=draw)  # as a projection gives them
    return packed.transpose(1, 2).requires_grad_()


@given(
    n_batch=st.integers(1, 3),
    n_heads=st.integers(1, 3),
    n_queries=st.integers(1, 40),
    n_keys=st.integers(1, 40),
    width=st.integers(1, 8),
    entries=st.sampled_from([1, 37, 200, 100_000]),
    n_threads=st.integers(1, 4),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_result_and_gradients_are_those_of_pytorchs_attention(
    n_batch: int,
    n_heads: int,
    n_queries: int,
    n_keys: int,
    width: int,
    entries: int,
    n_threads: int,
    masked: bool,
    seed: int,
    of_threads: Callable[[int], AbstractContextManager[None]],
) -> None:
    inputs = [heads(n_batch, n_heads, n, width, seed + i) for i, n in enumerate((n_queries, n_keys, n_keys))]
    valid = None
    if masked:
        valid = torch.rand(n_batch, n_keys, generator=torch.Generator().manual_seed(seed)) < 0.6
        valid[:, 0] = True
    weight = torch.randn(n_batch, n_heads, n_queries, width)
    mask = None if valid is None else valid[:, None, None, :]
    plain = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    wanted = torch.autograd.grad((plain * weight).sum(), inputs)
    # Pieces of every size, whatever the machine's cache.
    with pytest.MonkeyPatch.context() as patch, of_threads(n_threads):
        patch.setattr(narrow, "ENTRIES", entries)
        ours = narrow_attention(*inputs, valid)
        found = torch.autograd.grad((ours * weight).sum(), inputs)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_are_the_same_to_the_bit_whichever_thread_takes_which_heads(
    of_threads: Callable[[int], AbstractContextManager[None]],
) -> None:
    inputs = [heads(4, 4, 200, 8, seed) for seed in range(3)]
    with of_threads(3):
        runs = [torch.autograd.grad(narrow_attention(*inputs).square().sum(), inputs) for _ in range(8)]
    assert all(torch.equal(mine, again) for run in runs for mine, again in zip(runs[0], run, strict=True))


def test_large_scores_stay_finite_and_right() -> None:
    q, k, v = (30 * heads(1, 2, 100, 8, seed).detach() for seed in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double()).float()
    torch.testing.assert_close(narrow_attention(q, k, v), exact, rtol=1e-3, atol=1e-2)


def test_a_row_without_any_key_is_finite() -> None:
    q, k, v = (heads(2, 2, 100, 8, seed) for seed in range(3))
    valid = torch.ones(2, 100, dtype=torch.bool)
    valid[1] = False
    mixed = narrow_attention(q, k, v, valid)
    assert bool(mixed.isfinite().all())
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(mixed.square().sum(), (q, k, v)))


def test_it_is_chosen_for_narrow_heads_and_long_windows_only() -> None:
    long, short, wide = (torch.zeros(1, 1, n, e) for n, e in ((129, 8), (20, 8), (129, 20)))
    assert is_narrow(long, long)
    assert not is_narrow(short, short)
    assert not is_narrow(wide, wide)
    assert not is_narrow(long.bfloat16(), long.bfloat16())
