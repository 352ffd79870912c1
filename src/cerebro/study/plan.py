"""Recipe -> plan: a list of plain ``cerebro`` commands in which nothing is done twice.

A run is known by the hash of everything that could change its result: resolved config, the runs that it starts from,
data, seed, fold and code. Variants that agree up to a phase share its run. Planning reads configs and writes nothing.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cerebro.errors import ConfigError
from cerebro.study.folds import with_folds
from cerebro.study.recipe import PhaseEntry, ProbeEntry, Recipe, load_config
from cerebro.training.other_names import OTHER_NAMES, PRETRAIN_CONFIG, in_usual_names

UNPREPARED = "unprepared"  # data hash of a store that is not there yet


@dataclass(frozen=True)
class Run:
    """One ``cerebro fit`` and what follows it: ``cerebro test`` of a final phase, ``cerebro probe`` of a probed one."""

    phase: str
    identity: str  # ten hex digits
    folder: Path
    seed: int
    fold: int
    fit: tuple[str, ...]
    test: tuple[str, ...]  # empty unless the phase is final
    variants: tuple[str, ...]  # who uses it
    probe: tuple[str, ...] = ()
    probes: ProbeEntry | None = None  # what the probe asks for

    @property
    def used_by(self) -> str:
        """Variants in words, the first one first."""
        return self.variants[0] + (f" and {len(self.variants) - 1} more" if len(self.variants) > 1 else "")


@dataclass(frozen=True)
class Chain:
    """One variant under one seed and fold: its runs by phase, as identities."""

    variant: str
    seed: int
    fold: int
    runs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Everything a study does, in order."""

    recipe: Recipe
    out: Path
    runs: tuple[Run, ...]
    chains: tuple[Chain, ...]
    stores: tuple[Path, ...]  # what the phases train on, each once
    weights: tuple[Path, ...] = ()  # files from outside the study that phases start from, each once
    uncounted: tuple[Path, ...] = ()  # stores that are not there for ``leave_one_out``: two folds stand in for all

    def commands(self) -> list[str]:
        """Plain commands that can be pasted into a shell, comments above them."""
        lines = [shlex.join(command) for command in self.recipe.commands]
        for number, run in enumerate(self.runs, start=1):
            fold = f", fold {run.fold}" if self.recipe.n_folds > 1 else ""
            lines.append(
                f"# {number} of {len(self.runs)}: {run.phase}, seed {run.seed}{fold}; for {', '.join(run.variants)}"
            )
            lines += [shlex.join(command) for command in (run.fit, run.test, run.probe) if command]
        return lines


def plan_study(
    recipe: Recipe,
    out: Path,
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (),
    data_hash: Callable[[Path], str] = lambda store: UNPREPARED,
    code_version: str = "",
    weights_hash: Callable[[Path], str] = lambda path: UNPREPARED,
    count_people: Callable[[Path], int] = lambda store: 0,
) -> Plan:
    """Plan a recipe.

    Parameters
    ----------
    recipe : Recipe
        What to study.
    out : Path
        Folder of the study; runs go to ``out/phases/<phase>-<identity>``.
    variants : sequence of str
        Variants to run; empty for all.
    seeds : sequence of int
        Seeds in place of the recipe's; empty for those.
    data_hash : callable
        Store folder -> hash of its data.
    code_version : str
        Hash of the installed code.
    weights_hash : callable
        File of weights from outside the study -> hash of its content.
    count_people : callable
        Store folder -> people in it, 0 where it is not prepared; asked for ``folds: leave_one_out``.

    Raises
    ------
    ConfigError
        If a variant is unknown, an ablation changes nothing, or a config does not fit its place in the recipe.
    """
    for name in variants:
        if name not in recipe.variants:
            raise ConfigError(f"--variant {name} is not in {recipe.path}; choose from {', '.join(recipe.variants)}.")
    paths = {phase.config for phase in recipe.phases.values()}
    paths.update(path for ablation in recipe.variants.values() for path in ablation.configs.values())
    configs = {path: load_config(path) for path in paths}
    recipe, uncounted = with_folds(recipe, configs, count_people)
    planner = _Planner(recipe, out, configs, data_hash, code_version, weights_hash)
    chosen = [name for name in recipe.variants if name in variants or not variants]
    wanted = seeds or recipe.seeds
    _refuse_seedless(recipe, chosen if variants else (), wanted)
    chains = [
        planner.chain(variant, seed, fold)
        for seed in wanted
        for fold in range(recipe.n_folds)
        for variant in chosen
        if seed in (recipe.variants[variant].seeds or wanted)
    ]
    _refuse_idle_ablations(recipe, chains)
    if not variants:
        _refuse_idle_stores(recipe, tuple(sorted(planner.data)))
    runs = tuple(replace(planner.runs[identity], variants=tuple(users)) for identity, users in planner.users.items())
    stores, weights = tuple(sorted(planner.data)), tuple(sorted(planner.weights))
    return Plan(recipe, out, runs, tuple(chains), stores, weights, uncounted)


def _store(phase: str, config: Mapping[str, Any]) -> Path:
    data = config.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("store"), str):
        raise ConfigError(f"the config of phase {phase!r} has no data.store; name the store that it trains on.")
    return Path(data["store"])


def _refuse_seedless(recipe: Recipe, asked: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse a variant that was asked for by name and runs with none of the seeds."""
    for name in asked:
        own = recipe.variants[name].seeds
        if own and not set(own) & set(seeds):
            raise ConfigError(
                f"--variant {name} runs with the seeds {list(own)} of {recipe.path} only, and those asked for are "
                f"{list(seeds)}; add one of its seeds to --seeds."
            )


def _refuse_idle_ablations(recipe: Recipe, chains: Sequence[Chain]) -> None:
    full = {(chain.seed, chain.fold): chain.runs for chain in chains if chain.variant == "full"}
    for chain in chains:
        is_sweep = "=" in chain.variant
        if chain.variant != "full" and not is_sweep and full.get((chain.seed, chain.fold)) == chain.runs:
            raise ConfigError(
                f"recipe {recipe.path}: ablation {chain.variant!r} changes nothing; what it sets is the value that the "
                "config has already."
            )


def _refuse_idle_stores(recipe: Recipe, used: Sequence[Path]) -> None:
    """Of several stores some may be sources of a mixture, so that one in use is enough."""
    if recipe.prepared and not {path.resolve() for path in recipe.prepared} & {path.resolve() for path in used}:
        made, read = (", ".join(path.as_posix() for path in paths) for paths in (recipe.prepared, used))
        raise ConfigError(
            f"recipe {recipe.path} makes {made} and its phases read {read}; set data.store of every phase to what is "
            "made, or leave data.process and data.prepare away."
        )


class _Planner:
    """Collects the distinct runs of all chains."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        configs: Mapping[Path, dict[str, Any]],
        data_hash: Callable[[Path], str],
        code_version: str,
        weights_hash: Callable[[Path], str],
    ) -> None:
        self.recipe, self.out, self.configs, self.code_version = recipe, out, configs, code_version
        self.data_hash, self.weights_hash = data_hash, weights_hash
        self.data: dict[Path, str] = {}  # store -> hash of its data
        self.weights: dict[Path, str] = {}  # file from outside -> hash of its content
        self.final = recipe.final_phases()
        self.runs: dict[str, Run] = {}  # by identity
        self.users: dict[str, list[str]] = {}  # identity -> variants, in planned order

    def chain(self, variant: str, seed: int, fold: int) -> Chain:
        """Plan the runs of one variant under one seed and fold."""
        ablation = self.recipe.variants[variant]
        runs: dict[str, str] = {}
        for name in self._needed(ablation.kept):
            phase = self.recipe.phases[name]
            phase = replace(phase, config=ablation.configs.get(name, phase.config))
            init = self._standing(phase.init, ablation.kept)
            overrides = {**dict(phase.overrides), **dict(ablation.overrides.get(name, {}))}
            runs[name] = self._run(phase, runs.get(init, ""), runs.get(phase.tokenizer, ""), overrides, seed, fold)
            users = self.users.setdefault(runs[name], [])
            if variant not in users:
                users.append(variant)
        if not runs:
            raise ConfigError(
                f"recipe {self.recipe.path}: ablation {variant!r} leaves out every final phase "
                f"({', '.join(self.final)}), so that nothing is tested; keep one."
            )
        return Chain(variant, seed, fold, runs)

    def _standing(self, init: str, kept: Sequence[str]) -> str:
        """Phase to start from: a dropped one hands its own ``init`` on."""
        while init and init not in kept:
            init = self.recipe.phases[init].init
        return init

    def _needed(self, kept: Sequence[str]) -> list[str]:
        """Kept phases that lead to a final phase, in order."""
        needed = {name for name in self.final if name in kept}
        for name in reversed(list(self.recipe.phases)):
            if name in needed:
                phase = self.recipe.phases[name]
                needed |= {self._standing(phase.init, kept), phase.tokenizer} - {""}
        return [name for name in self.recipe.phases if name in needed]

    def _run(
        self, phase: PhaseEntry, init: str, tokenizer: str, overrides: Mapping[str, Any], seed: int, fold: int
    ) -> str:
        config = deepcopy(self.configs[phase.config])
        looks_for_pretraining = bool(config.get(PRETRAIN_CONFIG))
        config = in_usual_names(config, str(phase.config))
        overrides = {OTHER_NAMES.get(key, key): value for key, value in overrides.items() if key != PRETRAIN_CONFIG}
        split = "data.split.init_args" if "class_path" in config["data"].get("split", {}) else "data.split"
        if self.recipe.n_folds > 1:
            overrides = {f"{split}.n_folds": self.recipe.n_folds, f"{split}.fold": fold, **overrides}
        for key, value in overrides.items():
            _set(config, key, value, where=f"recipe {self.recipe.path}: phase {phase.name!r}")
        transfers = _transfers(config, phase, init, tokenizer)
        store = _store(phase.name, config)
        if store not in self.data:
            self.data[store] = self.data_hash(store)
        content = {key: value for key, value in config.items() if key not in ("out", "seed")}
        content["model"] = {**config["model"], "init": transfers}
        outside = [Path(str(entry["source"])) for entry in transfers if entry["source"] not in self.runs]
        for path in outside:
            if path not in self.weights:
                self.weights[path] = self.weights_hash(path)
        started_from = [self.weights[path] for path in outside]
        identity = _hash([content, self.data[store], seed, fold, self.code_version, *started_from])
        if identity in self.runs:
            return identity

        folder = self.out / "phases" / f"{phase.name}-{identity}"
        flags = [part for key, value in overrides.items() for part in (f"--{key}", written(value))]
        if transfers or config["model"].get("init"):
            placed = [{**entry, "source": self._checkpoint(entry["source"])} for entry in transfers]
            flags += ["--model.init", json.dumps(placed)]
        if looks_for_pretraining:  # in a study an encoder comes from a phase of it, or from random weights
            flags += [f"--{PRETRAIN_CONFIG}", ""]
        # weights, and order, crops and masks; the split has a seed of its own, so that every seed tests the same people
        of_data = [] if "data.seed" in overrides else ["--data.seed", str(seed)]
        flags += ["--seed", str(seed), *of_data, "--out", str(folder)]
        test = ("cerebro", "test", "--config", f"{folder}/config.yaml", "--ckpt_path", f"{folder}/best.ckpt")
        fit = ("cerebro", "fit", "--config", str(phase.config), *flags)
        is_final = phase.name in self.final
        entry = self.recipe.probes.get(phase.name)
        probe = () if entry is None else ("cerebro", "probe", f"{folder}/best.ckpt", *entry.flags())
        self.runs[identity] = Run(
            phase.name, identity, folder, seed, fold, fit, test if is_final else (), (), probe, entry
        )
        return identity

    def _checkpoint(self, source: str) -> str:
        return f"{self.runs[source].folder}/best.ckpt" if source in self.runs else source


def _transfers(config: Mapping[str, Any], phase: PhaseEntry, init: str, tokenizer: str) -> list[dict[str, Any]]:
    """``model.init`` of a run, with identities of runs as sources; the other fields stay as the config has them."""
    transfers: list[dict[str, Any]] = []
    has_encoder, has_tokenizer = False, False
    for entry in config["model"].get("init") or []:
        into = str(entry.get("into", "encoder"))
        if into == "encoder":
            has_encoder = True
            if init:
                transfers.append({**entry, "source": init})
            elif not phase.init and Path(str(entry["source"])).suffix != ".ckpt":  # weights from outside the study
                transfers.append(entry)
        elif into.endswith("tokenizer") and phase.tokenizer:
            has_tokenizer = True
            transfers.append({**entry, "source": tokenizer})
        else:
            transfers.append(entry)
    if init and not has_encoder:
        transfers.append({"source": init, "take": "encoder", "into": "encoder"})
    if phase.tokenizer and not has_tokenizer:
        raise ConfigError(
            f"phase {phase.name!r} has tokenizer: {phase.tokenizer}, but {phase.config} has no entry in model.init "
            "whose 'into' ends with tokenizer; add {source: ..., take: '', into: objective.tokenizer}."
        )
    return transfers


def _set(config: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put ``value`` at the dotted ``key``."""
    *parents, last = key.split(".")
    node: Any = config
    for number, parent in enumerate(parents):
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            place = ".".join(parents[: number + 1])
            raise ConfigError(f"{where} sets {key}, but {place} is {node!r} in its config; correct the key.")
    node[last] = value


def written(value: Any) -> str:
    """A value as it is typed on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]


def installed_code_version() -> str:
    """Hash of the installed package's sources, apart from ``study`` and ``report``, which change no run."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        name = source.relative_to(root).as_posix()
        if not name.startswith(("study/", "report/")):
            digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:10]
