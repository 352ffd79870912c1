"""A simulated clinical cohort: raw EDF recordings of patients at rest and the table that says who got well.

People, traits and the head are those of the BIDS cohort (`cohort.participants`). ``group`` is ``remission`` where a
person's internalizing score lies below its median; the planted feature of that score, the asymmetry of frontal alpha,
is all that the signals say of it. What a clinic's files have on top is here too: 50-Hz line noise, offsets and drifts
of electrodes, pops of single ones and movements of all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfiltfilt
from scipy.special import ndtr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cerebro.errors import ConfigError, check_positive
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.montage import standard_1005
from cerebro.simulate import events, signals
from cerebro.simulate.cohort import Spec, participants
from cerebro.simulate.forward import Head, build_head, part_of
from cerebro.simulate.presets import TRAIT_TARGETS
from cerebro.simulate.reference import cross_validated, nrmse
from cerebro.simulate.resume import RECORDS, Work, claim, digest_of, generator, write_missing
from cerebro.simulate.traits import expected_scores
from cerebro.simulate.truth import Participant, described
from cerebro.simulate.windows import MUSE, PLANTED, is_in_remission
from cerebro.simulate.writers import EDF_LIMIT_UV, Trace, write_edf, write_text

Floats = npt.NDArray[np.float64]

VERSION = 1  # of this form; another number gives other files
SFREQ = 500
LINE_HZ = 50.0
N_RUNS = 2
GROUPS = ("non-remission", "remission")
CAP = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8"),
    *("P7", "P3", "Pz", "P4", "P8", "O1", "O2", "A1", "A2"),
)
# Name -> electrodes and the one that they are recorded against, as a Muse headband and an actiCAP do.
MONTAGES = {"muse": (MUSE, "Fpz"), "1020": (CAP, "FCz")}
# Where frontal alpha can be compared, left and right.
FRONTAL_PAIRS = (("AF7", "AF8"), ("Fp1", "Fp2"), ("F3", "F4"), ("F7", "F8"), ("AF3", "AF4"), ("F5", "F6"), ("F1", "F2"))
ALPHA_HZ = (7.0, 13.0)
BAND_HZ = (1.0, 45.0)
MOST_UV = 100.0  # from peak to peak in a window of 2 s; beyond is an artefact
N_BOOTSTRAP = 2000
_DATE = date(2021, 3, 1)

README = """Simulated EEG, no real person
=============================
`cerebro simulate --format clinical` wrote these recordings. People, traits and signals are drawn from random numbers;
`participants.tsv` is the table of labels and `ground_truth.json` says what was planted and how well it can be found.
"""


@dataclass(frozen=True)
class Cap:
    """Which electrodes are recorded against which.

    Parameters
    ----------
    channels : tuple of str
        Electrodes of the 10-05 system, a frontal pair among them (`FRONTAL_PAIRS`).
    reference : str
        Electrode that all are measured against; it has no signal in the file.
    """

    channels: tuple[str, ...]
    reference: str

    def __post_init__(self) -> None:
        known = standard_1005().channels
        wrong = [name for name in self.channels if name not in known or name == self.reference]
        if wrong or not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError(
                f"channels={','.join(self.channels)!r} must be different electrodes of the 10-05 system other than the "
                f"reference {self.reference}; set --channels to {' or '.join(MONTAGES)}, or to names such as "
                f"{','.join(MUSE)}."
            )
        if not self.pairs():
            pairs = ", ".join(f"{left} {right}" for left, right in FRONTAL_PAIRS)
            raise ConfigError(
                f"channels={','.join(self.channels)!r} hold no frontal pair, and what is planted is an asymmetry of "
                f"frontal alpha; add one of {pairs} to --channels."
            )

    def pairs(self) -> list[tuple[str, str]]:
        """Frontal pairs, left and right, of which both are recorded."""
        return [pair for pair in FRONTAL_PAIRS if set(pair) <= set(self.channels)]


def cap_of(names: str) -> Cap:
    """Cap called ``muse`` or ``1020``, or one of these electrodes, separated by commas, against Fpz."""
    if names in MONTAGES:
        return Cap(*MONTAGES[names])
    return Cap(tuple(names.split(",")), MONTAGES["muse"][1])


def simulate_clinical(out: Path, spec: Spec, cap: Cap, n_jobs: int = 1) -> Path:
    """Write the recordings of a cohort, ``participants.tsv`` and ``ground_truth.json``; returns the latter's path.

    Parameters
    ----------
    out : Path
        New folder, or one that an earlier, interrupted call with the same arguments began.
    n_jobs : int
        Processes; the bytes do not depend on it.

    Raises
    ------
    ConfigError
        If ``out`` holds something else.
    """
    check_positive("jobs", n_jobs)
    content = asdict(spec) | {"format": "clinical", "format_version": VERSION, **asdict(cap)}
    people = [_as_patient(person) for person in participants(spec, {})]
    claim(out, content)
    with lock_folder(out / RECORDS, "cerebro simulate"):
        remove_orphans(out, "**/.*.part")
        write_text(out / "README", README)
        write_text(out / "participants.tsv", _table(people))
        works = [_work(out, spec, cap, person, run) for person in people for run in range(1, N_RUNS + 1)]
        made = write_missing(out, digest_of(content), works, n_jobs)
        measured = np.array([one["asymmetry"] for one in made]).reshape(len(people), N_RUNS, -1).mean(axis=1)
        write_json(out / "ground_truth.json", _truth(spec, cap, people, measured, digest_of(content)))
    return out / "ground_truth.json"


def expected_auc(r2: float) -> float:
    """AUC over all people of a normal feature for the median split of a score of which it explains ``r2``.

    Three normal numbers lie below 0 at once, the two scores with their signs and the difference of the features: an
    orthant of correlations 0, sqrt(r2 / 2) and sqrt(r2 / 2), whose probability has a closed form.
    """
    return float(0.5 + 2 / np.pi * np.arcsin(np.sqrt(r2 / 2)))


def auc_interval(label: Floats, guess: Floats, seed: int) -> tuple[float, float]:
    """95 % of the AUCs of samples of people drawn with replacement, those without one of the groups left out.

    Parameters
    ----------
    label : array (n,)
        0 or 1 of each person, both among them.
    guess : array (n,)
        Larger for 1.
    """
    rng = np.random.default_rng([seed, N_BOOTSTRAP])
    times = rng.multinomial(len(label), np.full(len(label), 1 / len(label)), N_BOOTSTRAP).astype(np.float64)
    ones, zeros = times[:, label == 1], times[:, label == 0]  # how often each person was drawn
    apart = guess[label == 1][:, None] - guess[label == 0][None, :]
    above = (np.sign(apart) + 1) / 2  # 1 where ordered rightly, a half for ties
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    rightly = np.einsum("di,ij,dj->d", ones, above, zeros, optimize=True)
    low, high = np.quantile(rightly[pairs > 0] / pairs[pairs > 0], (0.025, 0.975))
    return float(low), float(high)


def _as_patient(participant: Participant) -> Participant:
    return replace(participant, name=f"sub-{participant.number + 1:03d}", release="")


@lru_cache(maxsize=2)
def _head(cap: Cap) -> Head:
    """Head with the electrodes of a cap and its reference, which comes last."""
    return part_of(build_head(standard_1005(), cap.reference), (*cap.channels, cap.reference), cap.reference)


def _work(out: Path, spec: Spec, cap: Cap, participant: Participant, run: int) -> Work:
    path = out / "eeg" / f"{participant.name}_run-{run}.edf"
    return Work(path.stem, path, partial(_write, path, spec, cap, participant, run))


def _write(path: Path, spec: Spec, cap: Cap, participant: Participant, run: int) -> dict[str, Any]:
    """Write one recording; gives the asymmetry of alpha that it shows at each frontal pair."""
    timeline = events.resting_state(spec.preset)
    rng = generator(spec.seed, participant.number, f"clinical {run}")
    eeg = signals.simulate_signal(
        _head(cap), participant.person, spec.strength, timeline, float(SFREQ), rng, line_hz=LINE_HZ
    )[: len(cap.channels)]
    eeg += _electrodes(rng, *eeg.shape)
    eeg = np.clip(eeg, -EDF_LIMIT_UV, EDF_LIMIT_UV).astype(np.float32)
    traces = [Trace(name, SFREQ, row) for name, row in zip(cap.channels, eeg, strict=True)]
    write_edf(path, traces, f"{participant.name} X X X", _DATE)
    return {"asymmetry": _asymmetry(eeg, cap)}


def _electrodes(rng: np.random.Generator, n_channels: int, n_times: int) -> Floats:
    """What electrodes add: an offset and drifts, on average two pops of one in four minutes, two movements of all."""
    seconds = np.arange(n_times) / SFREQ
    drift = signals.coloured(
        rng, n_channels, n_times, float(SFREQ), lambda hz: np.where(hz < 0.3, (hz + 0.01) ** -1, 0)
    )
    added = rng.normal(0, 40, (n_channels, 1)) + drift * rng.uniform(5, 25, (n_channels, 1))
    duration_s = n_times / SFREQ
    for onset, size in zip(
        *rng.uniform((0, 150), (duration_s, 500), (rng.poisson(duration_s / 120), 2)).T, strict=True
    ):
        after = np.maximum(seconds - onset, 0)
        added[rng.integers(n_channels)] += rng.choice((-1, 1)) * size * (after > 0) * np.exp(-after / 0.4)
    shaking = signals.coloured(rng, 1, n_times, float(SFREQ), lambda hz: ((hz > 0.5) & (hz < 4)).astype(np.float64))[0]
    for onset, size in zip(*rng.uniform((0, 60), (duration_s, 150), (rng.poisson(duration_s / 120), 2)).T, strict=True):
        phase = np.clip((seconds - onset) / 2, 0, 1)  # two seconds
        added += rng.normal(0, 1, (n_channels, 1)) * size * np.sin(np.pi * phase) ** 2 * shaking
    return added


def _asymmetry(eeg: npt.NDArray[np.float32], cap: Cap) -> list[float]:
    """Log alpha power at the right of each frontal pair minus that at its left, without windows that hold artefacts."""
    length = 2 * SFREQ
    hz = np.fft.rfftfreq(length, 1 / SFREQ)
    is_alpha = (hz >= ALPHA_HZ[0]) & (hz <= ALPHA_HZ[1])
    found = []
    for pair in cap.pairs():
        rows = eeg[[cap.channels.index(name) for name in pair]].astype(np.float64)
        rows = sosfiltfilt(butter(4, BAND_HZ, "bandpass", fs=SFREQ, output="sos"), rows)
        windows = rows[:, : rows.shape[1] // length * length].reshape(2, -1, length)
        span = np.ptp(windows, axis=2).max(axis=0)
        kept = windows[:, span <= max(MOST_UV, float(np.quantile(span, 0.25)))]  # a quarter, however poor
        power = np.abs(np.fft.rfft(kept * np.hanning(length))) ** 2
        left, right = np.log(power[..., is_alpha].mean(axis=(1, 2)))
        found.append(float(right - left))
    return found


def _table(people: Sequence[Participant]) -> str:
    rows = [(p.name, GROUPS[is_in_remission(p)], f"{p.person.values['age']:.1f}", p.person.sex.upper()) for p in people]
    columns = ("participant_id", "group", "age", "sex")
    return "".join("\t".join(row) + "\n" for row in (columns, *rows))


def _truth(spec: Spec, cap: Cap, people: Sequence[Participant], measured: Floats, digest: str) -> dict[str, Any]:
    """Content of ``ground_truth.json``; the reference is ridge on the measured asymmetries, over left-out people."""
    label = np.array([float(is_in_remission(person)) for person in people])
    planted = np.array([[person.person.features[name] for name in TRAIT_TARGETS] for person in people])
    column = TRAIT_TARGETS.index(PLANTED)
    mean, variance = expected_scores(planted, spec.strength)
    oracle = np.asarray(ndtr(-mean[:, column] / np.sqrt(variance[column])))  # probability of remission
    guesses = {"oracle": oracle, "reference": cross_validated(measured, label, np.arange(len(people)))}
    scores: dict[str, dict[str, Any]] = {"expected_auc": {"remission": expected_auc(1 - float(variance[column]))}}
    for name, guess in guesses.items():
        scores[f"{name}_auc"] = {"remission": float(roc_auc_score(label, guess))}
        scores[f"{name}_auc_interval"] = {"remission": list(auc_interval(label, guess, spec.seed))}
        scores[f"{name}_balanced_accuracy"] = {"remission": float(balanced_accuracy_score(label, guess > 0.5))}
        scores[f"{name}_nrmse"] = {"remission": nrmse(label, guess)}
    return {
        "format": "clinical",
        "channels": list(cap.channels),
        "reference_electrode": cap.reference,
        "sfreq": SFREQ,
        "line_hz": LINE_HZ,
        "duration_s": events.resting_state(spec.preset).duration_s,
        "n_runs": N_RUNS,
        "label": {"column": "group", "values": list(GROUPS)},
        "remission_is": f"normal score of {PLANTED} below 0",
        "planted_r2": {"remission": getattr(spec.strength, PLANTED)},
        "planted_sex_distance": spec.strength.sex_distance,
        "alpha_closed": spec.strength.alpha_closed,
        **scores,
        "n_samples": {"remission": len(people)},
        "participants": {
            person.name: {"remission": int(is_in_remission(person)), **described(person)} for person in people
        },
        "defects": [],
        "preset": spec.preset.name,
        "strength": spec.strength_name,
        "effect": spec.effect,
        "seed": spec.seed,
        "n_participants": spec.n_participants,
        "simulation_version": spec.version,
        "format_version": VERSION,
        "spec": digest,
    }
