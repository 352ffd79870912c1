from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError
from cerebro.montage import hbn_129
from cerebro.objectives.block_masks import BlockMask, ContextTargets, DiskMask, Kind, ManyContexts
from cerebro.signal import SignalSpec

N_PATCHES = 12


@pytest.fixture(scope="module")
def signal() -> SignalSpec:
    cap = hbn_129()
    places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
    return SignalSpec(tuple(cap.channels), places, 100.0, 1600)


def whole(n_batch: int, n_channels: int = 129, n_patches: int = N_PATCHES) -> tuple[Any, ...]:
    valid = torch.ones(n_batch, n_channels, n_patches, dtype=torch.bool)
    return valid, torch.arange(n_channels).repeat(n_batch, 1), torch.arange(n_batch) * 7919, False


def sets(drawn: ContextTargets, row: int) -> tuple[list[set[int]], list[list[set[int]]]]:
    """Tokens of each context of a window, and of each of its targets; no token is listed twice."""

    def counted(index: torch.Tensor, counts: torch.Tensor) -> set[int]:
        listed = index[counts].tolist()
        assert len(listed) == len(set(listed))
        return set(listed)

    contexts = [counted(*pair) for pair in zip(drawn.context[row], drawn.context_counts[row], strict=True)]
    targets = [
        [counted(*pair) for pair in zip(index, counts, strict=True)]
        for index, counts in zip(drawn.target[row], drawn.target_counts[row], strict=True)
    ]
    return contexts, targets


@pytest.mark.parametrize(("diameter", "mean"), [("40%", 6.3), ("60%", 14.1), ("80%", 23.4)])
def test_disks_hide_as_many_channels_of_hbns_net_as_the_paper_says(
    signal: SignalSpec, diameter: Any, mean: float
) -> None:
    mask = DiskMask(signal, N_PATCHES, diameter)
    near = (mask.distance_cm < mask.radius_cm).sum(dim=1).float()
    assert float(near.mean()) == pytest.approx(mean, abs=0.05)
    drawn = mask(*whole(3000))
    hidden = drawn.target_counts.sum(dim=(1, 2, 3)).float() / N_PATCHES
    assert float(hidden.mean()) == pytest.approx(mean, rel=0.03)


def test_a_disk_is_an_electrode_and_all_nearer_ones_for_the_whole_window(signal: SignalSpec) -> None:
    mask = DiskMask(signal, N_PATCHES, "60%")
    balls = [set(torch.where(row < 5.7)[0].tolist()) for row in mask.distance_cm]
    drawn = mask(*whole(20))
    for row in range(20):
        (context,), ((target,),) = sets(drawn, row)
        channels = {token // N_PATCHES for token in target}
        assert channels in balls
        assert target == {channel * N_PATCHES + n for channel in channels for n in range(N_PATCHES)}
        assert context == set(range(129 * N_PATCHES)) - target


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["spatial", "temporal", "spatiotemporal"]),
    radius_cm=st.sampled_from([3.0, 9.0, 30.0]),
    duration=st.integers(1, 14),
    ratio=st.floats(0.1, 0.9),
    n_channels=st.integers(2, 9),
    n_patches=st.integers(4, 9),
    n_absent=st.integers(0, 2),
    n_lost=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_blocks_hide_exactly_their_share_and_lists_are_whole(
    kind: Kind,
    radius_cm: float,
    duration: int,
    ratio: float,
    n_channels: int,
    n_patches: int,
    n_absent: int,
    n_lost: int,
    seed: int,
) -> None:
    places = tuple((0.09 * i / n_channels, 0.03 * (i % 3), 0.0) for i in range(n_channels))
    signal = SignalSpec(tuple(f"c{i}" for i in range(n_channels)), places, 100.0, 1600)
    n_units = {"spatial": n_channels, "temporal": n_patches, "spatiotemporal": n_channels * n_patches}[kind]
    if not 0 < int(n_units * ratio + 0.5) < n_units:
        with pytest.raises(ConfigError, match=r"nothing|everything"):
            BlockMask(signal, n_patches, kind, radius_cm, duration, ratio)
        return
    mask = BlockMask(signal, n_patches, kind, radius_cm, duration, ratio)
    valid, channel, key, _ = whole(3, n_channels, n_patches)
    n_absent = min(n_absent, n_channels - 1)
    is_padded = n_absent > 0 or n_lost > 0
    channel[0, n_channels - n_absent :] = -1
    valid[0, n_channels - n_absent :] = False
    valid[0, :, n_patches - n_lost :] = False
    drawn = mask(valid, channel, key + seed, is_padded)
    assert drawn.is_full is not is_padded
    if drawn.is_full:
        assert bool(drawn.context_counts.all())
        assert bool(drawn.target_counts.all())
    for row in range(3):
        (context,), ((target,),) = sets(drawn, row)
        assert not context & target
        assert context | target == set(valid[row].flatten().nonzero()[:, 0].tolist())
        n_there, n_times = int(valid[row].any(1).sum()), int(valid[row].any(0).sum())
        usable = {"spatial": n_there, "temporal": n_times, "spatiotemporal": n_there * n_times}[kind]
        per_unit = n_there * n_times // usable
        assert len(target) == per_unit * min(max(int(usable * ratio + 0.5), 1), usable - 1)


def test_a_single_block_is_compact_in_space_and_time(signal: SignalSpec) -> None:
    n_channels = int((BlockMask(signal, N_PATCHES).distance_cm < 5).sum(dim=1).min())
    mask = BlockMask(signal, N_PATCHES, "spatiotemporal", 5.0, 3, ratio=(n_channels * 3) / (129 * N_PATCHES))
    drawn = mask(*whole(30))
    for row in range(30):
        ((target,),) = sets(drawn, row)[1]
        channels, times = {t // N_PATCHES for t in target}, {t % N_PATCHES for t in target}
        assert max(times) - min(times) < 3
        assert float(mask.distance_cm[list(channels)][:, list(channels)].max()) < 10


def test_masks_are_functions_of_the_key_and_hide_every_place(signal: SignalSpec) -> None:
    for mask in (DiskMask(signal, N_PATCHES), BlockMask(signal, N_PATCHES), ManyContexts(signal, N_PATCHES)):
        valid, channel, key, is_padded = whole(400)
        drawn = mask(valid, channel, key, is_padded)
        alone = mask(valid[7:8], channel[7:8], key[7:8], is_padded)
        assert torch.equal(alone.target[0], drawn.target[7])
        assert torch.equal(alone.context[0], drawn.context[7])
        listed = drawn.target[drawn.target_counts]
        assert len(listed.unique()) == 129 * N_PATCHES


def test_many_contexts_are_eight_channels_away_from_their_two_targets(signal: SignalSpec) -> None:
    mask = ManyContexts(signal, N_PATCHES)
    drawn = mask(*whole(5))
    assert drawn.context.shape == (5, 8, 8 * N_PATCHES)
    assert drawn.target.shape == (5, 8, 2, 8 * N_PATCHES)
    assert drawn.is_full
    for row in range(5):
        for context, targets in zip(*sets(drawn, row), strict=True):
            assert len(context) == 8 * N_PATCHES
            assert all(len(target) == 8 * N_PATCHES for target in targets)
            assert not any(context & target for target in targets)


def test_a_context_lies_anywhere_beside_its_targets(signal: SignalSpec) -> None:
    mask = ManyContexts(signal, 1)
    drawn = mask(*whole(50, n_patches=1))
    centre = torch.tensor(signal.positions)
    shown = centre[drawn.context].mean(dim=2)  # (B, R, 3) metres
    for target in drawn.target.unbind(dim=2):
        away_cm = 100 * (centre[target].mean(dim=2) - shown).norm(dim=-1)
        assert float((away_cm > 9).float().mean()) > 0.3


def test_padding_is_neither_shown_nor_a_target(signal: SignalSpec) -> None:
    valid, channel, key, _ = whole(4, 40)
    channel[:, 30:], valid[:, 30:] = -1, False
    valid[:2, :, 9:] = False
    for mask in (DiskMask(signal, N_PATCHES), BlockMask(signal, N_PATCHES), ManyContexts(signal, N_PATCHES)):
        drawn = mask(valid, channel, key, True)
        for row in range(4):
            contexts, targets = sets(drawn, row)
            usable = set(valid[row].flatten().nonzero()[:, 0].tolist())
            assert all(listed <= usable for listed in [*contexts, *(t for each in targets for t in each)])
            assert all(contexts)


def test_what_hides_everything_or_nothing_is_refused(signal: SignalSpec) -> None:
    few = replace(signal, channels=signal.channels[:4], positions=signal.positions[:4])
    with pytest.raises(ConfigError, match=r"disk of 80% .* holds all 4 channels, which hides everything; set diameter"):
        DiskMask(few, N_PATCHES, "80%")
    with pytest.raises(ConfigError, match=r"ratio=0.999 of 129 channels hides everything; set ratio between"):
        BlockMask(signal, N_PATCHES, "spatial", ratio=0.999)
    with pytest.raises(ConfigError, match=r"ratio=0.01 of 12 times hides nothing"):
        BlockMask(signal, N_PATCHES, "temporal", ratio=0.01)
    with pytest.raises(ConfigError, match=r"want 24 channels, and there are 4; set n_channels to 1"):
        ManyContexts(few, N_PATCHES)


@pytest.mark.parametrize("kind", ["temporal", "spatiotemporal"])
def test_masks_in_time_want_four_tokens(signal: SignalSpec, kind: Kind) -> None:
    with pytest.raises(ConfigError, match=r"3 tokens per channel, and masks in time need 4 .*duration_s: 16"):
        BlockMask(signal, 3, kind)
    BlockMask(signal, 1, "spatial")


def test_an_unknown_place_is_refused(signal: SignalSpec) -> None:
    lost = replace(signal, positions=(*signal.positions[:-1], (float("nan"),) * 3))
    with pytest.raises(ConfigError, match=r"1 of 129 channels have no position \(Cz\)"):
        DiskMask(lost, N_PATCHES)
