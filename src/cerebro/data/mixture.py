"""Several stores as one: recordings, events and people side by side, and not one sample copied.

A mixture is a folder with ``mixture.json``, written last: its members by relative path, the hash of their data and the
weight with which training draws from each. Whoever reads a `Store` reads a `Mixture` the same way.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil

from cerebro.data.manifest import is_whole, manifest_text
from cerebro.data.mixture_tables import merge_people, stack
from cerebro.data.participants import SAME_PERSON
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError, check_one_of
from cerebro.files import read_json, write_atomically
from cerebro.montage import Montage, is_electrode_file

MIXTURE_FILE = "mixture.json"
MIXTURE_VERSION = 1
Reference = Literal["as_is", "average"]
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Member:
    """One store of a mixture.

    Parameters
    ----------
    name : str
        Name of the source in the mixture.
    store : Store
        Its data.
    weight : float
        Share of the training batches; the shares of all members sum to 1.
    """

    name: str
    store: Store
    weight: float


class Mixture(Store):
    """Read-only view of several stores as one; open one with `Mixture.open`.

    Numbers of shards, montages, participants and events count through all members, in the order of their names. A
    participant is called ``corpus:participant``, so that equal ids of two corpora are two people, and two members of
    one corpus that hold the same participant hold one person. Keys of recordings begin with the member's name.

    Attributes
    ----------
    members : tuple of Member
        Sorted by name.
    member : int32 (R,)
        Row of ``members`` for each recording.
    lsb_uV : float
        Microvolts per count; NaN where members differ (``index["scale"]`` has that of each recording).
    channels : dict
        Arguments of `cerebro.data.channels.MapChannels` for whoever trains on it; empty = as recorded.
    notes : tuple of str
        What two members say differently of one person; the first member's word counts.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], members: Sequence[Member]) -> None:
        self.path = path
        self.manifest = manifest
        self.members = tuple(members)
        stores = [member.store for member in members]
        self.sfreq = stores[0].sfreq
        steps = {store.lsb_uV for store in stores}
        self.lsb_uV = steps.pop() if len(steps) == 1 else float("nan")
        self.corpus = "mixture"
        references = {store.reference for store in stores}
        self.reference = references.pop() if len(references) == 1 else "mixed"
        self.data_hash = str(manifest["data_hash"])
        self.channels = _absolute(path, manifest["channels"])
        self.event_names = tuple(sorted({name for store in stores for name in store.event_names}))
        self._people, self.notes = merge_people([_people(store) for store in stores])
        montages: list[Montage] = []
        montage_rows = [[_row_of(montages, montage) for montage in store.montages] for store in stores]
        self.montages = tuple(montages)
        self._flats = [shard for store in stores for shard in store._flats]
        self._fits_memory = sum(shard.nbytes for shard in self._flats) < psutil.virtual_memory().total / 2
        self._first_shard = _starts([len(store._flats) for store in stores])
        self._first_recording = _starts([len(store) for store in stores])
        self.index, self.event_index = self._concatenate(stores, montage_rows)
        self.member = np.repeat(np.arange(len(stores), dtype=np.int32), [len(store) for store in stores])

    @classmethod
    def open(cls, path: Path) -> "Mixture":
        """Open a mixture; the tables of all members are verified, their samples when they are first touched.

        Raises
        ------
        DataError
            In one line: ``mixture.json`` is absent, damaged or of another version; a member is absent, damaged, or was
            prepared anew with other data; the electrode file of ``channels`` is absent or another.
        """
        path = Path(path)
        content = _read(path)
        if _electrodes_sha256(_absolute(path, content["channels"])) != content.get("electrodes_sha256", ""):
            raise DataError(
                f"electrode file {content['channels']['target']} of {path} is another than it was mixed with; run the "
                "`cerebro prepare` command of the mixture again."
            )
        members = []
        for entry in content["members"]:
            store = Store.open(Path(os.path.normpath(path / entry["path"])))
            if store.data_hash != entry["data_hash"]:
                raise DataError(
                    f"member {entry['name']} of {path} has data {store.data_hash[:12]} and was mixed with "
                    f"{entry['data_hash'][:12]}; run the `cerebro prepare` command of the mixture again."
                )
            members.append(Member(entry["name"], store, float(entry["weight"])))
        return cls(path, content, members)

    @property
    def is_at_hand(self) -> bool:
        """Whether all samples have been read and fit half of the memory: then they are there still."""
        return self._fits_memory and all(member.store.is_at_hand for member in self.members)

    def will_need(
        self, shard: npt.NDArray[np.integer], first_byte: npt.NDArray[np.integer], n_bytes: npt.NDArray[np.integer]
    ) -> None:
        """Have the system read ranges as `Store.will_need` does, each from its own member."""
        for store, rows, local in self._by_member(shard):
            store.will_need(local, np.asarray(first_byte)[rows], np.asarray(n_bytes)[rows])

    def touch(self, shard: npt.NDArray[np.integer], first_byte: npt.NDArray[np.integer], n_bytes: int) -> None:
        """Verify pages as `Store.touch` does, each in its own member."""
        for store, rows, local in self._by_member(shard):
            store.touch(local, np.asarray(first_byte)[rows], n_bytes)

    def _by_member(
        self, shard: npt.NDArray[np.integer]
    ) -> Iterator[tuple[Store, npt.NDArray[np.bool_], npt.NDArray[np.int64]]]:
        """Each member that ``shard`` (B,) speaks of, where, and the shards' numbers in it."""
        which = np.searchsorted(self._first_shard, shard, side="right") - 1
        for number in np.unique(which).tolist():
            rows = which == number
            yield self.members[number].store, rows, np.asarray(shard)[rows].astype(np.int64) - self._first_shard[number]

    def offsets_uV(self, recording: int) -> npt.NDArray[np.float32]:
        """Microvolts (C,) that were subtracted from each channel before quantising."""
        number = int(self.member[recording])
        return self.members[number].store.offsets_uV(recording - int(self._first_recording[number]))

    def verify(self) -> list[str]:
        """Verify every byte of every member; one line per damage, which begins with the member's name."""
        return [f"{member.name}: {problem}" for member in self.members for problem in member.store.verify()]

    def _table(self, name: str) -> pd.DataFrame:
        if name == "participants":
            return self._people
        frames = []
        for member, first in zip(self.members, self._first_recording.tolist(), strict=True):
            frame = getattr(member.store, name).copy()
            if name == "recordings":
                frame["participant"] = _qualified(member.store, frame["participant"])
                frame["key"] = [f"{member.name}/{key}" for key in frame["key"]]
                frame["member"] = member.name
            elif name == "findings":
                frame["recording"] = [key and f"{member.name}/{key}" for key in frame["recording"]]
            else:
                frame["recording"] += np.int32(first)
            frames.append(frame)
        return stack(frames)

    def _concatenate(
        self, stores: Sequence[Store], montage_rows: Sequence[Sequence[int]]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Index and events of all members, with every number counted through."""
        row_of_name = {name: row for row, name in enumerate(self.event_names)}
        who = pd.Index(self._people["participant_id"])
        rows, events, n_offsets, n_events = [], [], 0, 0
        for store, first_shard, montage_row in zip(stores, self._first_shard.tolist(), montage_rows, strict=True):
            index = store.index.copy()
            index["shard"] += first_shard
            index["montage"] = np.array(montage_row, "<i4")[index["montage"]]
            index["participant"] = who.get_indexer(_qualified(store, store.participants.index))[index["participant"]]
            index["offset_row"] += n_offsets
            index["event_row"] += n_events
            n_offsets += int(store.index["n_channels"].sum(dtype=np.int64))
            n_events += len(store.event_index)
            event = np.array(store.event_index)
            event["name"] = np.array([row_of_name[name] for name in store.event_names], "<u4")[event["name"]]
            rows.append(index)
            events.append(event)
        return np.concatenate(rows), np.concatenate(events)


def open_store(path: Path) -> Store:
    """Open a store, or a mixture of stores.

    Raises
    ------
    DataError
        As `Store.open` and `Mixture.open`.
    """
    path = Path(path)
    if (path / MIXTURE_FILE).is_file():
        return Mixture.open(path)
    if not (path / "manifest.json").is_file() and any(path.glob("*/manifest.json")):
        raise DataError(f"mixture {path} is unfinished; run the same `cerebro prepare` command again.")
    return Store.open(path)


def participant_keys(store: Store) -> tuple[str, ...]:
    """``corpus:participant`` by row of the participants table."""
    if isinstance(store, Mixture):
        return tuple(map(str, store.participants.index))
    return _qualified(store, store.participants.index)


def write_mixture(
    path: Path,
    stores: Mapping[str, Path],
    weights: Mapping[str, float | int],
    reference: Reference = "as_is",
    channels: Mapping[str, Any] = _NONE,
) -> Mixture:
    """Write ``mixture.json`` of stores that are there, and open it; the stores stay where they are.

    Parameters
    ----------
    path : Path
        Folder of the mixture; may hold the members.
    stores : mapping of str to Path
        Name of each member and its store.
    weights : mapping of str to float
        Relative weight of each member; they are scaled to sum to 1.
    reference : {"as_is", "average"}
        ``average``: every recording of every member must have been prepared with the common average as its reference.
    channels : mapping
        Arguments of `cerebro.data.channels.MapChannels` for whoever trains on the mixture; empty = as recorded.

    Raises
    ------
    ConfigError
        If weights and members do not agree.
    DataError
        In one line: members of different rates or references, or two that hold the same recording of one corpus.
    """
    check_one_of("reference", reference, ("as_is", "average"))
    shares = normalised(weights, tuple(stores))
    opened = {name: Store.open(Path(stores[name])) for name in sorted(stores)}
    _check_rates(opened)
    check_references({name: references_of(store) for name, store in opened.items()}, reference)
    _check_recordings(opened)
    entries = [
        {
            "name": name,
            "path": Path(os.path.relpath(stores[name], path)).as_posix(),
            "data_hash": store.data_hash,
            "weight": shares[name],
        }
        for name, store in opened.items()
    ]
    channels, electrodes = dict(channels), _electrodes_sha256(channels)
    if electrodes:
        channels["target"] = Path(os.path.relpath(channels["target"], path)).as_posix()
    content = {
        "version": MIXTURE_VERSION,
        "members": entries,
        "sfreq": next(iter(opened.values())).sfreq,
        "reference": reference,
        "channels": channels,
        "data_hash": _hash(
            [channels | {"target": electrodes} if electrodes else channels]
            + [[entry[key] for key in ("name", "data_hash", "weight")] for entry in entries]
        ),
    }
    if electrodes:
        content["electrodes_sha256"] = electrodes
    text = manifest_text(content).encode()
    write_atomically(path / MIXTURE_FILE, lambda file: _write(file, text))
    return Mixture.open(path)


def normalised(weights: Mapping[str, float | int], names: Sequence[str]) -> dict[str, float]:
    """Weights scaled to sum to 1, one for each of ``names``.

    Raises
    ------
    ConfigError
        If a name is missing or unknown, a weight negative or not finite, or all are 0.
    """
    example = "{" + ", ".join(f"{name}: {1 / max(1, len(names)):.2g}" for name in names) + "}"
    if set(weights) != set(names):
        raise ConfigError(
            f"weights are given for {', '.join(sorted(weights)) or 'nothing'} and the members are "
            f"{', '.join(sorted(names))}; give one weight each, such as {example}."
        )
    total = sum(weights.values())
    if not all(0 <= weight < float("inf") for weight in weights.values()) or not total > 0:
        raise ConfigError(f"weights {dict(weights)} are no shares; set numbers of 0 or more, such as {example}.")
    return {name: float(weights[name]) / total for name in sorted(names)}


def references_of(store: Store) -> tuple[str, ...]:
    """References that recordings of a store have, sorted."""
    if store.reference != "mixed":
        return (store.reference,)
    return tuple(sorted(set(store.recordings["reference"].astype(str))))


def check_references(found: Mapping[str, Sequence[str]], reference: Reference) -> None:
    """Raise DataError unless all members have the reference that was asked for, or share one as it is."""
    shown = "; ".join(f"{name}: {', '.join(references)}" for name, references in sorted(found.items()))
    every = {one for references in found.values() for one in references}
    if reference == "average" and every != {"average"}:
        raise DataError(
            f"members are not all referenced to the average ({shown}); prepare the others with "
            "`reference: average` under preprocessing, which a recording of one electrode cannot meet."
        )
    if reference == "as_is" and len(found) > 1 and (len(every) > 1 or "unknown" in every):
        why = "differ" if len(every) > 1 else "are not known to agree"
        raise DataError(
            f"references of the members {why} ({shown}); set `reference: average` in the mixture's config and run "
            "`cerebro prepare` again."
        )


def _check_rates(stores: Mapping[str, Store]) -> None:
    rates = {name: store.sfreq for name, store in stores.items()}
    if len(set(rates.values())) > 1:
        shown = "; ".join(f"{name}: {sfreq:g} Hz" for name, sfreq in rates.items())
        raise DataError(f"members have different rates ({shown}); prepare them with one preprocessing.sfreq.")


def _check_recordings(stores: Mapping[str, Store]) -> None:
    """Raise DataError if one recording of one corpus is in two members: it would be drawn twice."""
    first: dict[tuple[str, str], str] = {}
    for name, store in stores.items():
        for key in store.recordings["key"].astype(str):
            other = first.setdefault((store.corpus, key), name)
            if other != name:
                raise DataError(
                    f"recording {key} of {store.corpus} is in the members {other} and {name}; leave it out of one of "
                    "them (tasks or releases of their readers), or mix one of the two only."
                )


def _read(path: Path) -> dict[str, Any]:
    file = path / MIXTURE_FILE
    if not file.is_file():
        raise DataError(f"mixture {path} was not found; run `cerebro prepare MIXTURE.yaml --out {path}`.")
    content = read_json(file)
    if not is_whole(file, content):
        raise DataError(f"mixture {path} is damaged: {MIXTURE_FILE}; run the same `cerebro prepare` command again.")
    if content["version"] != MIXTURE_VERSION:
        raise DataError(
            f"mixture {path} has format {content['version']}, this cerebro reads {MIXTURE_VERSION}; run the same "
            "`cerebro prepare` command again, or update cerebro."
        )
    return dict(content)


def _absolute(path: Path, channels: Mapping[str, Any]) -> dict[str, Any]:
    """Channels of a mixture, whose electrode file is named as seen from its folder."""
    target = str(channels.get("target", ""))
    found = {"target": os.path.normpath(path / target)} if is_electrode_file(target) else {}
    return {**channels, **found}


def _electrodes_sha256(channels: Mapping[str, Any]) -> str:
    """Hash of the electrode file that ``channels`` names; empty where it names none."""
    target = str(channels.get("target", ""))
    if not is_electrode_file(target):
        return ""
    try:
        return hashlib.sha256(Path(target).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"electrode file {target} cannot be read ({error.strerror}); put it there again.") from None


def _people(store: Store) -> pd.DataFrame:
    """Participants of a member, by their names in the mixture; also the names of those who are the same person."""
    table = store.participants.reset_index()
    table["participant_id"] = _qualified(store, table["participant_id"])
    if SAME_PERSON in table.columns:
        prefix: Callable[[Any], Any] = lambda cell: (  # noqa: E731
            "/".join(f"{store.corpus}:{name}" for name in cell.split("/")) if isinstance(cell, str) else cell
        )
        table[SAME_PERSON] = pd.Series([prefix(cell) for cell in table[SAME_PERSON]], dtype=object)
    return table


def _qualified(store: Store, names: Any) -> tuple[str, ...]:
    return tuple(f"{store.corpus}:{name}" for name in names)


def _row_of(montages: list[Montage], montage: Montage) -> int:
    """Row of an equal montage, which is appended if there is none."""
    for row, other in enumerate(montages):
        if other.channels == montage.channels and np.array_equal(other.positions, montage.positions, equal_nan=True):
            return row
    montages.append(montage)
    return len(montages) - 1


def _starts(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int64)


def _write(file: BinaryIO, text: bytes) -> None:
    file.write(text)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
