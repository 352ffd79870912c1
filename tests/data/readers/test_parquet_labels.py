"""Labels of recordings in columns of Parquet windows: one value for each recording, ``label/NAME`` in the store."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.parquet import ParquetWindows
from cerebro.data.store import Store
from cerebro.errors import ConfigError

SFREQ, LENGTH = 32.0, 64


def rows(person: str, run: int, **labels: list[float] | float) -> list[dict[str, Any]]:
    """Two windows of a run; a list of labels has one for each window."""
    rng = np.random.default_rng(run)
    return [
        {
            "participant": person,
            "run": run,
            "parent_window_id": 0,
            "sub_window_id": number,
            "window_start": 2.0 * number,
            "window_end": 2.0 * number + 2,
            **{name: value[number] if isinstance(value, list) else value for name, value in labels.items()},
            "Cz": rng.normal(0, 30, LENGTH).astype(np.float32),
        }
        for number in range(2)
    ]


def reader(folder: Path, content: list[dict[str, Any]], *labels: str) -> ParquetWindows:
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(content)), folder / "windows.parquet", write_page_checksum=True)
    return ParquetWindows(root=folder, name="p", sfreq=SFREQ, window_length=LENGTH, labels=labels)


def test_labels_of_recordings_come_into_the_store(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    content = [*rows("a", 1, task=0.0, score=2.5), *rows("a", 2, task=1.0, score=np.nan)]
    read = reader(tmp_path / "files", content, "task", "score")
    build(read, Preprocessing(SFREQ, 0.5, 15.0), tmp_path / "store")
    recordings = Store.open(tmp_path / "store").recordings
    assert recordings["label/task"].tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(recordings["label/score"], [2.5, np.nan])
    [missing] = [one for one in read.scan().findings if one.rule == "label-missing"]
    assert (missing.where, missing.detail) == ("a_run-2", "no score in its rows")


def test_a_recording_with_two_values_of_a_label_is_left_out_and_counted(tmp_path: Path) -> None:
    scan = reader(tmp_path, [*rows("a", 1, task=[0.0, 1.0]), *rows("a", 2, task=1.0)], "task").scan()
    assert [entry.key for entry in scan.entries] == ["a_run-2"]
    [finding] = [one for one in scan.findings if one.rule == "label-contradiction"]
    assert (finding.severity, finding.where) == ("failed", "a_run-1")


def test_a_file_without_the_column_says_which_columns_it_has(tmp_path: Path) -> None:
    scan = reader(tmp_path, rows("a", 1), "task").scan()
    assert scan.entries == []
    [finding] = scan.findings
    assert "has no column task, which labels names (found participant, run," in finding.detail


def test_columns_that_are_read_in_any_case_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels names Remission"):
        ParquetWindows(root=tmp_path, name="p", labels=("Remission",))
