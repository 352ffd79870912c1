import os
import sys

import pytest
from tqdm import tqdm

from cerebro.progress import close_bar, progress, progress_bar


def test_what_follows_a_closed_bar_begins_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar("toy", "batch", 4)
    bar.refresh()
    tqdm.write("epoch 1", file=sys.stderr)  # draws the bar anew, within its first second
    close_bar(bar)
    print("stopped", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


def test_a_terminal_that_does_not_know_its_size_gets_a_bar_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
    bar = progress(range(3), "toy", "window")
    bar.refresh()
    assert (bar.ncols, bar.nrows) == (80, 24)
    assert "toy:   0%" in capsys.readouterr().err
    bar.close()
