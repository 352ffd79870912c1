import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerebro.data.mixture import open_store, write_mixture
from cerebro.data.mixture_split import sides_of
from cerebro.data.splits import ParticipantSplit
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.montage import Montage

CAP = Montage("cap", ("Fz", "Cz"), np.zeros((2, 3)))


def make(path, corpus, people, releases=None, source=None, **columns):
    """A store of one recording per person; ``source`` gives the SHA-256 of the file of some."""
    from cerebro.data.arrays import write_store

    keys = {f"{corpus}-{path.name}-{who}": who for who in people}
    releases = releases or {}
    store = write_store(
        path,
        {key: np.random.default_rng(i).normal(0, 20, (2, 400)).astype("f4") for i, key in enumerate(keys)},
        CAP,
        100.0,
        tasks=dict.fromkeys(keys, "rest"),
        people=keys,
        participants=pd.DataFrame(columns, index=pd.Index(people, name="participant_id")),
        corpus=corpus,
        reference="average",
        releases={key: releases.get(who, "") for key, who in keys.items()},
    )
    if source:
        rows = store.recordings
        rows["source_sha256"] = [source.get(who, f"{corpus}{path.name}{who}") for who in rows["participant"]]
        store.__dict__["recordings"] = rows  # what a build writes; arrays have no source file
    return store


def mixed(folder, **stores):
    mixture = write_mixture(folder, {name: store.path for name, store in stores.items()}, dict.fromkeys(stores, 1))
    for member in mixture.members:
        member.store.__dict__["recordings"] = stores[member.name].recordings
    return mixture


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    hbn = [f"h{i:02d}" for i in range(30)]
    return {
        "hbn": make(
            folder / "hbn", "HBN", hbn, {who: "R5" if who > "h24" else "R1" for who in hbn}, age=np.arange(30.0)
        ),
        "tuh": make(folder / "tuh", "TUH", [f"t{i:02d}" for i in range(20)], sex=np.arange(20.0) % 2),
    }


def test_everyone_is_on_the_side_that_their_own_store_gives(two, tmp_path):
    split = ParticipantSplit(0.2, seed=3, test_releases=("R5",), stratify_by=("age", "sex"))
    sides = sides_of(split, mixed(tmp_path / "m", **two))
    alone = ParticipantSplit(0.2, seed=3, test_releases=("R5",), stratify_by=("age",)).sides(
        two["hbn"].participants, two["hbn"].recordings
    )
    others = ParticipantSplit(0.2, seed=3, stratify_by=("sex",)).sides(two["tuh"].participants, two["tuh"].recordings)
    for side in ("train", "val", "test"):
        wanted = {f"HBN:{who}" for who in getattr(alone, side)} | {f"TUH:{who}" for who in getattr(others, side)}
        assert set(getattr(sides, side)) == wanted
    assert {name.split(":")[0] for name in sides.val} == {"HBN", "TUH"}
    assert set(sides.test) == {f"HBN:h{i}" for i in range(25, 30)}


def test_a_single_store_is_split_as_ever(two):
    split = ParticipantSplit(0.2, seed=3)
    assert sides_of(split, two["hbn"]) == split.sides(two["hbn"].participants, two["hbn"].recordings)


def test_caps_count_the_people_of_all_members_together_and_are_nested(two, tmp_path):
    mixture = mixed(tmp_path / "m", **two)
    few = sides_of(ParticipantSplit(0.2, seed=3, max_train_participants=7), mixture)
    more = sides_of(ParticipantSplit(0.2, seed=3, max_train_participants=12, max_labelled_participants=7), mixture)
    assert len(few.train) == 7
    assert set(few.train) == set(more.labelled) < set(more.train)
    assert len(few.unused) == len(sides_of(ParticipantSplit(0.2, seed=3), mixture).train) - 7


def test_one_person_of_two_members_is_on_the_strictest_of_both_sides(tmp_path):
    people = [f"p{i:02d}" for i in range(40)]
    one = make(tmp_path / "one", "HBN", people)
    two = make(tmp_path / "two", "HBN", people[::2] + [f"q{i:02d}" for i in range(23)])
    mixture = mixed(tmp_path / "m", one=one, two=two)
    split = ParticipantSplit(0.3, 0.3, seed=1)
    sides = sides_of(split, mixture)
    found = {name: side for side in ("train", "val", "test") for name in getattr(sides, side)}
    order = ("train", "val", "test")
    differing = 0
    alone = [split.sides(store.participants, store.recordings) for store in (one, two)]
    for who in people[::2]:
        theirs = [next(side for side in order if who in getattr(one_sides, side)) for one_sides in alone]
        differing += theirs[0] != theirs[1]
        assert found[f"HBN:{who}"] == max(theirs, key=order.index)
    assert differing  # or the test says nothing


@given(seed=st.integers(0, 10_000), shared=st.sets(st.integers(0, 11), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recording_of_two_corpora_never_lands_on_two_sides(seed, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    digest = {f"a{i:02d}": f"same{i}" for i in shared}
    one = make(folder / "one", "A", [f"a{i:02d}" for i in range(12)], source=digest)
    two = make(folder / "two", "B", [f"b{i:02d}" for i in range(14)], source={f"b{i:02d}": f"same{i}" for i in shared})
    sides = sides_of(ParticipantSplit(0.2, 0.2, seed=seed), mixed(folder / "m", one=one, two=two))
    split, order = ParticipantSplit(0.2, 0.2, seed=seed), ("train", "val", "test")
    alone = [split.sides(store.participants, store.recordings) for store in (one, two)]
    for i in shared:
        names = {f"A:a{i:02d}", f"B:b{i:02d}"}
        own = [
            next(k for k, side in enumerate(order) if who in getattr(of, side))
            for who, of in zip((f"a{i:02d}", f"b{i:02d}"), alone, strict=True)
        ]
        assert names <= set(getattr(sides, order[max(own)]))  # the stricter of both
        assert any(names <= set(getattr(sides, side)) for side in ("train", "val", "test"))
    assert len({*sides.train, *sides.val, *sides.test}) == 26


def test_a_release_or_column_that_no_member_has_is_refused(two, tmp_path):
    mixture = mixed(tmp_path / "m", **two)
    with pytest.raises(DataError, match=r"test release R9 is in no member of .* which hold R1, R5"):
        sides_of(ParticipantSplit(test_releases=("R9",)), mixture)
    with pytest.raises(DataError, match=r"no member of .* has a column iq to stratify by; .* age, sex"):
        sides_of(ParticipantSplit(stratify_by=("iq",)), mixture)
    with pytest.raises(DataError, match=r"member tuh: n_folds=25"):
        sides_of(ParticipantSplit(n_folds=25), mixture)
    assert isinstance(open_store(two["tuh"].path), Store)
