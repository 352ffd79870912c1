import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebro.errors import ConfigError, DataError
from cerebro.metrics.correlated_components import CorrelatedComponents, standard_windows

N_CHANNELS, N_TIMES = 6, 100


def watched(n_people, n_moments, strength, seed=0):
    """Windows (N, C, T) of people who share a source of variance ``strength``², seen with one topography."""
    rng = np.random.default_rng(seed)
    topography = rng.normal(size=N_CHANNELS)
    source = strength * rng.normal(size=(n_moments, N_TIMES))
    mixing = np.eye(N_CHANNELS) + 0.3 * rng.normal(size=(N_CHANNELS, N_CHANNELS))
    noise = mixing @ rng.normal(size=(n_people, n_moments, N_CHANNELS, N_TIMES))
    eeg = noise + topography[:, None] * source[None, :, None, :]
    person, moment = (index.ravel() for index in np.indices((n_people, n_moments)))
    return eeg.reshape(-1, N_CHANNELS, N_TIMES).astype(np.float32), moment, person, (topography, mixing)


def found(eeg, moment, person, size=7, **keys):
    components = CorrelatedComponents(N_CHANNELS, **keys)
    for at in range(0, len(eeg), size):
        components.add(eeg[at : at + size], moment[at : at + size], person[at : at + size])
    return components.find(2)


def test_the_first_component_is_the_source_that_people_share():
    """Its filter is the one of linear discriminant analysis, Σ⁻¹a, and its correlation v / (v + 1 / aᵀΣ⁻¹a)."""
    eeg, moment, person, (topography, mixing) = watched(10, 60, 0.5)
    components = found(eeg, moment, person, shrinkage=0.0)
    best = np.linalg.solve(mixing @ mixing.T, topography)
    cosine = components.filters[0] @ best / np.linalg.norm(components.filters[0]) / np.linalg.norm(best)
    assert abs(cosine) > 0.97
    assert components.isc[0] == pytest.approx(0.25 / (0.25 + 1 / (topography @ best)), abs=0.03)
    assert abs(components.isc[1]) < 0.03


def test_it_equals_the_sum_over_all_couples_of_people():
    """The published definition, written out over every ordered couple."""
    eeg, moment, person, *_ = watched(5, 4, 0.7)
    there = np.random.default_rng(1).random(len(eeg)) < 0.8  # not everyone saw everything
    eeg, moment, person = eeg[there], moment[there], person[there]
    between, within = (np.zeros((N_CHANNELS, N_CHANNELS)) for _ in range(2))
    windows = standard_windows(eeg).astype(np.float64)
    for i in range(len(eeg)):
        for j in range(len(eeg)):
            if moment[i] == moment[j] and person[i] != person[j]:
                between += windows[i] @ windows[j].T
                within += windows[i] @ windows[i].T
    values = np.sort(np.linalg.eigvals(np.linalg.solve(within, between)).real)[::-1]
    assert found(eeg, moment, person, shrinkage=0.0).isc == pytest.approx(values[:2], abs=1e-5)


@given(st.integers(1, 40), st.integers(0, 5))
def test_neither_the_batches_nor_the_order_matter(size, seed):
    eeg, moment, person, *_ = watched(4, 5, 0.7)
    order = np.random.default_rng(seed).permutation(len(eeg))
    one, other = found(eeg, moment, person), found(eeg[order], moment[order], person[order], size)
    assert one.isc == pytest.approx(other.isc, rel=1e-4)
    assert np.abs(one.filters[0]) == pytest.approx(np.abs(other.filters[0]), rel=1e-2, abs=1e-4)


def test_strangers_share_nothing():
    eeg, moment, person, *_ = watched(10, 60, 0.0)
    assert found(eeg, moment, person).isc[0] < 0.01


def test_one_artefact_does_not_decide():
    eeg, moment, person, *_ = watched(10, 30, 0.5)
    clean = found(eeg, moment, person)
    eeg[3] *= 1e4
    assert found(eeg, moment, person).isc == pytest.approx(clean.isc, abs=1e-4)


def test_a_second_window_of_a_person_at_a_moment_is_left_out():
    eeg, moment, person, *_ = watched(4, 10, 0.0)
    twice = (np.concatenate([eeg, eeg]), np.tile(moment, 2), np.tile(person, 2))
    assert found(*twice).isc == pytest.approx(found(eeg, moment, person).isc, abs=1e-6)


def test_a_channel_that_is_flat_or_twice_there_does_no_harm():
    eeg, moment, person, *_ = watched(6, 30, 0.5)
    eeg[:, 0] = 3.0
    eeg[:, 1] = eeg[:, 2]
    without = CorrelatedComponents(N_CHANNELS - 2)
    without.add(eeg[:, 2:], moment, person)
    assert found(eeg, moment, person).isc[0] == pytest.approx(without.find().isc[0], abs=0.01)


def test_channels_that_are_mixtures_need_shrinkage():
    eeg, moment, person, *_ = watched(6, 30, 0.5)
    eeg[:, 0] = 0
    with pytest.raises(DataError, match=r"some of 6 channels are mixtures of others, and shrinkage is 0\.0; set it to"):
        found(eeg, moment, person, shrinkage=0.0)


def test_nothing_shared_is_one_line():
    eeg, moment, person, *_ = watched(1, 5, 0.5)
    with pytest.raises(DataError, match="no moment at which two people have EEG that is not flat"):
        found(eeg, moment, person)
    with pytest.raises(DataError, match="not flat"):
        found(np.zeros((2, N_CHANNELS, 9), np.float32), np.zeros(2, int), np.arange(2))
    with pytest.raises(ConfigError, match=r"shrinkage=2\.0 is not in"):
        CorrelatedComponents(3, shrinkage=2.0)
