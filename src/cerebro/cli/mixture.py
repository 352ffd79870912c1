"""``cerebro prepare MIXTURE.yaml``: make the member stores that are missing, then name them as one mixture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cerebro.cli.data_config import PrepareConfig
from cerebro.cli.mixture_config import OWN_KEYS, MixtureConfig, read_mixture_config
from cerebro.data.channels import AsPrepared, MapChannels
from cerebro.data.mixture import MIXTURE_FILE, Mixture, check_references, references_of, write_mixture
from cerebro.data.readers.apart import each_apart
from cerebro.data.readers.base import Entry, Reader
from cerebro.data.store import Store
from cerebro.data.windows import places_of
from cerebro.errors import ConfigError, DataError
from cerebro.files import lock_folder, remove_orphans
from cerebro.montage import Montage

Prepare = Callable[[list[str]], int]  # arguments of ``cerebro prepare`` -> exit code
_N_LOOKS = 20  # recordings of a member that are tried, until one opens


def prepare_mixture(
    path: Path, out: Path | None, own: Sequence[str], overrides: Sequence[str], options: Sequence[str], prepare: Prepare
) -> int:
    """Make what is missing of a mixture, and write ``mixture.json`` last.

    Parameters
    ----------
    path : Path
        Config of the mixture.
    out : Path, optional
        Folder of the mixture; each member that has a config is made in the folder of its name below. None with
        ``--plan``.
    own, overrides : sequence of str
        Arguments of ``cerebro prepare`` as they were typed: options, and keys of configs. Keys of the mixture
        (``--sfreq``, ``--reference``, ``--channels.*``) are its own; the others and the options but ``path`` and
        ``--out`` go on to each member.
    options : sequence of str
        Options that ``cerebro prepare`` has.
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
    ours, theirs = _divided(overrides)
    config = read_mixture_config(path, ours, theirs, options)
    others = [*_without_place(own, path), *theirs]
    if config.reference == "average":
        others += ["--preprocessing.reference", "average"]
    if any(word.split("=")[0] == "--json" for word in own):
        raise ConfigError("--json takes the plan of one store; give it the config of a member.")
    if "--plan" in own:
        return max([0, *(_prepare(name, config, others, prepare) for name in config.members)])
    if out is None:
        raise ConfigError("--out is missing; type --out STORE (a new folder), or --plan to see what would be built.")
    code = 0
    stores = {
        name: out / name if source.config else Path(source.store) for name, source in sorted(config.sources.items())
    }
    with lock_folder(out, "cerebro prepare"):
        remove_orphans(out)
        seen = {name: _of_store(name, stores[name]) for name in stores if name not in config.members}
        for name, member in config.members.items():  # a store that is there already may be made anew, another one
            if not (stores[name] / "manifest.json").is_file() and (look := _first_look(member)) is not None:
                seen[name] = look
        _check_together(seen, config, path)  # now, not after a night of building
        for name in config.members:
            code = max(code, _prepare(name, config, ["--out", str(out / name), *others], prepare))
            if not (stores[name] / "manifest.json").is_file():
                raise DataError(
                    f"member {name} has no store, because not one of its recordings could be prepared (see above); "
                    f"mend {config.sources[name].config}, or leave {name} out of sources."
                )
            seen[name] = _of_store(name, stores[name])
            _check_together(seen, config, path)
        weights = {name: source.weight for name, source in config.sources.items()}
        mixture = write_mixture(out, stores, weights, config.reference, config.channels)
        AsPrepared().plan(mixture)
    print(table(mixture))
    print(f"mixture {out} is ready: data hash {mixture.data_hash[:12]}")
    return code


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


@dataclass(frozen=True)
class _Seen:
    """What a member has, or will have as far as its first recording shows it."""

    sfreq: float
    references: tuple[str, ...]
    montages: tuple[Montage, ...]


def _of_store(name: str, path: Path) -> _Seen:
    if (path / MIXTURE_FILE).is_file():
        raise DataError(f"member {name} is a mixture itself ({path}); name its members in sources.")
    try:
        store = Store.open(path)
    except DataError as error:
        raise DataError(f"member {name}: {error}") from None
    return _Seen(store.sfreq, references_of(store), store.montages)


def _first_look(config: PrepareConfig) -> _Seen | None:
    """A member that is to be made, by the first of its recordings that opens; None if none of the first does."""
    position = dict(zip(config.reader.montage().channels, config.reader.montage().positions, strict=True))
    entries = {entry.path: entry for entry in config.reader.scan().entries[:_N_LOOKS]}
    looks = each_apart(partial(_channels_and_reference, config.reader, entries), list(entries))
    for found, _ in looks:
        if found is None:  # the build lists it
            continue
        looks.close()
        channels, reference = found
        reference = reference if config.preprocessing.reference == "as_is" else "average"
        montage = Montage(config.reader.montage().name, channels, np.array([position[name] for name in channels]))
        return _Seen(config.preprocessing.sfreq, (reference,), (montage,))
    return None


def _channels_and_reference(
    reader: Reader, entries: Mapping[Path, Entry], path: Path
) -> tuple[tuple[str, ...], str] | None:
    """What one recording has, in a process of its own; None if it cannot be read."""
    try:
        recording = reader.load(entries[path])
    except Exception:  # readers of other libraries raise anything
        return None
    return recording.channels, recording.reference


def _check_together(seen: Mapping[str, _Seen], config: MixtureConfig, path: Path) -> None:
    """Refuse members that cannot stand in one mixture."""
    for name, one in seen.items():
        if one.sfreq != config.sfreq:
            raise DataError(
                f"member {name} has {one.sfreq:g} Hz and the mixture {config.sfreq:g} Hz; prepare the member with "
                f"preprocessing.sfreq {config.sfreq:g}, or set sfreq in {path}."
            )
    check_references({name: one.references for name, one in seen.items()}, config.reference)
    for name, one in seen.items():
        if config.channels:
            try:
                MapChannels(**config.channels).plan_of(one.montages)
            except DataError as error:
                raise DataError(f"member {name}: {error}") from None
    if not config.channels:
        try:
            places_of([montage for one in seen.values() for montage in one.montages])
        except DataError as error:
            raise DataError(
                f"{error} in {' or '.join(seen)}; set channels in {path}, such as {{target: 10-20-19}}."
            ) from None


def _divided(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Typed keys of the mixture, and those of its members, each with its value."""
    ours: list[str] = []
    theirs: list[str] = []
    into = theirs
    for word in overrides:
        if word.startswith("--"):
            key = word.removeprefix("--").split("=")[0].split(".")[0]
            if key == "sources":
                raise ConfigError(
                    f"{word} cannot be typed; change sources in the config (in training, data.weights replaces their "
                    "weights)."
                )
            into = ours if key in OWN_KEYS else theirs
        into.append(word)
    return ours, theirs


def _without_place(own: Sequence[str], path: Path) -> list[str]:
    """Options that were typed, but the config and ``--out``."""
    left = list(own)
    left.remove(next(word for word in left if Path(word) == path))
    if "--out" in left:
        at = left.index("--out")
        del left[at : at + 2]
    return [word for word in left if not word.startswith("--out=")]


def _prepare(name: str, config: MixtureConfig, others: Sequence[str], prepare: Prepare) -> int:
    print(f"member {name}", flush=True)
    return prepare([config.sources[name].config, *others])
