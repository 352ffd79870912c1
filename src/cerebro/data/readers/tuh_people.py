"""Who was recorded at TUH: age and sex from EDF headers, where they are asked for, and each patient's release."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from cerebro.data.participants import ALSO_IN, SEX_CODES, with_names
from cerebro.data.readers.base import Entry, Finding

OLDEST = 120.0  # years
RELEASE_ORDER = ("train", "dev", "eval")

_AGE = re.compile(r"\bage\s*:\s*(\S+)", re.IGNORECASE)


def read_patient_field(field: str, key: str) -> tuple[float, float, list[Finding]]:
    """Age in years and sex (0 male, 1 female) of a patient field, NaN where missing, and what was counted.

    The field is ``code sex birth-date name Age:years``; birth dates are made up in this corpus and are not used.

    Parameters
    ----------
    field : str
        Patient field of an EDF header.
    key : str
        Name of the recording in findings.
    """
    findings: list[Finding] = []
    words = field.split()
    letter = words[1] if len(words) > 1 else "X"
    sex = SEX_CODES.get(letter.lower(), np.nan) if letter.upper() in ("M", "F") else np.nan
    if np.isnan(sex) and letter.upper() != "X":
        findings.append(Finding("sex-implausible", "repaired", key, f"header says {letter[:20]!r}; missing"))
    said = _AGE.search(field)
    age = _years(said[1]) if said else np.nan
    if said and np.isnan(age):
        findings.append(Finding("age-implausible", "repaired", key, f"header says {said[0][:20]!r}; missing"))
    if not findings and (np.isnan(age) or np.isnan(sex)):
        absent = [name for name, value in (("age", age), ("sex", sex)) if np.isnan(value)]
        findings.append(Finding("demographics-missing", "repaired", key, f"header without {' and '.join(absent)}"))
    return age, sex, findings


def demographics(entries: Iterable[Entry], fields: Mapping[str, str]) -> tuple[pd.DataFrame, list[Finding]]:
    """Table of age and sex by patient.

    The age is that of the patient's first recording (by key) that has one; a sex that differs between recordings is
    missing (``sex-contradicts``).

    Parameters
    ----------
    entries : iterable of Entry
        Recordings.
    fields : mapping of str to str
        Patient field of each recording, by key; none where its file is absent.
    """
    findings: list[Finding] = []
    ages: dict[str, float] = {}
    sexes: dict[str, set[float]] = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        age, sex, counted = read_patient_field(fields.get(entry.key, ""), entry.key)
        findings += counted
        if np.isnan(ages.get(entry.participant, np.nan)):
            ages[entry.participant] = age
        sexes.setdefault(entry.participant, set()).update(set() if np.isnan(sex) else {sex})
    people = sorted(ages)
    for person in people:
        if len(sexes[person]) > 1:
            findings.append(Finding("sex-contradicts", "repaired", person, "M and F in headers; missing"))
    values = {
        "age": [ages[person] for person in people],
        "sex": [next(iter(sexes[person])) if len(sexes[person]) == 1 else np.nan for person in people],
    }
    return pd.DataFrame(values, index=pd.Index(people, name="participant_id", dtype=object), dtype=float), findings


def with_releases(table: pd.DataFrame, entries: Iterable[Entry]) -> tuple[pd.DataFrame, list[Finding]]:
    """A participants table with each patient's release, if the tree has any.

    A patient in two releases is held out with either: the later ones stand in ``also_in_releases``
    (``participant-in-two-releases``).
    """
    of: dict[str, set[str]] = {}
    for entry in entries:
        if entry.release:
            of.setdefault(entry.participant, set()).add(entry.release)
    if not of:
        return table, []
    ordered = {person: sorted(names, key=RELEASE_ORDER.index) for person, names in of.items()}
    first = pd.Series({person: names[0] for person, names in ordered.items()}, dtype=object)
    table = table.assign(release_number=first.reindex(table.index))
    several = {person: names[1:] for person, names in ordered.items() if len(names) > 1}
    findings = [
        Finding(
            "participant-in-two-releases",
            "repaired",
            person,
            f"recordings in {' and '.join(ordered[person])}; all are used, and held out with either",
        )
        for person in sorted(several)
    ]
    return with_names(table, ALSO_IN, several), findings


def _years(text: str) -> float:
    try:
        age = float(text)
    except ValueError:
        return float("nan")
    return age if 0 <= age <= OLDEST else float("nan")
