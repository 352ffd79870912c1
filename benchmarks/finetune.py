"""A head on a frozen Mamba-2 (128 x 6): 100 people with two runs each of 4 channels and 124 windows of 2,048 samples.

The store is of random numbers; a sample is a recording, 70 people train, 20 validate, batches hold 8, and two threads
work, as a user has them.
``head_s``: 50 epochs from the first line of ``cerebro fit`` to its last, once the tokens lie in the run's folder;
``embedding_s``: what it takes to make them. ``head_s_per_epoch`` is an epoch on features with its validation and its
checkpoints, ``encoder_s_per_epoch`` one in which the encoder runs, ``frozen_speedup`` the second over the first, timed
in turn. ``tokens_mb`` is what is kept, ``peak_mb`` what the process takes at most. All seconds are of the clock.

``cap_``: the same people with 21 electrodes, 45 windows, Mamba-2 (64 x 2) over quarter seconds and `PowerReadout`, as
in recipes/remission_1020.yaml. ``cap_token_s_per_epoch`` is an epoch whose head pools the tokens anew.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cerebro.data import EEGData, ParticipantSplit, RecordingWindows
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.encoders import Encoder, Mamba2
from cerebro.montage import Montage, standard_1005
from cerebro.objectives import Supervised
from cerebro.progress import progress
from cerebro.readouts import MLPReadout, PowerReadout, Readout
from cerebro.signal import SignalSpec
from cerebro.training import encode_once
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.tracking import MLflowKeys

N_PEOPLE, N_RUNS, N_WINDOWS, LENGTH, SFREQ = 100, 2, 124, 2048, 256.0
CHANNELS = ("AF7", "AF8", "TP9", "TP10")
CAP = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4"),
    *("T8", "P7", "P3", "Pz", "P4", "P8", "O1", "O2", "A1", "A2"),
)
N_EPOCHS, N_TIMED = 50, 5  # of the whole run; of a round of the comparison
N_THREADS = 2


@dataclass(frozen=True)
class Case:
    """Recordings of random numbers, and what is trained on them."""

    channels: tuple[str, ...]
    n_windows: int
    encoder: Callable[[SignalSpec], Encoder]
    readout: Callable[..., Readout]


HEADSET = Case(CHANNELS, N_WINDOWS, partial(Mamba2, headdim=32), MLPReadout)
PIECES = partial(Mamba2, patch_samples=64, d_model=64, n_layers=2, d_state=32, headdim=16, direction="bidirectional")
FULL_CAP = Case(CAP, 45, PIECES, PowerReadout)


@dataclass(frozen=True)
class Timed:
    """Seconds of a run and of one of its epochs (the median), and the memory that it took at most."""

    whole_s: float
    epoch_s: float
    peak_mb: float


class _Noise(Mapping[str, npt.NDArray[np.float32]]):
    """Recordings of random numbers that are made when they are asked for, one at a time."""

    def __init__(self, keys: list[str], case: Case) -> None:
        self.keys_in_order, self.case = keys, case
        self._last: tuple[str, npt.NDArray[np.float32]] = ("", np.empty(0, np.float32))

    def __getitem__(self, key: str) -> npt.NDArray[np.float32]:
        if self._last[0] != key:
            draw = np.random.default_rng(self.keys_in_order.index(key))
            shape = (len(self.case.channels), self.case.n_windows * LENGTH)
            self._last = key, draw.standard_normal(shape, dtype=np.float32) * 30
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(progress(self.keys_in_order, "store of random numbers", "run"))

    def __len__(self) -> int:
        return len(self.keys_in_order)


def write_cohort(path: Path, case: Case = HEADSET, n_people: int = N_PEOPLE) -> None:
    """A store of windows, channel by channel, with a label of people."""
    people = [f"P{number:03}" for number in range(n_people)]
    keys = [f"{name}_run-{run}" for name in people for run in range(1, N_RUNS + 1)]
    cap = standard_1005()
    rows = [cap.channels.index(name) for name in case.channels]
    table = pd.DataFrame({"remission": np.arange(n_people) % 2.0}, index=pd.Index(people, name="participant_id"))
    segments = tuple(Segment(number, 0, 8.0 * number, 8.0 * number + 8.0, LENGTH) for number in range(case.n_windows))
    write_store(
        path,
        _Noise(keys, case),
        Montage("noise", case.channels, cap.positions[rows]),
        SFREQ,
        tasks=dict.fromkeys(keys, "rest"),
        people={key: key.partition("_")[0] for key in keys},
        participants=table,
        segments=dict.fromkeys(keys, segments),
    )


def train(store: Path, out: Path, n_epochs: int, case: Case, pools: bool = True) -> dict[str, Any]:
    """``cerebro fit`` of a head on a frozen encoder; gives run.json."""

    def build(signal: SignalSpec) -> Phase:
        torch.manual_seed(0)  # the same encoder in every run, so that its tokens are
        objective = partial(Supervised, target="remission", readout=case.readout, kind="classification")
        optim = Optim(lr=1e-4, weight_decay=0.01)
        phase = Phase("head", signal, case.encoder, objective, optim, freeze_encoder=True)
        phase.objective.pools &= pools
        return phase

    split = ParticipantSplit(val_ratio=0.2, test_ratio=0.1, stratify_by=("remission",))
    data = EEGData(store, RecordingWindows(), split, targets=("remission",), batch_size=8)
    keys = RunKeys(out, mlflow=MLflowKeys(enabled=False))
    config = {"model": {"name": "head"}, "data": {}, "epochs": n_epochs}
    return fit(build, data, TrainerKeys(n_epochs, accelerator="cpu"), keys, config, None, lambda line: None)


def run(store: Path, out: Path, n_epochs: int, tokens: Path | None, case: Case = HEADSET, pools: bool = True) -> Timed:
    """A run of its own, which finds ``tokens`` in its folder where they are given."""
    out.mkdir()
    if tokens is not None:
        (out / encode_once.FILE).hardlink_to(tokens)
    start = time.perf_counter()
    record = train(store, out, n_epochs, case, pools)
    whole_s = time.perf_counter() - start
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return Timed(whole_s, statistics.median(row["seconds"] for row in rows), float(record["peak_memory_mb"]))


def main(rounds: int) -> dict[str, float]:
    """Figures of the head of a frozen encoder; see above."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store, tokens = root / "store", root / "first" / encode_once.FILE
        write_cohort(store)
        first = run(store, root / "first", 2, None)
        again = run(store, root / "again", 2, tokens)
        whole = run(store, root / "whole", N_EPOCHS, tokens)
        kept, anew = [], []
        for number in progress(range(rounds), "rounds", "round"):
            kept.append(run(store, root / f"kept{number}", N_TIMED, tokens).epoch_s)
            anew.append(run(store, root / f"anew{number}", 1, None).epoch_s)  # one epoch: nothing would be gained
        ratios = [theirs / ours for theirs, ours in zip(anew, kept, strict=True)]
        figures = {
            "head_s": whole.whole_s,
            "embedding_s": first.whole_s - again.whole_s,
            "head_s_per_epoch": statistics.median(kept),
            "encoder_s_per_epoch": statistics.median(anew),
            "frozen_speedup": statistics.median(ratios),
            "frozen_speedup_lowest": min(ratios),
            "frozen_speedup_highest": max(ratios),
            "tokens_mb": tokens.stat().st_size / 1e6,
            "peak_mb": whole.peak_mb,
        }
    return figures | full_cap(rounds)


def full_cap(rounds: int) -> dict[str, float]:
    """Figures of a head that pools the tokens of 21 electrodes before it learns."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store, tokens = root / "store", root / "first" / encode_once.FILE
        write_cohort(store, FULL_CAP)
        first = run(store, root / "first", 2, None, FULL_CAP)
        again = run(store, root / "again", 2, tokens, FULL_CAP)
        whole = run(store, root / "whole", N_EPOCHS, tokens, FULL_CAP)
        pooled, anew = [], []
        for number in progress(range(rounds), "rounds", "round"):
            pooled.append(run(store, root / f"pooled{number}", N_TIMED, tokens, FULL_CAP).epoch_s)
            anew.append(run(store, root / f"tokens{number}", N_TIMED, tokens, FULL_CAP, pools=False).epoch_s)
        ratios = [theirs / ours for theirs, ours in zip(anew, pooled, strict=True)]
        return {
            "cap_head_s": whole.whole_s,
            "cap_embedding_s": first.whole_s - again.whole_s,
            "cap_head_s_per_epoch": statistics.median(pooled),
            "cap_token_s_per_epoch": statistics.median(anew),
            "cap_pooled_speedup": statistics.median(ratios),
            "cap_pooled_speedup_lowest": min(ratios),
            "cap_pooled_speedup_highest": max(ratios),
            "cap_tokens_mb": tokens.stat().st_size / 1e6,
            "cap_peak_mb": whole.peak_mb,
        }
