"""The YAML of ``cerebro process-primary`` and ``cerebro process``: flat keys, overridden by the command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from cerebro.cli.data_config import empty_keys, resolve_paths
from cerebro.cli.messages import one_line
from cerebro.data.primary_build import PrimarySource
from cerebro.data.processing import Processing
from cerebro.data.readers.folder import Folder
from cerebro.data.readers.found_files import files_below
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.two_labels import Label
from cerebro.errors import ConfigError, DataError
from cerebro.training.tracking import MLflowKeys
from cerebro.yaml_safety import check_yaml

EXPERIMENT = "eeg_processing"
PARTS: dict[str, type[Any]] = {"label": Label, "table": TableFormat}  # keys that have keys of their own
SHORTEST_S = 1e-3  # of a recording; what is shorter than a window is counted as such
SIGNALS = (".edf", ".bdf", ".vhdr", ".set", ".fif", ".gdf", ".cnt", ".parquet", ".csv", ".tsv")


@dataclass(frozen=True)
class Recordings:
    """Where recordings are, who they are, and where results go; what is done to them is in `Processing`.

    Parameters
    ----------
    input : Path or list of Path
        Folder of the recordings, or a file, or a list of files and folders.
    pattern : str
        Glob of the recordings below a folder; ``**/*.edf`` looks into sub-folders.
    participant_from : str
        Regular expression that finds the participant in a recording's name (its path below ``input`` without suffix);
        its first group is the value in the label table.
    run_from : str
        Regular expression that finds the number of the run in its first group; empty = the recordings of a participant
        are numbered 1, 2, ... in the order of their names.
    label : Label or None
        Table of labels of participants; without it ``Remission`` is empty.
    recording_labels : dict
        Label -> {regular expression on the name: value}: columns of labels that differ between recordings of a person.
    table : TableFormat or None
        What the columns mean, where recordings are tables (``.parquet``, ``.csv``, ``.tsv``).
    recording_reference : {"Cz", "average", "linked-ears", "unknown"}
        Reference of the recordings as they are.
    missing_channels : {"refuse", "leave_out"}
        What becomes of recordings without one of ``channels``.
    name : str
        Name of the data set: the namespace of its participants in the store.
    store : str
        Folder of the store that is made of the data set, below ``--out``; empty = none.
    max_failed_share : float
        Share of failed recordings above which the exit code is 1.
    mlflow : MLflowKeys
        Where the data set is logged.
    """

    input: Path | list[Path]
    pattern: str = "**/*.edf"
    participant_from: str = "(sub-[A-Za-z0-9]+)"
    run_from: str = ""
    label: Label | None = None
    recording_labels: dict[str, dict[str, float]] = field(default_factory=dict)
    table: TableFormat | None = None
    recording_reference: Literal["Cz", "average", "linked-ears", "unknown"] = "unknown"
    missing_channels: Literal["refuse", "leave_out"] = "refuse"
    name: str = "primary"
    store: str = "stores/primary"
    max_failed_share: float = 0.05
    mlflow: MLflowKeys = field(default_factory=lambda: MLflowKeys(experiment=EXPERIMENT))

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError(
                f"max_failed_share={self.max_failed_share:g} is no share; set max_failed_share between 0 (none may "
                "fail) and 1 (all may)."
            )


def read_processing(
    verb: str, path: Path, overrides: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[Recordings, Processing]:
    """Read and check one YAML.

    Parameters
    ----------
    verb : str
        ``process-primary`` or ``process``, for messages.
    path : Path
        The YAML; relative paths in it are relative to its folder, but ``store``.
    overrides : sequence of str
        ``--key VALUE`` of a command line, which win; relative paths in them are relative to the working folder.
    options : sequence of str
        Other options of that command line, which an unknown key may have meant.

    Raises
    ------
    ConfigError
        In one line: unsafe YAML, an unknown key, a wrong type, numbers that do not fit each other.
    """
    check_yaml(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    empty = empty_keys(content)
    if empty:
        raise ConfigError(f"config {path}: key {empty[0]} is empty; give it a value, or leave out the key.")
    typed = _by_part(overrides)
    reading = _Reading(verb, path, tuple(options))
    parts = {
        name: reading.values(kind, name, content.pop(name, {}), typed[name])
        for name, kind in PARTS.items()
        if name in content or typed[name]
    }
    values = reading.values((Recordings, Processing), "", content, typed[""])
    label, table = (PARTS[name](**parts[name]) if name in parts else None for name in ("label", "table"))
    recordings = Recordings(
        **{one.name: values[one.name] for one in fields(Recordings) if one.name not in PARTS}, label=label, table=table
    )
    plan = {one.name: values[one.name] for one in fields(Processing)}
    return recordings, Processing(**plan | {"channels": tuple(plan["channels"])})


def source_of(recordings: Recordings, plan: Processing) -> PrimarySource:
    """Reader and labels that the keys describe.

    Raises
    ------
    CerebroError
        In one line: no such file or folder, nothing that fits the pattern, a regular expression that is none.
    """
    root, files = _found(recordings)
    reader = Folder(
        root=root,
        name=recordings.name,
        participant_from=recordings.participant_from,
        pattern=recordings.pattern,
        labels=recordings.recording_labels,
        montage=plan.montage,
        asa_path=plan.asa_path,
        reference=recordings.recording_reference,
        min_duration_s=SHORTEST_S,
        run_from=recordings.run_from,
        table=recordings.table,
        files=tuple(files),
    )
    return PrimarySource(reader, plan, recordings.label, not recordings.run_from, recordings.missing_channels)


@dataclass(frozen=True)
class _Reading:
    """How keys of one YAML are read."""

    verb: str
    path: Path
    options: tuple[str, ...]

    def values(self, kinds: Any, part: str, content: Any, typed: Sequence[str]) -> dict[str, Any]:
        """Values of the fields of ``kinds``, from a mapping and from what was typed, which wins."""
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
        parser = ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
        for kind in kinds:
            skipped = set() if part else set(PARTS) & {one.name for one in fields(kind)}
            parser.add_class_arguments(kind, skip=skipped)
        names = [one.name for kind in kinds for one in fields(kind) if part or one.name not in PARTS]
        place = f"config {self.path}: " + f"{part}: " * bool(part)
        if not isinstance(content, dict):
            raise ConfigError(f"{place}found {content!r}, expected keys {', '.join(names)}; mend the config.")
        try:
            config = resolve_paths(parser.parse_object(content), self.path.resolve().parent)
            if typed:
                place = "command line: " + f"{part}: " * bool(part)
                config = resolve_paths(parser.parse_args(list(typed), namespace=config), Path.cwd())
            made = parser.instantiate(config)
        except (ArgumentError, TypeError, ValueError) as error:
            known = [*parser.get_defaults().keys(), *(() if part else (*PARTS, *self.options))]
            raise ConfigError(f"{place}{one_line(self.verb, str(error), known)}") from None
        return {name: made[name] for name in names}


def _by_part(overrides: Sequence[str]) -> dict[str, list[str]]:
    """``--label.column x`` as ``--column x`` under ``label``; what belongs to no part under ``""``."""
    found: dict[str, list[str]] = {name: [] for name in ("", *PARTS)}
    part = ""
    for word in overrides:
        if word.startswith("--"):
            head, dot, rest = word[2:].partition(".")
            part = head if dot and head in PARTS else ""
            word = f"--{rest}" if part else word
        found[part].append(word)
    return found


def _found(recordings: Recordings) -> tuple[Path, list[Path]]:
    """Folder of all recordings, and the recordings."""
    places = recordings.input if isinstance(recordings.input, list) else [recordings.input]
    if not places:
        raise ConfigError("input is an empty list; set input to the folder or the files of the recordings.")
    absent = [place for place in places if not place.exists()]
    if absent:
        raise DataError(
            f"input {absent[0]} not found; set input to the folder or the files of the recordings (in a YAML relative "
            "to that file, on the command line to the current folder)."
        )
    files: list[Path] = []
    for place in places:
        files += files_below(place, recordings.pattern) if place.is_dir() else [place]
    if not files:
        folder = places[0]
        there = sorted({path.suffix.lower() for path in files_below(folder, "**/*")} & set(SIGNALS))
        also = f' (it holds {", ".join(there)} files: set pattern to "**/*{there[0]}", say)' if there else ""
        raise DataError(f"{folder} holds no file {recordings.pattern}{also}; set input or pattern.")
    files = sorted(set(files))
    if len(places) == 1 and places[0].is_dir():
        return places[0], files
    return Path(os.path.commonpath([path.parent for path in files])), files
