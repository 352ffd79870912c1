import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.randomness import keys_within, normal, sample_keys, splitmix64, uniform

INT64 = st.integers(-(2**63), 2**63 - 1)


def test_splitmix64_gives_the_published_first_outputs_for_seed_0():
    # Steele, Lea & Flood 2014: the sequence for seed 0 starts so; each output mixes the state 0, g, 2g, ...
    state = (np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(state).tolist() == expected


def test_keys_depend_on_seed_epoch_and_sample():
    sample = np.arange(100, dtype=np.int64)
    keys = [sample_keys(0, 0, sample), sample_keys(1, 0, sample), sample_keys(0, 1, sample)]
    assert len(np.unique(np.concatenate(keys))) == 300


def test_a_key_does_not_depend_on_its_neighbours():
    sample = np.arange(100, dtype=np.int64)
    assert sample_keys(3, 5, sample)[17] == sample_keys(3, 5, sample[17:18])[0]


@settings(deadline=None, max_examples=25)
@given(st.lists(INT64, min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 5))
def test_numbers_of_a_key_do_not_depend_on_the_batch_and_lie_in_the_unit_interval(keys, n, stream):
    whole = uniform(torch.tensor(keys), n, stream)
    alone = torch.cat([uniform(torch.tensor([key]), n, stream) for key in keys])
    assert torch.equal(whole, alone)
    assert whole.min() >= 0
    assert whole.max() < 1


def test_numbers_are_uniform_and_streams_are_unrelated():
    keys = torch.from_numpy(sample_keys(0, 0, np.arange(2000, dtype=np.int64)))
    first, second = uniform(keys, 50), uniform(keys, 50, stream=1)
    counts = torch.histc(first, bins=20, min=0, max=1)
    expected = first.numel() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 44  # chi-square, 19 degrees of freedom, p = 0.001
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert correlation.abs() < 0.015


@settings(deadline=None, max_examples=25)
@given(st.lists(INT64, min_size=1, max_size=8), st.integers(1, 40))
def test_normal_numbers_of_a_key_do_not_depend_on_the_batch_and_are_finite(keys, n):
    whole = normal(torch.tensor(keys), n)
    assert torch.equal(whole, torch.cat([normal(torch.tensor([key]), n) for key in keys]))
    assert bool(whole.isfinite().all())


def test_normal_numbers_have_the_moments_of_a_normal_distribution():
    values = normal(torch.from_numpy(sample_keys(0, 0, np.arange(2000, dtype=np.int64))), 50).double()
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.var()) - 1) < 0.02
    assert abs(float((values**4).mean()) - 3) < 0.1
    assert abs(float((values.abs() > 1.96).double().mean()) - 0.05) < 0.003


def test_parts_of_a_sample_have_keys_of_their_own_that_depend_on_nothing_else():
    keys, number = torch.arange(50), torch.arange(-1, 20).repeat(50, 1)
    parts = keys_within(keys, number)
    assert len(parts.unique()) == 50 * 21
    assert torch.equal(keys_within(keys[7:8], number[7:8, 3:5]), parts[7:8, 3:5])
    first, second = uniform(parts.flatten(), 50), uniform(keys, 50).repeat_interleave(21, dim=0)
    assert float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs()) < 0.015
