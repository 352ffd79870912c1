"""Hand-overs of a phase: which are asked for, what each part of the encoder got, and what is frozen as it started."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from cerebro.readouts.base import Readout
from cerebro.signal import SignalSpec
from cerebro.training.channel_tables import tables_below
from cerebro.training.checkpoint import (
    Checkpoint,
    Transfer,
    TransferReport,
    check_same_channels,
    check_same_rate,
    describe_new,
    new_tensors,
    table_signal,
    transfer_weights,
)
from cerebro.training.parts import counted, written
from cerebro.training.phase import Phase


def asked_transfers(phase: Phase, ckpt_path: Path | None, say: Callable[[str], None]) -> list[Transfer]:
    """Hand-overs of a phase that begins: those of ``model.init`` and that of ``--ckpt_path``, as ``transfer`` has it.

    ``transfer: none`` drops those from encoder to encoder, with a line for each; a part moves alone. An entry with
    ``only`` has said it itself.

    Parameters
    ----------
    phase : Phase
        The phase that begins.
    ckpt_path : Path, optional
        Checkpoint of another phase.
    say : callable
        Takes a line for the user.
    """
    asked = []
    for transfer in (*phase.init, *([] if ckpt_path is None else [Transfer(ckpt_path)])):
        if not (transfer.take == transfer.into == "encoder") or transfer.only or phase.transfer == "all":
            asked.append(transfer)
        elif phase.transfer == "none":
            say(f"transfer: none: {transfer.source} is not used, and the encoder does not start from it")
        else:
            asked.append(replace(transfer, only=(phase.transfer,)))
    return asked


def check_source(phase: Phase, transfer: Transfer, source: Checkpoint, signal: SignalSpec) -> None:
    """Refuse a source at another rate, or of other channels where nobody says which weights depend on them.

    Where the receiving encoder says so, and for files of other programs, `transfer_weights` minds the channels. An
    adapted encoder takes over one that was trained on its target montage.

    Raises
    ------
    CheckpointError
        In one line.
    """
    check_same_rate(source, signal)
    if source.foreign is not None:
        return
    if tables_below(phase, transfer.into) is not None and table_signal(source):
        return
    target = phase.encoder.signal
    is_of_target = tuple(source.stamp.signal.get("channels", ())) == target.channels
    check_same_channels(source, target if is_of_target else signal)


def hand_over(
    phase: Phase, transfers: list[Transfer], sources: Mapping[str, Checkpoint], say: Callable[[str], None]
) -> list[TransferReport]:
    """Move the weights, and say of every part of a module what came, what starts anew and what was left."""
    reports = _recounted([transfer_weights(phase, transfer, sources[str(transfer.source)]) for transfer in transfers])
    for report in reports:
        say(report.line())
        for line in (*report.part_lines(), *report.notes):
            say(f"  {line}")
    if reports:
        say(describe_new(phase, reports))
    return reports


def _recounted(reports: list[TransferReport]) -> list[TransferReport]:
    """Reports in which a tensor that another hand-over filled is no longer new."""
    filled = {name for report in reports for name in report.moved}
    result = []
    for report in reports:
        into = f"{report.into}." if report.into else ""
        others = counted(
            name.removeprefix(into) for name in filled if name.startswith(into) and name not in report.moved
        )
        parts = {
            part: counts | {"new": counts["new"] - others.get(part, 0)} for part, counts in report.components.items()
        }
        result.append(replace(report, components=parts))
    return result


def leave_as_handed_over(phase: Phase, reports: Iterable[TransferReport], say: Callable[[str], None]) -> None:
    """Let heads that a hand-over filled look at no tokens before they learn: what they saw came with their weights."""
    moved = [name for report in reports for name in report.moved]
    for name, module in phase.named_modules():
        if isinstance(module, Readout) and module.starts_from_tokens and any(m.startswith(f"{name}.") for m in moved):
            module.starts_from_tokens = False
            say(f"{name} starts as it was handed over, and looks at no tokens of these data before it learns")


def warn_frozen(phase: Phase, reports: Iterable[TransferReport], say: Callable[[str], None]) -> None:
    """Warn of every part of a frozen encoder that no hand-over filled."""
    if not phase.freeze_encoder and not phase.freeze_encoder_epochs:
        return
    new = [name.removeprefix("encoder.") for name in new_tensors(phase, reports) if name.startswith("encoder.")]
    if new:
        say(f"warning: frozen at random weights: {written(counted(new))} tensors; no hand-over fills them (model.init)")
