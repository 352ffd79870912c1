"""The real metadata tree: what is used, repaired and skipped, and signals simulated onto 20 of its recordings."""

import csv
import json
import tarfile
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from cerebro.data.arrays import write_store
from cerebro.data.event_table import EventTable
from cerebro.data.preprocess import Preprocessing, preprocess
from cerebro.data.readers import HBN
from cerebro.data.sources import EyesWindows, FilmWindows, RandomCrops, SlidingWindows, StimulusWindows, TaskPairs
from cerebro.data.stimulus_windows import first_responses
from cerebro.data.store import EVENT_TICKS_PER_S
from cerebro.simulate.writers import write_set

PARTICIPANTS = {"R1": 136, "R2": 150, "R3": 184, "R5": 330}
WITHOUT_FACTORS = {"R1": 4, "R2": 3, "R3": 4, "R5": 7}
USED = {
    "R1": {
        "RestingState": 136,
        "DespicableMe": 130,
        "DiaryOfAWimpyKid": 127,
        "FunwithFractals": 131,
        "ThePresent": 124,
        "contrastChangeDetection": 293,
        "surroundSupp": 207,
        "seqLearning6target": 40,
        "seqLearning8target": 78,
        "symbolSearch": 76,
    },
    "R2": {
        "RestingState": 150,
        "DespicableMe": 134,
        "DiaryOfAWimpyKid": 132,
        "FunwithFractals": 132,
        "ThePresent": 125,
        "contrastChangeDetection": 301,
        "surroundSupp": 220,
        "seqLearning6target": 51,
        "seqLearning8target": 75,
        "symbolSearch": 84,
    },
    "R3": {
        "RestingState": 184,
        "DespicableMe": 174,
        "DiaryOfAWimpyKid": 170,
        "FunwithFractals": 173,
        "ThePresent": 167,
        "contrastChangeDetection": 388,
        "surroundSupp": 291,
        "seqLearning6target": 64,
        "seqLearning8target": 96,
        "symbolSearch": 105,
    },
    "R5": {
        "RestingState": 329,
        "DespicableMe": 300,
        "DiaryOfAWimpyKid": 300,
        "FunwithFractals": 296,
        "ThePresent": 296,
        "contrastChangeDetection": 745,
        "surroundSupp": 549,
        "seqLearning6target": 98,
        "seqLearning8target": 210,
        "symbolSearch": 201,
    },
}
MODES = {  # recordings used, and what the mode's own rules leave out or mask
    "movies": ({"R1": 508, "R2": 522, "R3": 684, "R5": 1190}, {"skipped:no-trusted-film": 7}),
    "resting": ({"R1": 136, "R2": 148, "R3": 183, "R5": 328}, {"skipped:no-eyes-cues": 4}),
    "challenge1": ({"R1": 293, "R2": 301, "R3": 388, "R5": 744}, {"skipped:no-response": 1}),
    "challenge2": ({"R1": 293, "R2": 301, "R3": 388, "R5": 745}, {"repaired:factors-missing": 15}),
}
FOUND = {
    "R1": {
        "skipped:task-unavailable": 371,
        "skipped:recording-absent": 55,
        "repaired:event-without-name": 3,
        "repaired:film-length": 4,
        "repaired:resting-runs-on": 14,
    },
    "R2": {
        "skipped:task-unavailable": 478,
        "skipped:recording-absent": 67,
        "skipped:too-short": 1,
        "repaired:task-caution": 26,
        "repaired:quality-key-events-missing": 2,
        "repaired:event-without-name": 4,
        "repaired:film-length": 1,
        "repaired:film-several-starts": 1,
        "repaired:film-without-stop": 1,
        "repaired:resting-runs-on": 13,
        "repaired:resting-without-cues": 2,
    },
    "R3": {
        "skipped:task-unavailable": 431,
        "skipped:recording-absent": 149,
        "repaired:channel-count-missing": 1547,
        "repaired:task-caution": 54,
        "repaired:quality-key-events-missing": 2,
        "repaired:quality-remark": 11,
        "repaired:event-without-name": 6,
        "repaired:film-several-starts": 2,
        "repaired:film-without-stop": 2,
        "repaired:resting-runs-on": 15,
        "repaired:resting-without-cues": 1,
    },
    "R5": {
        "skipped:task-unavailable": 792,
        "skipped:recording-absent": 172,
        "skipped:too-short": 2,
        "repaired:task-caution": 7,
        "repaired:quality-key-events-missing": 5,
        "repaired:event-without-name": 8,
        "repaired:film-length": 2,
        "repaired:film-several-starts": 2,
        "repaired:film-without-stop": 3,
        "repaired:resting-runs-on": 10,
        "repaired:resting-without-cues": 1,
    },
}


def counted(scan):
    return Counter(f"{finding.severity}:{finding.rule}" for finding in scan.findings)


def test_release_1_is_used_repaired_and_skipped_by_rule(shared_data, tmp_path):
    with tarfile.open(shared_data / "hbn_metadata" / "ds005505_metadata.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    scan = HBN(tmp_path).scan(require_signals=False)
    assert Counter(entry.task for entry in scan.entries) == USED["R1"]
    assert counted(scan) == FOUND["R1"]
    assert len(scan.participants) == PARTICIPANTS["R1"]
    missing = HBN(tmp_path).scan()
    assert missing.entries == []
    assert counted(missing)["skipped:signal-missing"] == 1342


@pytest.mark.slow
def test_four_releases_are_used_repaired_and_skipped_by_rule(hbn_metadata):
    scan = HBN(hbn_metadata).scan(require_signals=False)
    assert scan.participants["release_number"].value_counts().to_dict() == PARTICIPANTS
    without = scan.participants[scan.participants[["p_factor", "externalizing"]].isna().any(axis=1)]
    assert without["release_number"].value_counts().to_dict() == WITHOUT_FACTORS
    assert scan.participants["sex"].value_counts().to_dict() == {0.0: 528, 1.0: 272}
    for release in PARTICIPANTS:
        assert Counter(e.task for e in scan.entries if e.release == release) == USED[release], release
        own = [f for f in scan.findings if f.where.startswith(f"{release}/")]
        assert Counter(f"{f.severity}:{f.rule}" for f in own) == FOUND[release], release
    assert sum(counted(scan).values()) == sum(sum(found.values()) for found in FOUND.values())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_modes_take_what_they_say_from_four_releases(hbn_metadata, mode):
    scan = HBN(hbn_metadata, mode=mode).scan(require_signals=False)
    used, found = MODES[mode]
    assert Counter(entry.release for entry in scan.entries) == used
    assert {rule: n for rule, n in counted(scan).items() if rule in found} == found


def response_times(path):
    """Response time of each answered target of one events.tsv, and the number of its targets: counted anew, by hand."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["onset"] != "n/a"]
    times, n_targets, target_s = [], 0, None
    for row in sorted(rows, key=lambda row: float(row["onset"])):
        onset_s, name = float(row["onset"]), row["value"]
        if name in ("left_target", "right_target"):
            n_targets, target_s = n_targets + 1, onset_s
        elif name == "contrastTrial_start":
            target_s = None
        elif name.endswith("buttonPress") and target_s is not None:
            times.append(onset_s - target_s)
            target_s = None
    return times, n_targets


@pytest.mark.slow
def test_response_times_of_four_releases_are_those_of_the_field(hbn_metadata):
    scan = HBN(hbn_metadata, tasks=("contrastChangeDetection",)).scan(require_signals=False)
    names = sorted({event.name for entry in scan.entries for event in entry.events})
    events = EventTable(
        np.repeat(np.arange(len(scan.entries), dtype=np.int32), [len(entry.events) for entry in scan.entries]),
        np.array([round(event.onset_s * EVENT_TICKS_PER_S) for entry in scan.entries for event in entry.events]),
        np.array([names.index(event.name) for entry in scan.entries for event in entry.events], np.uint32),
        tuple(names),
    )
    target, press = first_responses(events)
    is_answered = press >= 0
    times = (events.onset[press] - events.onset[target])[is_answered] / EVENT_TICKS_PER_S
    counted_anew = [response_times(entry.path.with_name(entry.path.stem[:-3] + "events.tsv")) for entry in scan.entries]
    assert len(target) == sum(n for _, n in counted_anew) == 46_756
    assert len(times) == sum(len(found) for found, _ in counted_anew) == 39_632
    np.testing.assert_allclose(times, np.concatenate([found for found, _ in counted_anew]), atol=1.1e-4)
    np.testing.assert_allclose(np.percentile(times, [5, 50, 95]), [0.932, 1.600, 2.210], atol=1e-3)


def chosen(scan):
    """Five tasks from each release, each from another person: 20 entries."""
    tasks = ("DespicableMe", "ThePresent", "DiaryOfAWimpyKid", "RestingState", "contrastChangeDetection")
    taken: dict[tuple[str, str], str] = {}
    for entry in scan.entries:
        if entry.task in tasks and entry.participant not in {key.split("/")[1] for key in taken.values()}:
            taken.setdefault((entry.release, entry.task), entry.key)
    return [entry for entry in scan.entries if entry.key in taken.values()]


def simulated(entry, duration_s, sfreq, channels):
    """20-microvolt noise; films share a waveform from their start, targets are followed by a burst in E75."""
    n_times = round(duration_s * sfreq)
    eeg = 20 * np.random.default_rng(zlib.crc32(entry.key.encode())).standard_normal((129, n_times), dtype=np.float32)
    occipital = channels.index("E75")
    for event in entry.events:
        start = round(event.onset_s * sfreq)
        if event.name == "video_start":
            seconds = np.arange(n_times - start) / sfreq
            eeg[occipital, start:] += 100 * np.sin(2 * np.pi * (4 * seconds + 0.02 * seconds**2)).astype(np.float32)
        elif event.name.endswith("_target"):
            burst = slice(round((event.onset_s + 0.5) * sfreq), round((event.onset_s + 2.5) * sfreq))
            seconds = np.arange(burst.stop - burst.start)[: max(0, n_times - burst.start)] / sfreq
            eeg[occipital, burst] += 200 * np.sin(2 * np.pi * 10 * seconds).astype(np.float32)
    return eeg


@pytest.mark.slow
def test_signals_simulated_onto_20_real_recordings_become_windows_at_the_real_events(hbn_tree, tmp_path):
    reader = HBN(hbn_tree)
    channels = reader.montage().channels
    entries = chosen(reader.scan(require_signals=False))
    assert len(entries) == len({entry.participant for entry in entries}) == 20
    for number, entry in enumerate(entries):
        sidecar = json.loads(entry.path.with_suffix(".json").read_text())
        sfreq = 500.0 if number == 0 else 100.0
        write_set(entry.path, simulated(entry, sidecar["RecordingDuration"], sfreq, channels), channels, sfreq)

    scan = reader.scan()
    assert [entry.key for entry in scan.entries] == [entry.key for entry in entries]
    assert counted(scan)["skipped:signal-missing"] == 7885 - 20
    plan = Preprocessing()
    ready = {}
    for entry in scan.entries:
        recording = reader.load(entry)
        assert {finding.rule for finding in recording.findings} <= {"sampling-rate-differs"}  # sidecars say 500 Hz
        ready[entry.key] = preprocess(recording, plan).eeg
    store = write_store(
        tmp_path / "store",
        ready,
        reader.montage(),
        plan.sfreq,
        tasks={entry.key: entry.task for entry in scan.entries},
        people={entry.key: entry.participant for entry in scan.entries},
        participants=scan.participants,
        events={entry.key: entry.events for entry in scan.entries},
        corpus=reader.corpus,
        releases={entry.key: entry.release for entry in scan.entries},
        runs={entry.key: entry.run for entry in scan.entries},
    )
    occipital = channels.index("E75")

    def windows(table):
        return np.stack(
            [
                store.samples(int(recording))[start : start + table.n_times, occipital] * store.lsb_uV
                for recording, start in zip(table.recording[:], table.start[:], strict=True)
            ]
        )

    stimulus, _ = StimulusWindows().table(store)
    power = windows(stimulus).std(axis=1)
    assert len(stimulus) > 60
    assert power.min() > 100  # a burst of 200 microvolts from +0.5 s to +2.5 s
    known = stimulus.targets["response_time"][:]
    assert ((known > 0) & (known < 2.6)).all()

    films, _ = FilmWindows().table(store)
    rows = windows(films)
    place = pd.Series(range(len(films))).groupby(np.asarray(films.pair)).agg(list)
    couples = [rows_of[:2] for rows_of in place if len(rows_of) > 1]
    assert len(couples) > 200
    same = [np.corrcoef(rows[a], rows[b])[0, 1] for a, b in couples]
    other = [np.corrcoef(rows[a], rows[couples[i - 7][1]])[0, 1] for i, (a, _) in enumerate(couples)]
    assert np.median(same) > 0.7
    assert abs(np.median(other)) < 0.3

    eyes, left_out = EyesWindows().table(store)
    assert left_out == []
    closed = eyes.targets["eyes_closed"][:]
    cycles = [entry for entry in scan.entries if entry.task == "RestingState"]
    assert len(np.unique(eyes.recording)) == len(cycles) == 4
    assert 4 * 5 * 19 - 5 <= (closed == 1).sum() <= 4 * 5 * 19  # five times 38 s after the margin
    assert (closed == 0).sum() >= 4 * 5 * 9
    assert len(np.unique(TaskPairs().table(store)[0].pair)) == 5

    assert len(SlidingWindows().table(store)[0]) > 1500
    assert len(RandomCrops().table(store)[0]) > 1500
