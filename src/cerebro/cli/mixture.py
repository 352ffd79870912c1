"""``cerebro prepare MIXTURE.yaml``: make the member stores that are missing, then name them as one mixture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from cerebro.cli.messages import one_line
from cerebro.data.channels import AsPrepared, MapChannels
from cerebro.data.mixture import Mixture, check_references, normalised, references_of, write_mixture
from cerebro.data.preprocess import Preprocessing
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError
from cerebro.files import lock_folder, remove_orphans
from cerebro.yaml_safety import check_yaml

Prepare = Callable[[list[str]], int]  # arguments of ``cerebro prepare`` -> exit code


@dataclass(frozen=True)
class Source:
    """One member to be: a config that makes it, or a store that is there.

    Parameters
    ----------
    config : str
        Config of ``cerebro prepare`` for one store; the store is made below the mixture's folder.
    store : str
        Folder of a store that was prepared before, in place of ``config``.
    weight : float
        Relative share of the training batches, 0 or more.
    """

    config: str = ""
    store: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class MixtureConfig:
    """One YAML of a mixture.

    Parameters
    ----------
    sources : mapping of str to `Source`
        By name; paths are absolute.
    sfreq : float
        Rate of all members in Hz.
    reference : {"as_is", "average"}
        ``average`` re-references every member that is made here.
    channels : mapping
        Arguments of `MapChannels`; empty = as recorded.
    """

    sources: Mapping[str, Source]
    sfreq: float
    reference: Literal["as_is", "average"]
    channels: Mapping[str, Any]


def prepare_mixture(path: Path, out: Path | None, argv: Sequence[str], prepare: Prepare) -> int:
    """Make what is missing of a mixture, and write ``mixture.json`` last.

    Parameters
    ----------
    path : Path
        Config of the mixture.
    out : Path, optional
        Folder of the mixture; each member that has a config is made in the folder of its name below. None with
        ``--plan``.
    argv : sequence of str
        Arguments of ``cerebro prepare`` as they were typed; those but ``path`` and ``--out`` go on to each member.
    prepare : callable
        Takes the arguments of ``cerebro prepare`` for one member.

    Returns
    -------
    int
        The largest exit code of the members; the mixture is written if all of them have a store.

    Raises
    ------
    CerebroError
        In one line: a wrong config, members of different rates or references, a member without a store.
    """
    config = read_mixture_config(path)
    others = _other_arguments(argv, path)
    if "--json" in others:
        raise ConfigError("--json takes the plan of one store; give it the config of a member.")
    if config.reference == "average":
        others += ["--preprocessing.reference", "average"]
    if "--plan" in others:
        return max([0, *(_prepare(name, [one.config, *others], prepare) for name, one in config.sources.items())])
    if out is None:
        raise ConfigError("--out is missing; type --out STORE (a new folder), or --plan to see what would be built.")
    code = 0
    stores: dict[str, Path] = {}
    found: dict[str, tuple[str, ...]] = {}
    with lock_folder(out, "cerebro prepare"):
        remove_orphans(out)
        for name, source in sorted(config.sources.items(), key=lambda item: bool(item[1].config)):  # those there first
            stores[name] = out / name if source.config else Path(source.store)
            if source.config:
                code = max(code, _prepare(name, [source.config, "--out", str(out / name), *others], prepare))
                if not (stores[name] / "manifest.json").is_file():
                    raise DataError(
                        f"member {name} has no store, because not one of its recordings could be prepared (see above); "
                        f"mend {source.config}, or leave {name} out of sources."
                    )
            try:
                store = Store.open(stores[name])
            except DataError as error:
                raise DataError(f"member {name}: {error}") from None
            if store.sfreq != config.sfreq:
                raise DataError(
                    f"member {name} has {store.sfreq:g} Hz and the mixture {config.sfreq:g} Hz; prepare the member "
                    f"with preprocessing.sfreq {config.sfreq:g}, or set sfreq in {path}."
                )
            found[name] = references_of(store)
            check_references(found, config.reference)  # now, not after the next night
            _plan_channels(name, store, config)
        weights = {name: source.weight for name, source in config.sources.items()}
        mixture = write_mixture(out, stores, weights, config.reference, config.channels)
        AsPrepared().plan(mixture)
    print(table(mixture))
    print(f"mixture {out} is ready: data hash {mixture.data_hash[:12]}")
    return code


def read_mixture_config(path: Path) -> MixtureConfig:
    """Read and check the YAML of a mixture; relative paths in it are relative to its folder.

    Raises
    ------
    ConfigError
        In one line: an unknown key, a wrong type or name, weights that are no shares, a member of another rate.
    """
    check_yaml(path)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sources", type=dict[str, Source], required=True)
    parser.add_argument("--sfreq", type=float, required=True)
    parser.add_argument("--reference", type=Literal["as_is", "average"], default="as_is")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    has_channels = content.get("channels") is not None
    if has_channels:
        parser.add_class_arguments(MapChannels, "channels")
    try:
        made = parser.instantiate(parser.parse_string(yaml.safe_dump(content)))
    except (ArgumentError, TypeError, ValueError) as error:
        known = ["sources", "sfreq", "reference", "channels"]
        raise ConfigError(f"config {path}: {one_line('prepare', str(error), known, [])}") from None
    folder = path.resolve().parent
    sources: dict[str, Source] = {}
    for name, source in made.sources.items():
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"config {path}: source {name!r} names a folder; use letters, digits, dash, underscore.")
        if bool(source.config) == bool(source.store):
            raise ConfigError(f"config {path}: source {name} needs either config or store; give one of the two.")
        config = str(folder / source.config) if source.config else ""
        store = str(folder / source.store) if source.store else ""
        sources[name] = Source(config, store, source.weight)
        if config:
            _check_rate(name, Path(config), made.sfreq, path)
    if not sources:
        raise ConfigError(f"config {path}: sources is empty; name a config or a store for each member.")
    normalised({name: source.weight for name, source in sources.items()}, tuple(sources))
    channels = made.channels.settings() if has_channels else {}
    return MixtureConfig(sources, made.sfreq, made.reference, channels)


def table(mixture: Mixture) -> str:
    """Members, their shares and what they hold, for the terminal."""
    lines = [f"{'member':<16}{'share':>8}{'recordings':>12}{'people':>8}{'hours':>10}   channels     reference"]
    for number, member in enumerate(mixture.members):
        store = member.store
        hours = float(store.index["n_times"].sum()) / store.sfreq / 3600
        counts = "/".join(str(n) for n in sorted({len(montage.channels) for montage in store.montages}))
        lines.append(
            f"{member.name:<16}{member.weight:>8.3f}{int((mixture.member == number).sum()):>12,}"
            f"{len(store.participants):>8,}{hours:>10,.2f}   {counts:<12} {store.reference}"
        )
    return "\n".join([*lines, *mixture.notes])


def _plan_channels(name: str, store: Store, config: MixtureConfig) -> None:
    """Refuse a member that cannot give the channels of the mixture."""
    if config.channels:
        try:
            MapChannels(**config.channels).plan(store)
        except DataError as error:
            raise DataError(f"member {name}: {error}") from None


def _check_rate(name: str, config: Path, sfreq: float, mixture: Path) -> None:
    """Raise ConfigError unless the config of a member prepares it at the mixture's rate."""
    check_yaml(config)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    if "sources" in content:
        raise ConfigError(f"source {name} of {mixture} is a mixture itself ({config}); name its sources in {mixture}.")
    settings = content.get("preprocessing") or {}
    found = settings.get("sfreq", Preprocessing().sfreq) if isinstance(settings, dict) else Preprocessing().sfreq
    if found != sfreq:
        raise ConfigError(
            f"source {name} is prepared at {found:g} Hz and the mixture has {sfreq:g} Hz; set preprocessing.sfreq in "
            f"{config} to {sfreq:g}, or sfreq in {mixture} to a rate that all members have."
        )


def _other_arguments(argv: Sequence[str], path: Path) -> list[str]:
    """What was typed but the config and ``--out``."""
    left = list(argv)
    left.remove(next(word for word in left if Path(word) == path))
    if "--out" in left:
        at = left.index("--out")
        del left[at : at + 2]
    return [word for word in left if not word.startswith("--out=")]


def _prepare(name: str, argv: list[str], prepare: Prepare) -> int:
    """Prepare one member, unless it is a store that is there."""
    if not argv[0]:
        return 0
    print(f"member {name}", flush=True)
    return prepare(argv)
