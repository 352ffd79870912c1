"""What a test says of a classification: scores by participant and by window with intervals, and a table of people."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cerebro.files import write_atomically
from cerebro.metrics.bootstrap import ParticipantBootstrap, interval
from cerebro.metrics.participants import Unit, Units, class_scores, gather_units, resampled_scores
from cerebro.training.evaluate import Evaluation

N_RESAMPLES = 2000  # draws of participants behind each interval
WORDS = {"auc": "AUC", "f1": "F1", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy"}
COLUMNS = (
    *("target", "participant", "recording", "truth", "predicted", "probability", "recordings", "rows", "sd"),
    *("windows", "sd_windows"),
)
NO_LABEL = {
    "recording": "their recordings differ in it, so that recordings are scored",
    "row": "it changes within a recording, so that single rows are scored",
}


def class_lines(found: Evaluation, participant_keys: Sequence[str]) -> list[str]:
    """Lines on every classification with a known label: by participant, and by window where windows are predicted.

    Intervals hold 95 % of the draws of participants, the same draws as of a study of them; a score that is undefined
    in some of them says so.
    """
    keys = np.asarray(participant_keys, np.str_)
    lines = []
    for target, levels in found.units().items():
        if not len(levels[0]):
            continue
        whole, *windows = (replace(units, participant=keys[units.participant.astype(np.int64)]) for units in levels)
        if whole.unit in NO_LABEL:
            lines.append(f"{target}: participants have no label of their own: {NO_LABEL[whole.unit]}")
        bootstrap = ParticipantBootstrap(whole.participant.tolist(), N_RESAMPLES)
        lines += [_line(target, units, bootstrap) for units in (whole, *windows)]
    return lines


def _line(target: str, units: Units, bootstrap: ParticipantBootstrap) -> str:
    values, resampled = class_scores(units), resampled_scores(units, bootstrap)
    said, n_undefined = [], 0
    for name, value in values.items():
        (low, high), n_left_out = interval(resampled[name])
        n_undefined = max(n_undefined, n_left_out if np.isfinite(value) else 0)
        bounds = f" [{low:.2f}, {high:.2f}]" if np.isfinite(value) and np.isfinite(low) else ""
        said.append(f"{WORDS.get(name, name)} {f'{value:.2f}' if np.isfinite(value) else 'undefined'}{bounds}")
    n_people = len(np.unique(units.participant))
    counted = f"{len(units):,} {units.unit}s"
    if units.probability.shape[1] == 2:
        counted += f" ({units.n_of_class(1):,} of class 1)"
    counted += "" if units.unit == "participant" else f" of {n_people} participants"
    left_out = f"; up to {n_undefined:,} of {N_RESAMPLES:,} draws left out, where a score is undefined"
    return f"{target} by {units.unit}: {', '.join(said)}, {counted}{left_out if n_undefined else ''}"


def write_participants(path: Path, found: Evaluation, participant_keys: Sequence[str]) -> bool:
    """Write a table of participants (of recordings, where these have labels and participants none), if there is any.

    Tab-separated: target, participant (``corpus:id``), recording (its number; "" of a participant), truth, predicted
    class, probability of class 1 (of the last one, where there are more), how many recordings and rows were averaged
    and the standard deviation over the rows, the same of single windows where they are predicted. What there is not,
    such as the spread of one row, is left empty.

    Returns
    -------
    bool
        Whether there was a classification with a label to write about.
    """
    keys = np.asarray(participant_keys, np.str_)
    rows: list[tuple[str, ...]] = []
    for target, (whole, *windows) in found.units().items():
        if whole.unit not in ("participant", "recording"):
            continue
        spread = _of_windows(windows[0], whole.unit) if windows else {}
        places = [
            (str(keys[int(who)]), int(where or 0))
            for who, where in zip(whole.participant, whole.recording, strict=True)
        ]
        for at in sorted(range(len(whole)), key=places.__getitem__):
            who, where = str(whole.participant[at]), str(whole.recording[at])
            probability, n_windows_sd = whole.probability[at], spread.get((who, where), ("", ""))
            rows.append(
                (
                    *(target, str(keys[int(who)]), where, str(whole.truth[at]), str(probability.argmax())),
                    *(f"{probability[-1]:.6f}", str(whole.n_recordings[at]), str(whole.n_rows[at]), _sd(whole.sd[at])),
                    *n_windows_sd,
                )
            )
    if rows:
        text = "".join("\t".join(row) + "\n" for row in (COLUMNS, *rows))
        write_atomically(path, lambda file: _write(file, text))
    return bool(rows)


def _of_windows(windows: Units, unit: Unit) -> dict[tuple[str, str], tuple[str, str]]:
    """(Participant, recording) -> number of windows and their standard deviation, as text."""
    made = gather_units(windows.participant, windows.recording, windows.truth, windows.probability, unit)
    return {
        (str(made.participant[at]), str(made.recording[at])): (str(made.n_rows[at]), _sd(made.sd[at]))
        for at in range(len(made))
    }


def _sd(value: float) -> str:
    return f"{value:.6f}" if np.isfinite(value) else ""


def _write(file: BinaryIO, text: str) -> None:
    file.write(text.encode())
