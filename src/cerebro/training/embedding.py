"""One vector per window from a frozen encoder: the mean of its tokens over real channels and samples.

Windows of one recording or person are pooled to the mean of their vectors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.errors import DataError
from cerebro.nn.pooling import mean_over_valid
from cerebro.progress import progress
from cerebro.signal import RawBatch

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Embedded:
    """Windows as a linear probe takes them.

    Parameters
    ----------
    feature : float32 (N, D)
        Mean token of each window.
    sample, recording, participant : int64 (N,)
        Numbers, as in ``EEGBatch``.
    targets : dict of array (N,)
        Labels that the batches carried; NaN where missing.
    """

    feature: npt.NDArray[np.float32]
    sample: Ints
    recording: Ints
    participant: Ints
    targets: dict[str, Array]

    def __len__(self) -> int:
        return len(self.sample)


def embed(encoder: Encoder, batches: Iterable[RawBatch], precision: str, what: str) -> Embedded:
    """Pass over ``batches`` once, in evaluation mode and without gradients; the mode of every module is restored.

    A bar called ``what`` shows how far it is, and goes away at the end.

    Raises
    ------
    DataError
        If there is no window, or an embedding is not finite.
    """
    modes = {module: module.training for module in encoder.modules()}
    device = next(encoder.parameters()).device
    collected: dict[str, list[Tensor]] = {}
    labels: dict[str, list[Tensor]] = {}
    encoder.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            for raw in progress(batches, what, "batch", stays=False):
                batch = raw.to(device, non_blocking=True).to_microvolts()
                found = {"sample": batch.sample, "recording": batch.recording, "participant": batch.participant}
                found["feature"] = mean_over_valid(encoder(batch).float(), encoder.valid(batch))
                for name, value in found.items():
                    collected.setdefault(name, []).append(value)
                for name, value in batch.targets.items():
                    labels.setdefault(name, []).append(torch.where(batch.known[name], value, torch.nan))
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not collected:
        raise DataError(f"there is no window to {what}; choose another data.split or data.windows.")
    arrays = {name: torch.cat(values).cpu().numpy() for name, values in collected.items()}
    n_bad = int((~np.isfinite(arrays["feature"])).any(axis=1).sum())
    if n_bad:
        raise DataError(
            f"embeddings of {n_bad:,} of {len(arrays['feature']):,} windows are not finite; the encoder's weights have "
            "diverged: take an earlier checkpoint, or lower model.optim.lr."
        )
    targets = {name: torch.cat(values).cpu().numpy().astype(np.float64) for name, values in labels.items()}
    return Embedded(
        arrays["feature"], arrays["sample"], arrays["recording"], arrays["participant"].astype(np.int64), targets
    )


def pooled(side: Embedded, by: Literal["recording", "participant"]) -> Embedded:
    """A row per recording, or per participant: the mean over their windows, all of equal weight.

    A feature that is NaN is no value, and is left out of the mean; where all are NaN it stays so. A recording keeps the
    number of its first window as ``sample``, and the label that its windows have; a participant has neither.

    Parameters
    ----------
    side : Embedded
        Windows, such as the sequences of the channels of a recording.
    by : {"recording", "participant"}
        Whose windows become one row.

    Raises
    ------
    DataError
        If windows of one recording have different labels.
    """
    groups, first, number = np.unique(getattr(side, by), return_index=True, return_inverse=True)
    known = np.isfinite(side.feature)
    total = np.zeros((len(groups), side.feature.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, number, np.where(known, side.feature, 0.0))
    np.add.at(count, number, known)
    with np.errstate(invalid="ignore"):
        mean = (total / count).astype(np.float32)
    nothing = np.full(len(groups), -1)
    if by == "participant":
        return Embedded(mean, nothing, nothing, groups, {})
    labels = {name: _shared(values, number, groups, name) for name, values in side.targets.items()}
    return Embedded(mean, side.sample[first], groups, side.participant[first], labels)


def _shared(values: Array, number: Ints, recordings: Ints, name: str) -> Array:
    """The label (R,) that the windows of each recording have; NaN where none has any."""
    label = np.full(len(recordings), np.nan)
    known = np.isfinite(values)
    label[number[known]] = values[known]
    differs = known & (values != label[number])
    if differs.any():
        raise DataError(
            f"windows of recording {recordings[number[differs]][0]} have different labels {name!r}, so that the "
            "recording has none; probe it by window (--by window)."
        )
    return label
