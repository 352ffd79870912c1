import os

import numpy as np
import pandas as pd
import pytest
from npy_reader import Arrays, write_recording

from cerebro.data.build import build
from cerebro.data.checksum_list import write_checksums
from cerebro.data.names import plain, with_plain_names
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers.base import Finding, Scan
from cerebro.data.store import Store
from cerebro.errors import DataError


@pytest.mark.parametrize("name", [b"sub01_M\xfcller.npy", b"sub01_a\x1b[2Jb.npy"])
def test_a_name_that_no_table_can_hold_costs_one_recording_and_is_told_in_letters(tmp_path, name):
    (tmp_path / "source").mkdir()
    for number in range(3):
        write_recording(tmp_path / "source", f"sub{number:02d}", seed=number)
    os.rename(tmp_path / "source/sub01.npy", os.path.join(os.fsencode(tmp_path / "source"), name))
    report = build(Arrays(tmp_path / "source"), Preprocessing(), tmp_path / "store")
    assert (report.read, report.failed) == (2, 1)
    told = report.table().encode().decode("ascii")
    (line,) = [line for line in told.splitlines() if line.startswith("failed    sub01")]
    assert line.isprintable()
    assert "rename" in line
    assert Store.open(tmp_path / "store").recordings["key"].tolist() == ["sub00", "sub02"]


def test_findings_are_lines_that_any_terminal_shows():
    found = Finding("unusable-file", "failed", "a\udcff", "Row #3: 1,\x1b[2J\0\n2\u202e")
    (finding,) = with_plain_names(Scan([], [found], pd.DataFrame())).findings
    assert (finding.where, finding.detail) == (r"a\xff", r"Row #3: 1,\x1b[2J\x00\n2\u202e")
    assert plain("größer als 日本") == "größer als 日本"


def test_a_list_of_checksums_refuses_a_name_that_is_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"M\xfcller.npy")).write_bytes(np.arange(3).tobytes())
    with pytest.raises(DataError, match=r"^file 'M\\udcfcller.npy' below [^\n]* is no UTF-8 text; rename it.$"):
        write_checksums(tmp_path, tmp_path.iterdir())
