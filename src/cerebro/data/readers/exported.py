"""Recordings of a store that `cerebro export` wrote as Zarr or HDF5."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from cerebro.data.exports import Export, table_of
from cerebro.data.readers.base import Entry, Event, Finding, Reader, Recording, Scan, Segment, Severity
from cerebro.data.store import FINDING_COLUMNS
from cerebro.montage import Montage
from cerebro.progress import progress

# Found again in the samples themselves whenever a store is built.
FOUND_AGAIN = "flat-channel"
NO_ELECTRODE = "no electrode"


class Exported(Reader):
    """A store that was exported as Zarr or HDF5, ready: nothing is filtered or resampled again.

    Set ``preprocessing.sfreq`` and ``lsb_uV`` to those of the export, and the rebuilt store has the same samples,
    offsets and tables, and the same data hash. Every byte is verified on the way.

    Parameters
    ----------
    path : Path
        Zarr folder or HDF5 file.

    Raises
    ------
    DataError
        In one line if there is no export, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with Export(self.path) as export:
            self.corpus = str(export.about["corpus"])

    def montage(self) -> Montage:
        """Electrodes of all recordings, under the name that they had."""
        with Export(self.path) as export:
            return whole_montage(export.about["montages"])

    def scan(self, require_signals: bool = True) -> Scan:
        """List the recordings; see `Reader.scan`. What was found when the store was built is told again.

        Raises
        ------
        DataError
            If what a recording says of itself is absent or damaged.
        """
        with Export(self.path) as export:
            groups = list(export.groups())
            entries = [
                _entry(export.record(group, sha256, key), self.path / group, sha256)
                for group, sha256, key in progress(groups, "read", "recording")
            ]
            kept = {entry.key for entry in entries}
            table = zip(*(export.about["findings"][name] for name in FINDING_COLUMNS), strict=True)
            findings = [  # those of a recording come with it
                _finding(finding) for recording, piece, *finding in table if not (piece and recording in kept)
            ]
            participants = table_of(export.about["participants"], export.about["participant_columns"])
        return Scan(entries, findings, participants.set_index("participant_id"))

    def load(self, entry: Entry) -> Recording:
        """Read one recording and verify every chunk; see `Reader.load`."""
        group = entry.path.relative_to(self.path).as_posix()
        with Export(self.path) as export:
            record = export.record(group, entry.source_sha256, entry.key)
            counts = export.counts(group, record)
        windows = zip(*record["segments"].values(), strict=True)
        return Recording(
            eeg=counts * np.float32(record["scale_uV"]),
            channels=tuple(record["channels"]),
            sfreq=float(record["sfreq"]),
            reference=record["reference"],
            findings=[finding for finding in map(_finding, record["findings"]) if finding.rule != FOUND_AGAIN],
            is_ready=True,
            segments=tuple(Segment(**dict(zip(record["segments"], window, strict=True))) for window in windows),
            offsets_uV=tuple(record["offsets_uV"]),
            n_clipped=record["clipped"],
        )


def whole_montage(sets: list[dict[str, Any]]) -> Montage:
    """One montage from the channel sets of a store, so that a store of it names the same sets in the same way.

    A store calls a set by the montage's name where it is the whole montage, and ``NAME, set N`` otherwise. The whole
    is not in the store then; electrodes that nobody recorded are left out, and one that stands for them is put last.

    Parameters
    ----------
    sets : list of dict
        ``name``, ``channels`` and ``positions`` (metres, or null) of each.
    """
    position = {
        channel: [np.nan] * 3 if xyz is None else xyz
        for one in sets
        for channel, xyz in zip(one["channels"], one["positions"], strict=True)
    }
    whole = [one for one in sets if not one["name"].endswith(tuple(f", set {n + 1}" for n in range(len(sets))))]
    if whole:
        name, channels = whole[0]["name"], list(whole[0]["channels"])
        channels += [channel for channel in position if channel not in channels]
    else:
        name, channels = sets[0]["name"].rpartition(", set ")[0], list(position)
        position[NO_ELECTRODE] = [np.nan] * 3
        channels.append(NO_ELECTRODE)
    return Montage(name, tuple(channels), np.array([position[channel] for channel in channels], np.float64))


def _entry(record: dict[str, Any], path: Path, sha256: str) -> Entry:
    events = record["events"]
    return Entry(
        key=record["key"],
        participant=record["participant"],
        task=record["task"],
        path=path,
        run=record["run"],
        session=record["session"],
        release=record["release"],
        events=tuple(
            Event(onset_s, name, duration_s)
            for onset_s, duration_s, name in zip(events["onset_s"], events["duration_s"], events["name"], strict=True)
        ),
        labels=record["labels"],
        source_sha256=sha256,
    )


def _finding(row: list[str]) -> Finding:
    rule, severity, where, detail = row
    return Finding(rule, cast(Severity, severity), where, detail)
