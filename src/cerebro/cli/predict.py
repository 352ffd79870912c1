"""``cerebro predict MODEL RECORDING ...``: probability of new people, what carried it, and whether to trust it."""

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cerebro.cli import fit
from cerebro.cli.parser import VerbParser
from cerebro.cli.rebuild import rebuild
from cerebro.data.new_recordings import NewRecording, Wanted, files_of, is_windows, read_new
from cerebro.data.processing import Processing
from cerebro.errors import CerebroError, ConfigError, DataError, check_between
from cerebro.files import read_json, write_atomically, write_json
from cerebro.progress import progress, progress_bar
from cerebro.signal import SignalSpec
from cerebro.training.foreign import read_trained
from cerebro.training.packaging import packaged
from cerebro.training.prediction import (
    Model,
    PersonResult,
    RecordingResult,
    by_person,
    classes_of,
    mean_of_models,
    predict_recording,
)
from cerebro.training.profile import Profile
from cerebro.training.registry import START
from cerebro.training.rows import layout_of
from cerebro.training.tracking import MLflowKeys, fetch_model

MOST_TOLD = 3  # channels and moments in a line
LONGEST_VALUE = 120  # letters of a value in a message


def predict(argv: list[str]) -> int:
    """Predict new recordings; with ``--config``, the windows of a prepared store. 1 if some recordings failed."""
    if any(argument.partition("=")[0] in ("--config", "--print_config") for argument in argv):
        return fit.predict(argv)
    options = _parser().parse_args(argv)
    check_between("threshold", options.threshold, 0, 1)
    files = files_of(options.recording)
    has_processing = options.processing is not None  # then what the models went through is not asked
    models, plan, lines = _load_all([options.model, *options.others], options.uri, has_processing)
    model = models[0]
    if options.processing is not None:
        plan = _processing(options.processing)
    if len(model.classes) != 2 and options.threshold != 0.5:
        raise ConfigError(f"--threshold is for two classes, and the model tells {len(model.classes)}; leave it out.")
    for line in lines:
        print(line)
    wanted = Wanted(
        plan=plan,
        channels=model.layout.channels or model.phase.signal.channels,
        sfreq=model.phase.signal.sfreq,
        table_sfreq=options.sfreq,
        participant_from=options.participant_from,
    )
    if plan is None and not all(is_windows(file) for file in files):
        raise ConfigError(
            f"{options.model} does not know how its recordings were processed; add --processing FILE (the config of "
            "cerebro process-primary that made them), or give a primary Parquet file."
        )
    results, problems = _predict_all(models, files, wanted)
    if not results:
        raise DataError(problems[0] if len(problems) == 1 else f"{problems[0]} ({len(problems) - 1} more like it)")
    people = by_person(results)
    for person in people:
        for text in _lines(person, model, options.threshold):
            print(text)
    if options.out is not None:
        _write(options.out, people, models, options.threshold, [options.model, *options.others], problems)
        print(f"{options.out} holds predictions.tsv, windows.tsv, predictions.json and a picture of every recording")
    for problem in problems:
        print(f"cerebro: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> VerbParser:
    parser = VerbParser(
        prog="cerebro predict",
        description=(
            "Probability of a class for new people, its spread over windows, the channels and moments that carried it, "
            "and whether a recording is unlike those that the model was trained on."
        ),
        epilog=(
            "examples: cerebro predict outputs/finetune/model recordings/sub-07.edf --out predictions\n"
            "          cerebro predict models:/mine@newest recordings/ --participant-from '(sub-[0-9]+)'\n"
            "          cerebro predict seed0/model new/ --with seed1/model --with seed2/model\n"
            "          cerebro predict --config outputs/challenge1/config.yaml\n\n"
            "With --config the windows of a prepared store are predicted (cerebro validate --help lists its keys)."
        ),
    )
    parser.add_argument(
        "model", metavar="MODEL", help="best.ckpt, NAME_best.pt, a folder of a packaged model, or models:/NAME@ALIAS"
    )
    parser.add_argument(
        "recording", type=Path, nargs="+", metavar="RECORDING", help="files that MNE reads, folders, primary Parquet"
    )
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="MODEL",
        help="another model of the same target, channels and processing, such as that of another seed; give it several "
        "times for more: probabilities are the mean over the models",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for tables, JSON and pictures (none)")
    parser.add_argument(
        "--participant-from",
        default="",
        metavar="REGEX",
        help="its first group in a file's path is the participant; files of one count together (the file's name)",
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="probability from which on class 1 is said (0.5)")
    parser.add_argument(
        "--processing", type=Path, metavar="FILE", help="config of process-primary, where the model does not know it"
    )
    parser.add_argument("--sfreq", type=float, default=0.0, metavar="HZ", help="rate of recordings that are tables")
    parser.add_argument(
        "--uri", "--mlflow.uri", default=MLflowKeys().uri, help=f"MLflow of models:/ addresses ({MLflowKeys().uri})"
    )
    return parser


def _load_all(
    addresses: Sequence[str], uri: str, has_processing: bool
) -> tuple[list[Model], Processing | None, list[str]]:
    """Models whose probabilities are averaged, what their recordings went through, and a line on each."""
    for number, address in enumerate(addresses):
        if address in addresses[:number]:
            raise ConfigError(f"--with {address} is given twice; its probability would count twice, so give it once.")
    loaded = [_load(address, uri) for address in addresses]
    (first, plan, _), *others = loaded
    for address, (model, other_plan, _) in zip(addresses[1:], others, strict=True):
        same = (
            ("target", first.target, model.target),
            ("classes", first.classes, model.classes),
            ("channels", first.phase.signal.channels, model.phase.signal.channels),
            ("sampling rate", first.phase.signal.sfreq, model.phase.signal.sfreq),
            ("data.windows", first.layout, model.layout),
            *([] if has_processing else [("processing", plan, other_plan)]),
        )
        for what, mine, theirs in same:
            if mine != theirs:
                raise ConfigError(
                    f"--with {address} has another {what} ({_short(theirs)}) than {addresses[0]} ({_short(mine)}); "
                    "models of one kind are averaged, so leave it out."
                )
    digests = [model.stamp.weights_sha256 for model, _, _ in loaded]
    for number, digest in enumerate(digests):
        if digest in digests[:number]:
            raise ConfigError(
                f"--with {addresses[number]} is the model of {addresses[digests.index(digest)]}, whose probability "
                "would count twice; give each model once."
            )
    return [model for model, _, _ in loaded], plan, [line for _, _, line in loaded]


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."


def _load(address: str, uri: str) -> tuple[Model, Processing | None, str]:
    """Model, what its recordings went through, and a line on it."""
    if address.startswith(START):
        with tempfile.TemporaryDirectory() as folder:
            return _open(fetch_model(address, uri, Path(folder)), address)
    return _open(Path(address), address)


def _open(path: Path, address: str) -> tuple[Model, Processing | None, str]:
    source = read_trained(path)
    package = packaged(source)
    config = package.config
    classes = classes_of(config["target"], address)
    signal = config["signal"]
    spec = SignalSpec(
        channels=tuple(signal["channels"]),
        positions=tuple((_number(x), _number(y), _number(z)) for x, y, z in signal["positions"]),
        sfreq=float(signal["sfreq"]),
        n_times=int(signal["n_times"]),
        targets=tuple(signal["targets"]),
    )
    layout = layout_of(config["data"])
    phase = rebuild(config["model"], spec, package.weights, path)
    profile = Profile.from_tensors(package.profile) if package.profile else None
    name = config["target"]["name"]
    model = Model(phase, name, classes, layout, profile, source.stamp, tuple(config["corpora"]))
    plan = Processing.from_plain(config["processing"]) if config["processing"] else None
    told = ", ".join(f"{number} = {value}" for number, value in enumerate(classes))
    line = f"{address}: {name} ({told}), {len(config['participants'].get('train', []))} participants trained it"
    if profile is None:
        line += "; what its training recordings are like is unknown, so none can be said to be unlike them"
    return model, plan, line


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _processing(path: Path) -> Processing:
    """What a YAML of process-primary, or the processing.json of a store, says."""
    if not path.is_file():
        raise ConfigError(f"--processing {path} not found; give the config of cerebro process-primary.")
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("processing"), dict):
            raise ConfigError(f"{path} says nothing of a processing; give the config of cerebro process-primary.")
        return Processing.from_plain(content["processing"])
    from cerebro.cli.process_config import read_processing

    return read_processing("process-primary", path)[1]


def _predict_all(
    models: Sequence[Model], files: Sequence[Path], wanted: Wanted
) -> tuple[list[RecordingResult], list[str]]:
    """Results of all recordings, and a line for each file or recording that gave none."""
    results: list[RecordingResult] = []
    problems: list[str] = []
    with progress_bar("recordings", "file", len(files)) as bar:
        for _, found, problem in read_new(files, wanted):
            if problem:
                problems.append(problem)
            for recording in found:
                try:
                    said = [predict_recording(model, recording, len(results)) for model in models]
                    results.append(mean_of_models(said))
                except CerebroError as error:
                    problems.append(str(error))
            bar.update()
    return results, problems


def _lines(person: PersonResult, model: Model, threshold: float) -> list[str]:
    what = _named(model, person.shown)
    probability = float(person.probability[person.shown])
    n_windows = sum(len(one.recording.eeg) for one in person.recordings)
    n = len(person.recordings)
    spread = ""
    if person.quantiles:
        spread = f", of single windows {person.quantiles[0.05]:.2f} to {person.quantiles[0.95]:.2f} (5 to 95 %)"
    lines = [
        f"{person.participant}: probability of {what} {probability:.3f}{spread}; {n_windows} windows of {n} "
        f"recording{'s' if n > 1 else ''}; said: {_said(person, model, threshold)}"
    ]
    channels = [f"{model.phase.signal.channels[c]} {change:+.3f}" for c, change in person.channels()[:MOST_TOLD]]
    moments = [f"{start:g}-{end:g} s {change:+.3f}" for _, start, end, change in person.moments()[:MOST_TOLD]]
    carried = [f"channels {', '.join(channels)}"] if channels else []
    carried += [f"moments {', '.join(moments)}"] if moments else []
    if carried:
        lines.append(f"  what each added to it: {'; '.join(carried)}")
    for one in person.recordings:
        where = one.recording.key
        lines += [f"  {where}: unlike the training data: {remark.detail}" for remark in one.unlike]
        lines += [f"  {where}: {warning}" for warning in one.warnings]
        lines += [f"  {where}: {finding.rule}: {finding.detail}" for finding in one.recording.findings]
    return lines


def _named(model: Model, number: int) -> str:
    """A class in words: its name, with that of the target where it is a number only."""
    name = model.classes[number]
    return f"{model.target} {name}" if name.isdecimal() else name


def _said(person: PersonResult, model: Model, threshold: float) -> str:
    if len(model.classes) == 2:
        return _named(model, int(person.probability[1] >= threshold))
    return _named(model, person.shown)


def _write(
    out: Path,
    people: Sequence[PersonResult],
    models: Sequence[Model],
    threshold: float,
    addresses: Sequence[str],
    problems: Sequence[str],
) -> None:
    from cerebro.report.prediction import draw  # late: matplotlib

    model = models[0]
    names = model.phase.signal.channels
    content = {
        "model": addresses[0],
        "weights_sha256": model.stamp.weights_sha256,
        "with": [
            {"model": address, "weights_sha256": other.stamp.weights_sha256}
            for address, other in zip(addresses[1:], models[1:], strict=True)
        ],
        "target": model.target,
        "classes": list(model.classes),
        "threshold": threshold,
        "participants": [_plain(person, model, threshold) for person in people],
        "failed": list(problems),
    }
    rows, windows = [], []
    for person in progress(people, "pictures", "person"):
        unlike = [remark.detail for one in person.recordings for remark in one.unlike]
        rows.append(
            {
                "participant": person.participant,
                "class": model.classes[person.shown],
                "probability": float(person.probability[person.shown]),
                **{f"windows_q{round(100 * q):02d}": value for q, value in person.quantiles.items()},
                "said": _said(person, model, threshold),
                "n_recordings": len(person.recordings),
                "n_windows": sum(len(one.recording.eeg) for one in person.recordings),
                "is_unlike_training": person.is_unlike,
                "remarks": "; ".join([*unlike, *(w for one in person.recordings for w in one.warnings)]),
                "channels": ", ".join(f"{names[c]} {change:+.4f}" for c, change in person.channels()[:MOST_TOLD]),
            }
        )
        for one in person.recordings:
            windows += [
                {
                    "participant": person.participant,
                    "recording": one.recording.key,
                    "window": number,
                    "start_s": float(one.recording.start_s[number]),
                    "end_s": float(one.recording.end_s[number]),
                    "probability": float(one.explained.windows[number, person.shown]),
                }
                for number in range(len(one.recording.eeg))
            ]
            picture = _picture(person, one, model, threshold)
            _write_bytes(out / f"{_file_name(one.recording)}.png", draw(picture))
    for name, table in (("predictions.tsv", rows), ("windows.tsv", windows)):
        _write_bytes(out / name, pd.DataFrame(table).to_csv(sep="\t", index=False, float_format="%.6g").encode())
    write_json(out / "predictions.json", _without_nan(content))


def _plain(person: PersonResult, model: Model, threshold: float) -> dict[str, Any]:
    names = model.phase.signal.channels
    return {
        "participant": person.participant,
        "probability": dict(zip(model.classes, person.probability.tolist(), strict=True)),
        "class": model.classes[person.shown],
        "said": _said(person, model, threshold),
        "windows": {f"q{round(100 * q):02d}": value for q, value in person.quantiles.items()},
        "channels": {names[c]: change for c, change in person.channels()},
        "moments": [
            {"recording": key, "start_s": start, "end_s": end, "change": change}
            for key, start, end, change in person.moments()
        ],
        "is_unlike_training": person.is_unlike,
        "recordings": [
            {
                "name": one.recording.key,
                "probability": one.explained.probability.tolist(),
                "unlike": [
                    {"likeness": r.likeness, "score": r.score, "limit": r.limit, "detail": r.detail} for r in one.unlike
                ],
                "warnings": one.warnings,
                "findings": [f"{finding.rule}: {finding.detail}" for finding in one.recording.findings],
            }
            for one in person.recordings
        ],
    }


def _picture(person: PersonResult, one: RecordingResult, model: Model, threshold: float) -> Any:
    import numpy as np

    from cerebro.report.prediction import Picture, places_on_head

    signal, recording = model.phase.signal, one.recording
    order = sorted(one.explained.channels, key=lambda channel: -abs(one.explained.channels[channel][person.shown]))
    positions = np.array([signal.positions[channel] for channel in order], np.float64).reshape(-1, 3)
    flag = "  UNLIKE THE TRAINING DATA" if one.unlike else ""
    return Picture(
        title=f"{recording.key}{flag}"
        if recording.key == recording.participant
        else f"{recording.participant}, {recording.key}{flag}",
        what=_named(model, person.shown),
        probability=float(one.explained.probability[person.shown]),
        threshold=threshold,
        start_s=recording.start_s,
        end_s=recording.end_s,
        windows=one.explained.windows[:, person.shown],
        moments=[
            (float(recording.start_s[first]), float(recording.end_s[stop - 1]), float(change[person.shown]))
            for first, stop, change in one.explained.moments
        ],
        channels=[(signal.channels[c], float(one.explained.channels[c][person.shown])) for c in order],
        places=places_on_head(positions),
    )


def _file_name(recording: NewRecording) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in recording.key)


def _write_bytes(path: Path, content: bytes) -> None:
    def write(file: Any) -> None:
        file.write(content)

    write_atomically(path, write, len(content))


def _without_nan(content: Mapping[str, Any]) -> Any:
    """The same with null for numbers that are none."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)
