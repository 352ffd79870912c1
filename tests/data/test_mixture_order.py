from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.mixture_order import Shares, mixed_pairs, mixed_windows
from cerebro.errors import ConfigError, DataError

weights_of = st.lists(st.floats(0.01, 1), min_size=1, max_size=5)


@given(weights=weights_of, seed=st.integers(0, 2**31), start=st.integers(0, 10**12), n=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_any_stretch_of_turns_has_the_right_shares(weights, seed, start, n):
    shares = Shares(weights, seed)
    taken = np.bincount([shares.at(start + turn)[0] for turn in range(n)], minlength=len(weights))
    off = np.abs(taken - n * np.array(weights) / sum(weights))
    assert off.max() < (1 + 1e-6 if len(weights) == 2 else 2)


@given(weights=weights_of, seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_turns_are_counted_without_a_gap_from_any_start(weights, seed):
    shares = Shares(weights, seed)
    counts = [0] * len(weights)
    for turn in range(200):
        who, before = shares.at(turn)
        assert before == counts[who]
        counts[who] += 1


def test_every_turn_falls_to_each_source_with_its_share_over_the_seeds():
    weights = (0.55, 0.3, 0.15)
    for turn in (0, 1, 7, 10**9):
        taken = np.bincount([Shares(weights, seed).at(turn)[0] for seed in range(3000)], minlength=3) / 3000
        assert np.abs(taken - weights).max() < 0.035  # 4 standard errors of a share of one half


def test_a_weight_of_zero_is_never_drawn_wherever_it_stands():
    for weights in ((0, 1, 0), (0.5, 0, 0.5), (1, 0, 0)):
        drawn = {Shares(weights, 3).at(turn)[0] for turn in range(300)}
        assert drawn == {number for number, weight in enumerate(weights) if weight}


def order_of(sizes=((90,), (40, 25)), weights=(0.7, 0.3), batch_size=8, per_epoch=50, seed=5):
    """Rows 0, 1 ... of sources with buckets of these sizes."""
    source = np.concatenate([np.full(sum(of), number) for number, of in enumerate(sizes)])
    montage = np.concatenate([np.full(n, 10 * number + k) for number, of in enumerate(sizes) for k, n in enumerate(of)])
    rows = np.arange(len(source), dtype=np.int64) * 3  # rows of a longer table
    names = [f"source{number}" for number in range(len(sizes))]
    order = mixed_windows(rows, source, montage, names, weights, batch_size, per_epoch, seed)
    return order, rows, source, montage


def test_a_batch_is_full_and_of_one_source_and_one_montage():
    order, _, source, montage = order_of()
    for step in range(200):
        rows, _ = order.batch(0, step)
        assert len(rows) == 8
        assert len(np.unique(montage[rows // 3])) == 1
        assert len(np.unique(source[rows // 3])) == 1


def test_an_epoch_has_the_shares_of_its_sources_up_to_one_batch():
    order, _, source, _ = order_of()
    for epoch in range(20):
        first = [source[order.batch(epoch, step)[0][0] // 3] for step in range(len(order))]
        assert abs(np.mean(first) * 50 - 15) <= 1


def test_windows_of_a_source_are_drawn_equally_often_and_none_returns_before_all_of_its_bucket_were_seen():
    order, rows, source, montage = order_of(sizes=((96,), (40, 24)))
    drawn = np.concatenate([order.batch(0, step)[0] for step in range(1000)]) // 3
    for code, size in ((0, 96), (10, 40), (11, 24)):
        mine = drawn[montage[drawn] == code]
        whole = len(mine) // size * size
        for one_pass in mine[:whole].reshape(-1, size):
            assert len(np.unique(one_pass)) == size
    times = np.bincount(drawn, minlength=len(rows))[source == 1]
    assert times.max() - times.min() <= 2  # whatever the size of their montage
    first, second = (drawn[montage[drawn] == 0][k * 96 : (k + 1) * 96] for k in (0, 1))
    assert not np.array_equal(first, second)


def test_a_batch_depends_on_its_number_alone():
    order, *_ = order_of()
    longer = order_of(per_epoch=25)[0]
    for epoch, step in ((0, 0), (3, 49), (1, 10), (0, 0)):
        number = epoch * 50 + step
        rows, key = order.batch(epoch, step)
        again, key_again = longer.batch(*divmod(number, 25))
        assert np.array_equal(rows, again)
        assert key == key_again == number  # so that no window meets the same random numbers twice
    assert not np.array_equal(order.batch(0, 0)[0], order_of(seed=6)[0].batch(0, 0)[0])


def test_a_bucket_smaller_than_a_batch_gives_each_window_equally_often():
    order, *_ = order_of(sizes=((3,),), weights=(1,), batch_size=8)
    drawn = np.concatenate([order.batch(0, step)[0] for step in range(3)]) // 3
    assert np.bincount(drawn).tolist() == [8, 8, 8]


def test_couples_are_of_one_source_and_montage_and_a_source_without_any_is_named():
    rng = np.random.default_rng(0)
    n = 240
    source, montage, participant = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 6, n)
    pair = rng.integers(0, 9, n)
    montage += 2 * source
    participant += 6 * source
    rows = np.arange(n, dtype=np.int64)
    names = ["film_a", "film_b"]

    def pairs_of(pair, weights):
        return mixed_pairs(rows, source, montage, pair, participant, names, weights, 8, 40, 0)

    order = pairs_of(pair, (0.5, 0.5))
    assert order.rows_together == 2
    for step in range(80):
        drawn = order.batch(0, step)[0]
        assert len(np.unique(montage[drawn])) == 1
        couples = drawn.reshape(-1, 2)
        assert (pair[couples[:, 0]] == pair[couples[:, 1]]).all()
        assert (participant[couples[:, 0]] != participant[couples[:, 1]]).all()
    alone = np.where(source == 1, -1, pair)
    with pytest.raises(DataError, match=r"source film_b has no couples: .* Or set its weight in data.weights to 0"):
        pairs_of(alone, (0.5, 0.5))
    only = pairs_of(alone, (1.0, 0.0))
    assert {int(source[only.batch(0, step)[0][0]]) for step in range(40)} == {0}
    assert any("of film_b left out" in line for line in only.left_out)
    assert {int(source[pairs_of(alone, ()).batch(0, step)[0][0]]) for step in range(40)} == {0}  # validation


def test_wrong_mixtures_are_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"data.batches_per_epoch"):
        order_of(per_epoch=0)
    with pytest.raises(DataError, match=r"source source1 has no training window and a weight of 0.3; .*source0: 1"):
        order_of(sizes=((90,), ()))
    assert len(order_of(sizes=((90,), ()), weights=(1, 0))[0]) == 50


def test_thirds_do_not_drift_over_a_long_training():
    shares = Shares((1, 1, 1), 0)
    turn = 3 * 10**9
    before = {}
    for step in range(6):
        who, count = shares.at(turn + step)
        before.setdefault(who, count)
    assert all(abs(Fraction(count) - 10**9) < 3 for count in before.values())
