"""The label-shuffle control: the same people and pair ids in the same batches, but no longer the same moments."""

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data import EEGData, FilmWindows, ParticipantSplit, SlidingWindows
from cerebro.data.arrays import write_store
from cerebro.data.mixture import write_mixture
from cerebro.data.readers.base import Event
from cerebro.data.shuffled_pairs import shuffled_pairs
from cerebro.data.sources import EyesWindows, TaskPairs
from cerebro.errors import ConfigError
from cerebro.montage import Montage

FILMS = ("DespicableMe", "ThePresent")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("shuffled") / "cohort", 8)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Two corpora whose people saw the same films."""
    folder = tmp_path_factory.mktemp("mixed")
    stores = {name: write_cohort(folder / name, n, name) for name, n in (("A", 8), ("B", 6))}
    return write_mixture(folder / "mixture", stores, {"A": 0.5, "B": 0.5}).path


def write_cohort(path, n_people, corpus="arrays"):
    """People who saw two films of 40 s that begin at another sample each, and a rest."""
    rng = np.random.default_rng(n_people)
    people = [f"p{i}" for i in range(n_people)]
    rows = {f"{name}/{task}": (name, task) for name in people for task in (*FILMS, "RestingState")}
    events = {}
    for at, (key, (_, task)) in enumerate(rows.items()):
        film = (Event(1.0 + 0.1 * at, "video_start"), Event(41.0 + 0.1 * at, "video_stop"))
        rest = (Event(1.0, "instructed_toOpenEyes"), Event(15.0, "instructed_toCloseEyes"))
        events[key] = rest if task == "RestingState" else film
    return write_store(
        path,
        {key: rng.normal(0, 50, (2, 4700)).astype(np.float32) for key in rows},
        Montage("cap", ("Fz", "Cz"), np.zeros((2, 3))),
        100.0,
        tasks={key: task for key, (_, task) in rows.items()},
        people={key: name for key, (name, _) in rows.items()},
        participants=pd.DataFrame(index=pd.Index(people, name="participant_id")),
        events=events,
        corpus=corpus,
        reference="Cz",
    ).path


def data_of(store, windows, is_shuffled, **keys):
    keys = {"batch_size": 8, "order": "pairs", "shuffle_pairs": is_shuffled} | keys
    return EEGData(store, windows, ParticipantSplit(0.25), **keys)


def read(loader, n_epochs=3):
    """(couples, 2) samples, pair ids and participants of some epochs."""
    batches = [loader.batch(epoch, step) for epoch in range(n_epochs) for step in range(len(loader))]
    return tuple(
        torch.cat([getattr(batch, name) for batch in batches]).numpy().reshape(-1, 2)
        for name in ("sample", "pair", "participant")
    )


SOURCES = {
    "film": FilmWindows(films=FILMS),
    "any_time": FilmWindows(films=FILMS, positives="same_film_any_time"),
    "eyes": EyesWindows(),
    "tasks": TaskPairs(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_people_and_pair_ids_come_in_the_same_batches_and_moments_do_not(store, name):
    true, shuffled = (data_of(store, SOURCES[name], is_shuffled) for is_shuffled in (False, True))
    (sample, pair, person), (other_sample, other_pair, other_person) = (
        read(data.train_dataloader()) for data in (true, shuffled)
    )
    assert np.array_equal(pair, other_pair)
    assert np.array_equal(person, other_person)
    table = true.table
    truth, changed = table.pair[sample.ravel()].reshape(-1, 2), table.pair[other_sample.ravel()].reshape(-1, 2)
    assert (truth[:, 0] == truth[:, 1]).all()
    n_ids = len(np.unique(table.pair[true.rows("train")[:]]))
    by_chance = 1 / 20 if name == "film" else 1 / 2 if n_ids == 2 else 1 / 3
    assert (changed[:, 0] == changed[:, 1]).mean() < by_chance + 0.15
    if name == "film":  # times swap, films do not
        assert (changed // 2**28 == pair // 2**28).all()
        assert (table.recording[other_sample.ravel()] == table.recording[sample.ravel()]).all()


@pytest.mark.parametrize("name", ["film", "tasks"])
def test_members_of_a_mixture_are_shuffled_each_by_itself(mixture, name):
    true, shuffled = (
        data_of(mixture, SOURCES[name], is_shuffled, batches_per_epoch=20) for is_shuffled in (False, True)
    )
    (_, pair, person), (sample, other_pair, other_person) = (read(data.train_dataloader()) for data in (true, shuffled))
    assert np.array_equal(pair, other_pair)
    assert np.array_equal(person, other_person)
    table, store = true.table, true.store
    truth = table.pair[sample.ravel()].reshape(-1, 2)
    assert (truth[:, 0] == truth[:, 1]).mean() < (0.2 if name == "film" else 0.5)
    member = store.member[table.recording[sample.ravel()]].reshape(-1, 2)
    assert (member[:, 0] == member[:, 1]).all()
    assert set(np.unique(member)) == {0, 1}


def test_every_window_keeps_its_place_in_the_marginals(store):
    data = data_of(store, SOURCES["film"], True)
    loader = data.train_dataloader()
    rows = data.rows("train")[:]
    batches = [loader.maker.make(rows[i : i + 1], 0) for i in range(len(rows))]
    found = np.concatenate([batch.pair.numpy() for batch in batches])
    recording, truth = data.table.recording[rows], data.table.pair[rows]
    assert not np.array_equal(found, truth)
    for one in np.unique(recording):
        assert sorted(found[recording == one]) == sorted(truth[recording == one])


def test_validation_keeps_its_pairs_and_the_default_changes_nothing(store):
    windows = SOURCES["film"]
    true, shuffled, default = (
        data_of(store, windows, False),
        data_of(store, windows, True),
        EEGData(store, windows, ParticipantSplit(0.25), batch_size=8, order="pairs"),
    )
    for a, b in zip(read(true.val_dataloader(), 1), read(shuffled.val_dataloader(), 1), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(read(true.train_dataloader()), read(default.train_dataloader()), strict=True):
        assert np.array_equal(a, b)


def test_the_shuffle_is_a_function_of_the_seed(store):
    first, again, other = (read(data_of(store, SOURCES["film"], True, seed=s).train_dataloader())[0] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rows, pair, group = np.arange(40), np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    whole, part = shuffled_pairs(rows, pair, group, 3), shuffled_pairs(rows[20:], pair[20:], group[20:], 3)
    assert np.array_equal(whole[20:], part)  # of nobody else


def test_windows_without_a_pair_stay_without(store):
    pair = np.array([4, -1, 5, 6, -1, 7])
    shuffled = shuffled_pairs(np.arange(6), pair, np.zeros(6, int), 1)
    assert (shuffled[[1, 4]] == -1).all()
    assert sorted(shuffled) == sorted(pair)


def test_a_shuffle_that_changes_nothing_is_refused(store):
    for windows in (SlidingWindows(), TaskPairs(tasks=("ThePresent",))):
        with pytest.raises(ConfigError, match=r"shuffle_pairs changes none .* set data.shuffle_pairs to false"):
            data_of(store, windows, True, order="shuffled").train_dataloader()
