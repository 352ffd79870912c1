"""Which weights of an encoder depend on its channels, and how they move to other channels between phases of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import CheckpointError
from cerebro.signal import SignalSpec
from cerebro.training.channel_rows import Rows, interpolated_rows
from cerebro.training.electrodes import Electrodes, same_names, some
from cerebro.training.foreign_file import Fitted


@dataclass(frozen=True)
class ChannelTables:
    """Tensors with a row per channel below a module, and the channels of their encoder.

    Parameters
    ----------
    rows_before : mapping of str to int
        Name relative to the module -> rows that stand before the first channel's.
    signal : SignalSpec
        What the encoder was built for.
    """

    rows_before: Mapping[str, int]
    signal: SignalSpec

    def moving(self, taken: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
        """Tables that a hand-over moves."""
        return [name for name in self.rows_before if name in taken and name in wanted]


def tables_below(phase: nn.Module, into: str) -> ChannelTables | None:
    """Tables of the module ``into``; None where no module around it says by ``channel_tables`` which it has."""
    words = into.split(".")
    for n in range(len(words), 0, -1):
        module = phase.get_submodule(".".join(words[:n]))
        tables: Mapping[str, int] | None = getattr(module, "channel_tables", None)
        if tables is not None:
            encoder = module if isinstance(module, Encoder) else phase.get_submodule("encoder")
            assert isinstance(encoder, Encoder)
            below = "".join(f"{word}." for word in words[n:])
            inside = {name.removeprefix(below): before for name, before in tables.items() if name.startswith(below)}
            return ChannelTables(inside, encoder.signal)
    return None


def fit_channels(
    tables: ChannelTables | None,
    taken: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    stamp_signal: Mapping[str, Any],
    rows: Rows,
    path: Path,
) -> Fitted:
    """Bring what moves out of a checkpoint of ours to the channels of this encoder.

    Parameters
    ----------
    tables : ChannelTables, optional
        Of the receiver.
    taken, wanted : mapping of str to Tensor
        What is to move and what the receiver has, by names relative to it.
    stamp_signal : mapping
        Channels and positions that the checkpoint was trained on; may be empty.
    rows : {"by_name", "nearest", "initial", "interpolated"}
        See `cerebro.training.checkpoint.Transfer`.
    path : Path
        The checkpoint, for messages.

    Raises
    ------
    CheckpointError
        In one line: other channels under ``by_name``, a rule that has no use, or channels to which no rule leads.
    """
    if rows == "nearest" or (rows != "by_name" and tables is None):
        instead = ", or write rows: interpolated or initial" if tables is not None else ""
        raise CheckpointError(
            f"{path} is a checkpoint of cerebro, for which this rule has no meaning here; take rows: {rows} out of "
            f"this entry of model.init{instead}."
        )
    if tables is None:
        return Fitted(dict(taken), ())
    signal, moving = tables.signal, tables.moving(taken, wanted)
    channels = tuple(str(name) for name in stamp_signal.get("channels", signal.channels))
    lines = []
    if not moving:
        if channels != signal.channels:
            lines.append(
                f"other channels: {len(channels)} there, {len(signal.channels)} here; nothing that moves depends on "
                "them"
            )
        if rows != "by_name":
            lines.append(f"rows: {rows} has no use here: no table of channels moves")
        return Fitted(dict(taken), tuple(lines))
    if rows == "by_name":
        if channels != signal.channels:
            raise _other_channels(channels, signal, path)
        return Fitted(dict(taken), ())
    fitted, initial = dict(taken), []
    for name in moving:
        before, table = tables.rows_before[name], taken[name]
        if rows == "initial":
            lines.append("channel rows: all start anew, as rows: initial says")
            if before:
                fitted[name] = wanted[name].clone()
                fitted[name][:before] = table[:before]
            else:
                del fitted[name]
                initial.append(name)
            continue
        if not stamp_signal or len(table) - before != len(channels):
            raise CheckpointError(
                f"{path} does not say of which channels the {len(table) - before} rows of {name} are, so none can be "
                "interpolated; nothing was loaded; write rows: initial into this entry of model.init."
            )
        fitted[name] = wanted[name].new_empty((before + len(signal.channels), *table.shape[1:]))
        fitted[name][:before] = table[:before]
        fitted[name][before:], told = interpolated_rows(
            table[before:], Electrodes.of(stamp_signal), Electrodes.of(signal), path
        )
        lines += told
    return Fitted(fitted, tuple(lines), tuple(initial))


def _other_channels(theirs: tuple[str, ...], signal: SignalSpec, path: Path) -> CheckpointError:
    ours = signal.channels
    first = next((pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), ("none", "none"))
    lost = [name for name, row in zip(ours, same_names(ours, theirs), strict=True) if row is None]
    told = f"without a row there: {some(lost)}" if lost else "all of these have a row there"
    return CheckpointError(
        f"{path} was trained on other channels: {len(theirs)} there, {len(ours)} here (first difference: "
        f"{first[0]} there, {first[1]} here; {told}); nothing was loaded; write model.init: [{{source: {path}, rows: "
        "interpolated}] for rows by name or between the nearest channels, rows: initial for a table that starts anew, "
        "or train this phase anew."
    )
