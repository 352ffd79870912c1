"""A recipe: phases in order, and what to vary about them, as one readable YAML file.

Paths of configs are relative to the recipe; paths of what is written (cohorts, stores) are relative to the current
folder, like those of every command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from os.path import normpath
from pathlib import Path
from typing import Any

import yaml

from cerebro.errors import ConfigError
from cerebro.study.search_space import Choice, Search, Span, read_parameter
from cerebro.yaml_safety import check_yaml

FEATURE_BASELINES = ("features_logistic", "features_boosting")  # of the file that the key features names
BASELINES = ("band_power", *FEATURE_BASELINES)  # the constant stands beside every score without being asked for
KEYS = (
    *("name", "experiment", "seeds", "data", "phases", "ablations", "sweeps", "folds", "baselines", "features"),
    *("ground_truth", "gains", "probes", "searches", "ensemble"),
)
LEAVE_ONE_OUT = "leave_one_out"
SIMULATE_KEYS = ("out", "preset", "participants", "seed", "effect", "strength", "format", "channels")
PROBE_ROWS = ("window", "recording")
PROCESSED_STORE = "stores/primary"  # of `cerebro process`, unless its config says another


@dataclass(frozen=True)
class PhaseEntry:
    """One phase of a recipe.

    Parameters
    ----------
    name : str
        Name in the recipe; also the start of its folder's name.
    config : Path
        Complete ``cerebro fit`` config.
    init : str
        Phase whose encoder it starts from; empty for none.
    tokenizer : str
        Phase that it takes as frozen tokenizer; empty for none.
    overrides : mapping
        Dotted key -> value.
    """

    name: str
    config: Path
    init: str = ""
    tokenizer: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeEntry:
    """Probes of one phase on its test participants.

    Parameters
    ----------
    targets : tuple of str
        Labels of windows, columns of the participants table, ``participant``.
    by : {"window", "recording"}
        What a row is.
    """

    targets: tuple[str, ...]
    by: str = "window"

    def flags(self) -> tuple[str, ...]:
        """What to add to ``cerebro probe RUN/best.ckpt``."""
        return ("--side", "test", "--by", self.by, "--targets", ",".join(self.targets))


@dataclass(frozen=True)
class Ablation:
    """What a variant leaves out or changes; ``kept`` are the phases that stay."""

    kept: tuple[str, ...]
    overrides: Mapping[str, Mapping[str, Any]]  # phase -> dotted key -> value
    configs: Mapping[str, Path] = field(default_factory=dict)  # phase -> config in place of the recipe's
    seeds: tuple[int, ...] = ()  # those of the recipe that it runs with; empty for all


@dataclass(frozen=True)
class Recipe:
    """A study: phases, variants and how often each is run.

    Parameters
    ----------
    name : str
        Name of the study.
    path : Path
        Where the recipe was read.
    seeds : tuple of int
        Each variant runs once per seed.
    phases : mapping
        Phases by name, each after those that it needs.
    variants : mapping
        ``full``, then ablations, then sweep members, by name.
    commands : tuple
        Commands that make cohort and stores, to be run first; running them again costs nothing.
    prepared : tuple of Path
        The stores that these make.
    n_folds : int
        Folds of leave-participants-out, 1 = none (the split of the configs).
    leaves_one_out : bool
        There are as many folds as people in the store; planning counts them.
    searches : mapping
        Searched sweeps by name; none of them runs unless it is asked for.
    baselines : tuple of str
        Baselines beside the constant.
    features : Path
        File of ``cerebro process`` for the baselines on features; ``Path()`` if there is none.
    ground_truth : Path
        ``ground_truth.json`` of a simulated cohort; ``Path()`` if there is none.
    pairs : tuple of (A, B)
        Gains of A over B to report besides those of ``full`` over each other variant.
    probes : mapping
        Phase -> what its frozen encoder is probed for.
    makes_ensembles : bool
        Beside a variant of several seeds stands the mean of their predictions.
    """

    name: str
    path: Path
    seeds: tuple[int, ...]
    phases: Mapping[str, PhaseEntry]
    variants: Mapping[str, Ablation]
    commands: tuple[tuple[str, ...], ...]
    prepared: tuple[Path, ...]
    n_folds: int
    baselines: tuple[str, ...]
    ground_truth: Path
    pairs: tuple[tuple[str, str], ...]
    probes: Mapping[str, ProbeEntry] = field(default_factory=dict)
    features: Path = Path()
    leaves_one_out: bool = False
    searches: Mapping[str, Search] = field(default_factory=dict)
    makes_ensembles: bool = False

    def final_phases(self) -> tuple[str, ...]:
        """Phases that no other one starts from: what the study predicts and tests."""
        return final_phases(self.phases)


def final_phases(phases: Mapping[str, PhaseEntry]) -> tuple[str, ...]:
    """Those of ``phases`` that no other one starts from."""
    needed = {name for phase in phases.values() for name in (phase.init, phase.tokenizer)}
    return tuple(name for name in phases if name not in needed)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    ConfigError
        One line that names the recipe, the key and what to write instead.
    """
    check_yaml(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    where = f"recipe {path}"
    _check_keys(where, content, KEYS, required=("name", "phases"))
    phases = _read_phases(where, content["phases"], path.parent)
    if experiment := _text(f"{where}: experiment", content.get("experiment", "")):
        phases = {
            name: replace(phase, overrides={**phase.overrides, "mlflow.experiment": experiment})
            for name, phase in phases.items()
        }
    seeds = _read_seeds(f"{where}: seeds", content.get("seeds", [0]))
    variants = {"full": Ablation(tuple(phases), {})}
    for name, entry in _mapping(f"{where}: ablations", content.get("ablations", {})).items():
        if name in variants:
            raise ConfigError(f"{where}: the ablation name {name!r} is taken; choose another name.")
        variants[name] = _read_ablation(f"{where}: ablations.{name}", entry, phases, path.parent, seeds)
    for name, entry in _mapping(f"{where}: sweeps", content.get("sweeps", {})).items():
        variants.update(_read_sweep(f"{where}: sweeps.{name}", name, entry, phases))
    commands, prepared, cohort = _read_data(where, content.get("data", {}), path.parent)
    truth = _text(f"{where}: ground_truth", content.get("ground_truth", ""))
    baselines = _read_baselines(where, content.get("baselines", []))
    return Recipe(
        name=_text(f"{where}: name", content["name"], may_be_empty=False),
        path=path,
        seeds=seeds,
        phases=phases,
        variants=variants,
        commands=commands,
        prepared=prepared,
        n_folds=_read_folds(f"{where}: folds", content.get("folds", 1)),
        leaves_one_out=content.get("folds", 1) == LEAVE_ONE_OUT,
        baselines=baselines,
        ground_truth=Path(truth) if truth else cohort / "ground_truth.json" if cohort != Path() else Path(),
        pairs=_read_pairs(where, content.get("gains", []), variants),
        probes={
            name: _read_probes(f"{where}: probes.{name}", name, entry, phases)
            for name, entry in _mapping(f"{where}: probes", content.get("probes", {})).items()
        },
        features=_read_features(where, content.get("features", ""), baselines),
        searches={
            name: _read_search(f"{where}: searches.{name}", str(name), entry, phases)
            for name, entry in _mapping(f"{where}: searches", content.get("searches", {})).items()
        },
        makes_ensembles=_read_ensemble(f"{where}: ensemble", content.get("ensemble", False), seeds),
    )


def load_config(path: Path) -> dict[str, Any]:
    """Config with the files that it names (``encoder: ../encoders/x.yaml``) put in their place."""
    check_yaml(path)
    resolved = _with_files(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent, depth=0)
    assert isinstance(resolved, dict)  # check_yaml refuses anything else
    return resolved


def _with_files(value: Any, folder: Path, depth: int) -> Any:
    if depth > 20:
        raise ConfigError(f"configs in {folder} include each other; write one of them out.")
    if isinstance(value, dict):
        return {key: _with_files(entry, folder, depth) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_files(entry, folder, depth) for entry in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")) and (folder / value).is_file():
        part = Path(normpath(folder / value))
        check_yaml(part)
        return _with_files(yaml.safe_load(part.read_text(encoding="utf-8")), part.parent, depth + 1)
    return value


def _read_phases(where: str, content: Any, folder: Path) -> dict[str, PhaseEntry]:
    entries = _mapping(f"{where}: phases", content)
    if not entries:
        raise ConfigError(f"{where}: phases is empty; name at least one phase with its config.")
    for name, entry in entries.items():
        place = f"{where}: phases.{name}"
        _check_keys(place, entry, ("config", "init", "tokenizer", "set"), required=("config",))
        for key in ("init", "tokenizer"):
            if key in entry:
                _check_phase(f"{place}.{key}", entry[key], entries)
        _read_config(f"{place}.config", entry["config"], folder)
    ordered: dict[str, PhaseEntry] = {}
    for name in _needed_first(where, entries):
        entry = entries[name]
        overrides = _mapping(f"{where}: phases.{name}.set", entry.get("set", {}))
        config = _read_config(f"{where}: phases.{name}.config", entry["config"], folder)
        ordered[name] = PhaseEntry(name, config, entry.get("init", ""), entry.get("tokenizer", ""), overrides)
    return ordered


def _needed_first(where: str, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in an order in which each phase comes after those that it starts from; a circle is refused."""
    ordered: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise ConfigError(f"{where}: phases start from each other in a circle ({circle}); take one init away.")
        if name not in ordered:
            for key in ("tokenizer", "init"):
                if entries[name].get(key):
                    visit(entries[name][key], (*path, name))
            ordered.append(name)

    for name in entries:
        visit(name, ())
    return ordered


def _read_config(where: str, name: Any, folder: Path) -> Path:
    config = Path(normpath(folder / str(name)))
    if not config.is_file():
        raise ConfigError(f"{where}: {config} not found; paths of configs are relative to the recipe.")
    return config


def _read_ablation(
    where: str, content: Any, phases: Mapping[str, PhaseEntry], folder: Path, seeds: Sequence[int]
) -> Ablation:
    _check_keys(where, content, ("drop", "only", "set", "config", "seeds"))
    if not set(content) - {"seeds"}:
        raise ConfigError(f"{where} is empty; say what it drops, keeps (only), sets, or which config it takes.")
    if "drop" in content and "only" in content:
        raise ConfigError(f"{where} has both drop and only; keep one of the two.")
    for key in ("drop", "only"):
        for name in _names(f"{where}.{key}", content.get(key, [])):
            _check_phase(f"{where}.{key}", name, phases)
    kept = set(content["only"]) if "only" in content else set(phases) - set(content.get("drop", []))
    for name in tuple(kept):
        tokenizer = phases[name].tokenizer
        if tokenizer and tokenizer in content.get("drop", []):
            raise ConfigError(f"{where}.drop takes {tokenizer!r} from {name!r}, which needs it; drop {name!r} too.")
        if tokenizer:
            kept.add(tokenizer)
    changed = {key: _mapping(f"{where}.{key}", content.get(key, {})) for key in ("set", "config")}
    for key, name in ((key, name) for key, entries in changed.items() for name in entries):
        _check_phase(f"{where}.{key}", name, phases)
        if name not in kept:
            raise ConfigError(f"{where}.{key} changes {name!r}, which this ablation leaves out; take one of them away.")
    return Ablation(
        tuple(name for name in phases if name in kept),
        {name: _mapping(f"{where}.set.{name}", entry) for name, entry in changed["set"].items()},
        {name: _read_config(f"{where}.config.{name}", entry, folder) for name, entry in changed["config"].items()},
        _read_own_seeds(f"{where}.seeds", content["seeds"], seeds) if "seeds" in content else (),
    )


def _read_sweep(where: str, sweep: str, content: Any, phases: Mapping[str, PhaseEntry]) -> dict[str, Ablation]:
    _check_keys(where, content, ("phase", "key", "values"), required=("phase", "key", "values"))
    _check_phase(f"{where}.phase", content["phase"], phases)
    if not isinstance(content["values"], list) or not content["values"]:
        raise ConfigError(f"{where}.values={content['values']!r}; give a list such as [0.2, 0.5].")
    return {
        f"{sweep}={value}": Ablation(tuple(phases), {content["phase"]: {str(content["key"]): value}})
        for value in content["values"]
    }


def _read_search(where: str, name: str, content: Any, phases: Mapping[str, PhaseEntry]) -> Search:
    needed = ("phase", "parameters", "trials", "monitor", "direction")
    _check_keys(where, content, (*needed, "seed", "scored_phase"), required=needed)
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"{where}: the name cannot be a folder's; choose a word such as finetuning.")
    _check_phase(f"{where}.phase", content["phase"], phases)
    final = final_phases(phases)
    scored = content.get("scored_phase", final[0] if len(final) == 1 else "")
    if scored not in final:
        found = f"scored_phase={scored!r} is none of them" if scored else "none is named"
        raise ConfigError(f"{where}: the final phases are {', '.join(final)}, and {found}; set scored_phase to one.")
    parameters: dict[str, Span | Choice] = {}
    for key, entry in _mapping(f"{where}.parameters", content["parameters"]).items():
        try:
            parameters[str(key)] = read_parameter(entry)
        except ConfigError as error:
            raise ConfigError(f"{where}.parameters.{key}: {error}") from None
    keys = ("trials", "seed", "monitor", "direction")
    trials, seed, monitor, direction = ({"seed": 0, **content}[key] for key in keys)
    try:
        return Search(name, content["phase"], scored, parameters, trials, seed, monitor, direction)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read_data(where: str, content: Any, folder: Path) -> tuple[tuple[tuple[str, ...], ...], tuple[Path, ...], Path]:
    """Commands that make the data, the stores, and the folder of the simulated cohort (``Path()`` without one)."""
    _check_keys(f"{where}: data", content, ("simulate", "process", "prepare"))
    commands: list[tuple[str, ...]] = []
    prepared: list[Path] = []
    cohort = Path()
    if "simulate" in content:
        entry, place = content["simulate"], f"{where}: data.simulate"
        _check_keys(place, entry, SIMULATE_KEYS, required=("out", "preset"))
        flags = [part for key, value in entry.items() for part in (f"--{key}", str(value))]
        commands.append(("cerebro", "simulate", *flags))
        cohort = Path(str(entry["out"]))
    steps = content.get("process", [])
    for entry in steps if isinstance(steps, list) else [steps]:
        command, store = _read_process(f"{where}: data.process", entry, folder)
        commands.append(command)
        prepared += [store] if store != Path() else []
    steps = content.get("prepare", [])
    for entry in steps if isinstance(steps, list) else [steps]:
        place = f"{where}: data.prepare"
        _check_keys(place, entry, ("config", "store"), required=("config", "store"))
        config = _read_config(f"{place}.config", entry["config"], folder)
        commands.append(("cerebro", "prepare", str(config), "--out", str(entry["store"])))
        prepared.append(Path(str(entry["store"])))
    return tuple(commands), tuple(prepared), cohort


def _read_process(place: str, entry: Any, folder: Path) -> tuple[tuple[str, ...], Path]:
    """Command that makes a primary data set with its features, and the store it makes; ``Path()`` for none."""
    _check_keys(place, entry, ("config", "out"), required=("config",))
    config = _read_config(f"{place}.config", entry["config"], folder)
    check_yaml(config)
    store = _text(f"{config}: store", yaml.safe_load(config.read_text(encoding="utf-8")).get("store", PROCESSED_STORE))
    out = _text(f"{place}.out", entry.get("out", ""))
    command = ("cerebro", "process", "--config", str(config), *(("--out", out) if out else ()))
    return command, Path(out) / store if store else Path()


def _read_seeds(where: str, content: Any) -> tuple[int, ...]:
    is_list = isinstance(content, list) and content
    if not is_list or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in content):
        raise ConfigError(f"{where}={content!r}; give a list of whole numbers from 0 on, such as [0, 1, 2].")
    if len(set(content)) < len(content):
        raise ConfigError(f"{where}={content!r} repeats a seed; name each once.")
    return tuple(content)


def _read_own_seeds(where: str, content: Any, seeds: Sequence[int]) -> tuple[int, ...]:
    own = _read_seeds(where, content)
    if not set(own) <= set(seeds):
        raise ConfigError(f"{where}={content!r} must be some of the recipe's seeds, {list(seeds)}.")
    return own


def _read_ensemble(where: str, content: Any, seeds: Sequence[int]) -> bool:
    if not isinstance(content, bool):
        raise ConfigError(f"{where}={content!r}; give true or false.")
    if content and len(seeds) < 2:
        raise ConfigError(f"{where}: one seed makes no ensemble; add seeds, such as seeds: [0, 1, 2].")
    return content


def _read_baselines(where: str, content: Any) -> tuple[str, ...]:
    names = tuple(name for name in _names(f"{where}: baselines", content) if name != "constant")
    for name in names:
        if name not in BASELINES:
            raise ConfigError(
                f"{where}: baselines names {name!r}, which is unknown; choose from constant, {', '.join(BASELINES)}."
            )
    return names


def _read_features(where: str, content: Any, baselines: Sequence[str]) -> Path:
    """File of features; refused where no baseline needs it, and asked for where one does."""
    path = _text(f"{where}: features", content)
    asking = [name for name in baselines if name in FEATURE_BASELINES]
    if asking and not path:
        raise ConfigError(
            f"{where}: baselines names {asking[0]!r} and there is no key features; add features: PATH of the file that "
            "`cerebro process --config configs/processing.yaml` makes."
        )
    if path and not asking:
        raise ConfigError(
            f"{where}: features={path!r} and no baseline uses it; add {' or '.join(FEATURE_BASELINES)} to baselines "
            "or leave features out."
        )
    return Path(path)


def _read_pairs(where: str, content: Any, variants: Mapping[str, Ablation]) -> tuple[tuple[str, str], ...]:
    if not isinstance(content, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in content):
        raise ConfigError(f"{where}: gains={content!r}; give a list of pairs such as [[no_contrastive, supervised]].")
    for name in (name for pair in content for name in pair):
        if name not in variants:
            raise ConfigError(f"{where}: gains names {name!r}; choose from {', '.join(variants)}.")
    return tuple((better, worse) for better, worse in content)


def _read_probes(where: str, phase: str, content: Any, phases: Mapping[str, PhaseEntry]) -> ProbeEntry:
    _check_phase(where, phase, phases)
    _check_keys(where, content, ("targets", "by"), required=("targets",))
    targets, by = _names(f"{where}.targets", content["targets"]), content.get("by", PROBE_ROWS[0])
    if not targets or len(set(targets)) < len(targets):
        raise ConfigError(f"{where}.targets={targets!r}; name what to probe, each once, such as [age, participant].")
    if by not in PROBE_ROWS:
        raise ConfigError(f"{where}.by={by!r}; choose from {', '.join(PROBE_ROWS)}.")
    return ProbeEntry(tuple(targets), by)


def _check_keys(where: str, content: Any, known: Sequence[str], required: Sequence[str] = ()) -> None:
    for key in _mapping(where, content):
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}."
            raise ConfigError(f"{where} has the unknown key {key!r}; {hint}")
    for key in required:
        if key not in content:
            raise ConfigError(f"{where} lacks the key {key!r}; add it.")


def _check_phase(where: str, name: Any, phases: Mapping[str, Any]) -> None:
    if not isinstance(name, str) or name not in phases:
        raise ConfigError(f"{where} names the unknown phase {name!r}; phases are {', '.join(phases)}.")


def _mapping(where: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is {content!r}; write 'key: value' lines.")
    return content


def _text(where: str, content: Any, may_be_empty: bool = True) -> str:
    if not isinstance(content, str) or not (content or may_be_empty):
        raise ConfigError(f"{where}={content!r}; give a text.")
    return content


def _names(where: str, content: Any) -> list[str]:
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{where}={content!r}; give a list of names.")
    return content


def _read_folds(where: str, content: Any) -> int:
    if content == LEAVE_ONE_OUT:
        return 1  # until the people of the store are counted
    if not isinstance(content, int) or isinstance(content, bool) or content < 1:
        raise ConfigError(f"{where}={content!r}; give a whole number from 1 on, or {LEAVE_ONE_OUT}.")
    return content
