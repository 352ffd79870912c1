"""What identifies a run: the hash of its config, the commit of the code, the participants in its weights."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

import cerebro
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import Checkpoint, Stamp
from cerebro.training.commit import git_commit
from cerebro.training.keep import ResumableLoader

UNHASHED = (
    "out",
    "overwrite",
    "run_name",
    "allow_seen_participants",
    "mlflow",
    "ckpt_path",
    "config",
    "checkpoint_every_steps",
)
"""Keys that do not change what a run computes; paths of stores and sources are replaced by their content hashes."""
UNHASHED_DATA = ("store", "prefetch_threads")
LATER_KEYS = {"transfer": "all", "freeze_encoder": False}
"""Keys of ``model`` that came later; with these values a run has the hash that it always had."""


@runtime_checkable
class PhaseData(Protocol):
    """What a phase asks of its data; `cerebro.data.module.EEGData` gives it."""

    @property
    def signal(self) -> SignalSpec:
        """What a model must know, after ``setup``."""

    @property
    def data_hash(self) -> str:
        """Hash of the store's content."""

    @property
    def batch_size(self) -> int:
        """Windows of a batch."""

    @property
    def has_fixed_windows(self) -> bool:
        """Whether a training window is cut at the same place at every visit."""

    @property
    def n_training_windows(self) -> int:
        """Windows of the training participants."""

    def participant_keys(self) -> tuple[str, ...]:
        """``corpus:id`` of each number in ``EEGBatch.participant``."""

    def participants(self, stage: Literal["train", "val", "test"]) -> tuple[str, ...]:
        """Sorted ``corpus:id`` keys of a stage."""

    def recordings(self, stage: Literal["train", "val", "test"]) -> dict[str, str]:
        """Hash of the source -> name, of every recording of the participants of a stage."""

    def setup(self, stage: str) -> None:
        """Open the store and cut the windows."""

    def for_device(self, device: torch.device) -> None:
        """Said once, before a loader is asked for: where its batches will go."""

    def summary(self) -> str:
        """Participants, windows, what was left out and which labels are missing, in one line."""

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches."""

    def val_dataloader(self) -> ResumableLoader:
        """Validation batches in a fixed order; may be empty."""

    def film_dataloader(self, side: Literal["train", "val"] = "val") -> ResumableLoader:
        """Windows of films, whole recordings in the order of time; empty where windows are of no film."""

    def film_places(
        self, sample: npt.NDArray[np.int64]
    ) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Film that each of these windows shows, milliseconds from its start, and number of the person."""

    def test_dataloader(self) -> ResumableLoader:
        """Test batches in a fixed order."""

    def predict_dataloader(self) -> ResumableLoader:
        """All batches in a fixed order."""

    def evaluation_loader(self, stage: Literal["train", "val", "test"], n_most: int = 0) -> ResumableLoader:
        """At most ``n_most`` windows of a side, evenly spaced, in a fixed order; 0 = all of them."""

    def participant_values(self, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Those of ``names`` that are columns of people, by number of the participant; NaN = missing or hidden."""

    def window_spans(self, sample: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Seconds (N, 2) of its recording that a window may cover, by ``EEGBatch.sample`` (N,)."""


def make_stamp(
    phase: str, data: PhaseData, config: dict[str, Any], sources: list[Checkpoint], resumed: Checkpoint | None
) -> Stamp:
    """What the checkpoints of this run will say of themselves; a resumed run keeps the sources that it started from."""
    train, val = list(data.participants("train")), list(data.participants("val"))
    chain = [source.stamp for source in sources] + ([] if resumed is None else [resumed.stamp])
    trained = set(train).union(*(stamp.trained for stamp in chain))
    seen = trained.union(val, *(stamp.seen for stamp in chain))
    sides = {"trained": data.recordings("train"), "validated": data.recordings("val")}
    return Stamp(
        phase=phase,
        version=cerebro.__version__,
        git_commit=git_commit(),
        data_hash=data.data_hash,
        config_hash=config_hash(config),
        config=config,
        signal=asdict(data.signal),
        participants={"train": train, "val": val},
        trained=sorted(trained),
        seen=sorted(seen),
        recordings={
            side: sorted(set(found).union(*(stamp.recordings.get(side, []) for stamp in chain)))
            for side, found in sides.items()
        },
        inputs=(
            resumed.stamp.inputs
            if resumed is not None and not sources
            else {str(source.path): source.stamp.weights_sha256 for source in sources}
        ),
    )


def with_participants(stamp: Stamp, earlier: Stamp) -> Stamp:
    """The stamp with who and what an earlier part of the same run has seen, which may have been of another split."""
    return replace(
        stamp,
        trained=sorted({*stamp.trained, *earlier.trained}),
        seen=sorted({*stamp.seen, *earlier.seen}),
        recordings={
            side: sorted({*stamp.recordings.get(side, []), *earlier.recordings.get(side, [])})
            for side in ("trained", "validated")
        },
    )


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 of what a resolved config computes: without output keys, paths of data and sources, and reading ahead."""
    kept = {key: value for key, value in config.items() if key not in UNHASHED}
    if not (kept.get("probe") or {}).get("targets"):
        kept.pop("probe", None)  # a run without probes has the hash that it always had
    kept["data"] = {key: value for key, value in config["data"].items() if key not in UNHASHED_DATA}
    init = [{**transfer, "source": ""} for transfer in config["model"].get("init") or []]
    model = {key: value for key, value in config["model"].items() if value != LATER_KEYS.get(key)}
    kept["model"] = model | {"init": init}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
