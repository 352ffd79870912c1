"""Electrodes placed by an ASA file in place of a named montage: in Parquet windows and in folders."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder, ParquetWindows
from cerebro.data.store import Store
from cerebro.errors import DataError

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
PLAN = Preprocessing(sfreq=32.0, highpass_hz=0.0, lowpass_hz=15.0)


def cap(path, shift_mm=0.0):
    """An electrode file of the four channels and the landmarks."""
    places = {"LPA": (-80, 0, 0), "RPA": (80, 0, 0), "Nz": (0, 95, 0)}
    places |= {"TP9": (-78, -20, 5), "AF7": (-55, 70, 30), "AF8": (55, 70, 30 + shift_mm), "TP10": (78, -20, 5)}
    lines = ["UnitPosition mm", f"NumberPositions= {len(places)}", "Positions"]
    path.write_text("\n".join([*lines, *(f"{name} : {x} {y} {z}" for name, (x, y, z) in places.items())]) + "\n")
    return path


@pytest.fixture
def files(tmp_path):
    """A folder with two windows of two seconds."""
    draw = np.random.default_rng(0)
    ids = ["participant", "run", "parent_window_id", "sub_window_id", "window_start", "window_end"]
    rows = [
        dict(zip(ids, ("P1", 1, number, 0, 2.0 * number, 2.0 * number + 2), strict=True))
        | {name: draw.normal(0, 30, 64) for name in CHANNELS}
        for number in range(2)
    ]
    (tmp_path / "files").mkdir()
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows)), tmp_path / "files" / "a.parquet", write_page_checksum=True)
    return tmp_path / "files"


def windows(folder, asa_path):
    return ParquetWindows(folder, "win", sfreq=32.0, window_length=64, asa_path=asa_path)


def test_an_electrode_file_says_where_the_channels_are(files, tmp_path):
    at = []
    for number, shift_mm in enumerate((0.0, 10.0)):
        build(windows(files, cap(tmp_path / "own.elc", shift_mm)), PLAN, tmp_path / f"store{number}")
        (montage,) = Store.open(tmp_path / f"store{number}").montages
        at.append(dict(zip(montage.channels, montage.positions.tolist(), strict=True)))
    assert at[0].keys() == set(CHANNELS)
    np.testing.assert_allclose(at[0]["AF7"], [-0.055, 0.070, 0.030], atol=1e-6)
    np.testing.assert_allclose(at[1]["AF8"], [0.055, 0.070, 0.040], atol=1e-6)


def test_a_folder_takes_an_electrode_file_too(tmp_path):
    montage = Folder(tmp_path, "mine", asa_path=cap(tmp_path / "own.elc")).montage()
    assert set(montage.channels) == {*CHANNELS, "Nz"}


def test_an_electrode_file_that_is_not_there_or_lacks_an_electrode_is_one_line(files, tmp_path):
    with pytest.raises(DataError, match=r"electrode file .*none\.elc does not exist; check the path"):
        windows(files, tmp_path / "none.elc")
    table = pq.read_table(files / "a.parquet")
    pq.write_table(table.append_column("FPZ", table["AF7"]), files / "a.parquet", write_page_checksum=True)
    reader = windows(files, cap(tmp_path / "own.elc"))
    (entry,) = reader.scan().entries
    with pytest.raises(DataError, match="FPZ") as error:
        reader.load(entry)
    assert "\n" not in str(error.value)
