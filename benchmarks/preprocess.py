"""Preprocessing of one recording: cerebro's one pass beside MNE's filter, notch and resample with their defaults.

Both start from the same float64 volts, as a file read by MNE gives them; ours counts the conversion to float32
microvolts and every check of `cerebro.data.preprocess`. Band 0.5-45 Hz, notch at 60 Hz, to 100 Hz.

The error is taken against MNE's FIR kernels (the same upper transition, 5 Hz, on both sides) and ``resample(npad=0)``
in float64: white noise of 50 microvolts, before quantising, 1-45 Hz, without 10 s at each edge.
"""

import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import mne
import numpy as np
import numpy.typing as npt

from cerebro.data.preprocess import Preprocessing, preprocess
from cerebro.data.readers.base import Recording
from cerebro.dsp.spectrum import Band, time_shift_s
from timing import compare, in_two_threads

PLAN = Preprocessing(sfreq=100.0, highpass_hz=0.5, lowpass_hz=45.0, notch_hz=60.0)
DURATION_S = 120.0
EDGE_S = 10.0
BAND_OF_ERROR = Band("error", 1.0, 45.0)

Volts = npt.NDArray[np.float64]


def main(rounds: int) -> dict[str, float]:
    mne.set_log_level("error")
    figures: dict[str, float] = {}
    for label, n_channels, sfreq in (("", 129, 500.0), ("_32ch_250hz", 32, 250.0)):
        volts = noise_volts(n_channels, sfreq)
        by_us, by_peer = partial(ours, volts, sfreq), partial(by_mne, volts, sfreq)
        speed = compare(by_us, by_peer, rounds)
        figures |= speed.figures(f"ratio_vs_mne{label}")
        figures[f"times_real_time{label}"] = DURATION_S / speed.ours_s
        both = compare(
            partial(halves, ours, volts, sfreq), partial(halves, by_mne, volts, sfreq), rounds, clock=time.perf_counter
        )
        figures |= both.figures(f"ratio_vs_mne_two_threads{label}")
        figures[f"peak_memory_mb{label}"] = peak_mb(by_us)
        figures[f"peak_memory_mb_mne{label}"] = peak_mb(by_peer)
        few = volts[:16]
        made, exact, default = ours(few, sfreq), reference(few, sfreq), by_mne(few, sfreq) * 1e6
        inner = slice(int(EDGE_S * PLAN.sfreq), -int(EDGE_S * PLAN.sfreq))
        figures[f"max_error_uV{label}"] = float(abs(in_band((made - exact)[:, inner])).max())
        figures[f"max_error_uV_of_mne_default{label}"] = float(abs(in_band((default - exact)[:, inner])).max())
        figures[f"time_shift_ms{label}"] = 1e3 * time_shift_s(exact[:, inner], made[:, inner], PLAN.sfreq)
        figures[f"time_shift_ms_of_mne_default{label}"] = 1e3 * time_shift_s(
            exact[:, inner], default[:, inner], PLAN.sfreq
        )
    return figures


def noise_volts(n_channels: int, sfreq: float) -> Volts:
    return 50e-6 * np.random.default_rng(0).standard_normal((n_channels, int(DURATION_S * sfreq)))


def ours(volts: Volts, sfreq: float) -> npt.NDArray[np.float32]:
    microvolts = np.multiply(volts, 1e6, dtype=np.float32, casting="same_kind")
    names = tuple(f"E{number}" for number in range(1, len(volts) + 1))
    return preprocess(Recording(microvolts, names, sfreq, "Cz"), PLAN).eeg


def by_mne(volts: Volts, sfreq: float) -> Volts:
    raw = mne.io.RawArray(volts, mne.create_info(len(volts), sfreq, "eeg"), copy="both")
    raw.filter(PLAN.highpass_hz, PLAN.lowpass_hz).notch_filter(PLAN.notch_hz).resample(PLAN.sfreq)
    made: Volts = raw.get_data()
    return made


def reference(volts: Volts, sfreq: float) -> Volts:
    """Microvolts by MNE's FIR filters and whole-length resampling."""
    microvolts = volts * 1e6
    microvolts -= microvolts.mean(1, keepdims=True)
    transition_hz = PLAN.sfreq / 2 - PLAN.lowpass_hz
    filtered = mne.filter.filter_data(
        microvolts, sfreq, PLAN.highpass_hz, PLAN.lowpass_hz, h_trans_bandwidth=transition_hz
    )
    filtered = mne.filter.notch_filter(filtered, sfreq, PLAN.notch_hz)
    made: Volts = mne.filter.resample(filtered, PLAN.sfreq, sfreq, npad=0)
    return made


def in_band(error: Volts) -> Volts:
    spectrum = np.fft.rfft(error)
    hz = np.fft.rfftfreq(error.shape[-1], 1 / PLAN.sfreq)
    spectrum[..., (hz < BAND_OF_ERROR.low_hz) | (hz > BAND_OF_ERROR.high_hz)] = 0
    return np.fft.irfft(spectrum, error.shape[-1])


def halves(made_by: Callable[[Volts, float], object], volts: Volts, sfreq: float) -> None:
    """Half of the channels in each of two threads."""
    middle = len(volts) // 2
    in_two_threads(lambda: made_by(volts[:middle], sfreq), lambda: made_by(volts[middle:], sfreq))


def peak_mb(work: Callable[[], object]) -> float:
    """Most memory that ``work`` holds at once beyond its input, in MB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
