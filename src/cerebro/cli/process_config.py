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
    participant_from: str = "sub-([A-Za-z0-9]+)"
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
    text = path.read_text(encoding="utf-8")
    empty = empty_keys(yaml.safe_load(text))
    if empty:
        raise ConfigError(f"config {path}: key {empty[0]} is empty; give it a value, or leave out the key.")
    parser = _parser()
    place = f"config {path}"
    try:
        config = resolve_paths(parser.parse_string(text), path.resolve().parent)
        if overrides:
            place = "command line"
            config = resolve_paths(parser.parse_args(list(overrides), namespace=config), Path.cwd())
        made = parser.instantiate(config)
    except (ArgumentError, TypeError, ValueError) as error:
        known = [*parser.get_defaults().keys(), *options]
        raise ConfigError(f"{place}: {one_line(verb, str(error), known)}") from None
    kinds: tuple[type[Any], ...] = (Recordings, Processing)
    values = [{one.name: getattr(made, one.name) for one in fields(kind)} for kind in kinds]
    values[1]["channels"] = tuple(values[1]["channels"])
    return Recordings(**values[0]), Processing(**values[1])


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


def _parser() -> ArgumentParser:
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
    parser = ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_class_arguments(Recordings)
    parser.add_class_arguments(Processing)
    return parser


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
