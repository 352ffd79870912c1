import dataclasses

import numpy as np
import pytest
from scipy.signal import welch

from cerebro.simulate import events, signals
from cerebro.simulate.presets import FILMS, preset, strength
from cerebro.simulate.reference import measure, source_filter
from cerebro.simulate.traits import draw_person

DEMO = preset("demo")
STRONG = strength("strong")


def _person(seed=0):
    return draw_person(np.random.default_rng(seed), STRONG)


def _signal(head, timeline, seed=0, sfreq=100.0):
    return signals.simulate_signal(head, _person(seed), STRONG, timeline, sfreq, np.random.default_rng([9, seed]))


def _alpha(eeg, sfreq=100.0):
    hz, power = welch(eeg, sfreq, nperseg=round(2 * sfreq))
    return power[..., (hz >= 6.5) & (hz <= 12.5)].mean(axis=-1)


def test_the_reference_is_exactly_zero_and_the_rest_has_microvolts_of_real_eeg(head):
    eeg = _signal(head, events.resting_state(DEMO))
    assert eeg.dtype == np.float32
    assert head.channels[head.reference] == "Cz"
    assert not eeg[head.reference].any()
    spread = np.delete(eeg, head.reference, axis=0).std(axis=1)
    assert spread.min() > 2
    assert 8 < np.median(spread) < 40
    assert np.abs(eeg).max() < 600


def test_posterior_alpha_rises_with_closed_eyes(head):
    timeline = events.resting_state(DEMO)
    ratios = []
    for seed in range(4):
        eeg = _signal(head, timeline, seed)[head.channels.index("E75")]  # Oz
        start, stop = (round(100 * s) for s in timeline.closed[0])
        ratios.append(_alpha(eeg[start + 100 : stop]) / _alpha(np.concatenate([eeg[200:start], eeg[stop + 100 :]])))
    assert min(ratios) > 1.5


def test_people_who_see_the_same_film_share_activity_at_the_same_moment_only(head):
    visual = head.names.index("film_visual")
    film = FILMS[0]
    filters = source_filter(head)
    courses = []
    for seed in range(8):
        timeline = events.film(DEMO, film, np.random.default_rng(seed))
        eeg = _signal(head, timeline, seed)
        start = round(timeline.film_start_s * 100)
        courses.append((filters.weights @ (eeg - eeg.mean(axis=0)))[visual, start : start + 1900])
    starts = {events.film(DEMO, film, np.random.default_rng(seed)).film_start_s for seed in range(8)}
    assert len(starts) == 8  # aligned by the start of the film, not of the recording
    aligned = np.corrcoef(courses)[np.triu_indices(8, 1)].mean()
    shifted = np.corrcoef([np.roll(course, 211 * k) for k, course in enumerate(courses)])[np.triu_indices(8, 1)].mean()
    assert aligned > 0.15
    assert abs(shifted) < 0.05


def test_a_film_course_depends_on_its_name_only_and_shows_at_every_rate():
    at_100 = signals.film_course("ThePresent", 100.0)
    at_500 = signals.film_course("ThePresent", 500.0)
    np.testing.assert_array_equal(at_500[:, ::5], at_100)
    assert at_500.std(axis=1) == pytest.approx([1, 1, 1], abs=0.1)
    other = signals.film_course("DespicableMe", 100.0)
    assert abs(np.corrcoef(at_100[0, :10000], other[0, :10000])[0, 1]) < 0.1


def test_line_noise_is_there_at_500_hz(head):
    timeline = dataclasses.replace(events.resting_state(DEMO), duration_s=8.0)
    hz, power = welch(_signal(head, timeline, sfreq=500.0), 500, nperseg=1000)
    line = power[:-1, hz == 60.0].mean()
    assert line > 5 * power[:-1, (hz > 54) & (hz < 58)].mean()


def test_background_noise_has_the_exponent_asked_for():
    rng = np.random.default_rng(0)
    for exponent in (1.0, 2.0):
        noise = signals.coloured(rng, 8, 30000, 100.0, signals._power_law(exponent, 0.5, 50.0))
        assert noise.std() == pytest.approx(1, abs=0.1)
        hz, power = welch(noise, 100, nperseg=400)
        fit = (hz >= 2) & (hz <= 30)
        slope = np.polyfit(np.log(hz[fit]), np.log(power.mean(axis=0)[fit]), 1)[0]
        assert -slope == pytest.approx(exponent, abs=0.1)


def test_measured_features_follow_the_planted_ones(head):
    filters = source_filter(head)
    timeline = events.resting_state(DEMO)
    people = [_person(seed) for seed in range(40)]
    shown = np.array([measure(filters, _signal(head, timeline, k), timeline, 100.0).features for k in range(40)])
    planted = {t: np.array([p.features[t] for p in people]) for t in people[0].features}
    named = ("p_factor", "attention", "internalizing", "externalizing", "age")
    for column, target in enumerate(named):
        assert np.corrcoef(shown[:, column], planted[target])[0, 1] > 0.6, target


def test_the_response_feature_lies_in_the_window_after_the_target(head):
    seconds = np.arange(-1, 4, 0.01)
    inside = signals.erp_template(seconds) > 0
    assert seconds[inside].min() >= 0.5
    assert seconds[inside].max() <= 2.5
    features = np.linspace(-2, 2, 14)
    timeline = events.contrast_change(DEMO, 1, np.zeros(14), features, np.random.default_rng(0))
    trials = np.array(measure(source_filter(head), _signal(head, timeline), timeline, 100.0).trials)
    assert np.corrcoef(trials[:, 0], features)[0, 1] < -0.6
