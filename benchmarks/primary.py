"""``cerebro process-primary`` of an hour of 64 channels at 500 Hz, and its steps beside the same steps with MNE.

The hour: one EDF file of 230 MB, the whole command with its defaults (windows of 8 s, the Parquet file, the store, the
data set in MLflow), in a fresh process on one core and one thread. ``hour_cpu_s`` is the CPU time of the command and
its children, ``hour_peak_mb`` the most resident memory of any of them, and ``hour_peak_mb_of_all`` that of the command
and its largest child together, which they do not reach at the same time.

The ratio: the first five minutes of the same recording, read from EDF, upsampled to 512 Hz, filtered 0.5-45 Hz with a
notch at 50 Hz, downsampled to 256 Hz and cut into windows without offset. Ours counts every check of
`cerebro.data.primary`; MNE's is ``read_raw_edf``, ``resample``, ``filter``, ``notch_filter``, ``resample``.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import edfio
import mne
import numpy as np
import numpy.typing as npt

from cerebro.data.primary import Windowed, windowed
from cerebro.data.processing import Processing
from cerebro.data.readers.signal_file import read_signal
from cerebro.montage import standard_1005
from timing import compare

N_CHANNELS, SFREQ = 64, 500
HOUR_S, SHORT_S = 3600, 300
PLAN = Processing()
LIMIT_UV = 3276.7
MB = 1024  # of the kB in which Linux counts resident memory


def main(rounds: int) -> dict[str, float]:
    mne.set_log_level("error")
    with tempfile.TemporaryDirectory() as folder:
        hour, short = Path(folder, "raw", "sub-01.edf"), Path(folder, "short.edf")
        hour.parent.mkdir()
        write_edf(short, SHORT_S)
        speed = compare(partial(ours, short), partial(by_mne, short), rounds)
        write_edf(hour, HOUR_S)
        figures = speed.figures("ratio_vs_mne")
        figures |= {"times_real_time": SHORT_S / speed.ours_s, "times_real_time_mne": SHORT_S / speed.peer_s}
        return figures | of_command(hour, Path(folder))


def write_edf(path: Path, seconds: int) -> None:
    """Slow drifts and noise of 20 microvolts, on an offset of each channel."""
    draw = np.random.default_rng(0)
    names = mne.channels.make_standard_montage("biosemi64").ch_names
    noise = draw.normal(0, 1, seconds * SFREQ).astype(np.float32)
    drift = np.cumsum(noise)
    drift -= drift.mean()
    signal = 200 * noise + 300 * drift / drift.std()  # in steps of 0.1 microvolt
    signals = [
        edfio.EdfSignal.from_digital(
            (np.roll(signal, 1000 * number) + 10 * number).astype(np.int16),
            SFREQ,
            label=name,
            physical_dimension="uV",
            physical_range=(-LIMIT_UV, LIMIT_UV),
            digital_range=(-32767, 32767),
        )
        for number, name in enumerate(names[:N_CHANNELS])
    ]
    edfio.Edf(signals).write(path)


def ours(path: Path) -> Windowed:
    return windowed(read_signal(path, standard_1005(), "unknown", path.stem), PLAN, path.stem)


def by_mne(path: Path) -> npt.NDArray[np.float64]:
    raw = mne.io.read_raw_edf(path, preload=True)
    raw.resample(PLAN.upsample_hz).filter(PLAN.highpass_hz, PLAN.lowpass_hz).notch_filter(PLAN.notch_hz)
    eeg = raw.resample(PLAN.downsample_hz).get_data() * 1e6
    n_windows = eeg.shape[1] // PLAN.window_samples
    windows = eeg[:, : n_windows * PLAN.window_samples].reshape(len(eeg), n_windows, -1)
    cut: npt.NDArray[np.float64] = windows - windows.mean(axis=2, keepdims=True)
    return cut


def of_command(recording: Path, folder: Path) -> dict[str, float]:
    """Figures of the whole command on one core, in a process of its own."""
    config = folder / "processing.yaml"
    config.write_text(json.dumps({"input": str(recording.parent)}))
    command = [sys.executable, str(Path(__file__).resolve()), str(config), str(folder / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(config: str, out: str) -> None:
    """Run the command here and print its figures, last, as JSON."""
    from cerebro.cli.main import main as cerebro

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    if cerebro(["process-primary", "--config", config, "--out", out]) != 0:
        raise SystemExit("cerebro process-primary failed")
    wall_s = time.perf_counter() - start
    own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures = {
        "hour_cpu_s": sum(used.ru_utime + used.ru_stime for used in (own, child)),
        "hour_wall_s": wall_s,
        "hour_peak_mb": max(own.ru_maxrss, child.ru_maxrss) / MB,
        "hour_peak_mb_of_all": (own.ru_maxrss + child.ru_maxrss) / MB,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    measure(*sys.argv[1:])
