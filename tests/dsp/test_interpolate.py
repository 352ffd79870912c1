import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.dsp.interpolate import HALF_TAPS, interpolate, weights_at


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 0.25), st.integers(0, 2**31))
def test_a_sine_is_read_between_its_samples(cycles_per_sample, seed):
    instants = np.sort(np.random.default_rng(seed).uniform(HALF_TAPS, 300 - HALF_TAPS, 200))
    signal = np.sin(2 * np.pi * cycles_per_sample * np.arange(300))[None].astype(np.float32)
    out = np.empty((1, 200), np.float32)
    interpolate(signal, *weights_at(instants), out)
    np.testing.assert_allclose(out[0], np.sin(2 * np.pi * cycles_per_sample * instants), atol=3e-5)


def test_at_a_sample_it_is_that_sample():
    signal = np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    instants = np.arange(20.0, 60.0)
    out = np.empty((3, 40), np.float32)
    interpolate(signal, *weights_at(instants), out)
    np.testing.assert_allclose(out, signal[:, 20:60], atol=1e-6)
