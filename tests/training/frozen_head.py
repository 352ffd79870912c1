"""A head on a frozen encoder, trained on ten people: what tests of the tokens and features that it keeps share."""

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data import ChannelSequences, EEGData, ParticipantSplit
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.encoders import Encoder, Mamba2
from cerebro.montage import Montage
from cerebro.objectives import Supervised
from cerebro.readouts import MLPReadout, PowerReadout
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import read_checkpoint
from cerebro.training.keep import Keeper
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.tracking import MLflowKeys

LENGTH, SFREQ = 64, 32.0
CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.1], [0.0, -0.06, 0.08]]))
POWER = partial(PowerReadout, n_components=4, over_channels="concat")  # looks at the tokens before it learns
N_WINDOWS = (4, 7, 5, 2, 6, 5, 3, 8, 4, 5)


def write(path: Path, shift: float = 0.0, seed: int = 0) -> Path:
    """Ten people with a run each, of two to eight windows; the last one may be short."""
    draw = np.random.default_rng(seed)
    keys = [f"{name}_run-1" for name in "abcdefghij"]
    eeg = {
        key: (draw.normal(0, 20 + 5 * (place % 2), (3, n * LENGTH)) + shift).astype(np.float32)
        for place, (key, n) in enumerate(zip(keys, N_WINDOWS, strict=True))
    }
    eeg["b_run-1"][:, -20:] = 0
    people = pd.DataFrame({"remission": np.arange(10) % 2.0}, index=pd.Index(list("abcdefghij"), name="participant_id"))
    segments = {
        key: tuple(
            Segment(i, 0, 2.0 * i, 2.0 * i + 2, LENGTH - 20 if (key, i) == ("b_run-1", n - 1) else LENGTH)
            for i in range(n)
        )
        for key, n in zip(keys, N_WINDOWS, strict=True)
    }
    write_store(
        path,
        eeg,
        CAP,
        SFREQ,
        tasks=dict.fromkeys(keys, "rest"),
        people={key: key[0] for key in keys},
        participants=people,
        segments=segments,
    )
    return path


def encoder_of(signal: SignalSpec, seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mamba2(signal, patch_samples=LENGTH, d_model=16, n_layers=2, headdim=4, d_state=8)


def build(
    signal: SignalSpec,
    freeze: bool = True,
    encoder_seed: int = 0,
    readout: Any = MLPReadout,
    name: str = "head",
    **more: Any,
) -> Phase:
    objective = partial(Supervised, target="remission", readout=readout, kind="classification")
    frozen = {"freeze_encoder": True} if freeze else {"freeze_encoder_epochs": 1}
    return Phase(name, signal, partial(encoder_of, seed=encoder_seed), objective, Optim(lr=3e-3), **{**frozen, **more})


def data_of(store: Path) -> EEGData:
    split = ParticipantSplit(val_ratio=0.3)
    return EEGData(store, ChannelSequences(), split, targets=("remission",), batch_size=5)


def train(
    out: Path,
    store: Path,
    lines: list[str] | None = None,
    max_epochs: int = 3,
    build: Callable[..., Phase] = build,
    **more: Any,
) -> dict[str, Any]:
    keys = RunKeys(out, mlflow=MLflowKeys(enabled=False), checkpoint_every_steps=2, overwrite=more.pop("over", False))
    config = {"model": {"name": "head", "encoder": {"class_path": "Mamba2"}}, "data": {}, "extra": repr(more)}
    trainer = TrainerKeys(max_epochs, accelerator="cpu", precision=more.pop("precision", "32-true"))
    say = (lines if lines is not None else []).append
    return fit(partial(build, **more), data_of(store), trainer, keys, config, None, say)


def history(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def known(row: dict[str, Any]) -> dict[str, Any]:
    """Figures that are defined: pytest cannot compare ``None`` to within a tolerance."""
    return {key: value for key, value in row.items() if value is not None}


def check_same(ours: Path, theirs: Path, within: float) -> None:
    assert len(history(ours)) == len(history(theirs))
    for row, other in zip(history(ours), history(theirs), strict=True):
        assert [key for key in row if row[key] is None] == [key for key in other if other[key] is None]  # a precision
        assert known(row) == pytest.approx(known(other), rel=within, abs=within)
    best = [json.loads((folder / "run.json").read_text())["best"] for folder in (ours, theirs)]
    assert best[0]["epoch"] == best[1]["epoch"]
    weights = [read_checkpoint(folder / "best.ckpt").weights for folder in (ours, theirs)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=within, atol=within)


class Killed(BaseException):
    """Stands for a process that ends at once."""


@contextlib.contextmanager
def killed_after(n_saves: int) -> Iterator[None]:
    """The run inside ends at once when it has saved so many times."""
    original, saved = Keeper._save, [0]

    def save(self: Keeper, trainer: Any, name: str) -> None:
        original(self, trainer, name)
        saved[0] += 1
        if saved[0] == n_saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "_save", save)
        with pytest.raises(Killed):
            yield
