"""How far a build is, how fast, and how long it will take: a bar in a terminal, a line every so often elsewhere."""

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

from cerebro.progress import progress_bar

LINE_EVERY_S = 15.0
REDRAW_EVERY_S = 1.0


class Pace:
    """Progress over recordings, to be used as a context manager.

    Parameters
    ----------
    n_recordings : int
        Recordings of the build.
    what : str
        Word that begins the bar and the lines.
    """

    def __init__(self, n_recordings: int, what: str = "prepare") -> None:
        self.what = what
        self.n_recordings = n_recordings
        self.n_done = 0
        self.eeg_s = 0.0  # seconds of EEG that were read, those of an earlier run not counted
        self.read_bytes = 0  # of their sources
        self._began = self._told = time.monotonic()
        self._is_over = threading.Event()
        self._bar = progress_bar(what, "recording", n_recordings) if sys.stderr.isatty() else None

    def step(self, eeg_s: float, read_bytes: int) -> None:
        """Count one recording, with the EEG and the bytes that were read for it."""
        self.n_done += 1
        self.eeg_s += eeg_s
        self.read_bytes += read_bytes
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self.rates(now - self._began), refresh=False)
            self._bar.update()
        elif now - self._told >= LINE_EVERY_S:
            self._told = now
            print(self.line(now - self._began), file=sys.stderr, flush=True)  # noqa: T201 - a log file's bar

    def rates(self, elapsed_s: float) -> str:
        """EEG and source bytes per second, such as ``1.2 h EEG/s, 310 MB/s``."""
        elapsed_s = max(elapsed_s, 1e-9)
        return f"{self.eeg_s / 3600 / elapsed_s:.3g} h EEG/s, {self.read_bytes / 1e6 / elapsed_s:.3g} MB/s"

    def line(self, elapsed_s: float) -> str:
        """One line for a log."""
        per_s = self.n_done / max(elapsed_s, 1e-9)
        left_s = (self.n_recordings - self.n_done) / per_s if self.n_done else 0.0
        return (
            f"{self.what}: {self.n_done:,} of {self.n_recordings:,} recordings, {per_s:.3g} recordings/s, "
            f"{self.rates(elapsed_s)}, {tqdm.format_interval(left_s)} left"
        )

    def __enter__(self) -> "Pace":
        if self._bar is not None:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def _tick(self) -> None:
        """Let the bar's clock run while a long recording is read."""
        while not self._is_over.wait(REDRAW_EVERY_S):
            assert self._bar is not None  # only then is this thread started
            self._bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._bar is not None:
            self._bar.close()
        elif self._told > self._began:
            print(self.line(time.monotonic() - self._began), file=sys.stderr, flush=True)  # noqa: T201
