import numpy as np
import pandas as pd
import pytest

from cerebro.simulate import bids, events
from cerebro.simulate.presets import FILMS, preset

DEMO, FULL = preset("demo"), preset("full")


def _trials(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return events.contrast_change(DEMO, 1, rng.standard_normal(n), rng.standard_normal(n), rng)


def test_the_first_press_after_the_target_is_the_response_time():
    timeline = _trials()
    rows = timeline.rows
    assert [r.onset_s for r in rows] == sorted(r.onset_s for r in rows)
    found = []
    for k, row in enumerate(rows):
        if row.value.endswith("_target"):
            until = next(j for j in range(k + 1, len(rows)) if rows[j].value == "contrastTrial_start")
            presses = [r.onset_s for r in rows[k + 1 : until] if r.value.endswith("_buttonPress")]
            found.append(presses[0] - row.onset_s if presses else np.nan)
    wanted = [trial.response_time_s for trial in timeline.trials]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.isnan(wanted).mean() == pytest.approx(0.15, abs=0.06)


def test_some_trials_have_a_second_press_and_some_the_wrong_side():
    rows = _trials().rows
    presses = [row for row in rows if row.value.endswith("_buttonPress")]
    assert 0 < sum(row.feedback == "non_target" for row in presses) < 0.12 * len(presses)
    assert 0.05 < sum(row.feedback == "sad_face" for row in presses) / len(presses) < 0.2


def test_every_window_after_a_target_lies_inside_the_recording_and_meets_no_other_target():
    timeline = _trials()
    targets = np.array([trial.target_s for trial in timeline.trials])
    assert np.diff(targets).min() > 2.5
    assert targets[-1] + 2.5 <= timeline.duration_s


def test_whole_films_stop_and_shortened_ones_break_off():
    rng = np.random.default_rng(0)
    for film in FILMS:
        whole = events.film(FULL, film, rng)
        start, stop = (row.onset_s for row in whole.rows[1:])
        assert stop - start == pytest.approx(film.duration_s, abs=0.002)
        assert whole.duration_s >= stop
        cut = events.film(DEMO, film, rng)
        assert [row.value for row in cut.rows] == ["9999", "video_start"]
        assert cut.duration_s - cut.film_start_s >= DEMO.film_s


def test_full_rest_has_five_and_a_half_cycles():
    values = [row.value for row in events.resting_state(FULL).rows]
    assert values.count("instructed_toOpenEyes") == 6
    assert values.count("instructed_toCloseEyes") == 5


def test_tables_use_the_names_and_codes_of_the_real_ones(shared_data):
    files = sorted(shared_data.glob("hbn_metadata/sample_ds005505/sub-*/eeg/*_events.tsv"))
    real = [pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False) for file in files]
    known = {pair for table in real for pair in zip(table["value"], table["event_code"], strict=True)}
    headers = {tuple(table.columns) for table in real}
    rng = np.random.default_rng(0)
    runs = [events.contrast_change(FULL, run, np.zeros(20), np.zeros(20), rng) for run in (1, 2, 3)]
    for timeline in (events.resting_state(FULL), *(events.film(FULL, film, rng) for film in FILMS), *runs):
        text = bids.events_table(timeline, 500.0, frozenset())
        rows = [line.split("\t") for line in text.splitlines()]
        assert tuple(rows[0]) in headers
        assert {(row[3], row[4]) for row in rows[1:]} <= known
        assert all(int(row[2]) == round(float(row[0]) * 500) for row in rows[1:])
