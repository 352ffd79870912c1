"""Who and what a checkpoint has seen, and the refusal to judge it by them."""

from collections.abc import Callable
from typing import Literal

from cerebro.errors import CheckpointError
from cerebro.training.checkpoint import SEEN_REMEDY, Checkpoint, Stamp, describe_seen
from cerebro.training.stamp import PhaseData


def check_unseen(
    stage: Literal["val", "test"], data: PhaseData, source: Checkpoint, is_allowed: bool, say: Callable[[str], None]
) -> None:
    """Refuse to judge a model by people or recordings that it has seen, or say loudly that it is judged so.

    Validation minds those that were trained on, a test those that were validated on as well. A person who has another
    name in this store is known by any recording of the same bytes.

    Parameters
    ----------
    stage : {"val", "test"}
        Side that is scored.
    data : PhaseData
        What is scored.
    source : Checkpoint
        The model, or one that it started from.
    is_allowed : bool
        ``allow_seen_participants``.
    say : callable
        Takes a line for the user.

    Raises
    ------
    CheckpointError
        If somebody was seen and that is not allowed.
    """
    what = {"val": "validation", "test": "test"}[stage]
    seen = source.stamp.trained if stage == "val" else source.stamp.seen
    line = describe_seen(data.participants(stage), seen, what, source.path) or _same_recordings(
        data.recordings(stage), recordings_seen(source.stamp, stage), what, source
    )
    if line and not is_allowed:
        raise CheckpointError(f"{line}; {SEEN_REMEDY}")
    if line:
        say(f"WARNING: {line}; scored all the same, as you asked: this does not say how it does on new people")


def recordings_seen(stamp: Stamp, stage: Literal["val", "test"]) -> set[str]:
    """Hashes of the recordings that must not be in a stage."""
    sides = ("trained",) if stage == "val" else ("trained", "validated")
    return {digest for side in sides for digest in stamp.recordings.get(side, [])}


def _same_recordings(recordings: dict[str, str], seen: set[str], what: str, source: Checkpoint) -> str:
    both = sorted(name for digest, name in recordings.items() if digest in seen)
    if not both:
        return ""
    return (
        f"{len(both)} recordings of {what} participants have the same bytes as some seen while {source.path} was "
        f"trained, under other names (first: {', '.join(both[:3])})"
    )
