import numpy as np
import pytest

from cerebro.report.figures import flatten_positions, scalp_map, spectra
from cerebro.report.representation import perplexity, row_correlation, spread_channels


def test_the_top_of_the_head_is_the_centre_and_the_nose_points_up():
    positions = np.array([[0, 0, 0.13], [0, 0.09, 0.04], [0.09, 0, 0.04], [-0.09, 0, 0.04]])
    flat = flatten_positions(positions)
    np.testing.assert_allclose(flat[0], 0, atol=1e-9)
    np.testing.assert_allclose(flat[1], [0, 1], atol=1e-9)
    assert flat[2, 0] == pytest.approx(1)
    assert flat[3, 0] == pytest.approx(-1)


def test_electrodes_without_a_position_or_value_are_left_out_of_the_map():
    random = np.random.default_rng(0)
    positions = random.normal(size=(12, 3)) * 0.05 + [0, 0, 0.08]
    positions[3] = np.nan
    values = random.normal(size=12)
    values[5] = np.nan
    svg = scalp_map(values, positions, "test")
    assert svg.startswith("<svg")
    assert "nan" not in svg.lower()


def test_perplexity_of_even_use_is_the_number_of_codes_in_use():
    assert perplexity(np.array([5.0, 5.0, 5.0, 5.0, 0.0])) == pytest.approx(4)
    assert perplexity(np.array([7.0, 0.0])) == pytest.approx(1)


def test_correlation_goes_by_row_and_is_missing_for_a_flat_one():
    first = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    found = row_correlation(first, np.array([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]]))
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])


def test_shown_channels_are_distinct_and_go_from_front_to_back():
    positions = np.random.default_rng(1).normal(size=(30, 3))
    picked = spread_channels(positions, 8)
    assert len(set(picked)) == 8
    assert (np.diff(positions[picked, 1]) <= 0).all()
    assert spread_channels(np.full((5, 3), np.nan), 8) == [0, 1, 2, 3, 4]


def test_spectra_show_both_curves_on_a_logarithmic_scale_without_0_hz():
    frequency = np.linspace(0, 50, 101)
    density = 100 / (1 + frequency)
    svg = spectra(frequency, density, np.where(frequency < 20, density, 0.0))
    assert svg.startswith("<svg")
    assert "nan" not in svg.lower()
    for text in ("recorded", "rebuilt", "frequency (Hz)", "µV² / Hz"):
        assert text in svg
    for value in (-1.0, 1e6):  # what stands at 0 Hz changes nothing
        assert spectra(frequency, np.r_[value, density[1:]], density) == spectra(frequency, density, density)
