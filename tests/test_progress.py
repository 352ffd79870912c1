import sys

import pytest
from tqdm import tqdm

from cerebro.progress import close_bar, progress_bar


def test_what_follows_a_closed_bar_begins_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar("toy", "batch", 4)
    bar.refresh()
    tqdm.write("epoch 1", file=sys.stderr)  # draws the bar anew, within its first second
    close_bar(bar)
    print("stopped", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"
