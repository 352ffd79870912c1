"""A simulated cohort as Parquet windows of a few electrodes: one file per participant and run, and who is in remission.

People, traits and signals are those of the BIDS cohort (`cohort.participants`), resting with eyes open and closed in
turn. ``remission`` is 1 where a person's internalizing score lies below its median; the planted feature of that score,
the asymmetry of frontal alpha, is all that the signals say of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import welch
from scipy.special import ndtr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cerebro.errors import ConfigError, check_one_of, check_positive
from cerebro.files import lock_folder, remove_orphans, write_atomically, write_json
from cerebro.montage import standard_1005
from cerebro.simulate import events, signals
from cerebro.simulate.cohort import Spec, participants
from cerebro.simulate.forward import Head, build_head, part_of
from cerebro.simulate.presets import TRAIT_TARGETS
from cerebro.simulate.reference import cross_validated, nrmse
from cerebro.simulate.resume import RECORDS, Work, claim, digest_of, generator, write_missing
from cerebro.simulate.traits import expected_scores
from cerebro.simulate.truth import Participant, described
from cerebro.simulate.writers import write_text

Floats = npt.NDArray[np.float64]
LabelPlace = Literal["table", "column", "primary"]
PLACES: dict[str, LabelPlace] = {"table": "table", "column": "column", "primary": "primary"}

VERSION = 1  # of this form; another number gives other files
SFREQ = 256
WINDOW_SAMPLES = 2048  # 8 s
SUBS_PER_PARENT = 4  # a parent window is 32 s
N_RUNS = 2
N_WINDOWS = {"demo": 24, "small": 60, "full": 124, "clinical": 45}  # of one run
MUSE = ("TP9", "AF7", "AF8", "TP10")
REFERENCE = "Fpz"  # as on the headset
BANDS_HZ = ((4.0, 7.0), (7.0, 13.0), (13.0, 30.0), (2.0, 20.0))
PLANTED = "internalizing"

README = """Simulated EEG, no real person
=============================
`cerebro simulate --format parquet` wrote these windows. People, traits and signals are drawn from random numbers;
`ground_truth.json` says what was planted and how well it can be found.
"""


@dataclass(frozen=True)
class Form:
    """How the files look.

    Parameters
    ----------
    channels : tuple of str
        Electrodes of the 10-05 system; columns are named in upper case.
    remission : {"table", "column", "primary"}
        Where the label stands: in ``participants.tsv``; there and in a column ``remission`` of each file; or there and
        in the spelling of a primary data set, columns ``Participant`` and ``Remission``.
    """

    channels: tuple[str, ...] = MUSE
    remission: LabelPlace = "table"

    def __post_init__(self) -> None:
        known = standard_1005().channels
        wrong = [name for name in self.channels if name not in known or name == REFERENCE]
        if wrong or not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError(
                f"channels={','.join(self.channels)!r} must be different electrodes of the 10-05 system other than the "
                f"reference {REFERENCE}; set --channels to names such as {','.join(MUSE)}."
            )


def simulate_windows(out: Path, spec: Spec, form: Form, n_jobs: int = 1) -> Path:
    """Write the Parquet files of a cohort, ``participants.tsv`` and ``ground_truth.json``; returns the latter's path.

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
    content = asdict(spec) | {"format": "parquet", "format_version": VERSION, **asdict(form)}
    people = [_renamed(person) for person in participants(spec, {})]
    claim(out, content)
    with lock_folder(out / RECORDS, "cerebro simulate"):
        remove_orphans(out, "**/.*.part")
        write_text(out / "README", README)
        write_text(out / "participants.tsv", _table(people))
        works = [_work(out, spec, form, person, run) for person in people for run in range(1, N_RUNS + 1)]
        made = write_missing(out, digest_of(content), works, n_jobs)
        measured = np.array([one["features"] for one in made]).reshape(len(people), N_RUNS, -1).mean(axis=1)
        write_json(out / "ground_truth.json", _truth(spec, form, people, measured, digest_of(content)))
    return out / "ground_truth.json"


def label_place(name: str) -> LabelPlace:
    """Place of the label by its name; ConfigError lists the names."""
    check_one_of("remission", name, PLACES)
    return PLACES[name]


def is_in_remission(participant: Participant) -> bool:
    """Whether the score behind the label lies below its median, 0."""
    return participant.person.scores[PLANTED] < 0


def _renamed(participant: Participant) -> Participant:
    return replace(participant, name=participant.name.removeprefix("sub-"), release="")


@lru_cache(maxsize=2)
def _head(channels: tuple[str, ...]) -> Head:
    """Head with these electrodes and the reference, which comes last."""
    return part_of(build_head(standard_1005(), REFERENCE), (*channels, REFERENCE), REFERENCE)


def _work(out: Path, spec: Spec, form: Form, participant: Participant, run: int) -> Work:
    path = out / "windows" / f"{participant.name}_run-{run}.parquet"
    return Work(path.stem, path, partial(_write, path, spec, form, participant, run))


def _write(path: Path, spec: Spec, form: Form, participant: Participant, run: int) -> dict[str, Any]:
    """Write one run; gives the log band powers of its channels."""
    n_windows = N_WINDOWS[spec.preset.name]
    seconds = n_windows * WINDOW_SAMPLES / SFREQ
    cycle = spec.preset.rest_open_s + spec.preset.rest_closed_s
    timeline = events.resting_state(replace(spec.preset, rest_blocks=2 * int(np.ceil(seconds / cycle))))
    rng = generator(spec.seed, participant.number, f"windows {run}")
    head = _head(form.channels)
    eeg = signals.simulate_signal(head, participant.person, spec.strength, timeline, float(SFREQ), rng)
    eeg = eeg[: len(form.channels), : n_windows * WINDOW_SAMPLES]  # (C, T) against the reference
    table = _windows(eeg, form, participant, run)
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    write_atomically(path, lambda file: pq.write_table(table, file, **options))
    return {"features": _features(eeg).tolist()}


def _windows(eeg: npt.NDArray[np.float32], form: Form, participant: Participant, run: int) -> pa.Table:
    """Table of one run: a row per window, a list of samples per channel."""
    n_windows = eeg.shape[1] // WINDOW_SAMPLES
    at = np.arange(n_windows)
    is_primary = form.remission == "primary"
    columns: dict[str, pa.Array] = {
        "Participant" if is_primary else "participant": pa.array([participant.name] * n_windows)
    }
    if form.remission != "table":
        label = np.full(n_windows, is_in_remission(participant), np.int64)
        columns["Remission" if is_primary else "remission"] = pa.array(label)
    columns |= {
        "run": pa.array(np.full(n_windows, run, np.int64)),
        "parent_window_id": pa.array(at // SUBS_PER_PARENT),
        "sub_window_id": pa.array(at % SUBS_PER_PARENT),
        "window_start": pa.array(at * (WINDOW_SAMPLES / SFREQ)),
        "window_end": pa.array((at + 1) * (WINDOW_SAMPLES / SFREQ)),
    }
    starts = pa.array(np.arange(n_windows + 1, dtype=np.int32) * WINDOW_SAMPLES)
    for name, row in zip(form.channels, eeg, strict=True):
        columns[name.upper()] = pa.ListArray.from_arrays(starts, pa.array(np.ascontiguousarray(row)))
    return pa.table(columns)


def _features(eeg: npt.NDArray[np.float32]) -> Floats:
    """Log power of each channel in `BANDS_HZ`, flat."""
    hz, power = welch(eeg.astype(np.float64), SFREQ, nperseg=2 * SFREQ)
    bands = [np.log(power[:, (hz >= low) & (hz <= high)].mean(axis=1)) for low, high in BANDS_HZ]
    return np.concatenate(bands)


def _table(people: Sequence[Participant]) -> str:
    rows = [
        (p.name, str(int(is_in_remission(p))), p.person.sex, f"{p.person.values['age']:.4f}", *_factors(p))
        for p in people
    ]
    columns = ("participant_id", "remission", "sex", "age", *(name for name in TRAIT_TARGETS if name != "age"))
    return "".join("\t".join(row) + "\n" for row in (columns, *rows))


def _factors(participant: Participant) -> list[str]:
    return [f"{participant.person.values[name]:.3f}" for name in TRAIT_TARGETS if name != "age"]


def _truth(spec: Spec, form: Form, people: Sequence[Participant], measured: Floats, digest: str) -> dict[str, Any]:
    """Content of ``ground_truth.json``; the reference is ridge on log band powers of these channels."""
    label = np.array([float(is_in_remission(person)) for person in people])
    planted = np.array([[person.person.features[name] for name in TRAIT_TARGETS] for person in people])
    column = TRAIT_TARGETS.index(PLANTED)
    mean, variance = expected_scores(planted, spec.strength)
    oracle = np.asarray(ndtr(-mean[:, column] / np.sqrt(variance[column])))  # probability of remission
    reference = cross_validated(measured, label, np.arange(len(people)))
    guesses = {"oracle": oracle, "reference": reference}
    return {
        "format": "parquet",
        "channels": [name.upper() for name in form.channels],
        "reference_electrode": REFERENCE,
        "sfreq": SFREQ,
        "window_samples": WINDOW_SAMPLES,
        "n_windows": N_WINDOWS[spec.preset.name],
        "n_runs": N_RUNS,
        "remission_is": f"normal score of {PLANTED} below 0",
        "planted_r2": {"remission": getattr(spec.strength, PLANTED)},
        "planted_sex_distance": spec.strength.sex_distance,
        "alpha_closed": spec.strength.alpha_closed,
        **{f"{name}_nrmse": {"remission": nrmse(label, guess)} for name, guess in guesses.items()},
        **{
            f"{name}_balanced_accuracy": {"remission": float(balanced_accuracy_score(label, guess > 0.5))}
            for name, guess in guesses.items()
        },
        **{f"{name}_auc": {"remission": float(roc_auc_score(label, guess))} for name, guess in guesses.items()},
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
