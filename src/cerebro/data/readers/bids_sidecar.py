"""The BIDS sidecar ``*_eeg.json`` of a recording: what it says of rate and duration against what the signal says."""

import json
import math
from pathlib import Path

from cerebro.data.readers.base import Finding, Recording, Skip
from cerebro.data.tables import number
from cerebro.errors import DataError

DURATION_TOLERANCE_S = 1.0


def read_json(path: Path) -> dict[str, object]:
    """Content of a sidecar; DataError in one line if it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); replace it by a whole copy.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; replace it by a whole copy.")
    return content


def sidecar_number(sidecar: dict[str, object], field_name: str) -> float:
    """Value of a sidecar field; NaN where it is absent, ``n/a`` or no number."""
    value = sidecar.get(field_name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return number(str(value))
    except ValueError:
        return math.nan


def compare_with_sidecar(recording: Recording, path: Path, key: str) -> None:
    """Count a rate or a duration that differs from the sidecar beside a BIDS signal; nothing where there is none.

    Parameters
    ----------
    recording : Recording
        What ``path`` holds; findings are added to it.
    path : Path
        The signal, ``*_eeg`` with any suffix.
    key : str
        Key of the recording.

    Raises
    ------
    Skip
        Where the rate makes the times of events doubtful.
    DataError
        If the sidecar is damaged.
    """
    file = path.with_suffix(".json")
    if not path.stem.endswith("_eeg") or not file.exists():
        return
    sidecar = read_json(file)
    duration_s = recording.eeg.shape[1] / recording.sfreq
    said_s = sidecar_number(sidecar, "RecordingDuration")
    found = rate_finding(key, recording.sfreq, sidecar_number(sidecar, "SamplingFrequency"), duration_s, said_s)
    if found is not None and found.severity == "failed":
        raise Skip(found)
    if found is not None:
        recording.findings.append(found)
    if abs(said_s - duration_s) > DURATION_TOLERANCE_S:  # False where unknown
        detail = f"{duration_s:.1f} s in the signal, {said_s:.1f} s in the sidecar; the signal is used"
        recording.findings.append(Finding("duration-differs", "repaired", key, detail))


def rate_finding(key: str, signal_hz: float, sidecar_hz: float, signal_s: float, sidecar_s: float) -> Finding | None:
    """What to make of a sidecar that names another sampling rate than its signal; None where they agree.

    Onsets of events are in seconds, so a wrong rate moves them all. The duration decides whom to believe: where the
    signal's own rate gives the sidecar's duration, the sidecar was not amended when the signal was resampled, and the
    recording is used at the signal's rate. Otherwise the signal's rate may be the wrong one, no event can be trusted,
    and the recording fails.

    Parameters
    ----------
    key : str
        Key of the recording.
    signal_hz, sidecar_hz : float
        Rates; ``sidecar_hz`` is NaN where the sidecar says nothing.
    signal_s, sidecar_s : float
        Durations: samples by the signal's rate, and ``RecordingDuration`` (NaN if unknown).
    """
    if not abs(signal_hz - sidecar_hz) > 1e-3 * signal_hz:  # None where unknown
        return None
    seen = f"{signal_hz:g} Hz in the signal, {sidecar_hz:g} Hz in the sidecar"
    if abs(signal_s - sidecar_s) <= DURATION_TOLERANCE_S:
        detail = f"{seen}; the signal's rate gives the sidecar's {sidecar_s:.1f} s and is used"
        return Finding("sampling-rate-differs", "repaired", key, detail)
    said = "says no duration" if math.isnan(sidecar_s) else f"says {sidecar_s:.1f} s"
    detail = f"{seen}, which {said} where the signal's rate gives {signal_s:.1f} s; correct the wrong one"
    return Finding("sampling-rate-differs", "failed", key, detail)
