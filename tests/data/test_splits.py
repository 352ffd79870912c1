import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.splits import ParticipantSplit, Sides, check_disjoint
from cerebro.errors import CheckpointError, ConfigError, DataError


def cohort(n, seed=0, releases=("R1", "R2", "R5")):
    rng = np.random.default_rng(seed)
    names = [f"NDAR{i:04d}" for i in rng.permutation(n)]
    participants = pd.DataFrame(
        {
            "release_number": rng.choice(releases, n),
            "sex": rng.choice([0.0, 1.0], n),
            "p_factor": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        },
        index=pd.Index(names, name="participant_id"),
    )
    recordings = pd.DataFrame(
        {
            "participant": np.repeat(names, 2),
            "release": np.repeat(participants["release_number"].to_numpy(), 2),
            "source_sha256": [hashlib.sha256(f"{seed}{i}".encode()).hexdigest() for i in range(2 * n)],
        }
    )
    return participants, recordings


def sides_of(split, n=60, seed=0):
    return split.sides(*cohort(n, seed))


@pytest.mark.parametrize("block", range(10))
def test_a_hundred_random_splits_never_overlap_and_hold_out_r5(block):
    rng = np.random.default_rng(block)
    for _ in range(100):  # ten blocks: a thousand splits
        n, seed = int(rng.integers(25, 50)), int(rng.integers(1 << 30))
        participants, recordings = cohort(n, seed, releases=("R1", "R5"))
        names = participants.index.to_numpy()
        # One person in two releases, and one under two names.
        recordings.loc[len(recordings)] = [names[0], "R5", "x"]
        recordings.loc[len(recordings)] = [names[1], "R1", recordings["source_sha256"].iloc[0]]
        split = ParticipantSplit(
            val_ratio=float(rng.choice([0.1, 0.2, 0.4])),
            test_ratio=float(rng.choice([0.0, 0.1])),
            seed=seed,
            stratify_by=tuple(rng.choice(["sex", "p_factor"], rng.integers(0, 3), replace=False)),
            test_releases=("R5",),
        )
        sides = split.sides(participants, recordings)
        train, val, test = map(set, (sides.train, sides.val, sides.test))
        assert not (train & val) | (train & test) | (val & test)
        assert train | val | test == set(names)
        held = set(recordings["participant"][recordings["release"] == "R5"])
        assert held <= test
        assert names[1] in test  # shares a file with a held-out name


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000))
def test_the_split_does_not_depend_on_the_order_of_rows(seed):
    participants, recordings = cohort(40, seed)
    split = ParticipantSplit(0.2, 0.1, seed, ("sex", "p_factor"))
    shuffled = split.sides(participants.sample(frac=1, random_state=1), recordings.sample(frac=1, random_state=2))
    assert split.sides(participants, recordings) == shuffled


def test_shares_are_as_asked_and_seeds_differ():
    sides = sides_of(ParticipantSplit(0.2, 0.1, seed=1), n=100)
    assert (len(sides.train), len(sides.val), len(sides.test)) == (70, 20, 10)
    assert sides_of(ParticipantSplit(0.2, 0.1, seed=2), n=100).val != sides.val


def test_strata_are_shared_out_alike():
    participants, recordings = cohort(400)
    sides = ParticipantSplit(0.25, seed=3, stratify_by=("sex", "p_factor")).sides(participants, recordings)
    val, train = participants.loc[list(sides.val)], participants.loc[list(sides.train)]
    assert abs(val["sex"].mean() - train["sex"].mean()) < 0.02
    assert abs(val["p_factor"].median() - train["p_factor"].median()) < 0.15
    assert abs(val["p_factor"].isna().mean() - train["p_factor"].isna().mean()) < 0.02


def test_folds_test_everyone_once():
    tested = [sides_of(ParticipantSplit(0.2, n_folds=4, fold=fold)).test for fold in range(4)]
    assert sorted(name for side in tested for name in side) == sorted(cohort(60)[0].index)
    assert {len(side) for side in tested} == {15}


def test_few_labels_are_nested_and_leave_validation_as_it_was():
    full, ten, twenty = (sides_of(ParticipantSplit(0.2, max_train_participants=n)) for n in (0, 10, 20))
    assert set(ten.train) < set(twenty.train) < set(full.train)
    assert len(ten.train) == 10
    assert ten.val == full.val
    assert set(ten.unused) == set(full.train) - set(ten.train)
    labelled = sides_of(ParticipantSplit(0.2, max_labelled_participants=10))
    assert labelled.train == full.train
    assert labelled.labelled == ten.train


def test_a_small_cohort_still_gets_someone_to_validate_and_test():
    sides = sides_of(ParticipantSplit(0.1, 0.1), n=4)
    assert (len(sides.train), len(sides.val), len(sides.test)) == (2, 1, 1)
    with pytest.raises(DataError, match="no one is left to train on"):
        sides_of(ParticipantSplit(0.4, 0.4), n=2)


def test_impossible_splits_are_refused_in_one_line():
    with pytest.raises(DataError, match="R9 is not in the store, which holds R1, R2, R5"):
        sides_of(ParticipantSplit(test_releases=("R9",)))
    with pytest.raises(DataError, match="no column handedness"):
        sides_of(ParticipantSplit(stratify_by=("handedness",)))
    for wrong in (
        {"val_ratio": 1.0},
        {"val_ratio": 0.5, "test_ratio": 0.5},
        {"n_folds": 3, "fold": 3},
        {"n_folds": 3, "test_ratio": 0.1},
        {"max_train_participants": -1},
    ):
        with pytest.raises(ConfigError):
            ParticipantSplit(**wrong)


def test_sides_that_overlap_cannot_be_made():
    with pytest.raises(DataError, match="1 participants are on both sides train and test: b"):
        Sides(train=("a", "b"), val=(), test=("b",), labelled=("a", "b"))


def test_evaluating_on_seen_participants_is_refused_with_their_names():
    check_disjoint(["HBN:a"], ["HBN:b", "TUH:a"])
    with pytest.raises(CheckpointError, match="2 participants that are tested were seen in training: HBN:a, HBN:b"):
        check_disjoint(["HBN:a", "HBN:b"], ["HBN:b", "HBN:a", "HBN:c"], "tested")


def test_more_folds_than_people_are_refused_by_the_first_fold():
    with pytest.raises(DataError, match=r"n_folds=9, but there are only 7 participants.*7 or fewer"):
        sides_of(ParticipantSplit(n_folds=9), n=7)


def test_a_value_too_rare_for_every_side_is_told_of():
    participants, recordings = cohort(30)
    participants["remission"] = [0.0] * 28 + [1.0, 1.0]
    participants["site"] = "here"
    split = ParticipantSplit(val_ratio=0.2, test_ratio=0.2, stratify_by=("remission", "site", "p_factor"))
    (note,) = split.sides(participants, recordings).notes
    assert note.startswith("no one with remission 1 on the side ")
    assert note.endswith(" (2 have it)")
    participants["remission"] = np.arange(30) % 2.0
    assert split.sides(participants, recordings).notes == ()


def test_a_fold_may_test_nobody_of_a_value_without_a_remark():
    participants, recordings = cohort(12)
    participants["remission"] = np.arange(12) % 2.0
    for fold in range(12):
        split = ParticipantSplit(val_ratio=0.4, n_folds=12, fold=fold, stratify_by=("remission",))
        sides = split.sides(participants, recordings)
        assert len(sides.test) == 1
        assert sides.notes == ()


@pytest.mark.parametrize(("n", "split"), [(1, {}), (2, {"test_ratio": 0.1}), (2, {"n_folds": 2})])
def test_fewer_people_than_sides_are_refused_with_what_to_change(n, split):
    with pytest.raises(DataError, match=r"no one is left to train on: \d participants") as error:
        sides_of(ParticipantSplit(val_ratio=0.2, **split), n)
    assert "lower split.val_ratio or split.test_ratio, or prepare more participants" in str(error.value)
