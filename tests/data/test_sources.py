import numpy as np
import pandas as pd
import pytest

from cerebro.data.arrays import write_store
from cerebro.data.event_table import EventTable, events_of
from cerebro.data.readers.base import Event
from cerebro.data.sources import FilmWindows, RandomCrops, SlidingWindows, StimulusWindows, TaskWindows
from cerebro.data.stimulus_windows import first_responses
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage

CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.1], [0.0, -0.1, 0.0]]))
SFREQ = 100.0


def store_of(path, recordings):
    """A store from rows of (key, participant, task, seconds, events, labels)."""
    rng = np.random.default_rng(0)
    people = sorted({row[1] for row in recordings})
    return write_store(
        path,
        {row[0]: rng.normal(0, 20, (3, round(row[3] * SFREQ))).astype(np.float32) for row in recordings},
        CAP,
        SFREQ,
        tasks={row[0]: row[2] for row in recordings},
        people={row[0]: row[1] for row in recordings},
        participants=pd.DataFrame({"age": 9.0}, index=pd.Index(people, name="participant_id")),
        events={row[0]: tuple(Event(onset, name) for onset, name in row[4]) for row in recordings},
        labels={row[0]: row[5] for row in recordings if len(row) > 5},
    )


def counted(omissions):
    return {omission.why: omission.n for omission in omissions}


def test_sliding_windows_fill_each_recording_and_count_the_short_ones(tmp_path):
    store = store_of(
        tmp_path / "s", [("a", "x", "rest", 5.0, ()), ("b", "y", "rest", 1.9, ()), ("c", "y", "film", 9, ())]
    )
    table, left_out = SlidingWindows(2.0, 1.5, tasks=("rest",)).table(store)
    assert table.recording[:].tolist() == [0, 0, 0]
    assert table.start[:].tolist() == [0, 150, 300]
    assert (table.n_times, table.jitter) == (200, 0)
    assert counted(left_out) == {"shorter than 2 s": 1}
    assert (table.pair[:] == -1).all()
    table, _ = SlidingWindows(2.0, 2.0).table(store)
    assert np.bincount(table.recording[:]).tolist() == [2, 0, 4]


def test_random_crops_come_from_four_second_windows_every_two_seconds(tmp_path):
    store = store_of(
        tmp_path / "s", [("a", "x", "rest", 9.99, ()), ("b", "y", "rest", 3.99, ()), ("c", "z", "rest", 4, ())]
    )
    table, left_out = RandomCrops().table(store)
    assert table.recording[:].tolist() == [0, 0, 0, 2]
    assert table.start[:].tolist() == [0, 200, 400, 0]
    assert (table.n_times, table.jitter) == (200, 200)
    assert counted(left_out) == {"shorter than 4 s": 1}


def test_pairs_count_time_from_video_start_and_tell_films_apart(tmp_path):
    store = store_of(
        tmp_path / "s",
        [
            ("a/T", "a", "ThePresent", 20, [(1.0, "video_start"), (9.0, "video_stop")]),
            ("b/T", "b", "ThePresent", 20, [(3.5, "video_start"), (11.5, "video_stop")]),
            ("b/D", "b", "DespicableMe", 20, [(1.0, "video_start"), (9.0, "video_stop")]),
        ],
    )
    table, left_out = FilmWindows(films=("ThePresent", "DespicableMe")).table(store)
    a, b_other, b = (np.flatnonzero(table.recording[:] == recording) for recording in (0, 1, 2))
    assert store.recordings["key"].tolist() == ["a/T", "b/D", "b/T"]
    assert table.start[a].tolist() == [100, 300, 500, 700]
    assert table.start[b].tolist() == [350, 550, 750, 950]
    assert table.pair[a].tolist() == table.pair[b].tolist()
    assert len(set(table.pair[a]) | set(table.pair[b_other])) == 8
    assert (table.pair[:] >= 0).all()
    assert left_out == []


def test_films_without_one_start_or_of_another_length_are_left_out_and_counted(tmp_path):
    film = [(1.0, "video_start"), (9.0, "video_stop")]
    store = store_of(
        tmp_path / "s",
        [
            ("a", "a", "ThePresent", 20, film),
            ("b", "b", "ThePresent", 20, film),
            ("c", "c", "ThePresent", 20, [(9.0, "video_stop")]),
            ("d", "d", "ThePresent", 20, [(1.0, "video_start"), (5.0, "video_start"), (9.0, "video_stop")]),
            ("e", "e", "ThePresent", 20, [(1.0, "video_start"), (12.0, "video_stop")]),
            ("f", "f", "ThePresent", 20, [(2.0, "video_start")]),  # no stop: the median length of 8 s
            ("g", "g", "ThePresent", 5, film),  # ends within the film
            ("h", "h", "ThePresent", 2, film),
        ],
    )
    table, left_out = FilmWindows().table(store)
    windows = {store.recordings["key"][i]: int((table.recording[:] == i).sum()) for i in range(len(store))}
    assert windows == {"a": 4, "b": 4, "c": 0, "d": 0, "e": 0, "f": 4, "g": 2, "h": 0}
    assert {why: n for why, n in counted(left_out).items() if n} == {
        "not exactly one video_start": 2,
        "a film more than 1 s longer or shorter than its median": 1,
        "less than 2 s of film": 1,
    }
    assert "task DespicableMe is not in the store" in counted(left_out)


TRIALS = [
    (1.0, "contrastTrial_start"),
    (2.0, "left_target"),
    (3.5, "left_buttonPress"),  # the response: 1.5 s
    (3.9, "right_buttonPress"),  # a second press never counts
    (5.0, "contrastTrial_start"),
    (6.0, "right_target"),  # answered only after the next trial began
    (8.0, "contrastTrial_start"),
    (8.1, "left_buttonPress"),
    (9.0, "right_target"),
    (9.25, "left_buttonPress"),  # the wrong side is a response too, even before the window begins
    (12.0, "left_target"),  # never answered
    (13.0, "left_target"),
    (14.75, "left_buttonPress"),
    (18.0, "contrastTrial_start"),
    (18.5, "right_target"),
    (19.5, "right_buttonPress"),  # window ends at 21.0 s, behind the recording
]


def test_the_response_is_the_first_press_after_the_target_and_before_the_next(tmp_path):
    store = store_of(
        tmp_path / "s",
        [
            ("a", "x", "contrastChangeDetection", 20, TRIALS),
            ("b", "y", "contrastChangeDetection", 20, [(1.0, "left_target")]),
            ("c", "y", "contrastChangeDetection", 20, [(0.5, "left_buttonPress"), (1.0, "break cnt")]),
            ("d", "y", "surroundSupp", 20, TRIALS),
        ],
    )
    table, left_out = StimulusWindows().table(store)
    assert table.recording[:].tolist() == [0, 0, 0]
    assert table.start[:].tolist() == [250, 950, 1350]  # 0.5 s after the target
    assert table.n_times == 200
    np.testing.assert_allclose(table.targets["response_time"][:], [1.5, 0.25, 1.75], atol=1e-6)
    assert counted(left_out) == {
        "no left_target or right_target": 1,
        "no response before the next target or trial": 3,
        "the window does not lie inside the recording": 1,
    }


def test_response_times_are_those_of_the_source_and_not_of_the_samples(tmp_path):
    trials = [
        (2.0049, "left_target"),
        (3.5051, "left_buttonPress"),
        (6.0, "right_target"),
        (6.0012, "left_buttonPress"),
    ]
    store = store_of(tmp_path / "s", [("a", "x", "contrastChangeDetection", 20, trials)])
    table, _ = StimulusWindows().table(store)
    assert table.start[:].tolist() == [250, 650]  # windows lie on samples: 2.0049 s is sample 200
    np.testing.assert_allclose(table.targets["response_time"][:], [1.5002, 0.0012], atol=1e-6)


def event_table(frame):
    """Arrays of a DataFrame with columns ``recording``, ``name`` and perhaps ``onset_s``."""
    names = tuple(sorted(set(frame["name"])))
    onset_s = frame["onset_s"] if "onset_s" in frame else pd.Series(range(len(frame)))
    return EventTable(
        frame["recording"].to_numpy(np.int32),
        np.rint(onset_s.to_numpy(float) * 10_000).astype(np.int64),
        np.array([names.index(name) for name in frame["name"]], np.uint32),
        names,
    )


def test_a_press_of_the_next_recording_is_no_response():
    events = pd.DataFrame({"recording": [0, 1], "name": ["left_target", "left_buttonPress"]})
    assert [x.tolist() for x in first_responses(event_table(events))] == [[0], [-1]]


def test_random_trials_meet_a_plain_reading_of_the_rule():
    rng = np.random.default_rng(0)
    names = ["left_target", "right_target", "left_buttonPress", "right_buttonPress", "contrastTrial_start", "other"]
    for _ in range(50):
        events = pd.DataFrame({"recording": np.sort(rng.integers(0, 3, 60)), "name": rng.choice(names, 60)})
        expected = []
        for i, row in events.iterrows():
            if not row["name"].endswith("_target"):
                continue
            answer = -1
            for j in range(i + 1, len(events)):
                later = events.iloc[j]
                if later["recording"] != row["recording"] or later["name"].endswith(("_target", "Trial_start")):
                    break
                if later["name"].endswith("_buttonPress"):
                    answer = j
                    break
            expected.append((i, answer))
        assert list(zip(*(x.tolist() for x in first_responses(event_table(events))), strict=True)) == expected


def test_windows_from_event_arrays_are_those_from_the_table_of_events(tmp_path):
    rng = np.random.default_rng(3)
    names = ["left_target", "right_target", "left_buttonPress", "right_buttonPress", "contrastTrial_start", "boundary"]
    rows = []
    for i in range(6):
        onsets = np.sort(rng.integers(0, 280_000, 60)) / 10_000  # whole tenths of milliseconds
        events = [(float(onset), str(name)) for onset, name in zip(onsets, rng.choice(names, 60), strict=True)]
        rows.append((f"r{i}", f"p{i % 4}", "contrastChangeDetection" if i < 5 else "other", 30, events))
    store = store_of(tmp_path / "s", rows)
    arrays, frame = events_of(store), store.events
    assert arrays.recording.tolist() == frame["recording"].tolist()
    assert [arrays.names[name] for name in arrays.name] == frame["name"].tolist()
    np.testing.assert_allclose(arrays.onset / 10_000, frame["onset_s"], atol=1e-9)
    assert arrays.onset_sample(SFREQ).tolist() == frame["onset_sample"].tolist()

    expected = []
    for recording in range(5):
        mine = frame[frame["recording"] == recording].reset_index(drop=True)
        for i, row in mine[mine["name"].str.endswith("_target")].iterrows():
            later = mine.iloc[i + 1 :]
            answers = later[later["name"].str.endswith("_buttonPress")]
            ends = later[later["name"].str.endswith(("_target", "Trial_start"))]
            if len(answers) and (not len(ends) or answers.index[0] < ends.index[0]):
                start = row["onset_sample"] + 50
                if start + 200 <= 3000:
                    expected.append((recording, start, answers["onset_s"].iloc[0] - row["onset_s"]))
    table, _ = StimulusWindows().table(store)
    assert list(zip(table.recording[:].tolist(), table.start[:].tolist(), strict=True)) == [row[:2] for row in expected]
    np.testing.assert_allclose(table.targets["response_time"][:], [row[2] for row in expected], atol=1e-6)
    assert len(expected) > 20


def test_response_times_of_real_metadata_have_the_published_distribution(shared_data):
    folder = shared_data / "hbn_metadata" / "sample_ds005505"
    times = []
    for file in sorted(folder.rglob("*contrastChangeDetection*_events.tsv")):
        events = pd.read_csv(file, sep="\t").assign(recording=0).rename(columns={"value": "name"})
        target, press = first_responses(event_table(events))
        times.extend((events["onset"].to_numpy()[press] - events["onset"].to_numpy()[target])[press >= 0])
    if not times:
        pytest.skip("the unpacked sample holds no contrastChangeDetection events")
    assert 1.2 < np.median(times) < 2.0
    assert np.min(times) > 0
    assert np.max(times) < 3.5


def test_task_windows_carry_the_label_of_their_recording(tmp_path):
    store = store_of(
        tmp_path / "s",
        [
            ("a", "x", "rest", 4, (), {"arithmetic": 0.0}),
            ("b", "x", "count", 6, (), {"arithmetic": 1.0}),
            ("c", "y", "rest", 6, ()),
        ],
    )
    table, left_out = TaskWindows("arithmetic").table(store)
    assert table.recording[:].tolist() == [0, 0, 1, 1, 1]
    assert table.targets["arithmetic"][:].tolist() == [0, 0, 1, 1, 1]
    assert counted(left_out) == {"no label arithmetic": 1}
    with pytest.raises(ConfigError, match="have no label 'remission'; set label to one of arithmetic"):
        TaskWindows("remission").table(store)


def test_tasks_that_nobody_did_and_windows_that_fit_nowhere_are_refused(tmp_path):
    store = store_of(tmp_path / "s", [("a", "x", "rest", 4, ())])
    with pytest.raises(DataError, match=r"no recording of .* has task film; it holds rest"):
        SlidingWindows(tasks=("film",)).table(store)
    with pytest.raises(DataError, match=r"SlidingWindows finds no window .*shorter than 5 s"):
        SlidingWindows(5.0).table(store)
    with pytest.raises(ConfigError, match="less than one sample"):
        SlidingWindows(0.001).table(store)
    with pytest.raises(ConfigError, match="shorter than the crop"):
        RandomCrops(duration_s=3.0, window_s=2.0)
