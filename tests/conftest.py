"""Fixtures that every test may use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real recordings are absent (looked for {folder.name} in a folder beside the repository)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Reference numbers that stand in the repository."""
    return Path(__file__).resolve().parent / "golden"
