"""``cerebro process-primary``: raw recordings -> primary data set and store. ``cerebro process``: features as well."""

from pathlib import Path
from typing import Any

from cerebro.cli.data_config import split_overrides
from cerebro.cli.parser import VerbParser
from cerebro.cli.process_config import Recordings, read_processing, source_of
from cerebro.data.build import build
from cerebro.data.children import shared_children
from cerebro.data.preprocess import Preprocessing
from cerebro.data.primary_build import Primary, label_content, make_primary
from cerebro.data.processing import Processing, write_processing
from cerebro.data.readers.parquet import ParquetWindows
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError

OVERRIDES = """Every key of the config can be given here too, and wins: --window_s 4 --label.column remission. Relative
paths on the command line are relative to the current folder; those in a config to its own."""


def process_primary(argv: list[str]) -> int:
    """Run ``cerebro process-primary``; 1 if too many recordings failed."""
    return _process("process-primary", argv, has_features=False)


def process(argv: list[str]) -> int:
    """Run ``cerebro process``; 1 if too many recordings failed."""
    return _process("process", argv, has_features=True)


def _process(verb: str, argv: list[str], has_features: bool) -> int:
    what = "Raw recordings and a table of labels -> windows in one Parquet file, and a store that trains fast."
    also = " Then features of every window and channel." if has_features else ""
    parser = VerbParser(
        prog=f"cerebro {verb}",
        description=f"{what}{also}\nRunning it again does only what is missing.",
        epilog=f"{OVERRIDES}\n\nexamples: cerebro {verb} --config configs/processing.yaml\n"
        f"          cerebro {verb} --config configs/processing.yaml --out study --jobs 8 --input /data/raw\n\n"
        "docs/reference/processing.md explains every key.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="CONFIG.yaml", help="what to read and what to do")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder of all results (this one)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that read and filter (1)")
    own, overrides = split_overrides(argv, parser.options())
    options = parser.parse_args(own)
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs} must be 1 or more.")
    recordings, plan = read_processing(verb, options.config, overrides, parser.options())
    out: Path = options.out
    with shared_children(options.jobs):
        made = make_primary(source_of(recordings, plan), out, options.jobs)
        print(made.report.table())
        print(f"{made.path} is written: {made.report.windows:,} windows")
        if has_features:
            from cerebro.data.feature_files import make_features

            path, n_features = make_features(made, out, options.jobs)
            print(f"{path} is written: {n_features:,} features of each window")
        if recordings.store:
            _make_store(recordings, made, out / recordings.store, options.jobs)
    _log(recordings, made)
    if made.report.failed_share > recordings.max_failed_share:
        print(
            f"{made.report.failed_share:.1%} of the recordings failed, more than max_failed_share="
            f"{recordings.max_failed_share:g}; see the report beside {made.path}."
        )
        return 1
    return 0


def _make_store(recordings: Recordings, made: Primary, store: Path, jobs: int) -> None:
    """Copy the data set into a store, channel by channel, and keep beside it how it was made."""
    report = build(reader_of(recordings, made), stored_as_is(made.plan), store, jobs=jobs)
    if report.failed or not report.read:
        first = next(iter(report.failures.items()), ("the data set", "holds no recording"))
        raise DataError(f"store {store} lacks {report.failed} recordings of {made.path} ({first[0]}: {first[1]}).")
    data_hash = Store.open(store).data_hash
    label = label_content(recordings.label)
    write_processing(store, data_hash, made.plan, label["column"], label["values"], made.sources)
    print(f"store {store} is ready: data hash {data_hash[:12]}")


def reader_of(recordings: Recordings, made: Primary) -> ParquetWindows:
    """Reader of the data set."""
    return ParquetWindows(
        root=made.path.parent,
        name=recordings.name,
        pattern=made.path.name,
        sfreq=made.plan.downsample_hz,
        window_length=made.plan.window_samples,
        montage=made.plan.montage,
        asa_path=made.plan.asa_path,
        reference=made.reference,  # type: ignore[arg-type]
        labels=tuple(sorted(recordings.recording_labels)),
    )


def stored_as_is(plan: Processing) -> Preprocessing:
    """Windows have their rate and band already: what a store says of them."""
    return Preprocessing(plan.downsample_hz, plan.highpass_hz, plan.lowpass_hz)


def _log(recordings: Recordings, made: Primary) -> None:
    if not recordings.mlflow.enabled:
        return
    from cerebro.training.commit import git_commit
    from cerebro.training.data_set import LoggedDataSet, log_data_set

    report, plan = made.report, made.plan
    label = label_content(recordings.label)
    n_participants = sum(report.participants.values())
    profile = {
        "num_rows": float(report.windows),
        "num_recordings": float(report.read),
        "num_participants": float(n_participants),
        "num_left_out": float(report.windows_left_out),
    }
    tags: dict[str, Any] = {
        "data_set": recordings.name,
        "channels": ",".join(report.channels),
        "n_channels": len(report.channels),
        "window_s": f"{plan.window_s:g}",
        "sfreq": f"{plan.downsample_hz:g}",
        "label": label["column"] or "none",
        "label_0": label["values"][0] if label["values"] else "none",
        "label_1": label["values"][1] if label["values"] else "none",
        "n_participants": n_participants,
        "n_windows": report.windows,
        "reference": made.reference,
        "git_commit": git_commit(),
    }
    name = f"EEG_{made.name}_{report.windows}windows_primary"
    run = log_data_set(
        recordings.mlflow,
        LoggedDataSet(
            name=name,
            digest=made.digest,
            path=made.path,
            profile=profile,
            parameters={**plan.plain(), "label": label},
            tags={key: str(value) for key, value in tags.items()},
            report=made.path.with_name(f"{made.name}_primary_report.json"),
        ),
    )
    print(f"data set {name} is logged to MLflow at {recordings.mlflow.uri} (run {run})")
