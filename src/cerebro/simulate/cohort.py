"""Simulate a cohort: who takes part, what each recording holds, and the BIDS tree that is written of it.

Everything is a function of the seed, the participant's number and the recording's name, so that any number of
processes, any order and any interruption give the same bytes. A recording is finished once its record below
`.simulation/` exists; running the same command again writes only what is missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cerebro.errors import ConfigError, check_positive
from cerebro.files import lock_folder, remove_orphans, write_json
from cerebro.montage import hbn_129
from cerebro.progress import progress
from cerebro.simulate import bids, events, signals
from cerebro.simulate.defects import SHARES, plan_defects
from cerebro.simulate.forward import Head, build_head
from cerebro.simulate.presets import FILMS, Preset, Strength, preset, scaled, strength
from cerebro.simulate.reference import Filter, measure, source_filter
from cerebro.simulate.resume import RECORDS, claim, digest_of, generator, read_record
from cerebro.simulate.traits import draw_person, draw_trials
from cerebro.simulate.truth import Participant, Recorded, ground_truth
from cerebro.simulate.writers import write_bdf, write_set, write_text

VERSION = 1  # of the simulation; another number gives other signals
MIN_PARTICIPANTS = 15  # five in the hold-out, ten outside, so that the references can be cross-validated
_SIX_CHANNELS = 6


@dataclass(frozen=True)
class Spec:
    """All that decides the bytes of a cohort."""

    preset: Preset
    strength_name: str
    strength: Strength  # after scaling by the effect
    effect: float
    n_participants: int
    seed: int
    version: int = VERSION

    def digest(self) -> str:
        """Hash of all fields."""
        return digest_of(asdict(self))


def make_spec(
    preset_name: str, n_participants: int = 0, seed: int = 0, effect: float = 1.0, strength_name: str = ""
) -> Spec:
    """Spec of a cohort.

    Parameters
    ----------
    preset_name : str
        ``demo``, ``small`` or ``full``.
    n_participants : int
        0 takes the preset's number.
    effect : float
        Factor on every planted coupling, 0 or more.
    strength_name : str
        ``realistic`` or ``strong``; empty takes the preset's.

    Raises
    ------
    ConfigError
        If a name is unknown or a number out of range.
    """
    chosen = preset(preset_name)
    n = n_participants or chosen.n_participants
    if n < MIN_PARTICIPANTS:
        raise ConfigError(
            f"participants={n} is too few for references over left-out people; set --participants to "
            f"{MIN_PARTICIPANTS} or more."
        )
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; set --seed to 0 or more.")
    name = strength_name or chosen.strength
    return Spec(chosen, name, scaled(strength(name), effect), effect, n, seed)


def simulate_cohort(out: Path, spec: Spec, n_jobs: int = 1) -> Path:
    """Write the BIDS tree of a cohort and its ``ground_truth.json``; returns the path of the latter.

    Parameters
    ----------
    out : Path
        New folder, or one that an earlier, interrupted call with the same spec began.
    n_jobs : int
        Processes; the bytes do not depend on it.

    Raises
    ------
    ConfigError
        If ``out`` holds something else.
    """
    check_positive("jobs", n_jobs)
    claim(out, asdict(spec))
    with lock_folder(out / RECORDS, "cerebro simulate"):
        remove_orphans(out, "**/.*.part")
        people = list(participants(spec))
        head = build_head(hbn_129())
        filters = source_filter(head)
        write_text(out / "README", bids.README)
        write_text(out / "dataset_description.json", bids.description(spec.preset.name, spec.seed))
        write_text(out / ".bidsignore", f"{RECORDS}\nground_truth.json\n")
        rows = [bids.participant_row(p.name, p.release, p.person, spec.preset, p.defects) for p in people]
        write_text(out / "participants.tsv", "\t".join(bids.COLUMNS) + "\n" + "".join(rows))
        recorded = {person.number: _kept(out, spec, person) for person in people}
        missing = [person for person in people if not recorded[person.number]]
        tasks = (delayed(simulate_participant)(out, spec, participant, head, filters) for participant in missing)
        done = Parallel(n_jobs=max(1, min(n_jobs, len(missing))), return_as="generator")(tasks)
        for person, records in zip(missing, progress(done, "simulate", "participant", len(missing)), strict=True):
            recorded[person.number] = records
        truth = ground_truth(spec.strength, people, [one for records in recorded.values() for one in records])
        truth |= {
            "preset": spec.preset.name,
            "strength": spec.strength_name,
            "effect": spec.effect,
            "seed": spec.seed,
            "n_participants": spec.n_participants,
            "simulation_version": spec.version,
            "spec": spec.digest(),
        }
        write_json(out / "ground_truth.json", truth)
    return out / "ground_truth.json"


def simulate_participant(
    out: Path, spec: Spec, participant: Participant, head: Head, filters: Filter
) -> list[Recorded]:
    """Write all recordings of one participant that are not there yet; returns what each holds."""
    recorded = []
    with threadpool_limits(1):  # sums in one order whatever the number of threads
        for timeline in _timelines(spec, participant):
            path, signal, record = _places(out, spec, participant, timeline)
            if kept := _read_record(record, signal, spec):
                recorded.append(kept)
                continue
            made = _write_recording(path, signal, spec, participant, timeline, head, filters)
            write_json(record, {"spec": spec.digest(), **asdict(made)})
            recorded.append(made)
    return recorded


def _write_recording(
    path: Path,
    signal: Path,
    spec: Spec,
    participant: Participant,
    timeline: events.Timeline,
    head: Head,
    filters: Filter,
) -> Recorded:
    sfreq = spec.preset.sfreq
    rng = generator(spec.seed, participant.number, f"signal {timeline.task} {timeline.run}")
    eeg = signals.simulate_signal(head, participant.person, spec.strength, timeline, sfreq, rng)
    channels, is_usable = head.channels, True
    if timeline.task == "FunwithFractals" and "six-channel-recording" in participant.defects:
        eeg, channels, is_usable = eeg[:_SIX_CHANNELS], channels[:_SIX_CHANNELS], False
    if timeline.task == "DiaryOfAWimpyKid" and "shortest-recording" in participant.defects:
        eeg, is_usable = eeg[:, : max(1, round(0.008 * sfreq))], False
    measured = measure(filters, eeg, timeline, sfreq) if is_usable else None
    (write_bdf if spec.preset.file_format == "bdf" else write_set)(signal, eeg, channels, sfreq)
    duration_s = eeg.shape[1] / sfreq
    write_text(_beside(path, "channels.tsv"), bids.channels_table(channels, participant.defects))
    sidecar = bids.sidecar(timeline.task, len(channels), duration_s, sfreq, participant.release)
    write_text(_beside(path, "eeg.json"), sidecar)
    if not (timeline.task == "ThePresent" and "no-events-file" in participant.defects):
        write_text(_beside(path, "events.tsv"), bids.events_table(timeline, sfreq, participant.defects))
    return Recorded(
        participant=participant.number,
        name=path.name,
        features=measured.features if measured else (),
        trials=tuple(
            (trial.response_time_s, trial.feature, *shown)
            for trial, shown in zip(timeline.trials, measured.trials if measured else (), strict=True)
            if not np.isnan(trial.response_time_s)
        ),
    )


def participants(spec: Spec, shares: Mapping[str, float] = SHARES) -> Iterator[Participant]:
    """Members of a cohort, in order, with the defects of ``shares``; the same people whatever is written of them."""
    defects = plan_defects(spec.n_participants, spec.seed, shares)
    for number in range(spec.n_participants):
        person = draw_person(generator(spec.seed, number, "person"), spec.strength)
        release = "R5" if number % 3 == 2 else ("R1", "R2", "R3")[(number - number // 3) % 3]
        yield Participant(number, f"sub-SIM{spec.seed}P{number:04d}", release, person, defects[number])


def _timelines(spec: Spec, participant: Participant) -> Iterator[events.Timeline]:
    chosen, number = spec.preset, participant.number
    yield events.resting_state(chosen)
    for film in FILMS:
        if film.task == "ThePresent" and "unavailable-film" in participant.defects:
            continue
        yield events.film(chosen, film, generator(spec.seed, number, f"events {film.task}"))
    for run in range(1, chosen.ccd_runs + 1):
        rng = generator(spec.seed, number, f"events contrastChangeDetection {run}")
        scores, features = draw_trials(rng, participant.person, chosen.ccd_trials, spec.strength)
        yield events.contrast_change(chosen, run, scores, features, rng)


def _places(out: Path, spec: Spec, participant: Participant, timeline: events.Timeline) -> tuple[Path, Path, Path]:
    """Start of the names of a recording's files, its signal, and the record that says it is finished."""
    path = bids.write_path(out, participant.name, timeline.task, timeline.run)
    return path, path.with_name(f"{path.name}_eeg.{spec.preset.file_format}"), out / RECORDS / f"{path.name}.json"


def _kept(out: Path, spec: Spec, participant: Participant) -> list[Recorded]:
    """What a participant's recordings hold if an earlier call has finished all of them; else nothing."""
    records = []
    for timeline in _timelines(spec, participant):
        _, signal, record = _places(out, spec, participant, timeline)
        if (kept := _read_record(record, signal, spec)) is None:
            return []
        records.append(kept)
    return records


def _read_record(record: Path, signal: Path, spec: Spec) -> Recorded | None:
    content = read_record(record, signal, spec.digest())
    if content is None:
        return None
    trials = tuple(tuple(trial) for trial in content["trials"])
    return Recorded(content["participant"], content["name"], tuple(content["features"]), trials)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}_{ending}")
