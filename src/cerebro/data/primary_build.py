"""Raw recordings and a table of labels -> the primary data set.

Resumable and parallel, with the same bytes for any number of jobs. What is made stands below one output folder: the
windowed intermediate under ``interim/windowed/``, the data set and its report under ``processed/features/primary/``.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cerebro.data.names import with_plain_names
from cerebro.data.pace import Pace
from cerebro.data.primary_pieces import WindowedRecipe, WindowedRecord, read_record, remove_stale, windowed_code
from cerebro.data.primary_report import PrimaryReport, make_report
from cerebro.data.primary_table import FIXED, Run, write_table
from cerebro.data.processing import DIGITS, Processing, data_set_name
from cerebro.data.readers.base import Entry, Finding
from cerebro.data.readers.folder import Folder
from cerebro.data.shards import full_disk_in_one_line
from cerebro.data.source_checksums import with_checksums
from cerebro.data.spread import Work, remove_markers, spread_here
from cerebro.data.two_labels import Label, read_labels
from cerebro.errors import ConfigError, DataError
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.progress import progress

INTERIM, PRIMARY = Path("interim"), Path("processed/features/primary")
LISTED = 5  # names in an error
UNLABELLED = "no label"


@dataclass(frozen=True)
class PrimarySource:
    """Recordings, who they are, and what is done to them.

    Parameters
    ----------
    reader : Folder
        The recordings; its ``labels`` become columns.
    plan : Processing
        What is done to each; without channels all electrodes that every recording has.
    label : Label or None
        Where the label of participants stands; ``None`` = there is none, and ``Remission`` is empty.
    numbers_runs : bool
        Runs are numbered 1, 2, ... in the order of the names of a participant's recordings, instead of by their names.
    missing_channels : {"refuse", "leave_out"}
        What becomes of recordings without one of the channels.
    """

    reader: Folder
    plan: Processing
    label: Label | None
    numbers_runs: bool = True
    missing_channels: Literal["refuse", "leave_out"] = "refuse"


@dataclass(frozen=True)
class Primary:
    """A primary data set that was made.

    Parameters
    ----------
    path : Path
        Its file.
    name : str
        Start of names, such as ``8s_af7-af8-tp9-tp10``.
    digest : str
        SHA-256 of all that its bytes depend on.
    plan : Processing
        What was done, with the channels that were found.
    runs : tuple of Run
        Sorted by participant and run.
    reference : str
        Reference of the windows, ``unknown`` where recordings differ.
    report : PrimaryReport
        What was counted.
    sources : mapping of str to str
        Recording of the data set, such as ``sub-01_run-2`` -> hash of its raw file (SHA-256, 16 digits).
    """

    path: Path
    name: str
    digest: str
    plan: Processing
    runs: tuple[Run, ...]
    reference: str
    report: PrimaryReport
    sources: Mapping[str, str]


def make_primary(source: PrimarySource, out: Path, jobs: int = 1) -> Primary:
    """Make the data set below ``out``; only what is missing or has changed is done.

    Raises
    ------
    CerebroError
        In one line: another process writes here, the disk is full, the folder, the table or the channels are not what
        they should be, no recording is left.
    """
    with lock_folder(out / INTERIM, "cerebro process-primary"):
        remove_orphans(out / INTERIM, "**/.*.part")
        remove_orphans(out / PRIMARY)
        scan = with_checksums(source.reader, with_plain_names(source.reader.scan()))
        findings = [one for one in scan.findings if one.rule != "no-participants-table"]
        remission: dict[str, int] = {}
        entries = scan.entries
        if source.label is not None:
            remission, counted = read_labels(source.label, {entry.participant for entry in entries})
            findings += counted
        numbers = _run_numbers(scan.entries, source.numbers_runs)
        if source.label is not None:
            entries = [entry for entry in entries if entry.participant in remission]
        channels, entries = _channels(source, entries, findings)
        plan = replace(source.plan, channels=channels)
        upper = [name.upper() for name in channels]
        _check_columns(upper, list(source.reader.labels))
        name = data_set_name(plan.window_s, upper)
        folder = out / INTERIM / "windowed" / name
        records = _make_windows(
            WindowedRecipe(source.reader, plan, windowed_code(source.reader)), entries, folder, jobs
        )
        runs, used = _runs(entries, records, numbers, remission, folder, findings)
        _check_left(runs, source.label, findings)
        remove_stale(folder, [path.name for path, _ in records.values() if path is not None])
        path = out / PRIMARY / f"{name}_primary_dataset.parquet"
        digest = write_table(path, runs, upper, sorted(source.reader.labels), _content(source, plan), "write")
        references = {record.reference for record in used}
        report = _report(path.relative_to(out), source.label, plan, runs, used, findings)
        write_json(path.with_name(f"{name}_primary_report.json"), report.content())
        reference = references.pop() if len(references) == 1 else "unknown"
        sources = {
            f"{run.participant}_run-{run.number}": record.source_sha256[:DIGITS]
            for run, record in zip(runs, used, strict=True)
        }
        return Primary(path, name, digest, plan, tuple(runs), reference, report, sources)


def _run_numbers(entries: Sequence[Entry], numbers_runs: bool) -> dict[str, int]:
    """Run of each recording; one participant has no run twice."""
    if numbers_runs:
        seen: Counter[str] = Counter()
        numbers = {}
        for entry in sorted(entries, key=lambda entry: entry.key):
            seen[entry.participant] += 1
            numbers[entry.key] = seen[entry.participant]
        return numbers
    first: dict[tuple[str, int], str] = {}
    for entry in entries:
        twin = first.setdefault((entry.participant, entry.run), entry.key)
        if twin != entry.key:
            raise DataError(
                f"{twin} and {entry.key} are both run {entry.run} of participant {entry.participant}; set run_from so "
                "that it tells them apart, or leave it out: runs are then numbered in the order of the names."
            )
    return {entry.key: entry.run for entry in entries}


def _channels(
    source: PrimarySource, entries: list[Entry], findings: list[Finding]
) -> tuple[tuple[str, ...], list[Entry]]:
    """Channels of the data set, and the recordings that have them; a header that cannot be used is a failure."""
    looked = source.reader.electrodes(entries)
    has: dict[str, tuple[str, ...]] = {}
    for entry, (found, problem) in zip(
        entries, progress(looked, "channels", "recording", len(entries), stays=False), strict=True
    ):
        if found is None:
            findings.append(Finding("unusable-recording", "failed", entry.key, " ".join(problem.split())))
        elif not found:
            detail = f"no channel that montage {source.reader.montage().name} knows"
            findings.append(Finding("unusable-recording", "failed", entry.key, detail))
        else:
            has[entry.key] = found
    if not has:
        raise DataError(_nothing_left(findings))
    usable = [entry for entry in entries if entry.key in has]
    common = [name for name in source.reader.montage().channels if all(name in found for found in has.values())]
    if not source.plan.channels:
        rare = Counter(name for found in has.values() for name in found if name not in common)
        if not common:
            often = ", ".join(name for name, _ in rare.most_common(LISTED))
            raise DataError(
                f"no electrode stands in all {len(has)} recordings; set channels to those wanted (most often: {often}) "
                "and missing_channels: leave_out to do without recordings that lack one."
            )
        if rare:
            listed = ", ".join(f"{name} ({n})" for name, n in rare.most_common(LISTED))
            detail = f"{len(rare)} electrodes that not all {len(has)} recordings have are not used: {listed}"
            findings.append(Finding("channels-not-common", "repaired", source.reader.corpus, detail))
        return tuple(common), usable
    spelled = {name.upper(): name for name in source.reader.montage().channels}
    unknown = [name for name in source.plan.channels if name.upper() not in spelled]
    if unknown:
        raise ConfigError(
            f"channels names {', '.join(unknown[:LISTED])}, no electrode of montage {source.reader.montage().name}; "
            f"set channels to electrodes of the recordings, such as {', '.join(common[:LISTED]) or 'Fz'}."
        )
    channels = tuple(spelled[name.upper()] for name in source.plan.channels)
    lacking = {entry.key: [name for name in channels if name not in has[entry.key]] for entry in usable}
    lacking = {key: names for key, names in lacking.items() if names}
    if lacking and (source.missing_channels == "refuse" or len(lacking) == len(has)):
        absent = sorted({name for names in lacking.values() for name in names})
        raise DataError(
            f"{len(lacking)} of {len(has)} recordings lack channel {', '.join(absent[:LISTED])} "
            f"({', '.join(sorted(lacking)[:LISTED])}{', ...' if len(lacking) > LISTED else ''}); set channels to "
            f"electrodes that all have ({', '.join(common[:8]) or 'none'}{', ...' if len(common) > 8 else ''})"
            + ("." if len(lacking) == len(has) else ", or missing_channels: leave_out to do without these recordings.")
        )
    for key, names in lacking.items():
        findings.append(Finding("channels-missing", "skipped", key, f"lacks {', '.join(names[:LISTED])}"))
    return channels, [entry for entry in usable if entry.key not in lacking]


def _check_columns(channels: Sequence[str], labels: Sequence[str]) -> None:
    taken = {name.lower() for name in (*FIXED, *channels)}
    for name in labels:
        if name.lower() in taken:
            raise ConfigError(f"recording_labels.{name} has the name of another column; choose another name.")


def _make_windows(
    recipe: WindowedRecipe, entries: Sequence[Entry], folder: Path, jobs: int
) -> dict[str, tuple[Path | None, WindowedRecord | Finding]]:
    """File and record of each recording, or no file and why."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_markers(folder)
    made: dict[str, tuple[Path | None, WindowedRecord | Finding]] = {}
    work = Work(recipe, tuple(entries), {}, folder, folder)
    with (
        full_disk_in_one_line(folder),
        contextlib.closing(spread_here(work, jobs)) as outcomes,
        Pace(len(entries), "process") as pace,
    ):
        for outcome in outcomes:
            if outcome.failure is not None:
                made[outcome.recording] = None, outcome.failure
                pace.step(0.0, 0)
                continue
            path = folder / outcome.known
            record = read_record(path)
            made[outcome.recording] = path, record
            pace.step(record.n_cut * recipe.plan.window_s, path.stat().st_size)
    for note in folder.glob("*.hung"):
        note.unlink(missing_ok=True)
    return made


def _runs(
    entries: Sequence[Entry],
    made: dict[str, tuple[Path | None, WindowedRecord | Finding]],
    numbers: dict[str, int],
    remission: dict[str, int],
    folder: Path,
    findings: list[Finding],
) -> tuple[list[Run], list[WindowedRecord]]:
    """Recordings that are used, sorted by participant and run, and their records; the others are findings."""
    first_of: dict[str, Entry] = {}  # SHA-256 of a source -> the first recording that has it
    kept: list[tuple[Run, WindowedRecord]] = []
    for entry in sorted(entries, key=lambda entry: entry.key):
        path, record = made[entry.key]
        if path is None or isinstance(record, Finding):
            assert isinstance(record, Finding)
            findings.append(record)
            continue
        findings += record.findings
        if not record.n_windows:
            continue
        twin = first_of.setdefault(record.source_sha256, entry)
        if twin is not entry:
            findings.append(_twin(twin, entry, remission))
            continue
        run = Run(
            participant=entry.participant,
            number=numbers[entry.key],
            key=entry.key,
            piece=path,
            piece_key=record.piece_key,
            remission=remission.get(entry.participant),
            labels=dict(entry.labels),
        )
        kept.append((run, record))
    kept.sort(key=lambda pair: (pair[0].participant, pair[0].number))
    return [run for run, _ in kept], [record for _, record in kept]


def _twin(first: Entry, second: Entry, remission: dict[str, int]) -> Finding:
    """What to say of a recording with the bytes of an earlier one; DataError where they have different labels."""
    if remission.get(first.participant) != remission.get(second.participant):
        raise DataError(
            f"{first.key} and {second.key} are the same file, of participants {first.participant} and "
            f"{second.participant} with different labels; take out the one that is wrong."
        )
    detail = f"same bytes as {first.key}"
    if first.participant != second.participant:
        detail += f", of {first.participant}: are {first.participant} and {second.participant} one person?"
    return Finding("same-signal-twice", "skipped", second.key, detail)


def _check_left(runs: Sequence[Run], label: Label | None, findings: Sequence[Finding]) -> None:
    """Raise DataError if no recording is left, or only recordings of one label are."""
    if not runs:
        raise DataError(_nothing_left(findings))
    if label is not None:
        there = {run.remission for run in runs}
        for value, name in enumerate(label.names):
            if value not in there:
                raise DataError(
                    f"no recording with label {name} is left, {len(runs)} with {label.names[1 - value]} are; "
                    f"{_reasons(findings)}"
                )


def _nothing_left(findings: Sequence[Finding]) -> str:
    return f"no recording is left; {_reasons(findings)}"


def _reasons(findings: Sequence[Finding]) -> str:
    """Why recordings were left out: rules with their number, and one example."""
    out = [one for one in findings if one.severity != "repaired" and one.rule != "participant-without-recording"]
    if not out:
        return "add recordings."
    rules = ", ".join(f"{rule} {n}" for rule, n in Counter(one.rule for one in out).most_common())
    return f"left out: {rules} (such as {out[-1].where}: {out[-1].detail}); mend or replace them, or change the keys."


def _content(source: PrimarySource, plan: Processing) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "processing": plan.plain() | {"asa_path": None if plan.asa_path is None else plan.asa_path.name},
        "channels": [name.upper() for name in plan.channels],
        "sfreq": plan.downsample_hz,
        "unit": "uV",
        "label": label_content(source.label),
        "recording_labels": sorted(source.reader.labels),
    }


def label_content(label: Label | None) -> dict[str, Any]:
    """Column of the label and the names of 0 and 1; empty without one."""
    return {"column": label.column, "values": list(label.names)} if label else {"column": "", "values": []}


def _report(
    file: Path,
    label: Label | None,
    plan: Processing,
    runs: Sequence[Run],
    used: Sequence[WindowedRecord],
    findings: Sequence[Finding],
) -> PrimaryReport:
    names = [UNLABELLED if run.remission is None or label is None else label.names[run.remission] for run in runs]
    people = Counter(dict(zip([run.participant for run in runs], names, strict=True)).values())
    recordings = Counter(names)
    order = list(label.names) if label is not None else [UNLABELLED]
    return make_report(
        file=file.as_posix(),
        channels=[name.upper() for name in plan.channels],
        findings=findings,
        people={name: people[name] for name in order},
        recordings={name: recordings[name] for name in order},
        windows=sum(record.n_windows for record in used),
        n_cut=sum(record.n_cut for record in used),
        window_s=plan.window_s,
    )
