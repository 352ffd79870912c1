"""Checkpoints: the only way weights move between phases, written whole or not at all, read without running code."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import CheckpointError
from cerebro.files import write_atomically
from cerebro.signal import SignalSpec
from cerebro.training.channel_rows import Rows
from cerebro.training.channel_tables import fit_channels, tables_below
from cerebro.training.foreign_file import ForeignFile, Request, in_their_names
from cerebro.training.parts import Counts, check_parts, count_parts

STAMP = "cerebro"  # key of the stamp in the checkpoint
SEEN_REMEDY = "choose another split in data.split, or add --allow_seen_participants true to score them all the same."
_PREPARE = "prepare a store like the one that it was trained on, or train this phase anew"
_HASH_START = "sha256:"
_HASHED = re.compile(rf"{_HASH_START}[0-9a-f]{{16}}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/")  # Path makes one slash of two


@dataclass(frozen=True)
class Transfer:
    """Take weights from a phase that has ended into one that has not begun.

    Parameters
    ----------
    source : Path
        A checkpoint of cerebro, or weights of LaBraM or Signal-JEPA from another program
        (docs/howto/official_weights.md, docs/howto/signal_jepa_weights.md).
    take : str
        Module of the source phase, such as ``encoder``; empty = the whole phase, encoder and objective.
    into : str
        Module of this phase that receives them, such as ``encoder`` or ``objective.tokenizer``.
    only : tuple of str
        Parts of the module to move, such as ``("feature_encoder",)``; empty = all of it, and of an encoder what
        ``model.transfer`` says.
    rows : {"by_name", "nearest", "initial", "interpolated"}
        Whose row of a table of channels a channel starts from. ``by_name``: that of its name only; a checkpoint of
        cerebro must have the channels of this store. ``nearest``, for published LaBraM: else that of the nearest
        electrode. ``interpolated``, for Signal-JEPA and checkpoints of cerebro: else a mean of the nearest rows.
        ``initial``, for the same: none, the table starts anew.
    """

    source: Path
    take: str = "encoder"
    into: str = "encoder"
    only: tuple[str, ...] = ()
    rows: Rows = "by_name"


@dataclass(frozen=True)
class Stamp:
    """What a checkpoint says of itself, in plain types.

    Parameters
    ----------
    phase, version, git_commit, data_hash, config_hash : str
        Name of the phase; the software, the data and the config that made it.
    config : dict
        The resolved config.
    signal : dict
        Fields of SignalSpec.
    participants : dict
        ``train`` and ``val`` participants of this phase, as ``corpus:id``.
    trained : list of str
        Every participant that any phase of the chain trained on, sorted.
    seen : list of str
        ``trained`` and every validation participant of the chain, sorted.
    recordings : dict
        ``trained`` and ``validated``: hashes of the sources (SHA-256, first 16 digits) of every recording of those
        people, whether or not a window was cut from it; a person under another name is known by them.
    inputs : dict
        Source checkpoint -> ``weights_sha256``, for each one this phase started from.
    weights_sha256 : str
        Of the state dict in the same file.
    """

    phase: str
    version: str
    git_commit: str
    data_hash: str
    config_hash: str
    config: dict[str, Any]
    signal: dict[str, Any]
    participants: dict[str, list[str]]
    trained: list[str]
    seen: list[str]
    recordings: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""

    def plain(self) -> dict[str, Any]:
        """The stamp as it stands in the file."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: its stamp, its weights, Lightning's own state; ``foreign`` if another program wrote it.

    Weights of a foreign file have our names and still their shapes, channels and time rows; see
    `cerebro.training.foreign.read_source`.
    """

    path: Path
    stamp: Stamp
    weights: dict[str, Tensor]
    content: dict[str, Any]
    foreign: ForeignFile | None = None


class AtomicCheckpoint(CheckpointIO):
    """Lightning's way to the disk: written beside the target, flushed, renamed; read as plain types only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write atomically; a full disk raises DataError and leaves the old checkpoint as it was."""
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Content of a file that holds tensors and plain values."""
        return load_plain(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running anything that it holds.

    Raises
    ------
    CheckpointError
        If it is absent, damaged, holds more than tensors and plain values, or is not cerebro's.
    """
    content = load_plain(path)
    try:
        stamp = Stamp(**content[STAMP])
        weights = content["state_dict"]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{path} carries no stamp of cerebro (phase, participants, data); give a best.ckpt or last.ckpt that "
            "`cerebro fit` wrote."
        ) from None
    return Checkpoint(path, stamp, weights, content)


def load_plain(path: Path, classes: Sequence[type] = ()) -> dict[str, Any]:
    """Tensors, plain values and instances of ``classes`` in a file of torch, a dictionary; nothing else is made.

    Raises
    ------
    CheckpointError
        In one line.
    """
    if _ADDRESS.match(str(path)):
        raise CheckpointError(
            f"checkpoint {path} not found: it is an address, and cerebro loads files only; download it and give the "
            "path."
        )
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} not found; train that phase first or give the path of a .ckpt file.")
    try:
        with _no_pickle_override(), torch.serialization.safe_globals(list(classes)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights" in str(error).lower() and "only" in str(error).lower():
            raise CheckpointError(
                f"checkpoint {path} holds more than tensors and plain values, which could run code; nothing was "
                "loaded; use a checkpoint that `cerebro fit` wrote."
            ) from None
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: {_first_line(error)}); it is damaged or no "
            "checkpoint; remove it and train that phase again."
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"checkpoint {path} holds a {type(content).__name__}, expected a dictionary; give a .ckpt file that "
            "`cerebro fit` wrote."
        )
    return content


@contextlib.contextmanager
def _no_pickle_override() -> Iterator[None]:
    """Keep an environment variable of torch from switching pickles on behind ``weights_only=True``."""
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else "no message"


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class TransferReport:
    """What one transfer did: tensors and numbers moved, source tensors left unused, by name and counted by part."""

    source: str
    phase: str
    take: str
    into: str
    weights_sha256: str
    n_numbers: int
    moved: dict[str, tuple[int, ...]]  # name in this phase -> shape
    unused: dict[str, tuple[int, ...]]  # name in the source -> shape
    notes: tuple[str, ...] = ()  # what was made to fit, of weights from another program
    components: Counts = field(
        default_factory=dict
    )  # part -> tensors moved, new (as they started), unused of the source

    def plain(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    def line(self) -> str:
        """One line for the user."""
        unused = f"; unused: {grouped(self.unused)}" if self.unused else ""
        return (
            f"hand-over from {self.source} (phase {self.phase}): {self.take or 'everything'} -> {self.into}, "
            f"{len(self.moved)} tensors with {self.n_numbers:,} numbers moved ({grouped(self.moved)}){unused}"
        )

    def part_lines(self) -> list[str]:
        """The parts of the module, a line each: tensors moved, new (as they started) and unused of the source."""
        width = max(map(len, self.components), default=0)
        digits = max((len(str(n)) for counts in self.components.values() for n in counts.values()), default=0)
        return [
            f"{part:<{width}}  " + "  ".join(f"{n:>{digits}} {what}" for what, n in counts.items())
            for part, counts in self.components.items()
        ]


def transfer_weights(phase: nn.Module, transfer: Transfer, source: Checkpoint) -> TransferReport:
    """Move weights from ``source`` into ``phase``: all that ``transfer`` names, or nothing.

    Raises
    ------
    CheckpointError
        If a module does not exist or a tensor is missing, left over or of another shape.
    """
    try:
        target = phase.get_submodule(transfer.into)
    except AttributeError:
        known = ", ".join(name for name, _ in phase.named_modules() if name and name.count(".") < 2)
        raise CheckpointError(
            f"this phase has no module {transfer.into!r} to receive weights; set model.init into: to one of {known}."
        ) from None
    prefix = f"{transfer.take}." if transfer.take else ""
    taken = {name.removeprefix(prefix): value for name, value in source.weights.items() if name.startswith(prefix)}
    wanted = target.state_dict()
    theirs, ours = list(taken), list(wanted)
    if transfer.only:
        taken = {name: value for name, value in taken.items() if _is_within(name, transfer.only)}
        wanted = {name: value for name, value in wanted.items() if _is_within(name, transfer.only)}
    what = f"{transfer.take or 'everything'} of phase {source.stamp.phase!r} -> {transfer.into}"
    if source.foreign is None:
        tables = tables_below(phase, transfer.into)
        fitted = fit_channels(tables, taken, wanted, table_signal(source), transfer.rows, source.path)
    else:
        signal = _signal_of(phase, target)
        asked = Request(taken, source.weights, source.foreign, source.path, target, signal, transfer.rows)
        fitted = source.foreign.family.fit(asked)
    taken = fitted.tensors
    wanted = {name: value for name, value in wanted.items() if name in taken or name not in fitted.initial}
    if not transfer.only and transfer.into:
        check_parts(taken, wanted, source.path, transfer.take == transfer.into == "encoder")
    if source.foreign is not None:
        both = [in_their_names(tensors, prefix, source.foreign) for tensors in (taken, wanted)]
        check_same_tensors(both[0], both[1], source.path, what)
    check_same_tensors(taken, wanted, source.path, what)
    target.load_state_dict(taken, strict=False)  # the same names and shapes, as just checked
    into = f"{transfer.into}." if transfer.into else ""
    return TransferReport(
        source=str(source.path),
        phase=source.stamp.phase,
        take=transfer.take,
        into=transfer.into,
        weights_sha256=source.stamp.weights_sha256,
        n_numbers=sum(value.numel() for value in taken.values()),
        moved={into + name: tuple(value.shape) for name, value in taken.items()},
        unused={
            name: tuple(value.shape)
            for name, value in source.weights.items()
            if not name.startswith(prefix) or name.removeprefix(prefix) not in taken
        }
        | ({} if source.foreign is None else source.foreign.without_place),
        notes=fitted.lines,
        components=count_parts(ours, theirs, taken),
    )


def table_signal(source: Checkpoint) -> Mapping[str, Any]:
    """Channels and positions that tables of a checkpoint are of; empty if they are of an adapter's target montage."""
    return {} if any(name.startswith("encoder.adapter.") for name in source.weights) else source.stamp.signal


def _signal_of(phase: nn.Module, target: nn.Module) -> SignalSpec:
    """Channels and rate of the encoder that receives weights, or of the phase's encoder if only a head does."""
    modules = [*target.modules(), *phase.get_submodule("encoder").modules()]
    return next(module.signal for module in modules if isinstance(module, Encoder))


def check_same_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise CheckpointError, naming the first tensors, unless both have the same names and shapes."""
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    reshaped = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    faults = []
    if reshaped:
        name = reshaped[0]
        faults.append(
            f"{len(reshaped)} tensors of another shape (first: {name} is {tuple(found[name].shape)}, expected "
            f"{tuple(wanted[name].shape)})"
        )
    if missing:
        faults.append(f"{len(missing)} missing (first: {missing[0]})")
    if left_over:
        faults.append(f"{len(left_over)} left over (first: {left_over[0]})")
    if not found:
        faults = ["it holds nothing by that name"]
    if faults:
        raise CheckpointError(
            f"{path} does not fit ({what}): {'; '.join(faults)}; nothing was loaded; give this phase the same encoder "
            "config as the source, or name the parts to move in model.init (take, into, only)."
        )


def check_same_signal(source: Checkpoint, signal: SignalSpec) -> None:
    """Raise CheckpointError unless a checkpoint was trained on these electrodes at this rate.

    Tensors of equal shape can mean other electrodes: row i of a channel embedding belongs to channel i of its signal.
    """
    check_same_channels(source, signal)
    check_same_rate(source, signal)


def check_same_channels(source: Checkpoint, signal: SignalSpec) -> None:
    """Raise CheckpointError, naming the first channels that differ, unless a checkpoint was trained on these."""
    found, wanted = source.stamp.signal.get("channels", signal.channels), list(signal.channels)
    found = [str(name) for name in found]
    if found == wanted:
        return
    first = next((pair for pair in zip(found, wanted, strict=False) if pair[0] != pair[1]), ("none", "none"))
    raise CheckpointError(
        f"{source.path} was trained on other channels: {len(found)} there, {len(wanted)} in this store (first "
        f"difference: {first[0]} there, {first[1]} here); nothing was loaded; {_PREPARE}."
    )


def check_same_rate(source: Checkpoint, signal: SignalSpec) -> None:
    """Raise CheckpointError unless a checkpoint was trained at this rate, where it knows its own."""
    if (sfreq := source.stamp.signal.get("sfreq", signal.sfreq)) != signal.sfreq:
        raise CheckpointError(
            f"{source.path} was trained at {sfreq:g} Hz and this store has {signal.sfreq:g} Hz; nothing was loaded; "
            f"{_PREPARE}."
        )


def _is_within(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def grouped(tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Tensors counted by the first two parts of their names."""
    counts: dict[str, int] = {}
    for name in tensors:
        group = ".".join(name.split(".")[:2])
        counts[group] = counts.get(group, 0) + 1
    shown = [f"{group} {n}" for group, n in list(counts.items())[:6]]
    return ", ".join(shown) + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")


def new_tensors(phase: nn.Module, reports: Iterable[TransferReport]) -> dict[str, tuple[int, ...]]:
    """Tensors of the phase that no transfer filled: they start from their random initialisation."""
    moved = {name for report in reports for name in report.moved}
    return {name: tuple(value.shape) for name, value in phase.state_dict().items() if name not in moved}


def describe_new(phase: nn.Module, reports: Iterable[TransferReport]) -> str:
    """One line on what starts from random initialisation."""
    new = new_tensors(phase, reports)
    return f"new in this phase: {len(new)} tensors ({grouped(new)})" if new else "new in this phase: nothing"


def refuse_seen(participants: Iterable[str], seen: Iterable[str], what: str, source: Path) -> None:
    """Raise CheckpointError if an evaluation would score participants that went into the weights."""
    line = describe_seen(participants, seen, what, source)
    if line:
        raise CheckpointError(f"{line}; {SEEN_REMEDY}")


def hashed(person: str) -> str:
    """What a packaged model names ``corpus:id`` by: ``sha256:`` and 16 digits; of what is that already, itself."""
    if _HASHED.fullmatch(person):
        return person
    return f"{_HASH_START}{hashlib.sha256(person.encode()).hexdigest()[:16]}"


def describe_seen(participants: Iterable[str], seen: Iterable[str], what: str, source: Path) -> str:
    """How many participants went into the weights, and the first of them; empty if none did."""
    known = set(seen)
    both = sorted(person for person in set(participants) if person in known or hashed(person) in known)
    if not both:
        return ""
    return f"{len(both)} {what} participants were seen while {source} was trained (first: {', '.join(both[:3])})"
