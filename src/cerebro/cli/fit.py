"""``cerebro fit | validate | test | predict | probe``: one phase from a typed config.

The constructors are the schema: ``model`` is `Phase`, ``data`` is `EEGData`, ``trainer`` is `TrainerKeys`. Classes may
only come from cerebro, torch.nn, torch.optim and lightning.pytorch.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings
from tqdm import tqdm

from cerebro.cli.asked import Asked, add_other_names, check_flags, found_flags, in_typed_names, with_usual_flags
from cerebro.cli.messages import one_line
from cerebro.data import WindowSource
from cerebro.data.module import EEGData
from cerebro.encoders import Encoder  # the packages import every class, so that short names are known
from cerebro.errors import ConfigError
from cerebro.objectives import Objective
from cerebro.readouts import Readout
from cerebro.signal import SignalSpec
from cerebro.training.health import Collapsed, NonFiniteLoss
from cerebro.training.keep import Interrupted
from cerebro.training.keys import ProbeKeys, RunKeys, TrainerKeys
from cerebro.training.launch import EndedElsewhere, speaks
from cerebro.training.other_names import OTHER_NAMES, PRETRAIN_CONFIG
from cerebro.training.phase import Phase
from cerebro.training.probe_report import ProbeRun, probe_checkpoint
from cerebro.training.prober import MAX_PEOPLE, PARTICIPANT
from cerebro.training.run import fit as fit_phase
from cerebro.training.score import Scoring, score_phase
from cerebro.training.stamp import PhaseData
from cerebro.training.tracking import MLflowKeys
from cerebro.yaml_safety import check_yaml

ALLOWED_IMPORTS = ["cerebro", "torch.nn", "torch.optim", "lightning.pytorch"]
DATA_CLASS: type = EEGData
NO_YAML = ("--ckpt_path", "--data.store", "--out", "--data-path", "--data_path", "--output-dir", "--output_dir")
"""Options whose values are paths of something else."""
NO_YAML_ENDINGS = (".ckpt", ".elc", ".pth", ".pt", ".safetensors")
"""Endings of files that a YAML may name and that are none themselves: weights, electrode files."""

EXAMPLES = {
    "fit": "cerebro fit --config configs/demo/tokenizer.yaml --model.optim.lr 5e-4",
    "validate": "cerebro validate --config outputs/challenge1/config.yaml",
    "test": "cerebro test --config outputs/challenge1/config.yaml",
    "predict": "cerebro predict --config outputs/challenge1/config.yaml",
    "probe": "cerebro probe outputs/pretrain/best.ckpt --targets p_factor,age,sex,participant",
}


def fit(argv: list[str]) -> int:
    """Train one phase; exit code 1 if its loss is not finite or it collapsed, 130 or 143 on a signal."""
    asked = _ask("fit", argv)
    parsed = asked.config
    keys = RunKeys(
        out=_out(asked),
        seed=parsed.seed,
        monitor=parsed.monitor,
        monitor_mode=parsed.monitor_mode,
        checkpoint_every_steps=parsed.checkpoint_every_steps,
        patience=parsed.patience,
        overwrite=parsed.overwrite,
        resume=parsed.resume,
        run_name=asked.run_name,
        allow_seen_participants=parsed.allow_seen_participants,
        mlflow=_mlflow(asked),
        probe=_built(asked).probe,
    )
    build, data, trainer = _parts(asked)
    try:
        result = fit_phase(build, data, trainer, keys, asked.resolved, _given(parsed.ckpt_path), _say)
    except (NonFiniteLoss, Collapsed) as error:
        print(f"cerebro: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        tqdm.write(
            f"stopped by {error}; {keys.out / 'last.ckpt'} is saved, the same command continues", file=sys.stderr
        )
        return error.exit_code
    except EndedElsewhere as error:
        if str(error):
            print(f"cerebro: {error}", file=sys.stderr)
        return error.exit_code
    if speaks():
        _say(f"{result['phase']}: {_kept(result['best'])}, in {keys.out}")
    return 0


def check_fit(argv: list[str]) -> None:
    """Raise the ConfigError that ``cerebro fit`` would raise for its keys, without opening data or building a model."""
    _built(_parse("fit", argv))


def validate(argv: list[str]) -> int:
    """Score a checkpoint on the validation participants of its config."""
    return _score("val", argv)


def test(argv: list[str]) -> int:
    """Score a checkpoint on the test participants, which it must not have seen."""
    return _score("test", argv)


def predict(argv: list[str]) -> int:
    """Write the predictions of a checkpoint, without scores."""
    return _score("predict", argv)


def probe(argv: list[str]) -> int:
    """Fit linear probes to the embeddings of a checkpoint's encoder, and score them on held-out participants."""
    argv = _beside_checkpoint(argv)
    asked = _ask("probe", argv)
    parsed, built = asked.config, _built(asked)
    names = (name.strip() for name in parsed.targets.split(","))
    targets = tuple(name for name in names if name) or built.probe.targets
    out = _out(asked)
    run = ProbeRun(
        targets=targets,
        out=out,
        trainer=built.trainer,
        side=parsed.side,
        max_windows=parsed.max_windows,
        max_people=parsed.max_people,
        n_resamples=parsed.n_resamples,
        seed=parsed.seed,
        allow_seen_participants=parsed.allow_seen_participants,
        by=parsed.by,
    )
    data = vars(built.data)
    if "targets" in data:
        data["targets"] = tuple(name for name in targets if name != PARTICIPANT)
    path = _scored(argv, parsed.ckpt_path, out)
    for line in probe_checkpoint(built.model.encoder, DATA_CLASS(**data), path, run):
        _say(line)
    return 0


def _beside_checkpoint(argv: list[str]) -> list[str]:
    """``cerebro probe RUN/best.ckpt ...``: with the config that stands beside it, and that folder as ``--out``."""
    if not argv or argv[0].startswith("-"):
        return argv
    path, *others = argv
    if not Path(path).is_file():
        raise ConfigError(f"checkpoint {path} not found; give the path of a best.ckpt or last.ckpt of a run.")
    given = {argument.partition("=")[0] for argument in others}
    config = [] if "--config" in given else ["--config", str(Path(path).with_name("config.yaml"))]
    out = [] if "--out" in given else ["--out", str(Path(path).parent)]
    return [*config, "--ckpt_path", path, *out, *others]


def _scored(argv: list[str], ckpt_path: str, out: Path) -> Path:
    """Checkpoint to look at: the one that is typed, else the best of the run.

    What a run's config.yaml says under ``ckpt_path`` is what the run started from.
    """
    is_typed = any(argument.partition("=")[0] == "--ckpt_path" for argument in argv)
    return Path(ckpt_path) if is_typed and ckpt_path else out / "best.ckpt"


def _score(stage: Literal["val", "test", "predict"], argv: list[str]) -> int:
    asked = _ask("validate" if stage == "val" else stage, argv)
    parsed = asked.config
    build, data, trainer = _parts(asked)
    out = _out(asked)
    path = _scored(argv, parsed.ckpt_path, out)
    scoring = Scoring(out, parsed.seed, trainer, parsed.allow_seen_participants)
    for line in score_phase(stage, build, data, path, scoring):
        _say(line)
    return 0


def make_parser(verb: str) -> ArgumentParser:
    """Parser of a verb; ``--print_config`` prints the resolved config."""
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=ALLOWED_IMPORTS)
    parser = ArgumentParser(
        prog=f"cerebro {verb}",
        description=f"Example: {EXAMPLES[verb]}",
        exit_on_error=False,
        default_env=False,
        allow_abbrev=False,  # the beginning of a key is a mistake, not the key
    )
    parser.add_argument("--config", action="config", help="YAML file; may be given more than once")
    parser.add_argument("--ckpt_path", type=str, default="", help="checkpoint to resume, to hand over or to score")
    parser.add_class_arguments(Phase, "model", skip={"signal"}, instantiate=False, sub_configs=True)
    parser.add_class_arguments(DATA_CLASS, "data", instantiate=False, sub_configs=True)
    parser.add_class_arguments(TrainerKeys, "trainer", sub_configs=True)
    parser.add_argument("--seed", type=int, default=0, help="seed of initial weights")
    parser.add_argument(
        "--out",
        type=str,
        default="outputs/{name}",
        help="folder of the run; {name} is model.name, {model} the configuration of encoder and objective, "
        "{pretrained} that of the phase whose encoder this one starts from",
    )
    parser.add_argument(
        "--run_name",
        type=str,
        default="{name}",
        help="name of the run in MLflow; any but {name} names copies of best.ckpt and last.ckpt too",
    )
    parser.add_argument(
        "--monitor", type=str, default="val/loss", help="key of history.jsonl that picks the best epoch"
    )
    parser.add_argument("--monitor_mode", type=Literal["min", "max"], default="min", help="which is better")
    parser.add_argument(
        "--checkpoint_every_steps",
        type=int,
        default=200,
        help="optimiser steps between saves; 0 = at the end of epochs only",
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=0,
        help="epochs without improvement before stopping, after those with a frozen encoder; 0 = never",
    )
    if verb == "fit":
        parser.add_argument("--resume", action="store_true", help="go on with a run, an error where there is none")
    parser.add_argument("--overwrite", type=bool, default=False, help="train anew in a folder that holds another run")
    parser.add_argument(
        "--allow_seen_participants", type=bool, default=False, help="score participants seen in training"
    )
    add_other_names(parser)
    parser.add_class_arguments(MLflowKeys, "mlflow")
    parser.add_class_arguments(ProbeKeys, "probe")
    if verb == "probe":
        parser.add_argument(
            "--targets", type=str, default="", help="what to probe, commas between; probe.targets if left"
        )
        parser.add_argument("--side", type=Literal["val", "test"], default="val", help="whom to score")
        parser.add_argument(
            "--by",
            type=Literal["window", "recording"],
            default="window",
            help="what a row is: a window, or a recording (the mean over its windows, of all its channels)",
        )
        parser.add_argument("--max_windows", type=int, default=20_000, help="windows of each side at most; 0 = all")
        parser.add_argument("--max_people", type=int, default=MAX_PEOPLE, help="people to tell apart at most; 0 = all")
        parser.add_argument("--n_resamples", type=int, default=2000, help="draws of participants for intervals")
    return parser


def _ask(verb: str, argv: list[str]) -> Asked:
    """Parse and check; what is found by other keys stands in its place. Nothing of model or data is built yet."""
    check_flags(argv)
    asked = _parse(verb, argv)
    if found := found_flags(verb, asked, partial(_parse, "fit"), ALLOWED_IMPORTS, _say):
        asked = _parse(verb, [*argv, *found])
    return asked


def _parse(verb: str, argv: list[str]) -> Asked:
    """Parse and check as it is typed."""
    for path in _yaml_files(argv):
        _check_tree(path, set())
    parser = make_parser(verb)
    if not argv:
        raise ConfigError(f"{verb} needs a config; type `{EXAMPLES[verb]}`, or `cerebro {verb} --help` for its keys.")
    try:
        config = parser.parse_args(with_usual_flags(argv))
    except (ArgumentError, TypeError, ValueError) as error:
        line = one_line(verb, str(error), _keys(parser), _classes())
        raise ConfigError(in_typed_names(line, argv)) from None
    resolved = yaml.safe_load(parser.dump(config, format="yaml"))
    for key in ("config", "resume", PRETRAIN_CONFIG, *OTHER_NAMES):  # of this command, not of the run
        resolved.pop(key, None)
    return Asked(parser, config, resolved)


def _parts(asked: Asked) -> tuple[Callable[[SignalSpec], Phase], PhaseData, TrainerKeys]:
    """Builder of the phase, the data and the trainer's keys."""
    built = _built(asked)
    model, data = vars(built.model), vars(built.data)
    return partial(_phase, model), DATA_CLASS(**data), built.trainer


def _phase(model: dict[str, Any], signal: SignalSpec) -> Phase:
    return Phase(signal=signal, **model)


def _built(asked: Asked) -> Namespace:
    try:
        return asked.parser.instantiate(asked.config)
    except (TypeError, ValueError) as error:
        raise ConfigError(one_line("fit", str(error), _keys(asked.parser), _classes())) from None


def _out(asked: Asked) -> Path:
    return Path(asked.filled(str(asked.config.out)))


def _mlflow(asked: Asked) -> MLflowKeys:
    """Keys of MLflow, with names for ``{run_name}``, ``{name}`` and ``{model}`` in that of the registered model."""
    keys: MLflowKeys = _built(asked).mlflow
    run_name = asked.filled(str(asked.config.run_name))
    return replace(keys, register=asked.filled(keys.register.replace("{run_name}", run_name)))


def _given(path: str) -> Path | None:
    return Path(path) if path else None


def _say(line: str) -> None:
    """Print beside a progress bar, without breaking it."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _kept(best: Mapping[str, Any]) -> str:
    """Which epoch is kept."""
    if best["value"] is None:
        return f"{best['metric']} is unknown, and the last epoch is kept"
    return f"best {best['metric']} {best['value']:.4g}"


def _keys(parser: ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest not in ("help", "config")]


def _classes() -> list[str]:
    """Names of the classes that a config may use."""
    found: list[str] = []
    waiting: list[type] = [Encoder, Objective, Readout, WindowSource]
    while waiting:
        below: list[type] = waiting.pop().__subclasses__()
        found += [cls.__name__ for cls in below if not cls.__name__.startswith("_")]
        waiting += below
    return found


def _yaml_files(argv: list[str]) -> list[Path]:
    """Files on the command line that a parser would read as YAML, whatever their names end in."""
    files, option = [], ""
    for argument in argv:
        name, equals, value = argument.partition("=") if argument.startswith("-") else (option, "=", argument)
        option = "" if equals else name
        is_yaml = value.endswith((".yaml", ".yml")) or name == "--config" or _is_file(Path(value))
        if equals and is_yaml and name not in NO_YAML:
            files.append(Path(value))
    return files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a value that no file could be called
        return False


def _check_tree(path: Path, seen: set[Path]) -> None:
    """Check a YAML file and those that it names, before any loader sees them."""
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    check_yaml(path)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)
        elif isinstance(node, str) and node.endswith((".yaml", ".yml")) and not _is_file(path.parent / node):
            raise ConfigError(
                f"config {node} not found, which {path} names; paths in a YAML are relative to that file."
            )
        elif isinstance(node, str) and not node.endswith(NO_YAML_ENDINGS) and _is_file(path.parent / node):
            _check_tree(path.parent / node, seen)

    walk(yaml.safe_load(path.read_text(encoding="utf-8")))
