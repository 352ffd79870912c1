import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp.spherical_spline import spline_weights


def directions(n, turn=0.0):
    """Evenly spread over the sphere: a spiral of golden angles."""
    place = np.arange(n) + 0.5
    height, angle = 1 - 2 * place / n, np.pi * (1 + 5**0.5) * place + turn
    width = np.sqrt(1 - height**2)
    return np.stack([width * np.cos(angle), width * np.sin(angle), height], axis=1)


def test_a_smooth_field_is_rebuilt_between_the_electrodes():
    """Potential of a dipole at 0.3 of the radius in an unbounded medium, from 128 electrodes."""
    sources, targets = directions(128), directions(37, turn=1.0)
    dipole, moment = np.array([0.18, 0.0, 0.24]), np.array([0.3, -0.5, 0.8])

    def field(places):
        away = places - dipole
        return (away @ moment) / np.linalg.norm(away, axis=1) ** 3

    rebuilt = spline_weights(sources, targets) @ field(sources)
    error = np.linalg.norm(rebuilt - field(targets)) / np.linalg.norm(field(targets))
    assert error < 0.01


def test_an_electrode_that_is_there_keeps_a_smooth_value_but_for_the_regularisation():
    places = directions(64)
    values = places[:, 0] + places[:, 1] * places[:, 2]
    assert np.abs(spline_weights(places, places) @ values - values).max() < 0.002


@given(seed=st.integers(0, 1000), n=st.integers(4, 60))
@settings(max_examples=25, deadline=None)
def test_a_constant_stays_and_order_and_length_do_not_matter(seed, n):
    sources, targets = np.random.default_rng(seed).normal(size=(n, 3)), directions(7)
    weights = spline_weights(sources, targets)
    assert np.allclose(weights.sum(axis=1), 1)
    order = np.random.default_rng(seed).permutation(n)
    assert np.allclose(spline_weights(3 * sources[order], 0.1 * targets), weights[:, order], atol=1e-7)
