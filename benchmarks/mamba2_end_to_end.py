"""One step of masked window pretraining with all that belongs to it, beside the same model in the usual parts.

64 sequences of 124 windows of 2,048 samples, Mamba-2 of 6 layers and width 128, 20 % of the windows masked; a step is
reading the batch, loss, gradient, clipping and AdamW. Ours reads the store that the product made of Parquet files
(`EEGData` with `ChannelSequences`, no thread reads ahead) and decodes the masked windows. The peer has the same weights
with transformers' layers (or the plain form, see `mamba2`), reads each sequence with ``pd.read_parquet`` of its one
column, ``tolist`` and ``np.stack``, and decodes all windows. Both see the same batches and mask the same windows; all
files are warm and the store's checksums were verified before.

``end_to_end_ratio``: the peer's time over ours; heads of 32, ``_headdim64`` of 64. ``end_to_end_read_ratio``: reading
alone.
"""

import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import sequences
from cerebro.data.module import EEGData
from cerebro.data.sequences import ChannelSequences
from cerebro.data.splits import ParticipantSplit
from cerebro.encoders import Mamba2
from cerebro.objectives import MaskedWindows
from cerebro.objectives.masks import sequence_mask
from cerebro.signal import EEGBatch
from cerebro.training.optim import Optim
from mamba2_layers import BATCH, peer_of
from timing import compare

D_MODEL, N_LAYERS, MASK_RATIO = 128, 6, 0.2
HEADDIM = {"": 32, "_headdim64": 64}
N_PARTICIPANTS = 2


def figures(rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data, files = write_data(Path(folder))
        ours, peer = StoreReader(data), PandasReader(data, files)
        reading = compare(ours.read, peer.read, rounds, clock)
        found |= reading.figures("end_to_end_read_ratio")
        found |= {"end_to_end_read_seconds": reading.ours_s, "end_to_end_peer_read_seconds": reading.peer_s}
        for size, headdim in HEADDIM.items():
            models = ours_and_peer(data, headdim)
            steps = [step_of(model, reader) for model, reader in zip(models, (ours, peer), strict=True)]
            step = compare(*steps, rounds, clock)
            found |= step.figures(f"end_to_end_ratio{size}")
            found[f"end_to_end_seconds{size}"] = step.ours_s
            found[f"end_to_end_peer_seconds{size}"] = step.peer_s
    return found


# Reading --------------------------------------------------------------------------------------------------------------
def write_data(folder: Path) -> tuple[EEGData, dict[str, Path]]:
    """Data of the product, and the Parquet file of each participant."""
    files = {f"p{number}": folder / "windows" / f"p{number}_run-1.parquet" for number in range(N_PARTICIPANTS)}
    for number, (participant, file) in enumerate(files.items()):
        sequences.write_windows(file, participant, seed=number)
    sequences.store_of(folder / "windows", folder / "store")
    split = ParticipantSplit(val_ratio=0.0)
    data = EEGData(folder / "store", ChannelSequences(), split, batch_size=BATCH, prefetch_threads=0)
    data.for_device(torch.device("cpu"))
    return data, files


class StoreReader:
    """The full batches of an epoch, over and over."""

    def __init__(self, data: EEGData) -> None:
        self._loader = data.train_dataloader()
        batches = [self._batch(step) for step in range(len(self._loader))]  # and checksums are verified
        self.batches = [batch for batch in batches if len(batch) == BATCH]
        self._step = cycle(range(len(self.batches)))  # the one that is not full is the last

    def read(self) -> EEGBatch:
        return self._batch(next(self._step))

    def _batch(self, step: int) -> EEGBatch:
        return self._loader.batch(0, step).to_microvolts()


class PandasReader:
    """The same batches, read as pipelines around pandas do; what belongs to them beside the samples is known before."""

    def __init__(self, data: EEGData, files: dict[str, Path]) -> None:
        self._batches = cycle([replace(batch, eeg=batch.eeg[..., :0]) for batch in StoreReader(data).batches])
        self._table, self._store, self._files = data.table, data.store, files
        self._people = data.store.participants.index.astype(str)

    def read(self) -> EEGBatch:
        batch = next(self._batches)
        return replace(batch, eeg=torch.stack([self._sequence(row) for row in batch.sample.tolist()])[:, None])

    def _sequence(self, row: int) -> Tensor:
        recording = int(self._table.recording[row])
        entry = self._store.index[recording]
        name = self._store.montages[int(entry["montage"])].channels[int(self._table.channel[row])].upper()
        file = self._files[self._people[int(entry["participant"])]]
        windows = np.stack(pd.read_parquet(file, columns=[name])[name].tolist())  # (N, L)
        sequence = torch.from_numpy(windows).flatten()
        return sequence - sequence.mean()  # as in the store


# Models ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Model:
    encoder: Mamba2
    objective: MaskedWindows
    loss: Callable[[Mamba2, MaskedWindows, EEGBatch], Tensor]


def ours_and_peer(data: EEGData, headdim: int) -> tuple[Model, Model]:
    torch.manual_seed(0)
    encoder = Mamba2(data.signal, sequences.LENGTH, D_MODEL, N_LAYERS, headdim=headdim)
    objective = MaskedWindows(encoder, data.signal, MASK_RATIO)
    with_peers, same_objective = deepcopy(encoder), deepcopy(objective)
    for layer in with_peers.stack.layers:
        peer = peer_of("transformers", D_MODEL, headdim)
        peer.load_state_dict(layer.mixer.state_dict(), strict=True)
        layer.mixer = peer
    return Model(encoder, objective, our_loss), Model(with_peers, same_objective, loss_of_all_windows)


def our_loss(encoder: Mamba2, objective: MaskedWindows, batch: EEGBatch) -> Tensor:
    return objective(encoder, batch).total


def loss_of_all_windows(encoder: Mamba2, objective: MaskedWindows, batch: EEGBatch) -> Tensor:
    """The same number: all windows are decoded and compared, then those that are masked count. No padding."""
    hidden = sequence_mask(encoder.valid(batch), objective.mask_ratio, batch.key, batch.channel).hidden  # (B, 1, N)
    rebuilt = objective.decoder(encoder.mix(encoder.embed(batch), batch, hidden))  # (B, 1, N, L)
    target = batch.eeg.unflatten(2, (-1, encoder.patch_samples)) / batch.scale(objective.scale_uV)[..., None, None]
    error: Tensor = (rebuilt - target).square().mean(dim=3)
    return error[hidden].mean()


def step_of(model: Model, reader: StoreReader | PandasReader) -> Callable[[], None]:
    optim = Optim()
    optimizer = optim.build(model.encoder, model.objective)
    parameters = [p for module in (model.encoder, model.objective) for p in module.parameters() if p.requires_grad]

    def step() -> None:
        optimizer.zero_grad()
        model.loss(model.encoder, model.objective, reader.read()).backward()
        nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()

    return step
