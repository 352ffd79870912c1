"""Sides of a mixture: everyone is where their own store puts them, unless that would put one person on two sides."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from cerebro.data.mixture import Mixture, participant_keys
from cerebro.data.participants import ALSO_IN, names_in
from cerebro.data.splits import ParticipantSplit, Sides, people_of
from cerebro.data.store import Store
from cerebro.errors import DataError

_SIDES = ("train", "val", "test")  # later = held out more strictly


def sides_of(split: ParticipantSplit, store: Store, only_tested: Collection[str] = ()) -> Sides:
    """Split a store, or a mixture, by participant; names are those of ``store.participants``.

    A mixture is split member by member with the same seed, so that a phase on one member alone has the same sides, and
    people of every member are on every side. Whoever turns out to be one person in two members (one participant of one
    corpus, or byte-identical recordings) goes where the strictest of them is: test before validation before training.
    ``test_releases`` and ``stratify_by`` count where a member knows them. ``max_train_participants`` and
    ``max_labelled_participants`` count people of all members together. Who is in no other members than ``only_tested``
    is on the test side or on none.

    Raises
    ------
    DataError
        As `ParticipantSplit.sides`, naming the member.
    """
    if not isinstance(store, Mixture):
        return split.sides(store.participants, store.recordings)
    _check_known(split, store)
    rank: dict[str, int] = {}
    may_train: set[str] = set()
    for member in store.members:
        found = _sides_of_member(split, member.name, member.store)
        name_of = dict(zip(member.store.participants.index.astype(str), participant_keys(member.store), strict=True))
        for number, side in enumerate(_SIDES):
            for name in getattr(found, side):
                rank[name_of[name]] = max(number, rank.get(name_of[name], 0))
        if member.name not in only_tested:
            may_train |= set(name_of.values())
    members = people_of(store.participants, store.recordings)
    sides: dict[str, list[str]] = {side: [] for side in _SIDES}
    for person, names in members.items():
        side = _SIDES[max(rank[name] for name in names)]
        if side == "test" or may_train & set(names):
            sides[side].append(person)
    if not sides["train"]:
        raise DataError(
            f"no one is left to train on in {store.path}: whoever trains in one member is held out in another; use the "
            "same split.test_releases for all of them, or mix other members."
        )
    return split.capped(sides["train"], sides["val"], sides["test"], members)


def _sides_of_member(split: ParticipantSplit, name: str, store: Store) -> Sides:
    known = _releases(store)
    own = replace(
        split,
        max_train_participants=0,
        max_labelled_participants=0,
        test_releases=tuple(release for release in split.test_releases if release in known),
        stratify_by=tuple(column for column in split.stratify_by if column in store.participants.columns),
    )
    try:
        return own.sides(store.participants, store.recordings)
    except DataError as error:
        raise DataError(f"member {name}: {error}") from None


def _check_known(split: ParticipantSplit, mixture: Mixture) -> None:
    """Raise DataError for a release or a column that no member knows."""
    known = set().union(*(_releases(member.store) for member in mixture.members))
    absent = sorted(set(split.test_releases) - known)
    if absent:
        raise DataError(
            f"test release {', '.join(absent)} is in no member of {mixture.path}, which hold "
            f"{', '.join(sorted(known)) or 'none'}; set split.test_releases to releases that were prepared."
        )
    columns = [str(name) for name in mixture.participants.columns]
    absent = [column for column in split.stratify_by if column not in columns]
    if absent:
        raise DataError(
            f"no member of {mixture.path} has a column {', '.join(absent)} to stratify by; set split.stratify_by to "
            f"some of {', '.join(columns)}."
        )


def _releases(store: Store) -> set[str]:
    """Releases that a store knows of."""
    found = set(store.recordings["release"].astype(str)) | {
        release for _, release in names_in(store.participants, ALSO_IN)
    }
    if "release_number" in store.participants.columns:
        found |= set(pd.Series(store.participants["release_number"]).dropna().astype(str))
    return found - {"", "nan"}
