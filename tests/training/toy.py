"""A phase small enough to be killed dozens of times: classes and data that tests of training and of the CLI share."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.nn.processes import n_processes, sum_over_processes
from cerebro.objectives.base import Loss, Objective
from cerebro.randomness import sample_keys
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, RawBatch, SignalSpec
from cerebro.training.keep import Keeper
from cerebro.training.phase import Phase

SIGNAL = SignalSpec(("A", "B", "C"), ((0.0, 0.1, 0.0), (0.1, 0.0, 0.0), (0.0, 0.0, 0.1)), 100.0, 20, ("y", "sex"))

HAS_FIXED_WINDOWS = False  # the toy's windows differ from epoch to epoch


class ToyEncoder(Encoder):
    """Patches of 10 samples; dropout and running statistics, as traps for freezing and resuming."""

    def __init__(self, signal: SignalSpec, d_model: int = 4, dropout: float = 0.2, has_statistics: bool = True) -> None:
        super().__init__(signal)
        self.d_model, self.patch_samples, self.patch_stride, self.n_layers = d_model, 10, 10, 1
        self.patch = nn.Linear(10, d_model)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, d_model))
        self.statistics = nn.BatchNorm1d(d_model) if has_statistics else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.block = nn.Linear(d_model, d_model)

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        return self.patch(batch.eeg.unflatten(-1, (-1, 10)))

    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        flat = self.statistics(tokens.flatten(0, 2)).view_as(tokens)
        return tokens + self.block(self.dropout(flat))

    def layer_of(self, parameter: str) -> int:
        return 1 if parameter.startswith("block") else 0


class ToyReadout(Readout):
    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int) -> None:
        super().__init__(encoder, signal, n_outputs)
        self.linear = nn.Linear(encoder.d_model, n_outputs)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        tokens = encoder(batch) if tokens is None else tokens
        return self.linear(tokens.mean(dim=(1, 2)))


class ToyObjective(Objective):
    """Regression of y with an EMA teacher, a start that looks at data, and numpy's global generator as noise.

    ``bad_step`` makes the loss of that step NaN; ``writes_encoder`` breaks the rule that objectives leave the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        signal: SignalSpec,
        readout: Callable[[Encoder, SignalSpec, int], Readout] = ToyReadout,
        bad_step: int = -1,
        pause_s: float = 0.0,
        writes_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, signal)
        self.readout = readout(encoder, signal, 1)
        self.bad_step, self.pause_s, self.writes_encoder = bad_step, pause_s, writes_encoder
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("n_starts", torch.zeros((), dtype=torch.int64))
        self.register_buffer("teacher", self.readout.linear.weight.detach().clone())
        self.n_steps = 0

    def start(self, encoder: Encoder, batches: Iterable[EEGBatch]) -> None:
        self.n_starts += 1
        mean = torch.stack([batch.targets["y"].nanmean() for batch in batches]).mean()
        self.centre.copy_(sum_over_processes(mean) / n_processes())

    def forward(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Loss:
        if self.pause_s:
            time.sleep(self.pause_s)
        error = self.readout(encoder, batch)[:, 0] + self.centre - batch.targets["y"]
        total = torch.where(batch.known["y"], error, 0.0).square().mean()
        if self.training:
            total = total * (1 + 0.01 * float(np.random.rand()))  # noqa: NPY002
            if self.n_steps == self.bad_step:
                total = total * float("nan")
            self.n_steps += 1
        drift = (self.readout.linear.weight - self.teacher).square().mean()
        return Loss(total, {"squared_error": total.detach(), "drift": drift.detach()})

    def after_step(self, encoder: Encoder, progress: float) -> None:
        self.teacher.lerp_(self.readout.linear.weight.detach(), 0.5)
        if self.writes_encoder:
            with torch.no_grad():
                next(encoder.parameters()).add_(1e-3)

    def predict(self, encoder: Encoder, batch: EEGBatch, tokens: Tensor | None = None) -> Mapping[str, Tensor]:
        value = self.readout(encoder, batch)[:, 0] + self.centre
        return {"y": value, "sex": torch.stack([-value, value], dim=1).softmax(dim=1)}

    def showcase(self, encoder: Encoder, batch: EEGBatch) -> Mapping[str, Tensor]:
        return {"windows": batch.eeg[:2]}


class ToyLoader:
    """Batches as a function of (epoch, step), as `cerebro.data.loader.BatchLoader`."""

    def __init__(self, participants: list[int], n_batches: int, batch_size: int, is_training: bool) -> None:
        self.participants, self.n_batches, self.batch_size = participants, n_batches, batch_size
        self.is_training, self.position = is_training, (0, 0)
        self.reads_signals = True
        self.rank, self.n_ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    def __len__(self) -> int:
        return self.n_batches

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = (state["epoch"], state["step"])

    def without_signals(self) -> "ToyLoader":
        other = copy(self)
        other.reads_signals = False
        return other

    def __iter__(self) -> Iterator[RawBatch]:
        epoch, first = self.position if self.is_training else (0, 0)
        for step in range(first, self.n_batches):
            whole = self.batch(epoch, step)
            if not self.reads_signals:
                whole = replace(whole, counts=whole.counts[:, :0, :0], absent_samples=20)
            yield share_of(whole, self.rank, self.n_ranks) if self.is_training and self.n_ranks > 1 else whole

    def batch(self, epoch: int, step: int) -> RawBatch:
        n = self.batch_size
        sample = (step * n + np.arange(n) + 1000 * epoch).astype(np.int64)
        rng = np.random.default_rng([epoch, step, self.participants[0]])
        counts = rng.normal(size=(n, 20, 3)) * 100
        y = counts[:, :10].mean(axis=(1, 2)) / 20
        who = np.asarray(self.participants)[sample % len(self.participants)]
        return RawBatch(
            counts=torch.from_numpy(counts.astype(np.int16)),
            microvolts_per_count=torch.full((n,), 0.01),
            channel=torch.arange(3).expand(n, 3).contiguous(),
            n_valid=torch.full((n,), 20),
            key=torch.from_numpy(sample_keys(0, epoch, sample)),
            sample=torch.from_numpy(sample),
            recording=torch.from_numpy(who),
            participant=torch.from_numpy(who),
            pair=torch.full((n,), -1),
            targets={"y": torch.from_numpy(y).float(), "sex": torch.from_numpy((y > 0).astype(np.float32))},
            known={"y": torch.from_numpy(sample % 7 != 0), "sex": torch.ones(n, dtype=torch.bool)},
            is_padded=False,
        )


def share_of(batch: RawBatch, rank: int, n_ranks: int) -> RawBatch:
    """Contiguous share of a batch, as `cerebro.data.sampling.rank_slice` gives it."""
    size = len(batch.key) // n_ranks

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: entry[rank * size : (rank + 1) * size] for name, entry in value.items()}
        is_row = isinstance(value, Tensor) and len(value) == len(batch.key)
        return value[rank * size : (rank + 1) * size] if is_row else value

    return replace(batch, **{part.name: cut(getattr(batch, part.name)) for part in fields(batch)})


class ToyData:
    """Ten participants: 0-5 train, 6-7 validate, 8-9 test; ``shift`` makes another split."""

    def __init__(self, batches_per_epoch: int = 5, batch_size: int = 8, shift: int = 0, store: str = "toy") -> None:
        self.batches_per_epoch, self.batch_size = batches_per_epoch, batch_size
        self.people = {
            stage: sorted((number + shift) % 10 for number in numbers)
            for stage, numbers in {"train": range(6), "val": range(6, 8), "test": range(8, 10)}.items()
        }
        self.data_hash = self.windows_hash = "0" * 64
        self.signal = SIGNAL
        self.has_fixed_windows = HAS_FIXED_WINDOWS

    @property
    def n_training_windows(self) -> int:
        return self.batches_per_epoch * self.batch_size

    def setup(self, stage: str = "") -> None:
        pass

    def summary(self) -> str:
        return "toy data"

    def participant_keys(self) -> tuple[str, ...]:
        return tuple(f"toy:{number:02}" for number in range(10))

    def participants(self, stage: str) -> tuple[str, ...]:
        return tuple(f"toy:{number:02}" for number in self.people[stage])

    def recordings(self, stage: str) -> dict[str, str]:
        return {f"{number:016x}": f"recording {number}" for number in self.people[stage]}

    def for_device(self, device: torch.device) -> None:
        pass

    def train_dataloader(self) -> ToyLoader:
        return ToyLoader(self.people["train"], self.batches_per_epoch, self.batch_size, True)

    def val_dataloader(self) -> ToyLoader:
        return ToyLoader(self.people["val"], 2, self.batch_size, False)

    def film_dataloader(self, side: str = "val") -> ToyLoader:
        return ToyLoader(self.people[side], 0, self.batch_size, False)

    def film_places(self, sample: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        raise AssertionError("there is no film")

    def test_dataloader(self) -> ToyLoader:
        return ToyLoader(self.people["test"], 2, self.batch_size, False)

    def predict_dataloader(self) -> ToyLoader:
        return self.test_dataloader()

    def evaluation_loader(self, stage: str, n_most: int = 0) -> ToyLoader:
        n_batches = min(4, n_most // self.batch_size) if n_most else 4
        return ToyLoader(self.people[stage], n_batches, self.batch_size, False)

    def participant_values(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """``age`` and ``trait`` of the ten; one age is missing, ``blank`` is known of nobody."""
        age = np.arange(10, dtype=np.float32) ** 2 % 7
        known = {"age": np.where(np.arange(10) == 2, np.nan, age), "trait": age + 1, "blank": np.full(10, np.nan)}
        return {name: known[name].astype(np.float32) for name in names if name in known}

    def window_spans(self, sample: np.ndarray) -> np.ndarray:
        return np.stack([sample, sample + 1], axis=1).astype(np.float64)


def validation_gives(monkeypatch: pytest.MonkeyPatch, scores: list[float | None], losses: list[float | None]) -> None:
    """Let each epoch's validation give these."""
    original = Keeper._row

    def row(self: Keeper, trainer: Any, phase: Phase, means: dict[str, float]) -> dict[str, Any]:
        found = original(self, trainer, phase, means)
        return found | {"val/f1": scores[found["epoch"]], "val/loss": losses[found["epoch"]]}

    monkeypatch.setattr(Keeper, "_row", row)
