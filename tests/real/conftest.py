"""Real metadata of HBN-EEG, unpacked once."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def hbn_metadata(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the four releases R1, R2, R3, R5 without signals, for reading only: `hbn_tree` is for writing."""
    folder = tmp_path_factory.mktemp("hbn")
    for archive in sorted((shared_data / "hbn_metadata").glob("*_metadata.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def hbn_tree(hbn_metadata: Path, tmp_path: Path) -> Path:
    """Real metadata of four releases, to which a test may add signals."""
    return Path(shutil.copytree(hbn_metadata, tmp_path / "hbn", copy_function=os.link))
