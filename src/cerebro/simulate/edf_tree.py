"""A simulated cohort as the TUH EEG Corpus would hold it: an EDF tree of several montages and rates.

Layout ``edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf``. People and traits are those of the BIDS
cohort (`cohort.participants`), their signals made alike; what differs is the cap (10-20 and both ear lobes), the rate,
the reference, the channels that are no EEG, and that nothing is said of what happened: eyes open and closed in turn,
without events.
"""

import datetime
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.errors import ConfigError, check_positive
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.montage import standard_1005
from cerebro.simulate import events, signals
from cerebro.simulate.cohort import Spec, participants
from cerebro.simulate.forward import Head, build_head, part_of
from cerebro.simulate.presets import TRAIT_TARGETS
from cerebro.simulate.reference import Filter, measure, source_filter
from cerebro.simulate.resume import RECORDS, Work, claim, digest_of, generator, write_missing
from cerebro.simulate.truth import Participant, Recorded, described, planted_defects, trait_rows
from cerebro.simulate.writers import Trace, write_edf, write_text

VERSION = 1  # of this form; another number gives other files
SCALP = (
    *("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8", "P7", "P8"),
    *("Fz", "Cz", "Pz"),
)
EARS = ("A1", "A2")
OLD_NAMES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}  # as the corpus writes them
OTHERS = (
    "EMG",
    "EEG EKG1",
    "EEG LOC",
    "EEG ROC",
    "EEG 26",
    "EEG 27",
    "EEG 28",
)  # with -REF or -LE; noise and heart beats
EMPTY = ("PHOTIC-REF", "IBI", "BURSTS", "SUPPR")  # constant nearly everywhere
# Shares of sessions: the corpus is mostly of average reference and 250 Hz.
MONTAGES = (("01_tcp_ar", 0.6), ("02_tcp_le", 0.25), ("03_tcp_ar_a", 0.15))
RATES = ((250, 0.7), (256, 0.12), (400, 0.08), (512, 0.07), (1000, 0.03))
SHARE_SECOND_SESSION = 0.3
LETTERS = 26
SHARES: dict[str, float] = {
    "too-few-electrodes": 0.02,  # ten electrodes
    "discontinuous": 0.02,  # marked EDF+D
    "too-short": 0.02,  # two seconds
    "layout-unknown": 0.02,  # a name that fits no layout
    "reference-differs": 0.02,  # labels -LE in a folder of average reference, or the other way round
    "electrode-twice": 0.02,  # T3 and T7, the same signal
    "electrode-contradicts": 0.02,  # O1 twice, different
    "demographics-missing": 0.04,  # a header without age and sex
    "age-implausible": 0.02,  # Age:999
    "sex-implausible": 0.02,  # another letter
}
UNUSABLE = frozenset({"too-few-electrodes", "discontinuous", "too-short", "layout-unknown"})  # by a rule of the reader

README = """Simulated EEG, no real person
=============================
`cerebro simulate --format edf` made this tree in the form of the TUH EEG Corpus. Patients, traits and signals are drawn
from random numbers; `ground_truth.json` says what was planted and how well it can be found.
"""


@dataclass(frozen=True)
class Session:
    """One recording of a patient before any signal exists."""

    number: int
    date: datetime.date
    montage: str
    sfreq: int
    n_others: int
    defects: frozenset[str]


def simulate_edf(out: Path, spec: Spec, n_jobs: int = 1) -> Path:
    """Write the EDF tree of a cohort, ``participants.tsv`` and ``ground_truth.json``; returns the path of the latter.

    Parameters
    ----------
    out : Path
        New folder, or one that an earlier, interrupted call with the same spec began.
    n_jobs : int
        Processes; the bytes do not depend on it.

    Raises
    ------
    ConfigError
        If ``out`` holds something else, or the seed is too large to be part of eight letters.
    """
    check_positive("jobs", n_jobs)
    content = asdict(spec) | {"format": "edf", "format_version": VERSION}
    people = [_as_patient(person, spec.seed) for person in participants(spec, SHARES)]
    claim(out, content)
    with lock_folder(out / RECORDS, "cerebro simulate"):
        remove_orphans(out, "**/.*.part")
        write_text(out / "README", README)
        write_text(out / "participants.tsv", _table(people))
        works = [_work(out, spec, person, session) for person in people for session in _sessions(spec, person)]
        made = write_missing(out, digest_of(content), works, n_jobs)
        recorded = [Recorded(one["participant"], one["name"], tuple(one["features"]), ()) for one in made]
        write_json(out / "ground_truth.json", _truth(spec, people, recorded, digest_of(content)))
    return out / "ground_truth.json"


def patient_name(seed: int, number: int) -> str:
    """Eight letters: four of the seed, from z down, and four of the number.

    Two cohorts never share a patient, nor does one with the real corpus, whose names begin with a.

    Raises
    ------
    ConfigError
        If the seed or the number does not fit.
    """
    if max(seed, number) >= LETTERS**4:
        raise ConfigError(f"seed={seed} does not fit into four letters; set --seed below {LETTERS**4:,}.")
    places = (3, 2, 1, 0)
    digits = [LETTERS - 1 - seed // LETTERS**place % LETTERS for place in places]
    digits += [number // LETTERS**place % LETTERS for place in places]
    return "".join(chr(ord("a") + digit) for digit in digits)


@lru_cache(maxsize=2)
def head_of(channels: tuple[str, ...]) -> tuple[Head, Filter]:
    """Head with the 10-05 electrodes ``channels``, Cz among them, and its filter."""
    head = part_of(build_head(standard_1005()), channels, "Cz")
    return head, source_filter(head)


def _as_patient(participant: Participant, seed: int) -> Participant:
    """The same person with a name of eight letters and an age in whole years, as headers have it."""
    values = participant.person.values | {"age": float(round(participant.person.values["age"]))}
    person = replace(participant.person, values=values)
    return replace(participant, name=patient_name(seed, participant.number), release="", person=person)


def _sessions(spec: Spec, participant: Participant) -> list[Session]:
    """Sessions of a patient; a defect is in the first."""
    rng = generator(spec.seed, participant.number, "sessions")
    n_sessions = 1 + int(rng.random() < SHARE_SECOND_SESSION)
    date = datetime.date(2005, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 3650)))
    sessions = []
    for number in range(1, n_sessions + 1):
        montage, sfreq = (
            str(rng.choice([name for name, _ in of], p=[share for _, share in of])) for of in (MONTAGES, RATES)
        )
        n_others = int(rng.integers(0, len(OTHERS) + 1))
        defects = participant.defects if number == 1 else frozenset[str]()
        sessions.append(Session(number, date, montage, int(sfreq), n_others, defects))
        date += datetime.timedelta(days=int(rng.integers(1, 700)))
    return sessions


def _work(out: Path, spec: Spec, participant: Participant, session: Session) -> Work:
    name = f"{participant.name}_s{session.number:03d}_t000"
    folder = out / "edf" / f"{participant.number // 100:03d}" / participant.name
    folder = folder / f"s{session.number:03d}_{session.date:%Y_%m_%d}" / session.montage
    stem = f"{participant.name}_{session.date:%Y}" if "layout-unknown" in session.defects else name
    path = folder / f"{stem}.edf"
    return Work(name, path, partial(_write, path, spec, participant, session))


def _write(path: Path, spec: Spec, participant: Participant, session: Session) -> dict[str, Any]:
    """Write one recording; gives the features that it shows, none where a reader must leave it out."""
    head, filters = head_of(SCALP if session.montage.endswith("_a") else SCALP + EARS)
    timeline = events.resting_state(spec.preset)
    rng = generator(spec.seed, participant.number, f"edf {session.number}")
    eeg = signals.simulate_signal(head, participant.person, spec.strength, timeline, float(session.sfreq), rng)
    is_usable = not UNUSABLE & session.defects
    features = measure(filters, eeg, timeline, float(session.sfreq)).features if is_usable else ()
    is_linked = session.montage.endswith("le")
    eeg -= (
        eeg[[head.channels.index(name) for name in EARS]].mean(axis=0) if is_linked else eeg[: len(SCALP)].mean(axis=0)
    )
    traces = _traces(eeg, head.channels, session, rng)
    if "too-short" in session.defects:
        traces = [replace(trace, values=trace.values[: 2 * trace.sfreq]) for trace in traces]
    mark = "EDF+D" if "discontinuous" in session.defects else ""
    write_edf(path, traces, _patient(participant, session), session.date, mark)
    return {"participant": participant.number, "name": path.stem, "features": list(features)}


def _traces(
    eeg: npt.NDArray[np.float32], channels: tuple[str, ...], session: Session, rng: np.random.Generator
) -> list[Trace]:
    """All signals of a file: electrodes under the corpus's labels, then what is no EEG."""
    is_linked = session.montage.endswith("le") != ("reference-differs" in session.defects)
    reference = "LE" if is_linked else "REF"
    rows = dict(zip(channels, eeg, strict=True))
    if "too-few-electrodes" in session.defects:
        rows = dict(list(rows.items())[:10])
    traces = [
        Trace(f"EEG {OLD_NAMES.get(name, name).upper()}-{reference}", session.sfreq, row) for name, row in rows.items()
    ]
    if "electrode-twice" in session.defects:
        traces.append(Trace(f"EEG T7-{reference}", session.sfreq, rows["T7"]))
    if "electrode-contradicts" in session.defects:
        traces.append(Trace(f"EEG O1-{reference}", session.sfreq, rows["Fz"]))
    seconds = eeg.shape[1] // session.sfreq
    for name in OTHERS[: session.n_others]:
        sfreq = 100 if name == "EMG" else session.sfreq  # signals of another rate occur
        values = rng.normal(0, 20, seconds * sfreq)
        if name == "EEG EKG1":
            values += 300.0 * (np.arange(len(values)) % round(0.85 * sfreq) < 0.04 * sfreq)
        traces.append(Trace(f"{name}-{reference}", sfreq, values.astype(np.float32)))
    zeros = np.zeros(seconds * session.sfreq, np.float32)
    return traces + [Trace(name, session.sfreq, zeros) for name in EMPTY[: max(0, session.n_others - 3)]]


def _patient(participant: Participant, session: Session) -> str:
    """Patient field of the header; birth dates are made up, as in the corpus."""
    if "demographics-missing" in session.defects:
        return "X X X X"
    years = round(participant.person.values["age"])
    sex = "U" if "sex-implausible" in session.defects else participant.person.sex
    age = 999 if "age-implausible" in session.defects else years
    return f"{participant.name} {sex} 01-JAN-{session.date.year - years} {participant.name} Age:{age}"


def _table(people: list[Participant]) -> str:
    columns = ("participant_id", "sex", *TRAIT_TARGETS)
    rows = [(p.name, p.person.sex, *(f"{p.person.values[target]:.3f}" for target in TRAIT_TARGETS)) for p in people]
    return "".join("\t".join(row) + "\n" for row in (columns, *rows))


def _truth(spec: Spec, people: list[Participant], recorded: list[Recorded], digest: str) -> dict[str, Any]:
    """Content of ``ground_truth.json``; scores are over patients with a recording that can be used."""
    rows = {target: trait_rows(target, k, spec.strength, people, recorded) for k, target in enumerate(TRAIT_TARGETS)}
    scores = {target: row.scores() for target, row in rows.items()}
    sessions = {person.name: _sessions(spec, person) for person in people}
    return {
        "format": "edf",
        "planted_r2": {target: getattr(spec.strength, target) for target in TRAIT_TARGETS},
        "planted_sex_distance": spec.strength.sex_distance,
        "alpha_closed": spec.strength.alpha_closed,
        "oracle_nrmse": {target: oracle for target, (oracle, _) in scores.items()},
        "reference_nrmse": {target: reference for target, (_, reference) in scores.items()},
        "n_samples": {target: len(row.target) for target, row in rows.items()},
        "participants": {
            person.name: {
                **described(person),
                "sessions": [
                    {"date": str(one.date), "montage": one.montage, "sfreq": one.sfreq} for one in sessions[person.name]
                ],
            }
            for person in people
        },
        "defects": planted_defects(people),
        "preset": spec.preset.name,
        "strength": spec.strength_name,
        "effect": spec.effect,
        "seed": spec.seed,
        "n_participants": spec.n_participants,
        "simulation_version": spec.version,
        "format_version": VERSION,
        "spec": digest,
    }
