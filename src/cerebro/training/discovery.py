"""From a pretraining config alone to its checkpoint, and from a primary data set to its store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cerebro.errors import CheckpointError, ConfigError, DataError
from cerebro.training.checkpoint import Checkpoint, read_checkpoint
from cerebro.training.keep import named_checkpoint
from cerebro.training.naming import configuration_name, with_defaults

N_LISTED = 8
SAID_OF_A_CONFIGURATION = ("d_model", "n_layers", "depth", "mask_ratio", "masking_style")
PREPARED_BY = (
    "`cerebro process-primary --config configs/processing.yaml` makes it of raw recordings, `cerebro prepare "
    "configs/data/parquet_windows.yaml --out {store}` of windows in Parquet files"
)


@dataclass(frozen=True)
class Pretraining:
    """A pretraining as its config tells it, whether or not it has run.

    Parameters
    ----------
    path : Path
        The config.
    model : dict
        ``model`` of the resolved config.
    split : dict or None
        ``data.split`` of it.
    out : Path
        Folder of the run.
    run_name : str
        Name of the run; empty = that of the phase.
    data_path : str
        Store that it is to train on, where its config names another; empty = that of its config.
    """

    path: Path
    model: Mapping[str, Any]
    split: Mapping[str, Any] | None
    out: Path
    run_name: str
    data_path: str = ""

    @property
    def name(self) -> str:
        """Name of the configuration, such as ``mamba2_eeg_d128_l6_m20_mae``."""
        return configuration_name(self.model)

    @property
    def candidates(self) -> tuple[Path, ...]:
        """Where the best checkpoint may lie, the first one that is there counts."""
        named = [self.out / named_checkpoint(self.run_name, "best.ckpt")] if self.run_name else []
        return (*named, self.out / "best.ckpt")

    @property
    def command(self) -> str:
        """What trains it."""
        return f"cerebro fit --config {self.path}" + (f" --data-path {self.data_path}" if self.data_path else "")


def find_checkpoint(pretraining: Pretraining, allowed: Sequence[str]) -> Checkpoint:
    """The checkpoint of a pretraining.

    Parameters
    ----------
    pretraining : Pretraining
        Whose.
    allowed : sequence of str
        Packages whose classes may be looked at: a checkpoint's config may name anything.

    Raises
    ------
    CheckpointError
        If it is not there, with what was looked for, what is there, and what makes it; or if what lies there is of
        another configuration.
    """
    path = next((path for path in pretraining.candidates if path.is_file()), None)
    if path is None:
        looked = " and ".join(map(str, pretraining.candidates))
        raise CheckpointError(
            f"no checkpoint of the pretraining {pretraining.path} ({_described(pretraining.model)}): looked for "
            f"{looked}; {_there(pretraining)}; train it with `{pretraining.command}`, or give the config of another "
            "pretraining (--pretrain-config)."
        )
    found = read_checkpoint(path)
    theirs = found.stamp.config.get("model") or {}
    if found.stamp.phase != pretraining.model["name"]:
        raise CheckpointError(
            f"{path} is of phase {found.stamp.phase!r}, and the pretraining {pretraining.path} is "
            f"{pretraining.model['name']!r}; train it with `{pretraining.command}` in a folder of its own (--out)."
        )
    if not _is_allowed(theirs, allowed):
        raise CheckpointError(
            f"{path} is of classes outside {', '.join(allowed)}; give a checkpoint that `{pretraining.command}` wrote."
        )
    for part in ("encoder", "objective"):
        if difference := first_difference(pretraining.model[part], theirs.get(part), f"model.{part}"):
            key, ours, other = difference
            raise CheckpointError(
                f"{path} was trained with {key} {other}, and its config {pretraining.path} says {ours} now; set it "
                f"back, or train it anew with `{pretraining.command} --overwrite true`."
            )
    return found


def check_same_encoder(model: Mapping[str, Any], pretraining: Pretraining) -> None:
    """Refuse an encoder that differs from that of the pretraining in its class or in any argument.

    Raises
    ------
    ConfigError
        In one line.
    """
    if difference := first_difference(model["encoder"], pretraining.model["encoder"], "model.encoder"):
        key, ours, theirs = difference
        raise ConfigError(
            f"{key} is {ours} here and {theirs} in the pretraining {pretraining.path}, so that its weights do not fit; "
            f"type --{key} {theirs}, or give the config of the pretraining of this encoder (--pretrain-config)."
        )


def first_difference(ours: Any, theirs: Any, key: str) -> tuple[str, Any, Any] | None:
    """First key at which two parts of resolved configs differ, and both values; defaults count as written out."""
    ours, theirs = with_defaults(ours), with_defaults(theirs)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in dict.fromkeys([*ours, *theirs]):
            if found := first_difference(ours.get(name), theirs.get(name), f"{key}.{name}"):
                return found
        return None
    return None if ours == theirs else (key, ours, theirs)


def pretrained_name(model: Mapping[str, Any], source: Checkpoint | None, allowed: Sequence[str]) -> str:
    """Name of the configuration that an encoder's weights come from; ``<encoder>_random`` where none come.

    Parameters
    ----------
    model : mapping
        ``model`` of the resolved config that receives them.
    source : Checkpoint or None
        What hands them over.
    allowed : sequence of str
        Packages whose classes may be looked at: a checkpoint's config may name anything.
    """
    if source is None:
        return f"{configuration_name({'encoder': model['encoder']})}_random"
    theirs = source.stamp.config.get("model")
    if source.foreign is not None:
        return source.path.stem
    if isinstance(theirs, Mapping) and {"encoder", "objective"} <= set(theirs) and _is_allowed(theirs, allowed):
        return configuration_name(theirs)
    return source.path.parent.name


def _is_allowed(model: Mapping[str, Any], allowed: Sequence[str]) -> bool:
    packages = tuple(f"{package}." for package in allowed)
    return all(path.startswith(packages) for path in _class_paths(model))


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield str(value["class_path"])
        for entry in value.values():
            yield from _class_paths(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _class_paths(entry)


def _described(model: Mapping[str, Any]) -> str:
    """``d_model 128, n_layers 6, mask_ratio 0.2, masking_style mae``; the name where a model has none of these."""
    given = {**with_defaults(model["encoder"])["init_args"], **with_defaults(model["objective"])["init_args"]}
    said = [f"{key} {given[key]}" for key in SAID_OF_A_CONFIGURATION if key in given]
    return ", ".join(said) or configuration_name(model)


def _there(pretraining: Pretraining) -> str:
    """Which other configurations of the same phase are there, by the names of their folders."""
    names = []
    for path in sorted(pretraining.out.parent.glob("*/best.ckpt")):
        config = path.with_name("config.yaml")
        content = yaml.safe_load(config.read_text()) if config.is_file() else {}
        if isinstance(content, dict) and (content.get("model") or {}).get("name") == pretraining.model["name"]:
            names.append(path.parent.name)
    if not names:
        return f"{pretraining.out.parent} holds no other"
    more = f" and {len(names) - N_LISTED} others" if len(names) > N_LISTED else ""
    return f"{pretraining.out.parent} holds {', '.join(names[:N_LISTED])}{more}"


def store_of(path: Path, default: Path = Path("stores/primary")) -> Path:
    """Store of a data set: ``path`` itself if it is a folder; of a primary file the store that was made of it.

    Looked for beside the file, in a folder of its name, and at ``default``, where `cerebro process-primary` makes it.

    Raises
    ------
    DataError
        If there is nothing, or the store is of other windows; with the command that makes it.
    """
    if path.is_dir():
        return path
    if path.suffix != ".parquet":
        raise DataError(
            f"data {path} not found, neither a store nor a primary data set: {PREPARED_BY.format(store=path)}."
        )
    if not path.is_file():
        raise DataError(f"primary data set {path} not found: {PREPARED_BY.format(store=default)}.")
    beside = path.with_suffix("")
    store = next((one for one in (beside, default) if (one / "manifest.json").is_file()), None)
    if store is None:
        raise DataError(
            f"there is no store of the primary data set {path} (looked for {beside} and {default}): "
            f"{PREPARED_BY.format(store=default)}; then give that store (--data-path)."
        )
    if difference := _other_windows(path, store):
        raise DataError(
            f"store {store} is not of the primary data set {path} ({difference}): {PREPARED_BY.format(store=default)}; "
            "then give that store (--data-path)."
        )
    return store


def _other_windows(file: Path, store: Path) -> str:
    """In what a store differs from a file of windows, as their sizes tell; empty if they agree."""
    import pyarrow.parquet as pq  # late: few runs name a file

    from cerebro.data.store import Store

    footer = pq.ParquetFile(file)
    n_file, n_store = footer.metadata.num_rows, pq.ParquetFile(store / "segments.parquet").metadata.num_rows
    if n_file != n_store:
        return f"{n_store:,} windows there, {n_file:,} in the file"
    columns = {name.upper() for name in footer.schema_arrow.names}
    absent = {name.upper() for montage in Store.open(store).montages for name in montage.channels} - columns
    return f"the file has no channel {', '.join(sorted(absent)[:5])}" if absent else ""
