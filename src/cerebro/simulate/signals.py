"""Time courses of a simulated recording and their sum at the electrodes, in microvolts.

Background activity has a spectrum of 1/f**exponent (mean 1.4, standard deviation 0.3 between people, as in children;
Donoghue et al. 2020, doi:10.1038/s41593-020-00744-x, describe spectra so). Rhythms are Gaussian noise around a peak
frequency. At 100 Hz everything lies within 0.5 to 50 Hz, as in the challenge copies, so that no line noise is left; at
500 Hz there are line noise (60 Hz unless told otherwise) and slower and faster activity.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from cerebro.simulate.events import Timeline
from cerebro.simulate.forward import N_BACKGROUND, Head
from cerebro.simulate.presets import FILMS, Strength
from cerebro.simulate.traits import Person

Floats = npt.NDArray[np.float64]

FILM_SFREQ = 500.0
FILM_PARTS = 3  # visual, auditory, central
FILM_PART_SIZES = (1.0, 0.8, 0.6)
ERP_START_S, ERP_STOP_S = 0.5, 1.7  # after the target: inside the window from +0.5 to +2.5 s
BURST_START_S, BURST_STOP_S = 0.5, 2.5


@dataclass(frozen=True)
class Rhythms:
    """A person's spectrum: one number per planted feature, in the units of the signal."""

    exponent: float
    theta_uV: float
    alpha_hz: float
    alpha_uV: float
    frontal_alpha_uV: tuple[float, float]  # left, right
    beta_hz: float
    beta_uV: float


def rhythms(person: Person) -> Rhythms:
    """Turn planted features (standard normal numbers) into amplitudes and frequencies."""
    f = person.features
    return Rhythms(
        exponent=float(np.clip(1.4 + 0.3 * f["externalizing"], 0.4, 2.6)),
        theta_uV=float(5.0 * np.exp(0.35 * f["p_factor"])),
        alpha_hz=float(np.clip(9.2 + 0.8 * f["age"], 6.5, 12.5)),
        alpha_uV=float(6.0 * np.exp(0.175 * f["age"])),
        frontal_alpha_uV=(
            float(4.0 * np.exp(-0.2 * f["internalizing"])),
            float(4.0 * np.exp(0.2 * f["internalizing"])),
        ),
        beta_hz=float(np.clip(20.0 + 2.0 * f["sex"], 13.0, 28.0)),
        beta_uV=float(3.0 * np.exp(0.35 * f["attention"])),
    )


def erp_template(seconds: Floats) -> Floats:
    """Shape of the parietal potential after a target (peak 1, raised cosine from +0.5 to +1.7 s); same shape."""
    phase = (seconds - ERP_START_S) / (ERP_STOP_S - ERP_START_S)
    return np.where((phase > 0) & (phase < 1), 0.5 - 0.5 * np.cos(2 * np.pi * phase), 0.0)


@lru_cache(maxsize=8)
def film_course(task: str, sfreq: float) -> Floats:
    """Activity that a film evokes in everyone, shape (3, T), root mean square 1; a function of the film's name only.

    Gaussian noise between 1 and 12 Hz; made at 500 Hz and thinned out, so that every rate shows the same course.
    """
    duration_s = next(film.duration_s for film in FILMS if film.task == task)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "little"))
    course = coloured(rng, FILM_PARTS, round(duration_s * FILM_SFREQ), FILM_SFREQ, _film_amplitude)
    thinned = np.ascontiguousarray(course[:, :: round(FILM_SFREQ / sfreq)])
    thinned.flags.writeable = False
    return thinned


def coloured(
    rng: np.random.Generator, n_rows: int, n_times: int, sfreq: float, amplitude: Callable[[Floats], Floats]
) -> Floats:
    """Gaussian noise of shape (n_rows, n_times), expected root mean square 1, with a given amplitude spectrum."""
    n = fft.next_fast_len(n_times + round(sfreq), real=True)  # the spare second keeps both ends unrelated
    size = amplitude(fft.rfftfreq(n, 1 / sfreq))
    size[0] = 0.0
    shape = (n_rows, len(size))
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * size
    spectrum *= n / (2 * np.sqrt((size**2).sum()))
    return np.asarray(fft.irfft(spectrum, n, axis=1)[:, :n_times])


def simulate_signal(
    head: Head,
    person: Person,
    strength: Strength,
    timeline: Timeline,
    sfreq: float,
    rng: np.random.Generator,
    line_hz: float = 60.0,
) -> npt.NDArray[np.float32]:
    """Signal of one recording, (C, T) microvolts against the reference, whose own row is exactly zero."""
    n_times = round(timeline.duration_s * sfreq)
    seconds = np.arange(n_times) / sfreq
    own = rhythms(person)
    is_closed = _ramped(seconds, timeline.closed)
    low, high = (0.5, 50.0) if sfreq <= 100 else (0.1, 0.4 * sfreq)

    background = coloured(rng, N_BACKGROUND, n_times, sfreq, _power_law(own.exponent, low, high))
    background *= 6.0 * _background_size(own.exponent, low, high)
    courses = np.zeros((len(head.names), n_times))

    def add(name: str, course: Floats) -> None:
        courses[head.names.index(name)] += course

    alpha = coloured(rng, 4, n_times, sfreq, _peak(own.alpha_hz, 0.7)) * (1 + (strength.alpha_closed - 1) * is_closed)
    add("alpha_left", alpha[0] * own.alpha_uV)
    add("alpha_right", alpha[1] * own.alpha_uV)
    add("frontal_alpha_left", alpha[2] * own.frontal_alpha_uV[0])
    add("frontal_alpha_right", alpha[3] * own.frontal_alpha_uV[1])
    burst, potential = _after_targets(seconds, timeline)
    add("theta", coloured(rng, 1, n_times, sfreq, _peak(6.0, 0.7))[0] * own.theta_uV * burst)
    beta = coloured(rng, 2, n_times, sfreq, _peak(own.beta_hz, 1.5)) * own.beta_uV
    add("beta_left", beta[0])
    add("beta_right", beta[1])
    add("p300", potential)
    blinks = _blinks(rng, person, seconds, is_closed)
    add("blink_left", blinks)
    add("blink_right", blinks)
    muscle = coloured(rng, 2, n_times, sfreq, _band(18.0, 0.9 * high)) * _bursts(rng, seconds) * person.muscle
    add("muscle_left", muscle[0])
    add("muscle_right", muscle[1])
    if timeline.film_s:
        film = _film(timeline, n_times, sfreq) * (strength.film_uV * person.film_gain)
        add("film_visual", film[0])
        add("film_auditory_left", film[1])
        add("film_auditory_right", film[1])
        add("film_central", film[2])

    eeg = head.background.astype(np.float32) @ background.astype(np.float32)
    eeg += head.patterns.astype(np.float32) @ courses.astype(np.float32)
    eeg *= np.float32(person.gain)
    eeg += coloured(rng, len(head.channels), n_times, sfreq, _band(low, 0.95 * high)).astype(np.float32)  # 1 microvolt
    if sfreq > 100:
        size = rng.uniform(0.5, 4.0, (len(head.channels), 1))
        eeg += (size * np.sin(2 * np.pi * line_hz * seconds + rng.uniform(0, 2 * np.pi))).astype(np.float32)
    eeg -= eeg[head.reference].copy()
    return np.asarray(eeg, dtype=np.float32)


def _after_targets(seconds: Floats, timeline: Timeline) -> tuple[Floats, Floats]:
    """Factor on theta and parietal potential: slow responses have more of the first and less of the second.

    Directions: Cavanagh & Frank 2014, doi:10.1016/j.tics.2014.04.012 (theta); O'Connell et al. 2012,
    doi:10.1038/nn.3248 (centro-parietal positivity in this very task).
    """
    burst, potential = np.ones_like(seconds), np.zeros_like(seconds)
    for trial in timeline.trials:
        after = seconds - trial.target_s
        inside = (after >= BURST_START_S) & (after < BURST_STOP_S)
        burst[inside] *= np.exp(0.35 * trial.feature)
        potential += (8.0 - 5.0 * trial.feature) * erp_template(after)
    return burst, potential


def _film(timeline: Timeline, n_times: int, sfreq: float) -> Floats:
    course = film_course(timeline.task, sfreq)
    start, length = round(timeline.film_start_s * sfreq), round(timeline.film_s * sfreq)
    length = min(length, course.shape[1])
    shown = np.zeros((FILM_PARTS, n_times))
    shown[:, start : start + length] = course[:, :length] * np.array(FILM_PART_SIZES)[:, None]
    return shown


def _blinks(rng: np.random.Generator, person: Person, seconds: Floats, is_closed: Floats) -> Floats:
    duration_s = len(seconds) * (seconds[1] - seconds[0])
    n = rng.poisson(person.blinks_per_min * duration_s / 60)
    course = np.zeros_like(seconds)
    for onset, size, keep in zip(rng.uniform(0, duration_s, n), rng.normal(110, 25, n), rng.random(n), strict=True):
        start = int(np.searchsorted(seconds, onset))
        if start < len(seconds) and (is_closed[start] < 0.5 or keep < 0.1):  # few eye movements behind closed lids
            after = seconds[start:] - onset
            course[start:] += size * (after / 0.08) ** 2 * np.exp(2 * (1 - after / 0.08)) * (after < 1)
    return course


def _bursts(rng: np.random.Generator, seconds: Floats) -> Floats:
    duration_s = len(seconds) * (seconds[1] - seconds[0])
    size = np.full_like(seconds, 1.0)
    for onset, length in zip(
        *rng.uniform((0, 0.5), (duration_s, 2.0), (rng.poisson(duration_s / 30), 2)).T, strict=True
    ):
        size[(seconds >= onset) & (seconds < onset + length)] = 12.0
    return size


def _ramped(seconds: Floats, closed: tuple[tuple[float, float], ...]) -> Floats:
    """1 while the eyes are closed, 0 while open, with ramps of half a second that start with the instruction."""
    state = np.zeros_like(seconds)
    for start, stop in closed:
        state = np.maximum(state, np.clip(np.minimum((seconds - start) / 0.5, 1 - (seconds - stop) / 0.5), 0, 1))
    return state


def _power_law(exponent: float, low_hz: float, high_hz: float) -> Callable[[Floats], Floats]:
    def amplitude(hz: Floats) -> Floats:
        return np.asarray(np.maximum(hz, low_hz) ** (-exponent / 2) * _edges(hz, low_hz, high_hz))

    return amplitude


def _background_size(exponent: float, low_hz: float, high_hz: float) -> float:
    """Size that gives every exponent the same power at 5 Hz as 1.4 has at size 1."""
    hz = np.linspace(low_hz, high_hz, 2000)
    power = [float(((hz / 5.0) ** -e).sum()) for e in (exponent, 1.4)]
    return float(np.sqrt(power[0] / power[1]))


def _edges(hz: Floats, low_hz: float, high_hz: float) -> Floats:
    """Rise from half the lower edge and fall over the last tenth before the upper one."""
    rise = np.clip((hz - 0.5 * low_hz) / (0.5 * low_hz), 0, 1)
    fall = np.clip((high_hz - hz) / (0.1 * high_hz), 0, 1)
    return np.asarray(rise * fall)


def _peak(centre_hz: float, spread_hz: float) -> Callable[[Floats], Floats]:
    return lambda hz: np.exp(-0.25 * ((hz - centre_hz) / spread_hz) ** 2)  # a Gaussian in power


def _band(low_hz: float, high_hz: float) -> Callable[[Floats], Floats]:
    return lambda hz: _edges(hz, low_hz, high_hz)


def _film_amplitude(hz: Floats) -> Floats:
    return np.asarray(np.maximum(hz, 1.0) ** -0.5 * _edges(hz, 1.0, 12.0))
