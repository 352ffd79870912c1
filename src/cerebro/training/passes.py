"""Passes over the training windows before training, on the device where it will run."""

from collections.abc import Iterator

import torch

from cerebro.progress import progress
from cerebro.signal import EEGBatch
from cerebro.training.keep import Positioned
from cerebro.training.stamp import PhaseData


class StartBatches:
    """Training batches of epoch 0 in microvolts, from the first at every iteration."""

    def __init__(self, loader: Positioned, device: torch.device, what: str = "labels and codes") -> None:
        self.loader, self.device, self.what = loader, device, what

    def __iter__(self) -> Iterator[EEGBatch]:
        self.loader.seek(0, 0)
        for raw in progress(self.loader, self.what, "batch", stays=False):
            yield raw.to(self.device).to_microvolts()


class OncePerWindow:
    """Every training window once, in microvolts; the loader is made when it is asked for."""

    def __init__(self, data: PhaseData, device: torch.device) -> None:
        self.data, self.device = data, device

    def __iter__(self) -> Iterator[EEGBatch]:
        for raw in progress(self.data.evaluation_loader("train"), "codes", "batch", stays=False):
            yield raw.to(self.device).to_microvolts()
