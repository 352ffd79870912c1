import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.objectives.masks import random_mask


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
