import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.objectives.masks import random_mask, rounded_share, sequence_mask


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_channels=st.integers(1, 7),
    n_patches=st.integers(1, 5),
    ratio=st.floats(0.05, 0.95),
    share_valid=st.sampled_from([1.0, 0.6]),
)
def test_every_row_hides_exactly_its_share_and_lists_it(
    seed: int, n_channels: int, n_patches: int, ratio: float, share_valid: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    valid = torch.rand(4, n_channels, n_patches, generator=draw) < share_valid
    mask = random_mask(valid, ratio, torch.randint(0, 2**62, (4,), generator=draw))
    assert not bool((mask.hidden & ~valid).any())
    for row in range(4):
        n_valid = int(valid[row].sum())
        expected = math.floor(torch.tensor(n_valid * ratio, dtype=torch.float32).item() + 0.5)
        assert int(mask.hidden[row].sum()) == expected
        hidden = mask.hidden[row].flatten().nonzero()[:, 0].tolist()
        visible = (valid[row] & ~mask.hidden[row]).flatten().nonzero()[:, 0].tolist()
        assert sorted(mask.hidden_index[row][mask.hidden_counts[row]].tolist()) == hidden
        assert sorted(mask.visible_index[row][mask.visible_counts[row]].tolist()) == visible


def test_a_share_that_is_half_a_token_away_in_float32_is_listed_whole() -> None:
    mask = random_mask(torch.ones(2, 9, 10, dtype=torch.bool), 0.35, torch.arange(2))
    assert int(mask.hidden[0].sum()) == int(mask.hidden_counts[0].sum()) == 32


def test_a_mask_depends_on_the_key_alone() -> None:
    valid, keys = torch.ones(8, 5, 3, dtype=torch.bool), torch.arange(8)
    together = random_mask(valid, 0.5, keys).hidden
    alone = torch.cat([random_mask(valid[:1], 0.5, key[None]).hidden for key in keys])
    assert torch.equal(together, alone)
    assert not torch.equal(together, random_mask(valid, 0.5, keys + 8).hidden)
    assert not torch.equal(together, random_mask(valid, 0.5, keys, stream=1).hidden)


def test_all_places_are_hidden_equally_often() -> None:
    hidden = random_mask(torch.ones(4000, 3, 4, dtype=torch.bool), 0.5, torch.arange(4000)).hidden
    assert float((hidden.float().mean(0) - 0.5).abs().max()) < 0.04


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_channels=st.integers(1, 4),
    n_tokens=st.integers(1, 40),
    percent=st.integers(1, 99),
    share_valid=st.sampled_from([1.0, 0.6]),
)
def test_every_channel_hides_exactly_its_share_and_lists_it(
    seed: int, n_channels: int, n_tokens: int, percent: int, share_valid: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    valid = torch.rand(3, n_channels, n_tokens, generator=draw) < share_valid
    keys, channel = torch.randint(0, 2**62, (3,), generator=draw), torch.arange(n_channels).repeat(3, 1)
    mask = sequence_mask(valid, percent / 100, keys, channel)
    assert not bool((mask.hidden & ~valid).any())
    for row in range(3):
        for c in range(n_channels):
            expected = (2 * percent * int(valid[row, c].sum()) + 100) // 200
            assert int(mask.hidden[row, c].sum()) == int(mask.n_hidden[row, c]) == expected
            listed = mask.drawn[row, c][mask.counts[row, c]].tolist()
            assert sorted(listed) == mask.hidden[row, c].nonzero()[:, 0].tolist()
    longer = torch.cat([valid, torch.zeros(3, n_channels, 7, dtype=torch.bool)], dim=2)
    assert torch.equal(sequence_mask(longer, percent / 100, keys, channel).hidden[..., :n_tokens], mask.hidden)


def test_places_are_drawn_evenly_and_anew_for_each_key_and_channel() -> None:
    valid, channel = torch.ones(2000, 2, 10, dtype=torch.bool), torch.arange(2).repeat(2000, 1)
    mask = sequence_mask(valid, 0.3, torch.arange(2000), channel)
    share = mask.hidden.float().mean(dim=0)  # (C, N)
    torch.testing.assert_close(share, torch.full_like(share, 0.3), atol=0.05, rtol=0)
    both = (mask.hidden[:, 0] & mask.hidden[:, 1]).float().mean(dim=0)
    torch.testing.assert_close(both, torch.full_like(both, 0.09), atol=0.03, rtol=0)


def test_shares_are_rounded_half_up_whatever_floats_make_of_them() -> None:
    assert [rounded_share(n, 0.35) for n in (10, 30, 90)] == [4, 11, 32]
    assert [rounded_share(n, 1 / 3) for n in (3, 6, 9)] == [1, 2, 3]
    assert [rounded_share(n, 0.1 + 0.2) for n in (5, 15)] == [2, 5]
    assert rounded_share(torch.tensor([10, 30, 90]), 0.35).tolist() == [4, 11, 32]
