"""Parts of a module, such as an encoder's convolutions and its transformer: counted by part, compared by part."""

from collections.abc import Collection, Iterable
from pathlib import Path

from cerebro.errors import CheckpointError

Counts = dict[str, dict[str, int]]
"""Part -> tensors by what became of them."""


def part_of(name: str) -> str:
    """First word of a tensor's name: a direct child of the module, or a tensor of its own."""
    return name.partition(".")[0]


def counted(names: Iterable[str]) -> dict[str, int]:
    """Tensors by part, in the order in which parts occur."""
    counts: dict[str, int] = {}
    for name in names:
        counts[part_of(name)] = counts.get(part_of(name), 0) + 1
    return counts


def count_parts(target: Collection[str], source: Collection[str], moved: Collection[str]) -> Counts:
    """What a hand-over did to every part that either side has; empty where a module has no parts, as a linear layer.

    Parameters
    ----------
    target, source, moved : collection of str
        Names of tensors relative to the module: of the receiver, of what was offered, of what moved.
    """
    if not any("." in name for name in (*target, *source)):
        return {}
    came = counted(name for name in target if name in moved)
    new = counted(name for name in target if name not in moved)
    unused = counted(name for name in source if name not in moved)
    return {
        part: {"moved": came.get(part, 0), "new": new.get(part, 0), "unused": unused.get(part, 0)}
        for part in counted((*target, *source))
    }


def check_parts(found: Collection[str], wanted: Collection[str], path: Path, is_encoder: bool) -> None:
    """Raise CheckpointError where one side has whole parts that the other lacks and all else is alike.

    Parameters
    ----------
    found, wanted : collection of str
        Names of tensors relative to the module, in the file and in this phase.
    path : Path
        The file, for the message.
    is_encoder : bool
        Whether it is the encoder, which ``model.transfer`` speaks of.
    """
    theirs, ours = counted(found), counted(wanted)
    common = [part for part in theirs if part in ours]
    alike = {name for name in found if part_of(name) in common} == {name for name in wanted if part_of(name) in common}
    if not common or not alike or not (theirs.keys() < ours.keys() or ours.keys() < theirs.keys()):
        return
    there = {part: n for part, n in theirs.items() if part not in ours}
    here = {part: n for part, n in ours.items() if part not in theirs}
    told = f"parts that this phase has not ({written(there)} tensors)" if there else f"no {written(here)} tensors"
    entry = f"write only: [{', '.join(common)}] into this entry of model.init"
    remedy = f"set model.transfer: {common[0]}" if is_encoder and len(common) == 1 else entry
    raise CheckpointError(
        f"{path} has {told}; nothing was loaded; {remedy} to take what both have, or give this phase the same encoder "
        "config as the source."
    )


def written(counts: dict[str, int]) -> str:
    """``pos_encoder 1, transformer 98``."""
    return ", ".join(f"{part} {n}" for part, n in counts.items())
