"""Who is trained on, who is validated on, who is tested on: by participant only, and proved.

A participant's side depends on the set of participants and the seed, never on the order of rows. People who turn out
to be one (two names with byte-identical recordings, one name in two releases) stay on one side.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cerebro.data.participants import ALSO_IN, SAME_PERSON, names_in
from cerebro.errors import CheckpointError, ConfigError, DataError

_N_QUANTILES = 4  # strata of a continuous column
_MAX_CATEGORIES = 5  # a numeric column with more values counts as continuous


@dataclass(frozen=True)
class Sides:
    """Sorted participants of each side; building one proves that no one is on two.

    Parameters
    ----------
    train, val, test : tuple of str
        Participants of each side.
    labelled : tuple of str
        Those of ``train`` whose participant-level labels may be used.
    unused : tuple of str
        Participants on no side (beyond ``max_train_participants``).
    notes : tuple of str
        Values of a column to stratify by that not every side has.

    Raises
    ------
    DataError
        If a participant is on two sides.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    labelled: tuple[str, ...]
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            both = sorted(set(getattr(self, a)) & set(getattr(self, b)))
            if both:
                raise DataError(
                    f"{len(both)} participants are on both sides {a} and {b}: {_some(both)}; split them anew."
                )


@dataclass(frozen=True)
class ParticipantSplit:
    """Split of a store by participant: seeded, stratified, release-aware.

    Parameters
    ----------
    val_ratio : float
        Share of the participants that validates, in [0, 1).
    test_ratio : float
        Share of the participants outside ``test_releases`` that tests, in [0, 1).
    seed : int
        Seed of the split.
    stratify_by : tuple of str
        Columns of the participants table whose values every side gets alike; a continuous one by quartiles, a missing
        value as a value of its own.
    test_releases : tuple of str
        Releases whose participants test, all of them, and are never trained on: ``("R5",)`` for HBN. A participant
        who also occurs in another release is held out.
    n_folds : int
        Folds that leave participants out in turn; 0 = none, as the shares and releases above say.
    fold : int
        Fold that tests, from 0.
    max_train_participants : int
        Train on this many only (the few-labels setting); the same seed gives nested sets. 0 = all.
    max_labelled_participants : int
        Keep everyone in training, but use participant-level labels of this many only, the same people as
        ``max_train_participants`` would keep. 0 = all.

    Raises
    ------
    ConfigError
        If the numbers contradict each other.
    """

    val_ratio: float = 0.2
    test_ratio: float = 0.0
    seed: int = 42
    stratify_by: tuple[str, ...] = ()
    test_releases: tuple[str, ...] = ()
    n_folds: int = 0
    fold: int = 0
    max_train_participants: int = 0
    max_labelled_participants: int = 0

    def __post_init__(self) -> None:
        for name in ("val_ratio", "test_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no share; set split.{name} to a number in [0, 1).")
        if self.val_ratio + self.test_ratio >= 1:
            raise ConfigError(
                f"val_ratio={self.val_ratio} and test_ratio={self.test_ratio} leave no one to train on; lower one "
                "of them."
            )
        if self.n_folds and (self.n_folds < 2 or not 0 <= self.fold < self.n_folds):
            raise ConfigError(
                f"fold={self.fold} of n_folds={self.n_folds}; set n_folds to 2 or more and fold below it."
            )
        if self.n_folds and (self.test_ratio or self.test_releases):
            raise ConfigError(
                "n_folds makes the test sets; remove split.test_ratio and split.test_releases or n_folds."
            )
        for name in ("max_train_participants", "max_labelled_participants", "n_folds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative; set split.{name} to 0 or more.")

    def sides(self, participants: pd.DataFrame, recordings: pd.DataFrame) -> Sides:
        """Assign every participant who has a recording to a side.

        Parameters
        ----------
        participants : DataFrame
            Indexed by participant; ``release_number``, ``also_in_releases``, ``same_person_as`` (names separated by
            slashes) and the columns of ``stratify_by`` are read.
        recordings : DataFrame
            Columns ``participant``, ``release`` and ``source_sha256`` are read.

        Raises
        ------
        DataError
            If a release or column does not exist, or a side that was asked for would be empty.
        """
        members = people_of(participants, recordings)  # name of a person -> participants that are this person
        held = self._held_out(members, participants, recordings)
        rest = self._stratified(sorted(set(members) - held), members, participants)
        if self.n_folds > len(rest):
            raise DataError(
                f"n_folds={self.n_folds}, but there are only {len(rest)} participants, so that a fold would test "
                f"nobody; set folds (split.n_folds) to {len(rest)} or fewer."
            )
        if self.n_folds:
            test = set(rest[self.fold :: self.n_folds])
        else:
            test = held | set(self._pick(rest, self.test_ratio, "test"))
        left = [person for person in rest if person not in test]
        n_val = self.val_ratio * len(rest) / max(1, len(left))
        val = set(self._pick(left, n_val, "val"))
        train = [person for person in left if person not in val]
        if not train:
            raise DataError(
                f"no one is left to train on: {len(members)} participants, {len(val)} validate, {len(test)} test; "
                "lower split.val_ratio or split.test_ratio, or prepare more participants."
            )
        sides = {"train": set(train), "val": val} | ({} if self.n_folds else {"test": test - held})
        return replace(self.capped(train, val, test, members), notes=self._rare(rest, sides, members, participants))

    def _rare(
        self,
        people: list[str],
        sides: dict[str, set[str]],
        members: dict[str, list[str]],
        participants: pd.DataFrame,
    ) -> tuple[str, ...]:
        """Lines on values of a column of few values that a side lacks; a fold may test nobody of a value."""
        notes = []
        first = [members[person][0] for person in people]
        for column in self.stratify_by:
            values = participants[column].reindex(first)
            if values.nunique() > _MAX_CATEGORIES:
                continue
            for value in sorted(values.dropna().unique()):
                having = {person for person, one in zip(people, values, strict=True) if one == value}
                lacking = [side for side, chosen in sides.items() if chosen and not chosen & having]
                if lacking:
                    named = f"{value:g}" if isinstance(value, float) else value
                    sides_lacking = " and ".join(lacking)
                    notes.append(f"no one with {column} {named} on the side {sides_lacking} ({len(having)} have it)")
        return tuple(notes)

    def capped(
        self, train: Iterable[str], val: Iterable[str], test: Iterable[str], members: dict[str, list[str]]
    ) -> Sides:
        """Sides of people, by the names of the participants they are (``members``, see `people_of`).

        Of ``train`` no more are kept, and no more labelled, than the caps of this split allow.
        """
        train = sorted(train, key=lambda person: self._draw("train", person))
        kept = train[: self.max_train_participants] if self.max_train_participants else train
        labelled = kept[: self.max_labelled_participants] if self.max_labelled_participants else kept
        return Sides(
            train=_names(kept, members),
            val=_names(val, members),
            test=_names(test, members),
            labelled=_names(labelled, members),
            unused=_names(train[len(kept) :], members),
        )

    def _held_out(
        self, members: dict[str, list[str]], participants: pd.DataFrame, recordings: pd.DataFrame
    ) -> set[str]:
        if not self.test_releases:
            return set()
        seen = set(zip(recordings["participant"].astype(str), recordings["release"].astype(str), strict=True))
        if "release_number" in participants.columns:
            seen |= set(zip(participants.index.astype(str), participants["release_number"].astype(str), strict=True))
        seen |= set(names_in(participants, ALSO_IN))
        missing = sorted(set(self.test_releases) - {release for _, release in seen})
        if missing:
            found = sorted({release for _, release in seen} - {"", "nan"})
            raise DataError(
                f"test release {', '.join(missing)} is not in the store, which holds {', '.join(found) or 'none'}; set "
                "split.test_releases to releases that were prepared."
            )
        held = {participant for participant, release in seen if release in self.test_releases}
        return {person for person, names in members.items() if held & set(names)}

    def _stratified(self, people: list[str], members: dict[str, list[str]], participants: pd.DataFrame) -> list[str]:
        """People ordered by stratum, and within a stratum by a draw: every n-th of them is a stratified sample."""
        absent = [column for column in self.stratify_by if column not in participants.columns]
        if absent:
            raise DataError(
                f"the participants table has no column {', '.join(absent)} to stratify by; set split.stratify_by to "
                f"some of {', '.join(map(str, participants.columns)) or 'its columns (it has none)'}, or to []."
            )
        rows = participants.reindex([members[person][0] for person in people])
        strata = [_stratum(rows[column]) for column in self.stratify_by]
        keys = [tuple(column[i] for column in strata) for i in range(len(people))]
        order = sorted(range(len(people)), key=lambda i: (keys[i], self._draw("side", people[i])))
        return [people[i] for i in order]

    def _pick(self, people: list[str], share: float, side: str) -> list[str]:
        """A systematic sample of ``people``: at least one if ``share`` is above 0."""
        if not share or not people:
            return []
        n = min(len(people), max(1, round(share * len(people))))
        start = self._draw("start", side) / 2**64
        return [people[int((i + start) * len(people) / n)] for i in range(n)]

    def _draw(self, purpose: str, name: str) -> int:
        """Number in [0, 2^64) that depends on the seed and the name alone."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{purpose}/{name}".encode()).digest()[:8], "big")


def people_of(participants: pd.DataFrame, recordings: pd.DataFrame) -> dict[str, list[str]]:
    """Participants by person: names that share a byte-identical source file are one person, under their first name.

    A store keeps such a file once; then the participants table says whose it is too.
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    def unite(one: str, two: str) -> None:
        one, two = find(one), find(two)
        leader[max(one, two)] = min(one, two)

    first_with: dict[str, str] = {}
    names = recordings["participant"].astype(str)
    for name, digest in zip(names, recordings["source_sha256"].astype(str), strict=True):
        unite(name, first_with.setdefault(digest, name) if digest else name)
    for name, other in names_in(participants, SAME_PERSON):
        unite(name, other)
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(find(name), []).append(name)
    return {members[0]: members for members in groups.values()}


def person_numbers(participants: pd.DataFrame, recordings: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number of the person behind each participant (P,): names of one person (`people_of`) have the same; -1 = none."""
    people = people_of(participants, recordings).values()
    number = {name: at for at, names in enumerate(people) for name in names}
    return np.array([number.get(name, -1) for name in participants.index.astype(str)], np.int64)


def _stratum(column: pd.Series) -> npt.NDArray[np.int64]:
    """Number of the stratum of each row; a missing value is stratum -1."""
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > _MAX_CATEGORIES:
        column = pd.qcut(column, _N_QUANTILES, labels=False, duplicates="drop")
    codes, _ = pd.factorize(column, sort=True)
    return np.asarray(codes, dtype=np.int64)


def _names(people: Iterable[str], members: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted(name for person in people for name in members[person]))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_disjoint(seen: Iterable[str], evaluated: Iterable[str], what: str = "evaluated") -> None:
    """Refuse to judge a model by people it has seen.

    Parameters
    ----------
    seen, evaluated : iterable of str
        Participants as ``corpus:participant``.
    what : str
        What the second group is for, as the message says it.

    Raises
    ------
    CheckpointError
        If a participant is in both groups.
    """
    both = sorted(set(seen) & set(evaluated))
    if both:
        raise CheckpointError(
            f"{len(both)} participants that are {what} were seen in training: {_some(both)}; use the split of the "
            "earlier phases (data.split.seed, test_releases) or a checkpoint that has not seen them."
        )
