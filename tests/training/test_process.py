import os
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from cerebro.training.keys import TrainerKeys
from cerebro.training.process import without_hints
from cerebro.training.score import root_device


def test_where_slurm_is_installed_nobody_is_told_to_type_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cerebro submits for itself, and a run takes one device: Lightning's hint would mislead."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert any("srun" in str(warning.message) for warning in said)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        root_device(TrainerKeys(1, accelerator="cpu"))
        with without_hints():
            warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in said] == ["something else"]
