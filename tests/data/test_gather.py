import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.gather import gather_counts, gather_microvolts


@settings(max_examples=60, deadline=None)
@given(
    n_windows=st.integers(1, 5),
    n_channels=st.one_of(st.integers(1, 40), st.just(129)),
    n_times=st.one_of(st.integers(1, 70), st.just(200)),
    seed=st.integers(0, 2**31),
)
def test_windows_come_out_as_numpy_turns_and_scales_them(n_windows, n_channels, n_times, seed):
    generator = np.random.default_rng(seed)
    flat = generator.integers(-32768, 32768, 3 * n_windows * n_channels * n_times, dtype=np.int16)
    first = generator.integers(0, len(flat) - n_channels * n_times + 1, n_windows)  # any start, aligned to nothing
    scale = generator.uniform(0.01, 1, n_windows).astype(np.float32)
    out = np.full((n_windows + 2, n_channels, n_times), np.float32(7))
    gather_microvolts(flat.ctypes.data + 2 * first, scale, out[1:-1])
    for window, start, factor in zip(out[1:-1], first, scale, strict=True):
        counts = flat[start : start + n_times * n_channels].reshape(n_times, n_channels)
        assert np.array_equal(window, counts.T.astype(np.float32) * factor)
    assert (out[[0, -1]] == 7).all()  # nothing is written beside the batch


def test_every_value_that_int16_can_hold_is_exact():
    flat = np.arange(-32768, 32768, dtype=np.int16)
    out = np.empty((1, 16, 4096), np.float32)
    gather_microvolts(np.array([flat.ctypes.data]), np.ones(1, np.float32), out)
    assert np.array_equal(out[0], flat.reshape(4096, 16).T)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_windows_come_out_as_they_are(n_windows, n_times, n_channels, seed):
    generator = np.random.default_rng(seed)
    flat = generator.integers(-32768, 32768, 3 * n_windows * n_channels * n_times, dtype=np.int16)
    first = generator.integers(0, len(flat) - n_channels * n_times + 1, n_windows)
    out = np.full((n_windows + 2, n_times, n_channels), 7, np.int16)
    gather_counts(flat.ctypes.data + 2 * first, out[1:-1])
    for window, start in zip(out[1:-1], first, strict=True):
        assert np.array_equal(window.ravel(), flat[start : start + n_times * n_channels])
    assert (out[[0, -1]] == 7).all()
