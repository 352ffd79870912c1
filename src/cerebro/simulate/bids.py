"""Text files of a simulated BIDS tree, with the columns, names and spellings of HBN-EEG."""

import json
from pathlib import Path

from cerebro.simulate.events import Row, Timeline
from cerebro.simulate.presets import FILMS, Preset
from cerebro.simulate.traits import Person

# The 24 columns of the real participants.tsv, in order.
TASK_CELLS = (
    "RestingState",
    "DespicableMe",
    "FunwithFractals",
    "ThePresent",
    "DiaryOfAWimpyKid",
    "contrastChangeDetection_1",
    "contrastChangeDetection_2",
    "contrastChangeDetection_3",
    "surroundSupp_1",
    "surroundSupp_2",
    "seqLearning6target",
    "seqLearning8target",
    "symbolSearch",
)
FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
COLUMNS = (
    *("participant_id", "release_number", "sex", "age", "ehq_total", "commercial_use", "full_pheno"),
    *FACTORS,
    *TASK_CELLS,
)


def stem(participant: str, task: str, run: int) -> str:
    """Start of a recording's file names."""
    return f"{participant}_task-{task}" + (f"_run-{run}" if run else "")


def participant_row(participant: str, release: str, person: Person, preset: Preset, defects: frozenset[str]) -> str:
    """One line of participants.tsv."""
    cells = dict.fromkeys(TASK_CELLS, "unavailable")
    cells |= dict.fromkeys(["RestingState", *(film.task for film in FILMS)], "available")
    cells |= {f"contrastChangeDetection_{run}": "available" for run in range(1, preset.ccd_runs + 1)}
    if "unavailable-film" in defects:
        cells["ThePresent"] = "unavailable"
    if "caution-rest" in defects:
        cells["RestingState"] = "caution"
    factors = ["n/a" if "missing-factors" in defects else f"{person.values[name]:.3f}" for name in FACTORS]
    basics = [participant, release, person.sex, f"{person.values['age']:.4f}", f"{person.handedness:.2f}", "Yes", "Yes"]
    return "\t".join(basics + factors + list(cells.values())) + "\n"


def events_table(timeline: Timeline, sfreq: float, defects: frozenset[str]) -> str:
    """Text of events.tsv; onsets in seconds, `sample` in samples of this file."""
    has_feedback = timeline.run > 0 and not (timeline.run == 1 and "no-feedback-column" in defects)
    header = ["onset", "duration", "sample", "value", "event_code"] + ["feedback"] * has_feedback
    lines = ["\t".join(header)]
    for row in timeline.rows:
        if _is_dropped(row, timeline.task, defects):
            continue
        cells = [_short(row.onset_s), "n/a", str(round(row.onset_s * sfreq)), row.value, row.code]
        lines.append("\t".join(cells + [row.feedback] * has_feedback))
    return "\n".join(lines) + "\n"


def channels_table(channels: tuple[str, ...], defects: frozenset[str]) -> str:
    """Text of channels.tsv."""
    kind, unit = ("n/a", "n/a") if "unknown-units" in defects else ("EEG", "uV")
    return "name\ttype\tunits\n" + "".join(f"{name}\t{kind}\t{unit}\n" for name in channels)


def sidecar(task: str, n_channels: int, duration_s: float, sfreq: float, release: str) -> str:
    """Text of eeg.json; release R3 does not say how many channels there are."""
    content: dict[str, object] = {"PowerLineFrequency": 60, "TaskName": task}
    if release != "R3":
        content["EEGChannelCount"] = n_channels
    content |= {
        "EEGReference": "Cz",
        "RecordingType": "continuous",
        "RecordingDuration": duration_s,
        "SamplingFrequency": sfreq,
        "SoftwareFilters": "n/a",
    }
    return json.dumps(content, indent=2) + "\n"


def description(preset: str, seed: int) -> str:
    """Text of dataset_description.json."""
    content = {
        "Name": f"Simulated cohort in the form of HBN-EEG (preset {preset}, seed {seed})",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": [{"Name": "cerebro simulate"}],
        "ReferencesAndLinks": ["https://doi.org/10.1101/2024.10.03.615261"],
    }
    return json.dumps(content, indent=2) + "\n"


README = """Simulated EEG, no real person
=============================
`cerebro simulate` made this tree in the form of the Healthy Brain Network's EEG data set. The people, their traits and
their signals are drawn from random numbers; `ground_truth.json` says what was planted and how well it can be found.
"""


def _is_dropped(row: Row, task: str, defects: frozenset[str]) -> bool:
    no_start = task == "DespicableMe" and "no-video-start" in defects
    no_cues = task == "RestingState" and "no-eyes-cues" in defects
    return (no_start and row.value.startswith("video_")) or (no_cues and row.value.startswith("instructed_to"))


def _short(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def write_path(folder: Path, participant: str, task: str, run: int) -> Path:
    """Path of a recording without its ending ``_eeg.set``, ``_events.tsv`` and so on."""
    return folder / participant / "eeg" / stem(participant, task, run)
