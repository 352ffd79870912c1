import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.sampling import (
    FixedOrder,
    PairedOrder,
    Permutation,
    ShuffledOrder,
    evenly_spaced,
    rank_slice,
)
from cerebro.errors import ConfigError, DataError


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5000), st.integers(-3, 2**40), st.integers(0, 1000), st.integers(0, 3))
def test_a_permutation_visits_every_value_once(n, seed, epoch, stream):
    assert np.array_equal(np.sort(Permutation(n, seed, epoch, stream)(np.arange(n))), np.arange(n))


def test_a_permutation_can_be_asked_at_any_place():
    permutation = Permutation(48_600_000, seed=1, epoch=7)
    middle = permutation(np.arange(24_000_000, 24_000_128))
    assert np.array_equal(middle[64:], permutation(np.arange(24_000_064, 24_000_128)))
    assert middle.min() >= 0
    assert middle.max() < 48_600_000


def test_permutations_of_other_epochs_seeds_and_streams_are_unrelated():
    positions = np.arange(2000)
    keys = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]
    orders = [Permutation(2000, *key)(positions) for key in keys]
    for i, a in enumerate(orders):
        assert abs(np.corrcoef(a, positions)[0, 1]) < 0.1
        for b in orders[:i]:
            assert (a == b).mean() < 0.01
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_small_permutations_are_close_to_uniform():
    first = np.array([Permutation(5, seed, 0)(np.array([0]))[0] for seed in range(2000)])
    assert np.abs(np.bincount(first, minlength=5) / 2000 - 0.2).max() < 0.04


def rows_of(order, epoch):
    return [order.batch(epoch, step)[0] for step in range(len(order))]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=200), st.integers(1, 17), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_in_batches_of_one_montage(montages, batch_size, epoch):
    montage = np.array(montages)
    rows = np.arange(len(montage), dtype=np.int64) * 3 + 5
    batches = rows_of(ShuffledOrder(rows, montage, batch_size, 0, seed=4), epoch)
    assert np.array_equal(np.sort(np.concatenate(batches)), rows)
    assert all(len(np.unique(montage[(batch - 5) // 3])) == 1 for batch in batches)
    assert all(len(batch) <= batch_size for batch in batches)


def test_epochs_differ_and_can_be_repeated():
    rows, montage = np.arange(100), np.zeros(100, int)
    order = ShuffledOrder(rows, montage, 10, 0, seed=1)
    again = ShuffledOrder(rows, montage, 10, 0, seed=1)
    assert np.array_equal(np.stack(rows_of(order, 3)), np.stack(rows_of(again, 3)))
    assert not np.array_equal(np.stack(rows_of(order, 0)), np.stack(rows_of(order, 1)))


def test_short_epochs_see_every_window_before_any_comes_back():
    order = ShuffledOrder(np.arange(60), np.zeros(60, int), 10, batches_per_epoch=4, seed=0)
    seen = np.concatenate([*rows_of(order, 0), *rows_of(order, 1)])
    assert len(seen) == 80
    assert np.array_equal(np.sort(seen[:60]), np.arange(60))
    assert order.batch(1, 1)[1] == 0
    assert order.batch(1, 2)[1] == 1  # a new pass has new random numbers


def test_fixed_order_is_the_same_in_every_epoch_with_a_smaller_last_batch():
    order = FixedOrder(np.arange(23), np.zeros(23, int), 10)
    assert [len(batch) for batch in rows_of(order, 0)] == [10, 10, 3]
    assert np.array_equal(np.concatenate(rows_of(order, 5)), np.arange(23))
    assert order.batch(9, 1)[1] == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 9), st.integers(0, 40))
def test_every_couple_is_one_moment_seen_by_two_people_and_moments_are_distinct(seed, n_people, n_moments, step):
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(n_moments), n_people * 2).astype(np.int64)
    participant = np.tile(np.arange(n_people).repeat(2), n_moments)  # everyone saw everything twice
    keep = rng.random(len(pair)) < 0.8
    pair, participant = pair[keep], participant[keep]
    rows = np.arange(len(pair), dtype=np.int64)
    shared = [code for code in np.unique(pair) if len(np.unique(participant[pair == code])) > 1]
    if not shared:
        return
    batch_size = 2 * (1 + seed % len(shared))
    chosen, _ = PairedOrder(rows, pair, participant, batch_size, 0, seed).batch(step // 7, step % 7)
    couples = chosen.reshape(-1, 2)
    assert len(chosen) == batch_size
    assert (pair[couples[:, 0]] == pair[couples[:, 1]]).all()
    assert (participant[couples[:, 0]] != participant[couples[:, 1]]).all()
    assert len(np.unique(pair[couples[:, 0]])) == len(couples)


def test_anchors_take_turns_and_every_other_person_can_be_the_positive():
    pair, participant = np.repeat(np.arange(4), 5).astype(np.int64), np.tile(np.arange(5), 4)
    order = PairedOrder(np.arange(20), pair, participant, 8, batches_per_epoch=5, seed=3)
    couples = np.concatenate([order.batch(epoch, step)[0] for epoch in range(40) for step in range(5)]).reshape(-1, 2)
    assert np.array_equal(np.bincount(couples[:, 0], minlength=20), np.full(20, 40))
    partners = {(a % 5, b % 5) for a, b in couples.tolist()}
    assert partners == {(a, b) for a in range(5) for b in range(5) if a != b}


def test_moments_seen_by_one_person_are_left_out_and_counted():
    pair, participant = np.array([0, 0, 1, 2, -1, 2]), np.array([0, 1, 0, 0, 1, 1])
    order = PairedOrder(np.arange(6), pair, participant, 2, 0, seed=0)
    assert order.left_out == ("2 windows left out: no other participant saw the same moment",)
    seen = {row for epoch in range(20) for batch in rows_of(order, epoch) for row in batch.tolist()}
    assert seen == {0, 1, 3, 5}


def test_too_few_shared_moments_are_refused_with_the_largest_batch_that_works():
    with pytest.raises(DataError, match="at most 2 "):
        PairedOrder(np.arange(2), np.array([5, 5]), np.array([0, 1]), 4, 0, seed=0)
    with pytest.raises(ConfigError, match="even number"):
        PairedOrder(np.arange(2), np.array([5, 5]), np.array([0, 1]), 3, 0, seed=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_ranks_partition_the_global_batch(n, world_size):
    rows = np.arange(n) + 100
    shares = [rank_slice(rows, rank, world_size, is_training=False) for rank in range(world_size)]
    assert np.array_equal(np.unique(np.concatenate(shares)), rows)
    assert all(len(share) for share in shares)
    shares = [rank_slice(rows, rank, world_size, is_training=True) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(shares), rows[: n - n % world_size])
    assert len({len(share) for share in shares}) == 1


def test_a_last_batch_too_small_for_all_ranks_is_dropped():
    order = ShuffledOrder(np.arange(9), np.zeros(9, int), 4, 0, seed=0, world_size=2)
    assert [len(batch) for batch in rows_of(order, 0)] == [4, 4]
    with pytest.raises(DataError, match="fewer processes"):
        ShuffledOrder(np.arange(1), np.zeros(1, int), 4, 0, seed=0, world_size=2)


def test_an_evenly_spaced_subset_spans_all_rows():
    assert evenly_spaced(np.arange(100), 4).tolist() == [0, 25, 50, 75]
    assert len(evenly_spaced(np.arange(100), 0)) == 100
    assert len(evenly_spaced(np.arange(3), 10)) == 3
