"""Sizes of simulated cohorts and of the couplings planted in them, fixed with their sources.

These numbers are set before any study runs and are never moved towards what a method finds easy. A study that needs
other sizes names them on the command line (`--participants`, `--effect`, `--strength`), where its record shows them.

Realistic strengths
    The 2025 EEG Foundation Challenge on HBN-EEG gives upper ends: its best response-time score was an NRMSE of 0.88668
    (R2 = 1 - 0.88668**2 = 0.214) and its best factor score 0.97843 (R2 = 0.043; used for p_factor, attention and
    internalizing). Public benchmarks on the same recordings reach r of about 0.14 for externalizing (R2 = 0.020), r of
    about 0.72 for age (R2 = 0.518) and a balanced accuracy of about 0.91 for sex (two normal curves 2.68 standard
    deviations apart). The film-locked activity of 1.5 microvolts gives inter-subject correlations of single channels
    of about a hundredth, and of filtered components of some hundredths, as in children of HBN (Petroni et al. 2018,
    doi:10.1523/ENEURO.0244-17.2017). Closed eyes multiply posterior alpha amplitude by 2.2 (the alpha share of
    one real adult, eegmmidb S001, goes from 0.145 to 0.629; the direction: Barry et al. 2007,
    doi:10.1016/j.clinph.2007.07.028).
Strong strengths
    No one has seen such couplings in real EEG. They are set so that a cohort of some tens of people shows an effect:
    half of the variance for p_factor and response time, a little less for the others.
Clinical strengths
    No one has seen such a coupling in real EEG either. It is set, before any study runs, to the size that a study of 60
    people must be able to find: internalizing, of which the label of the clinical cohort is a median split, has an R2
    of 0.9, so that its planted feature, known exactly, tells the two groups apart with an AUC of 0.968 (closed form:
    1/2 + 2/pi arcsin(sqrt(R2 / 2))); in nineteen of twenty cohorts of 60 people it lies above 0.93. All else is
    realistic. Recordings are long enough (two of six minutes) for the asymmetry, measured, to come near it.
"""

from dataclasses import dataclass, replace
from typing import Literal

from cerebro.errors import ConfigError, check_one_of

StrengthName = Literal["realistic", "strong", "clinical"]


@dataclass(frozen=True)
class Strength:
    """How much of each target is planted at ``--effect 1``.

    Parameters
    ----------
    p_factor, attention, internalizing, externalizing, age, response_time : float
        Explained variance R2 of the (normal score of the) target by its planted feature, in [0, 1).
    sex_distance : float
        Distance between girls and boys on their planted feature, in standard deviations.
    film_uV : float
        Root mean square of the strongest film-locked component at its strongest electrode, microvolts.
    alpha_closed : float
        Factor on posterior alpha amplitude while the eyes are closed.
    """

    p_factor: float
    attention: float
    internalizing: float
    externalizing: float
    age: float
    response_time: float
    sex_distance: float
    film_uV: float
    alpha_closed: float


STRENGTHS: dict[str, Strength] = {
    "realistic": Strength(
        p_factor=0.043,
        attention=0.043,
        internalizing=0.043,
        externalizing=0.020,
        age=0.518,
        response_time=0.214,
        sex_distance=2.68,
        film_uV=1.5,
        alpha_closed=2.2,
    ),
    "strong": Strength(
        p_factor=0.5,
        attention=0.3,
        internalizing=0.3,
        externalizing=0.4,
        age=0.7,
        response_time=0.5,
        sex_distance=3.3,
        film_uV=5.0,
        alpha_closed=2.8,
    ),
}
STRENGTHS["clinical"] = replace(STRENGTHS["realistic"], internalizing=0.9)


@dataclass(frozen=True)
class Film:
    """One film of the battery: its task name, its event codes and the seconds shown."""

    task: str
    start_code: int
    stop_code: int
    duration_s: float


# Real durations: medians of `video_stop` minus `video_start` over HBN-EEG releases R1, R2, R3 and R5.
FILMS: tuple[Film, ...] = (
    Film("DespicableMe", 83, 103, 170.55),
    Film("DiaryOfAWimpyKid", 81, 101, 117.39),
    Film("FunwithFractals", 82, 102, 162.99),
    Film("ThePresent", 84, 104, 203.07),
)


@dataclass(frozen=True)
class Preset:
    """A cohort's size and what each participant does.

    Parameters
    ----------
    n_participants : int
        People; every third belongs to the hold-out release R5, the others to R1, R2 and R3 in turn.
    strength : "realistic", "strong" or "clinical"
        Sizes of the planted couplings unless the command names others.
    sfreq : float
        Sampling rate in Hz: 500 as recorded, or 100 as in the challenge copies (band 0.5 to 50 Hz, no line noise left).
    file_format : "bdf" or "set"
    rest_open_s, rest_closed_s : float
        Length of one block with open and with closed eyes (HBN: 20 and 40 s).
    rest_blocks : int
        Blocks, starting with open eyes (HBN: 11, five and a half cycles).
    film_s : float
        Recordings of films end after this many seconds of film, before any `video_stop`, as recordings that were broken
        off do; more than the longest film shows them whole.
    ccd_runs, ccd_trials : int
        Runs of contrastChangeDetection and trials in each (HBN: 3 and 24).
    ccd_pauses_s : tuple of float
        Pauses before a target (HBN: 2.8, 4.4 or 6.0 s).
    """

    name: str
    n_participants: int
    strength: StrengthName
    sfreq: float
    file_format: Literal["bdf", "set"]
    rest_open_s: float
    rest_closed_s: float
    rest_blocks: int
    film_s: float
    ccd_runs: int
    ccd_trials: int
    ccd_pauses_s: tuple[float, float, float]


PRESETS: dict[str, Preset] = {
    # Something to see in minutes on a laptop: strong couplings, everything shortened, under 400 MB.
    "demo": Preset(
        name="demo",
        n_participants=48,
        strength="strong",
        sfreq=100.0,
        file_format="bdf",
        rest_open_s=10.0,
        rest_closed_s=20.0,
        rest_blocks=3,
        film_s=20.0,
        ccd_runs=1,
        ccd_trials=14,
        ccd_pauses_s=(1.2, 1.6, 2.0),
    ),
    # A cohort on which intervals mean something, in minutes and about 5 GB.
    "small": Preset(
        name="small",
        n_participants=200,
        strength="realistic",
        sfreq=100.0,
        file_format="bdf",
        rest_open_s=20.0,
        rest_closed_s=40.0,
        rest_blocks=3,
        film_s=60.0,
        ccd_runs=2,
        ccd_trials=24,
        ccd_pauses_s=(2.8, 4.4, 6.0),
    ),
    # As recorded: a release's worth of people, whole films, 500 Hz EEGLAB files, about 380 MB a person.
    "full": Preset(
        name="full",
        n_participants=1000,
        strength="realistic",
        sfreq=500.0,
        file_format="set",
        rest_open_s=20.0,
        rest_closed_s=40.0,
        rest_blocks=11,
        film_s=600.0,
        ccd_runs=3,
        ccd_trials=24,
        ccd_pauses_s=(2.8, 4.4, 6.0),
    ),
    # Patients of one clinic: six minutes of rest, eyes open and closed for a minute in turn, as recorded.
    "clinical": Preset(
        name="clinical",
        n_participants=60,
        strength="clinical",
        sfreq=500.0,
        file_format="set",
        rest_open_s=60.0,
        rest_closed_s=60.0,
        rest_blocks=6,
        film_s=20.0,
        ccd_runs=1,
        ccd_trials=14,
        ccd_pauses_s=(1.2, 1.6, 2.0),
    ),
}


def preset(name: str) -> Preset:
    """Preset of that name; ConfigError lists the names."""
    check_one_of("preset", name, PRESETS)
    return PRESETS[name]


def strength(name: str) -> Strength:
    """Strength of that name; ConfigError lists the names."""
    check_one_of("strength", name, STRENGTHS)
    return STRENGTHS[name]


def scaled(strength: Strength, effect: float) -> Strength:
    """Scale every planted coupling by ``effect``: correlations, distances, film activity, alpha of closed eyes.

    Explained variances grow with the square of ``effect``; 0 plants nothing.

    Raises
    ------
    ConfigError
        If ``effect`` is negative or not finite, or would explain all of a target's variance or more.
    """
    r2 = {name: getattr(strength, name) for name in (*TRAIT_TARGETS, "response_time")}
    largest = max(r2.values()) ** -0.5
    if not 0 <= effect < largest:
        raise ConfigError(
            f"effect={effect:g} must be at least 0 and below {largest:.3f}, where a target would be explained wholly; "
            "set --effect in that range."
        )
    return replace(
        strength,
        **{name: value * effect**2 for name, value in r2.items()},
        sex_distance=strength.sex_distance * effect,
        film_uV=strength.film_uV * effect,
        alpha_closed=1 + (strength.alpha_closed - 1) * effect,
    )


TRAIT_TARGETS: tuple[str, ...] = ("p_factor", "attention", "internalizing", "externalizing", "age")
