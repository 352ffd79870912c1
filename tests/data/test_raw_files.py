"""A recording is known by the bytes of its source, and of the raw file behind its windows."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cerebro.data.arrays import write_store
from cerebro.data.mixture import write_mixture
from cerebro.data.processing import Processing, write_processing
from cerebro.data.raw_files import sources_of
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.files import write_json
from cerebro.montage import Montage

CAP = Montage("cap", ("Fz",), np.array([[0.0, 0.05, 0.1]]))
RAW = {"a": "0123456789abcdef", "b": "fedcba9876543210"}
ROWS = pd.DataFrame({"key": ["a", "b"], "source_sha256": ["f" * 64, ""]})


def store_of(path: Path, eeg: dict[str, npt.NDArray[np.float32]]) -> Store:
    return write_store(
        path,
        eeg,
        CAP,
        100.0,
        tasks=dict.fromkeys(eeg, "rest"),
        people={key: f"person {key}" for key in eeg},
        participants=pd.DataFrame(index=pd.Index([f"person {key}" for key in eeg], name="participant_id")),
        corpus=path.name,
        reference="average",
    )


def made(path: Path, seed: int, sources: dict[str, str]) -> Store:
    """Store of the recordings a and b, and what says from which raw files they were made."""
    rng = np.random.default_rng(seed)
    eeg = {name: rng.normal(0, 20, (1, 400)).astype(np.float32) for name in ("a", "b")}
    store = store_of(path, eeg)
    write_processing(path, store.data_hash, Processing(channels=("Fz",)), "", (), sources)
    return store


def test_both_the_file_of_windows_and_the_raw_file_count(tmp_path: Path) -> None:
    store = made(tmp_path / "one", 0, RAW)
    assert sources_of(store, ROWS) == {"f" * 16: "a", RAW["a"]: "a", RAW["b"]: "b"}
    assert sources_of(store, ROWS[1:]) == {RAW["b"]: "b"}
    both = ROWS.assign(source_sha256="f" * 64)
    assert sources_of(store, both) == {"f" * 16: "b", RAW["a"]: "a", RAW["b"]: "b"}, "one file holds all windows"


def test_without_a_word_on_raw_files_the_sources_count_alone(tmp_path: Path) -> None:
    store = store_of(tmp_path / "plain", {"a": np.ones((1, 400), np.float32)})
    assert sources_of(store, ROWS) == {"f" * 16: "a"}


def test_raw_files_behind_the_members_of_a_mixture_count(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one", 0, RAW), made(tmp_path / "two", 1, {"b": "1" * 16})
    mixture = write_mixture(tmp_path / "both", {"x": one.path, "y": two.path}, {"x": 1, "y": 1})
    rows = mixture.recordings
    found = {digest: key for digest, key in sources_of(mixture, rows).items() if digest in {*RAW.values(), "1" * 16}}
    assert found == {RAW["a"]: "x/a", RAW["b"]: "x/b", "1" * 16: "y/b"}
    assert "1" * 16 not in sources_of(mixture, rows[rows["member"] == "x"])


def test_a_word_on_other_data_is_refused(tmp_path: Path) -> None:
    store = made(tmp_path / "one", 0, RAW)
    write_json(tmp_path / "one" / "processing.json", {"data_hash": "other", "sources": RAW})
    with pytest.raises(DataError, match=r"speaks of other data than .* holds; run `cerebro process-primary` again, or"):
        sources_of(store, ROWS)
