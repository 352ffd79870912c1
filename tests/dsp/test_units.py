import numpy as np
import pytest

from cerebro.dsp.units import to_microvolts


@pytest.mark.parametrize("order", ["C", "F"])
def test_volts_become_microvolts_rounded_once(order):
    volts = np.asarray(50e-6 * np.random.default_rng(0).standard_normal((5, 301)), order=order)
    out = np.zeros((5, 400), np.float32)
    to_microvolts(volts, out[:, 50:351])
    np.testing.assert_array_equal(out[:, 50:351], (volts * 1e6).astype(np.float32))
    assert not out[:, :50].any()
    assert not out[:, 351:].any()
