"""Weights of a phase in a format of another program."""

from typing import Literal, get_args

from cerebro.errors import CheckpointError, check_one_of
from cerebro.training.checkpoint import Checkpoint
from cerebro.training.exported import Exported
from cerebro.training.labram import export as labram
from cerebro.training.mamba_ssm import export as mamba_ssm
from cerebro.training.signal_jepa import export as signal_jepa

ExportFormat = Literal["labram", "vqnsp", "braindecode", "mamba_ssm"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)


def export_weights(source: Checkpoint, form: str) -> Exported:
    """Bring the weights of a phase into a format of another program; tensors that both have are equal to the bit.

    Raises
    ------
    CheckpointError
        In one line: the phase has no place in the format.
    ConfigError
        If the format is unknown.
    """
    check_one_of("format", form, EXPORT_FORMATS)
    if source.foreign is not None:
        raise CheckpointError(f"{source.path} is in a format of another program already; give a best.ckpt of cerebro.")
    if form == "mamba_ssm":
        return mamba_ssm.export_weights(source)
    if form == "braindecode" and signal_jepa.is_signal_jepa(source):
        return signal_jepa.export_weights(source)
    return labram.export_weights(source, form)
