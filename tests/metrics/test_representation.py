import numpy as np
import pytest
import torch

from cerebro.errors import ConfigError
from cerebro.metrics.representation import (
    alignment,
    effective_rank,
    inter_subject_correlation,
    moment_found,
    synchrony,
    time_courses,
    uniformity,
)


def courses(n_people, n_times, n_dims, shared, seed=0, smooth=1):
    """Time courses of variance 1, of which ``shared`` is the same in everyone; ``smooth`` samples hang together."""
    rng = np.random.default_rng(seed)

    def noise(n):
        value = rng.normal(size=(n, n_times + smooth, n_dims)).cumsum(axis=1)
        return (value[:, smooth:] - value[:, :-smooth]) / np.sqrt(smooth)

    return np.sqrt(shared) * noise(1) + np.sqrt(1 - shared) * noise(n_people)


def test_it_is_the_mean_correlation_with_the_mean_of_the_others():
    course = courses(4, 30, 2, 0.4)
    scaled = course * np.array([1, 5, 0.2, 30])[:, None, None] + 7.0  # what standardising takes away
    standard = (course - course.mean(axis=1, keepdims=True)) / course.std(axis=1, keepdims=True)
    expected = np.mean(
        [
            np.corrcoef(standard[i, :, d], np.delete(standard, i, axis=0)[:, :, d].mean(axis=0))[0, 1]
            for i in range(4)
            for d in range(2)
        ]
    )
    assert inter_subject_correlation(course) == pytest.approx(expected, rel=1e-10)
    assert inter_subject_correlation(scaled) == pytest.approx(expected, rel=1e-10)


def test_a_planted_share_of_variance_comes_back():
    """The correlation of one course with the mean of P - 1 others is s / sqrt(s + (1 - s) / (P - 1)) for a share s."""
    found = inter_subject_correlation(courses(20, 400, 8, 0.3))
    assert found == pytest.approx(0.3 / np.sqrt(0.3 + 0.7 / 19), abs=0.03)
    report = synchrony(courses(20, 400, 8, 0.3), n_shuffles=60)
    assert report.p == 1 / 61
    assert abs(report.shuffled_mean) < 0.02
    assert report.shuffled_q95 < 0.05
    assert (report.n_people, report.n_times) == (20, 400)


@pytest.mark.parametrize("smooth", [1, 12])
def test_strangers_are_not_found_synchronous_however_slow_their_courses(smooth):
    p = [synchrony(courses(6, 80, 2, 0.0, seed, smooth), n_shuffles=40).p for seed in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= 0.15  # 0.05 is expected; of 40, 0.15 are 6
    assert 0.35 < np.mean(p) < 0.65


def test_missing_moments_and_flat_dimensions_are_left_out():
    course = courses(6, 60, 3, 0.5)
    whole = inter_subject_correlation(course)
    known = np.ones((6, 60), bool)
    known[0, 40:] = known[1, :10] = False
    damaged = np.where(known[:, :, None], course, np.nan)
    assert inter_subject_correlation(damaged, known) == pytest.approx(whole, abs=0.1)
    with_flat = np.concatenate([course, np.full((6, 60, 2), 3.0)], axis=2)
    assert inter_subject_correlation(with_flat) == pytest.approx(whole, rel=1e-9)
    hardly = np.zeros((6, 60), bool)
    hardly[:, :4] = True
    assert np.isnan(inter_subject_correlation(course, hardly))
    assert np.isnan(synchrony(course[:1]).isc)
    apart = np.zeros((2, 60), bool)
    apart[0, :30] = apart[1, 30:] = True
    assert synchrony(course[:2], apart).n_people == 0
    with pytest.raises(ConfigError, match="n_shuffles"):
        synchrony(course, n_shuffles=0)


def test_a_shuffle_is_a_function_of_its_seed():
    course = courses(5, 50, 3, 0.1)
    assert synchrony(course, seed=1) == synchrony(course, seed=1)
    assert synchrony(course, seed=1) != synchrony(course, seed=2)


def test_the_moment_is_found_where_people_are_alike_and_by_chance_where_they_are_not():
    assert moment_found(courses(10, 50, 20, 0.8)) == (1, pytest.approx(1 / 50))
    assert moment_found(courses(40, 50, 20, 0.0)) == (pytest.approx(1 / 50, abs=0.012), pytest.approx(1 / 50))
    assert np.isnan(moment_found(courses(1, 50, 20, 0.6))).all()


def test_a_moment_is_found_if_the_mean_of_the_others_is_likest_there():
    course = courses(4, 12, 3, 0.3)
    known = np.ones((4, 12), bool)
    known[0, 7:] = False  # this person's moments are seven, and the last ones have three people
    shares, chances = [], []
    standard = np.zeros_like(course)
    for i in range(4):
        own = course[i, known[i]]
        standard[i, known[i]] = (own - own.mean(axis=0)) / own.std(axis=0)
    for i in range(4):
        who = [[j for j in range(4) if j != i and known[j, t]] for t in range(12)]
        others = np.stack([standard[who[t], t].mean(axis=0) for t in range(12)])
        cosine = standard[i] @ others.T / np.linalg.norm(others, axis=1)
        times = np.flatnonzero(known[i])
        shares.append(np.mean([times[np.argmax(cosine[t, times])] == t for t in times]))
        chances.append(1 / len(times))
    assert moment_found(course, known) == (pytest.approx(np.mean(shares)), pytest.approx(np.mean(chances)))


def test_windows_become_courses_by_person_and_time():
    value = np.arange(10.0).reshape(5, 2)
    course, known = time_courses(value, np.array([7, 7, 3, 3, 3]), np.array([2000, 0, 0, 2000, 2000]))
    assert known.tolist() == [[True, True], [True, True]]
    assert course.tolist() == [[[4, 5], [7, 8]], [[2, 3], [0, 1]]]
    course, known = time_courses(value[:2], np.array([1, 2]), np.array([0, 500]))
    assert known.tolist() == [[True, False], [False, True]]


def test_alignment_and_uniformity_equal_the_published_formulas():
    rng = np.random.default_rng(0)
    rows, pair, person = rng.normal(size=(40, 5)), rng.integers(-1, 6, 40), rng.integers(0, 3, 40)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    couples = [(i, j) for i in range(40) for j in range(40) if pair[i] == pair[j] >= 0 and person[i] != person[j]]
    expected = np.mean([((unit[i] - unit[j]) ** 2).sum() for i, j in couples])
    assert alignment(3 * rows, pair, person) == pytest.approx(expected, rel=1e-10)
    published = torch.pdist(torch.from_numpy(unit)).square().mul(-2).exp().mean().log()
    assert uniformity(rows) == pytest.approx(float(published), rel=1e-10)
    assert np.isnan(alignment(rows, np.arange(40), person))
    assert np.isnan(alignment(rows, np.full(40, -1), person))


def test_the_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(50, 10)))[0]
    even = np.linalg.qr(rng.normal(size=(200, 10)))[0]
    even = even - even.mean(axis=0)
    assert effective_rank(rng.normal(size=(2000, 3)) @ basis.T[:3]) == pytest.approx(3, abs=0.02)
    assert effective_rank(np.outer(rng.normal(size=100), basis[:, 0]) + 5) == pytest.approx(1, abs=1e-6)
    assert effective_rank(even) == pytest.approx(10, abs=0.1)
    assert effective_rank(np.ones((10, 4))) == 0.0
