"""Preprocessing of one recording: cerebro's one pass beside MNE's filter, notch and resample with their defaults.

Both start from the same float64 volts, as a file read by MNE gives them; ours counts the conversion to float32
microvolts, the design of the filters and every check of `cerebro.data.preprocess`. Band 0.5-45 Hz, notch at 60 Hz, to
100 Hz; HBN-like is 129 channels at 500 Hz, TUH-like 32 channels at 250 Hz.

The error is taken against MNE's FIR kernels (the same upper transition on both sides) and ``resample(npad=0)`` in
float64: white noise of 50 microvolts, before quantising, without 10 s at each edge, 1-45 Hz. It is limited to that band
before the edges are cut: the other way round the ringing of the reference at the Nyquist frequency, which starts at its
ends, would leak into the band. ``max_error_uV`` and ``time_shift_ms`` are the worst over every rate of `RATES` to every
one of `GOALS`; the headline cases also stand alone.
"""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import mne
import numpy as np
import numpy.typing as npt

from cerebro.data.preprocess import Preprocessing, preprocess
from cerebro.data.readers.base import Recording
from cerebro.dsp.filters import lowpass_transition_hz
from cerebro.dsp.spectrum import Band, time_shift_s
from cerebro.dsp.units import to_microvolts
from timing import compare, in_two_threads

PLAN = Preprocessing(sfreq=100.0, highpass_hz=0.5, lowpass_hz=45.0, notch_hz=60.0)
CASES = {"hbn": (129, 500.0), "tuh": (32, 250.0)}
RATES = (100.0, 125.0, 128.0, 160.0, 200.0, 240.0, 250.0, 256.0, 300.0, 400.0, 500.0, 512.0, 600.0, 1000.0, 1024.0)
DRIFTING = (255.9, 256.05)  # ratios of no small numbers; 120 s of them have a whole number of samples at every goal
GOALS = (100.0, 128.0, 200.0, 256.0)
N_CHANNELS_OF_ERROR = 4
DURATION_S = 120.0
EDGE_S = 10.0
BAND_OF_ERROR = Band("error", 1.0, 45.0)

Volts = npt.NDArray[np.float64]


def main(rounds: int) -> dict[str, float]:
    mne.set_log_level("error")
    figures: dict[str, float] = {}
    for label, (n_channels, sfreq) in CASES.items():
        volts = noise_volts(n_channels, sfreq)
        by_us, by_peer = partial(ours, volts, sfreq), partial(by_mne, volts, sfreq)
        speed = compare(by_us, by_peer, rounds)
        figures |= speed.figures(f"ratio_vs_mne_{label}")
        figures[f"times_real_time_{label}"] = DURATION_S / speed.ours_s
        both = compare(
            partial(halves, ours, volts, sfreq), partial(halves, by_mne, volts, sfreq), rounds, clock=time.perf_counter
        )
        figures |= both.figures(f"ratio_vs_mne_two_threads_{label}")
        figures[f"peak_memory_mb_{label}"] = peak_mb(by_us)
        figures[f"peak_memory_mb_mne_{label}"] = peak_mb(by_peer)
        few = volts[:16]
        made, exact, default = ours(few, sfreq), reference(few, sfreq), by_mne(few, sfreq) * 1e6
        figures[f"max_error_uV_{label}"] = error_uV(made, exact, PLAN.sfreq)
        figures[f"max_error_uV_of_mne_default_{label}"] = error_uV(default, exact, PLAN.sfreq)
        figures[f"time_shift_ms_{label}"] = shift_ms(exact, made, PLAN.sfreq)
        figures[f"time_shift_ms_of_mne_default_{label}"] = shift_ms(exact, default, PLAN.sfreq)
    errors, shifts = [], []
    for goal in GOALS:
        for sfreq in (*RATES, *DRIFTING):
            plan = replace(PLAN, sfreq=goal, notch_hz=PLAN.notch_hz if sfreq > 130 else 0.0)
            volts = noise_volts(N_CHANNELS_OF_ERROR, sfreq)
            made, exact = ours(volts, sfreq, plan), reference(volts, sfreq, plan)
            errors.append(error_uV(made, exact, goal))
            shifts.append(abs(shift_ms(exact, made, goal)))
    figures |= {"max_error_uV": max(errors), "time_shift_ms": max(shifts), "n_pairs_of_rates": len(errors)}
    return figures


def noise_volts(n_channels: int, sfreq: float) -> Volts:
    return 50e-6 * np.random.default_rng(0).standard_normal((n_channels, round(DURATION_S * sfreq)))


def ours(volts: Volts, sfreq: float, plan: Preprocessing = PLAN) -> npt.NDArray[np.float32]:
    microvolts = np.empty(volts.shape, np.float32)
    to_microvolts(volts, microvolts)
    names = tuple(f"E{number}" for number in range(1, len(volts) + 1))
    return preprocess(Recording(microvolts, names, sfreq, "Cz"), plan).eeg


def by_mne(volts: Volts, sfreq: float) -> Volts:
    raw = mne.io.RawArray(volts, mne.create_info(len(volts), sfreq, "eeg"), copy="both")
    raw.filter(PLAN.highpass_hz, PLAN.lowpass_hz).notch_filter(PLAN.notch_hz).resample(PLAN.sfreq)
    made: Volts = raw.get_data()
    return made


def reference(volts: Volts, sfreq: float, plan: Preprocessing = PLAN) -> Volts:
    """Microvolts by MNE's FIR filters and whole-length resampling."""
    microvolts = volts * 1e6
    microvolts -= microvolts.mean(1, keepdims=True)
    transition_hz = lowpass_transition_hz(plan.lowpass_hz, min(sfreq, plan.sfreq) / 2)
    filtered = mne.filter.filter_data(
        microvolts, sfreq, plan.highpass_hz, plan.lowpass_hz, h_trans_bandwidth=transition_hz
    )
    if plan.notch_hz:
        filtered = mne.filter.notch_filter(filtered, sfreq, plan.notch_hz)
    made: Volts = mne.filter.resample(filtered, plan.sfreq, sfreq, npad=0) if plan.sfreq != sfreq else filtered
    return made


def error_uV(made: Volts, exact: Volts, sfreq: float) -> float:
    """Largest difference in `BAND_OF_ERROR`, `EDGE_S` from either end or more."""
    spectrum = np.fft.rfft(made - exact)
    hz = np.fft.rfftfreq(made.shape[-1], 1 / sfreq)
    spectrum[..., (hz < BAND_OF_ERROR.low_hz) | (hz > BAND_OF_ERROR.high_hz)] = 0
    return float(abs(inner(np.fft.irfft(spectrum, made.shape[-1]), sfreq)).max())


def shift_ms(exact: Volts, made: Volts, sfreq: float) -> float:
    return 1e3 * time_shift_s(inner(exact, sfreq), inner(made, sfreq), sfreq)


def inner(eeg: Volts, sfreq: float) -> Volts:
    return eeg[:, int(EDGE_S * sfreq) : -int(EDGE_S * sfreq)]


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
