import numpy as np
from scipy.special import eval_legendre

from cerebro.montage import hbn_129
from cerebro.simulate.forward import SOURCES, fit_sphere, surface_potential


def _series(electrodes, place, moment, step=1e-4):
    """Potential from the Legendre series of a monopole on a unit sphere, differentiated along the dipole."""

    def monopole(at):
        n = np.arange(1, 80)
        depth = np.linalg.norm(at)
        cosine = electrodes @ at / depth
        terms = (2 * n + 1) / n * depth**n * eval_legendre(n[None, :], cosine[:, None])
        return terms.sum(axis=1) / (4 * np.pi)

    direction = moment / np.linalg.norm(moment)
    slope = (monopole(place + step * direction) - monopole(place - step * direction)) / (2 * step)
    return slope * np.linalg.norm(moment)


def test_the_closed_form_equals_the_legendre_series():
    rng = np.random.default_rng(0)
    electrodes = rng.standard_normal((40, 3))
    electrodes /= np.linalg.norm(electrodes, axis=1, keepdims=True)
    for place, moment in zip(rng.uniform(-0.4, 0.4, (5, 3)), rng.standard_normal((5, 3)), strict=True):
        closed = surface_potential(electrodes, place, moment)
        series = _series(electrodes, place, moment)
        np.testing.assert_allclose(closed - closed[0], series - series[0], atol=1e-5)


def test_the_sphere_lies_within_two_centimetres_of_every_electrode():
    positions = hbn_129().positions
    sphere = fit_sphere(positions)
    away = np.linalg.norm(positions - sphere.centre, axis=1)
    assert 0.08 < sphere.radius_m < 0.11
    assert np.abs(away - sphere.radius_m).max() < 0.02


def test_sources_show_up_above_where_they_lie(head):
    positions = dict(zip(head.channels, hbn_129().positions, strict=True))
    peak = {s.name: positions[head.channels[int(np.abs(head.pattern(s.name)).argmax())]] for s in SOURCES}
    assert peak["alpha_left"][1] < -0.05
    assert peak["theta"][1] > 0.03
    assert peak["blink_left"][1] > 0.05
    assert peak["beta_left"][0] < 0 < peak["beta_right"][0]
    np.testing.assert_allclose(np.abs(head.patterns).max(axis=0), 1)
