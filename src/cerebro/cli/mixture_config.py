"""The YAML of a mixture and those of its members: read as a whole and checked before anything is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from cerebro.cli.data_config import PrepareConfig, empty_keys, is_mixture, read_config
from cerebro.cli.messages import one_line
from cerebro.data.channels import MapChannels
from cerebro.data.mixture import Reference, normalised
from cerebro.errors import ConfigError, check_positive
from cerebro.montage import is_electrode_file
from cerebro.yaml_safety import check_yaml

OWN_KEYS = ("sources", "sfreq", "reference", "channels")


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
    members : mapping of str to `PrepareConfig`
        Configs of the sources that have one, with what was typed for all of them.
    """

    sources: Mapping[str, Source]
    sfreq: float
    reference: Reference
    channels: Mapping[str, Any]
    members: Mapping[str, PrepareConfig]


def read_mixture_config(
    path: Path, overrides: Sequence[str] = (), member_overrides: Sequence[str] = (), options: Sequence[str] = ()
) -> MixtureConfig:
    """Read and check the YAML of a mixture and those of its members; relative paths are relative to their folder.

    Parameters
    ----------
    path : Path
        The YAML of the mixture.
    overrides : sequence of str
        ``--KEY VALUE`` of a command line for the mixture's own keys.
    member_overrides : sequence of str
        ``--dotted.key VALUE`` for every member that has a config.
    options : sequence of str
        Other options of that command line, which an unknown key may have meant.

    Raises
    ------
    CerebroError
        In one line: an unknown key, a wrong type or name, weights that are no shares, channels that there are not, a
        member whose config is wrong or of another rate.
    """
    check_yaml(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_shape(content, path)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cerebro"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sources", type=dict[str, Source], required=True)
    parser.add_argument("--sfreq", type=float, required=True)
    parser.add_argument("--reference", type=Literal["as_is", "average"], default="as_is")
    has_channels = "channels" in content or any(word.startswith("--channels.") for word in overrides)
    if has_channels:
        parser.add_class_arguments(MapChannels, "channels")
    place = f"config {path}"
    try:
        parsed = parser.parse_string(yaml.safe_dump(content))
        if overrides:
            place = "command line"
            parsed = parser.parse_args(list(overrides), namespace=parsed)
        made = parser.instantiate(parsed)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {one_line('prepare', str(error), OWN_KEYS, [])}") from None
    check_positive("sfreq", made.sfreq)
    folder = path.resolve().parent
    sources = {name: _absolute(name, source, folder, path) for name, source in made.sources.items()}
    normalised({name: source.weight for name, source in sources.items()}, tuple(sources))
    channels: dict[str, Any] = made.channels.settings() if has_channels else {}
    if channels and is_electrode_file(channels["target"]):
        is_typed = any(word.split("=")[0] == "--channels.target" for word in overrides)
        channels["target"] = str((Path.cwd() if is_typed else folder) / channels["target"])
    if channels:
        MapChannels(**channels).target_of()
    typed = [*member_overrides, *(["--preprocessing.reference", "average"] * (made.reference == "average"))]
    members = {
        name: _member(name, Path(source.config), typed, options, made.sfreq, path)
        for name, source in sources.items()
        if source.config
    }
    return MixtureConfig(sources, made.sfreq, made.reference, channels, members)


def _check_shape(content: Any, path: Path) -> None:
    """Refuse what the parser would call by names that a user does not know, or take for a default."""
    empty = empty_keys(content)
    if empty:
        raise ConfigError(f"config {path}: key {empty[0]} is empty; give it a value, or leave out the key.")
    for key in ("sources", "channels"):
        if not isinstance(content.get(key, {}), dict):
            raise ConfigError(f"config {path}: {key}: found {content[key]}, expected 'key: value' lines below it.")
    for name, source in content["sources"].items():
        if not isinstance(source, dict) or not source:
            raise ConfigError(
                f"config {path}: source {name}: found {source}, expected {{config: CONFIG.yaml, weight: 1.0}} or "
                "{store: STORE, weight: 1.0}."
            )
    if not content["sources"]:
        raise ConfigError(f"config {path}: sources is empty; name a config or a store for each member.")


def _absolute(name: str, source: Source, folder: Path, path: Path) -> Source:
    """A source whose paths begin at the root."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"config {path}: source {name!r} names a folder; use letters, digits, dash, underscore.")
    if bool(source.config) == bool(source.store):
        raise ConfigError(f"config {path}: source {name} needs either config or store; give one of the two.")
    config = str(folder / source.config) if source.config else ""
    store = str(folder / source.store) if source.store else ""
    return Source(config, store, source.weight)


def _member(
    name: str, config: Path, overrides: Sequence[str], options: Sequence[str], sfreq: float, mixture: Path
) -> PrepareConfig:
    """Config of a member, which prepares it at the mixture's rate."""
    if is_mixture(config):
        raise ConfigError(f"source {name} of {mixture} is a mixture itself ({config}); name its sources in {mixture}.")
    made = read_config(config, overrides, options)
    if made.preprocessing.sfreq != sfreq:
        raise ConfigError(
            f"source {name} is prepared at {made.preprocessing.sfreq:g} Hz and the mixture has {sfreq:g} Hz; set "
            f"preprocessing.sfreq in {config} to {sfreq:g}, or sfreq in {mixture} to a rate that all members have."
        )
    return made
