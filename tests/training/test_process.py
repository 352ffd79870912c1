import contextlib
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import toy
from lightning.pytorch import Trainer

from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.process import without_hints
from cerebro.training.run import fit
from cerebro.training.score import root_device
from cerebro.training.tracking import MLflowKeys


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Slurm is installed."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Every warning that is said meanwhile."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield lines
    lines += [str(warning.message) for warning in said]


@pytest.mark.usefixtures("slurm")
def test_lightning_hints_at_srun_and_it_is_left_out_without_the_rest() -> None:
    """cerebro submits for itself, and a run takes one device: the hint would mislead."""
    with heard() as lines:
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert any("srun" in line for line in lines)
    with heard() as lines:
        root_device(TrainerKeys(1, accelerator="cpu"))
        with without_hints():
            warnings.warn("something else", stacklevel=1)
    assert lines == ["something else"]


@pytest.mark.usefixtures("slurm")
def test_a_whole_run_says_nothing_of_srun(tmp_path: Path) -> None:
    with heard() as lines:
        fit(
            lambda signal: Phase("toy", signal, partial(toy.ToyEncoder, d_model=4), toy.ToyObjective, Optim(lr=1e-2)),
            toy.ToyData(),
            TrainerKeys(1, accelerator="cpu"),
            RunKeys(tmp_path / "run", mlflow=MLflowKeys(enabled=False)),
            {"model": {"name": "toy"}, "data": {}},
            None,
            lambda line: None,
        )
    assert not [line for line in lines if "srun" in line]
