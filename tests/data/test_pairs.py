"""Pairs: films, eyes states and tasks across people; every anchor has its positive in another person."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.readers.base import Event
from cerebro.data.readers.hbn_rules import film_events
from cerebro.data.sampling import PairedOrder, rank_slice
from cerebro.data.sources import EyesWindows, FilmWindows, TaskPairs
from cerebro.data.store import EVENT_DTYPE, INDEX_DTYPE, Store
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage

LENGTH_S = {"ThePresent": 30.0, "DespicableMe": 24.0}
OPEN, CLOSED = "instructed_toOpenEyes", "instructed_toCloseEyes"


@dataclass
class Recorded:
    """One recording as a test says it."""

    person: str
    task: str
    duration_s: float
    events: list[tuple[float, str]] = field(default_factory=list)
    montage: int = 0


def store_without_samples(recorded: list[Recorded], sfreq: float = 100.0, n_montages: int = 1) -> Store:
    """A store that has everything but samples."""
    store = Store.__new__(Store)
    store.path, store.sfreq, store.corpus = Path("cohort"), sfreq, "test"
    store.montages = tuple(Montage(f"cap{i}", ("Cz",), np.zeros((1, 3))) for i in range(n_montages))
    people = sorted({one.person for one in recorded})
    rows = [(at, *event) for at, one in enumerate(recorded) for event in sorted(one.events)]
    store.event_names = tuple(sorted({name for _, _, name in rows}))
    store.index = np.zeros(len(recorded), INDEX_DTYPE)
    store.index["montage"] = [one.montage for one in recorded]
    store.index["participant"] = [people.index(one.person) for one in recorded]
    store.index["n_times"] = [round(one.duration_s * sfreq) for one in recorded]
    store.index["event_row"] = np.cumsum([0] + [len(one.events) for one in recorded])[:-1]
    store.event_index = np.zeros(len(rows), EVENT_DTYPE)
    store.event_index["onset"] = np.rint([onset * 10_000 for _, onset, _ in rows])
    store.event_index["name"] = [store.event_names.index(name) for _, _, name in rows]
    tables = {
        "recordings": pd.DataFrame({"task": [one.task for one in recorded]}),
        "participants": pd.DataFrame(index=pd.Index(people, name="participant_id")),
    }
    vars(store).update(tables)
    return store


@st.composite
def film_cohorts(draw):
    """Two films seen by some people, from any start on; a minority is of another length, has no stop or two starts."""
    seed = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(seed)
    recorded = []
    for film, length in LENGTH_S.items():
        n = draw(st.integers(5, 9))
        odd = rng.permutation(n)[: draw(st.integers(0, 2))]
        for i in range(n):
            start = round(float(rng.uniform(0, 5)), 4)
            stop = start + length + round(float(rng.uniform(-0.1, 0.1)), 4)
            events = [(start, "video_start"), (round(stop, 4), "video_stop")]
            if i in odd:
                kind = int(rng.integers(3))
                other = (start, round(start + length + float(rng.choice([-4.0, 1.2, 7.5])), 4))
                events = [
                    [(other[0], "video_start"), (other[1], "video_stop")],
                    [(start, "video_start")],
                    [*events, (start + 1.0, "video_start")],
                ][kind]
            recorded.append(Recorded(f"p{i}", film, float(rng.uniform(20, 45)), events, int(rng.integers(2))))
    return recorded, seed


def couples_of(store, source, batch_size, seed, n_batches=6):
    table, _ = source.table(store)
    rows = np.arange(len(table), dtype=np.int64)
    person = store.index["participant"][table.recording[:]]
    montage = store.index["montage"][table.recording[:]]
    order = PairedOrder(rows, table.pair[:], person, batch_size, 0, seed, montage, source.has_few_pairs)
    return table, [order.batch(step // len(order), step % len(order))[0] for step in range(n_batches)], order


def assert_two_people_of_one_montage(store, table, batches):
    for batch in batches:
        recording = table.recording[batch.reshape(-1, 2)]
        person = store.index["participant"][recording]
        assert (person[:, 0] != person[:, 1]).all()
        assert len(np.unique(store.index["montage"][recording])) == 1


@settings(deadline=None, max_examples=40)
@given(film_cohorts(), st.sampled_from([0.5, 1.0, 2.0]))
def test_film_couples_are_two_people_at_the_same_time_of_the_same_film(cohort, stride_s):
    recorded, seed = cohort
    store = store_without_samples(recorded, n_montages=2)
    source = FilmWindows(2.0, stride_s, films=tuple(LENGTH_S))
    table, batches, _ = couples_of(store, source, 8, seed)
    assert_two_people_of_one_montage(store, table, batches)
    start = [next((at for at, name in one.events if name == "video_start"), None) for one in recorded]
    for batch in batches:
        recording = table.recording[batch]
        film = np.array([recorded[r].task for r in recording])
        begin = np.array([round(start[r] * 100) for r in recording])
        moment = (table.start[batch] - begin).reshape(-1, 2)
        film = film.reshape(-1, 2)
        assert (film[:, 0] == film[:, 1]).all()
        assert np.abs(moment[:, 0] - moment[:, 1]).max() <= 1  # starts between two samples
        assert len({(a, b) for a, b in zip(film[:, 0], moment.min(axis=1) // 50, strict=True)}) == len(film)


def test_a_film_that_the_recording_cuts_off_is_paired_until_its_end():
    whole = (Event(1.0, "video_start"), Event(204.07, "video_stop"))
    recorded = [Recorded(f"p{i}", "ThePresent", 210.0, [(e.onset_s, e.name) for e in whole]) for i in range(3)]
    events, (finding,) = film_events("ThePresent", whole[:1], 100.0, "cut")
    recorded.append(Recorded("cut", "ThePresent", 100.0, [(e.onset_s, e.name) for e in events]))
    table, left_out = FilmWindows(films=("ThePresent",)).table(store_without_samples(recorded))
    assert (finding.rule, left_out) == ("film-without-stop", [])
    assert np.bincount(table.recording[:]).tolist() == [101, 101, 101, 49]


@settings(deadline=None, max_examples=40)
@given(film_cohorts())
def test_films_whose_length_contradicts_their_name_are_set_aside(cohort):
    recorded, _ = cohort
    store = store_without_samples(recorded, n_montages=2)
    table, left_out = FilmWindows(films=tuple(LENGTH_S)).table(store)
    used = set(table.recording[:].tolist())
    expected = {"of another length": 0, "no start": 0}
    for at, one in enumerate(recorded):
        starts, stops = ([t for t, name in one.events if name == f"video_{mark}"] for mark in ("start", "stop"))
        if len(starts) != 1:
            expected["no start"] += 1
            assert at not in used
        elif stops and abs(stops[0] - starts[0] - LENGTH_S[one.task]) > 1.1:
            expected["of another length"] += 1
            assert at not in used
        else:
            assert at in used
    n = {omission.why: omission.n for omission in left_out}
    assert n.get("a film more than 1 s longer or shorter than its median", 0) == expected["of another length"]
    assert n.get("not exactly one video_start", 0) == expected["no start"]


@settings(deadline=None, max_examples=30)
@given(film_cohorts())
def test_same_film_any_time_pairs_whole_films_and_sets_films_against_each_other(cohort):
    recorded, seed = cohort
    store = store_without_samples(recorded)
    source = FilmWindows(films=tuple(LENGTH_S), positives="same_film_any_time")
    store.index["montage"] = 0
    table, batches, order = couples_of(store, source, 16, seed)
    assert_two_people_of_one_montage(store, table, batches)
    times = set()
    for batch in batches:
        film = np.array([recorded[r].task for r in table.recording[batch]]).reshape(-1, 2)
        assert (film[:, 0] == film[:, 1]).all()
        assert sorted(np.unique(film[:, 0], return_counts=True)[1]) == [4, 4]
        times |= set((table.start[batch.reshape(-1, 2)] * [1, -1]).sum(axis=1).tolist())
    assert len(times) > 5  # positives come from other times too
    assert order.batch_size == 16


@st.composite
def rests(draw):
    """Rests of some people: cycles of open and closed eyes, some cut, some lacking a cue, in two caps."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    recorded = []
    for i in range(draw(st.integers(4, 8))):
        at, events = round(float(rng.uniform(0, 3)), 4), []
        for _ in range(int(rng.integers(2, 5))):
            events += [(round(at, 4), OPEN), (round(at + 20, 4), CLOSED)]
            at += 60
        if rng.random() < 0.3:
            del events[int(rng.integers(len(events)))]
        if rng.random() < 0.3:
            events.append((round(events[-1][0] + float(rng.uniform(3, 30)), 4), "seqLearning_start"))
        recorded.append(Recorded(f"p{i}", "RestingState", float(rng.uniform(100, at + 40)), events, i % 2))
    return recorded


@settings(deadline=None, max_examples=40)
@given(rests(), st.sampled_from([0.0, 1.5, 3.0]))
def test_eyes_windows_lie_in_their_state_whatever_is_missing(recorded, margin_s):
    store = store_without_samples(recorded, n_montages=2)
    table, _ = EyesWindows(2.0, 1.0, margin_s).table(store)
    assert set(np.unique(table.targets["eyes_closed"][:])) <= {0.0, 1.0}
    for at, one in enumerate(recorded):
        expected = []
        events = [(round(10_000 * onset) / 100, name) for onset, name in sorted(one.events)]  # in samples at 100 Hz
        for place, (onset, name) in enumerate(events):
            if name not in (OPEN, CLOSED):
                continue
            ends = [round(onset) + (4000 if name == CLOSED else 2000), round(one.duration_s * 100)]
            ends += [round(events[place + 1][0])] if place + 1 < len(events) else []
            first = round(onset) + round(margin_s * 100)
            while first + 200 <= min(ends):
                expected.append((first, float(name == CLOSED)))
                first += 100
        mine = table.recording[:] == at
        found = zip(table.start[mine].tolist(), table.targets["eyes_closed"][mine].tolist(), strict=True)
        assert list(found) == expected


@settings(deadline=None, max_examples=30)
@given(rests(), st.sampled_from(["same_state", "same_state_and_time"]), st.sampled_from([4, 8, 32]))
def test_eyes_couples_share_the_state_and_their_negatives_do_not(recorded, positives, batch_size):
    store = store_without_samples(recorded, n_montages=2)
    source = EyesWindows(positives=positives)
    table, batches, _ = couples_of(store, source, batch_size, seed=1)
    assert_two_people_of_one_montage(store, table, batches)
    closed = table.targets["eyes_closed"][:]
    for batch in batches:
        couple = batch.reshape(-1, 2)
        assert (closed[couple[:, 0]] == closed[couple[:, 1]]).all()
        pair = table.pair[couple[:, 0]]
        if positives == "same_state":
            assert sorted(np.unique(pair, return_counts=True)[1]) == [batch_size // 4] * 2
        else:
            assert len(np.unique(pair)) == len(pair)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 1000), st.sampled_from([4, 10, 24]))
def test_task_couples_share_the_task_and_every_window_takes_its_turn(n_people, n_tasks, seed, batch_size):
    rng = np.random.default_rng(seed)
    recorded = [
        Recorded(f"p{i}", f"task{t}", float(rng.uniform(8, 20))) for i in range(n_people) for t in range(n_tasks)
    ]
    store = store_without_samples(recorded)
    source = TaskPairs()
    table, batches, order = couples_of(store, source, batch_size, seed, n_batches=300)
    assert_two_people_of_one_montage(store, table, batches)
    task = np.array([one.task for one in recorded])[table.recording[:]]
    anchors = np.zeros(len(table), int)
    for batch in batches:
        couple = batch.reshape(-1, 2)
        assert (task[couple[:, 0]] == task[couple[:, 1]]).all()
        counts = np.unique(task[couple[:, 0]], return_counts=True)[1]
        assert len(counts) == min(n_tasks, batch_size // 2)
        assert counts.max() - counts.min() <= 1
        anchors[couple[:, 0]] += 1
    of_task = [anchors[task == name] for name in np.unique(task)]
    assert all(n.max() - n.min() <= 1 for n in of_task)  # windows take their turns
    assert max(n.sum() for n in of_task) - min(n.sum() for n in of_task) <= 1
    assert len(order) == max(1, len(table) // batch_size)
    assert table.targets["task"][:].tolist() == [int(name.removeprefix("task")) for name in task]


def test_a_task_is_not_paired_by_what_another_task_left_in_its_recording():
    film = [(1.0, "video_start"), (31.0, "video_stop")]
    recorded = [
        Recorded("p0", "RestingState", 60.0, [(2.0, OPEN)]),
        Recorded("p1", "RestingState", 60.0, [(2.0, OPEN), (20.5, "seqLearning_start"), (40.0, "dot_no1_ON")]),
        Recorded("p2", "RestingState", 60.0, [(2.0, OPEN), (31.0, "video_start"), (50.0, "seqLearning_start")]),
        Recorded("p0", "ThePresent", 40.0, film),
        Recorded("p1", "ThePresent", 40.0),  # the reader dropped the marks of a film of another length
        Recorded("p2", "DespicableMe", 40.0),  # nobody's recording of it has marks
        Recorded("p2", "seqLearning6target", 40.0, [(1.0, "seqLearning_start")]),
    ]
    table, left_out = TaskPairs().table(store_without_samples(recorded))
    assert np.bincount(table.recording[:], minlength=7).tolist() == [30, 10, 15, 20, 0, 20, 20]
    assert [str(one) for one in left_out] == [
        "1 recordings left out: a film without a start that can be trusted",
        "35 windows left out: another task began in the recording",
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9), st.booleans(), st.booleans())
def test_no_process_holds_half_a_couple_and_together_they_hold_the_batch(seed, world_size, n_couples, is_training, few):
    rng = np.random.default_rng(seed)
    n = 200 * n_couples
    pair, person = rng.integers(0, 2 if few else n // 5, n), rng.integers(0, 4, n)
    order = PairedOrder(np.arange(n), pair, person, 2 * n_couples, 0, seed, has_few_pairs=few)
    rows, _ = order.batch(1, 0)
    shares = [rank_slice(rows, rank, world_size, is_training, order.rows_together) for rank in range(world_size)]
    if is_training:
        assert np.array_equal(np.concatenate(shares), rows[: 2 * (n_couples // world_size * world_size)])
    elif n_couples >= world_size:
        assert np.array_equal(np.concatenate(shares), rows)
    else:
        assert {tuple(share) for share in shares} == {tuple(couple) for couple in rows.reshape(-1, 2).tolist()}
    for share in shares:
        couple = share.reshape(-1, 2)
        assert (pair[couple[:, 0]] == pair[couple[:, 1]]).all()
        assert (person[couple[:, 0]] != person[couple[:, 1]]).all()
    again = PairedOrder(np.arange(n), pair, person, 2 * n_couples, 0, seed, has_few_pairs=few)
    assert np.array_equal(again.batch(1, 0)[0], rows)  # whatever was asked before


def test_montages_take_turns_by_their_share_and_those_with_too_few_pairs_are_counted():
    pair = np.concatenate([np.repeat(np.arange(30), 4), np.repeat(np.arange(10), 4), [0, 0, 1]])
    person = np.concatenate([np.tile(np.arange(4), 40), [0, 1, 0]])
    montage = np.repeat([0, 1, 2], [120, 40, 3])
    order = PairedOrder(np.arange(163), pair, person, 8, 0, seed=5, montage=montage)
    assert order.left_out == (
        "1 windows left out: no other participant saw the same moment",
        "2 windows left out: their montage has too few pairs",
    )
    kinds = [int(montage[order.batch(epoch, step)[0][0]]) for epoch in range(5) for step in range(len(order))]
    assert len(order) == 20
    assert (kinds.count(0), kinds.count(1)) == (75, 25)
    assert kinds[:20] != sorted(kinds[:20])


def test_sources_say_in_one_line_what_they_cannot_pair():
    store = store_without_samples([Recorded(f"p{i}", "RestingState", 60.0) for i in range(3)])
    with pytest.raises(
        DataError, match=r"EyesWindows finds no window .*3 recordings left out: no instructed_toOpenEyes"
    ):
        EyesWindows().table(store)
    with pytest.raises(ConfigError, match="is negative"):
        EyesWindows(margin_s=-1.0)
    with pytest.raises(DataError, match=r"1 of the classes that windows are paired by .* negatives need two"):
        couples_of(store, TaskPairs(), 4, 0)
