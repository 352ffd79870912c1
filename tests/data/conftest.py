"""Children of these tests, on whatever backend, import the modules in ``support`` by name."""

import os
import sys
from pathlib import Path

import pytest

SUPPORT = str(Path(__file__).parent / "support")
sys.path.append(SUPPORT)


@pytest.fixture(autouse=True)
def importable_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH", "")])))
