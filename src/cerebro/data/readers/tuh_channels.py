"""Which signals of a TUH file are used, as which electrode, against which reference; every rule counts its cases."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from cerebro.data.readers.base import Finding
from cerebro.data.readers.edf import ANNOTATIONS, EdfHeader, microvolts_per
from cerebro.montage import Montage, names_of, reference_in

# What the corpus means by the word after the dash: -REF of its ar folders is the average, -LE linked ears.
REFERENCE_OF = {"REF": "average", "AR": "average", "AVG": "average", "AVE": "average", "LE": "linked-ears"}
Value = TypeVar("Value", int, str)
N_NAMED = 8  # dropped labels that a finding names


@dataclass(frozen=True)
class Choice:
    """Signals of one file that are electrodes of one rate and reference.

    Parameters
    ----------
    picks : tuple of int
        Places in the file, in the montage's order; several for an electrode that the file has twice.
    names : tuple of str
        Their electrodes, in the montage's spelling.
    sfreq : float
        Hz; 0 without picks.
    reference : str
        ``average``, ``linked-ears`` or ``unknown``.
    findings : tuple of Finding
        What was left out, and contradictions.
    """

    picks: tuple[int, ...]
    names: tuple[str, ...]
    sfreq: float
    reference: str
    findings: tuple[Finding, ...]


def choose_channels(header: EdfHeader, montage: Montage, folder_reference: str, key: str) -> Choice:
    """Electrodes of a recording: of the reference and of the rate that most of them have, with a voltage as unit.

    Parameters
    ----------
    header : EdfHeader
        Labels, units and rates.
    montage : Montage
        Electrodes that labels may mean.
    folder_reference : str
        Reference that the montage folder says; empty without one. The labels win over it.
    key : str
        Name of the recording in findings.
    """
    signals = header.signals
    labels = [signal.label for signal in signals]
    names = names_of(labels, montage)
    findings: list[Finding] = []

    def drop(rule: str, places: Sequence[int], why: str, total: int) -> None:
        if places:
            shown = ", ".join(labels[place] for place in places[:N_NAMED])
            detail = f"{len(places)} of {total} channels {why} and were dropped: {shown}"
            findings.append(Finding(rule, "repaired", key, detail))

    others = [place for place, name in enumerate(names) if name is None and labels[place] != ANNOTATIONS]
    picks = [place for place, name in enumerate(names) if name is not None]
    drop("no-electrode", others, "are no electrodes", len(others) + len(picks))

    of_label = {place: REFERENCE_OF.get(reference_in(labels[place]), "") for place in picks}
    reference = _most(of_label[place] for place in picks if of_label[place]) or folder_reference or "unknown"
    odd = [place for place in picks if of_label[place] not in ("", reference)]
    drop("mixed-references", odd, f"have another reference than {reference}", len(picks))
    picks = [place for place in picks if place not in odd]
    if folder_reference and reference != folder_reference:
        detail = f"the folder says {folder_reference}, the labels {reference}; the labels are used"
        findings.append(Finding("reference-differs", "repaired", key, detail))

    odd = [place for place in picks if microvolts_per(signals[place].unit) is None]
    drop("unit-unknown", odd, "have a unit that is no voltage", len(picks))
    picks = [place for place in picks if place not in odd]
    unitless = [place for place in picks if not signals[place].unit]
    if unitless:
        detail = f"{len(unitless)} of {len(picks)} electrodes have no unit; taken as microvolts"
        findings.append(Finding("unit-missing", "repaired", key, detail))

    n_samples = _most(signals[place].n_samples for place in picks) or 0
    odd = [place for place in picks if signals[place].n_samples != n_samples]
    drop("rate-differs", odd, f"have another rate than {n_samples / header.record_s:g} Hz", len(picks))
    order = {name: number for number, name in enumerate(montage.channels)}
    picks = sorted((place for place in picks if place not in odd), key=lambda place: order[str(names[place])])
    return Choice(
        picks=tuple(picks),
        names=tuple(str(names[place]) for place in picks),
        sfreq=n_samples / header.record_s,
        reference=reference,
        findings=tuple(findings),
    )


def settle_doubles(
    eeg: Float32[ndarray, "C T"], names: Sequence[str], montage: Montage, key: str
) -> tuple[Float32[ndarray, "D T"], tuple[str, ...], list[Finding]]:
    """One row per electrode, in the montage's order.

    Of the rows of one electrode those that never change do not count. If the rest are equal the first is kept
    (``electrode-twice``); if they differ nothing says which is right, and the electrode is left out
    (``electrode-contradicts``).
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    findings = []
    kept: dict[str, int] = {}
    for name, doubles in rows.items():
        live = [row for row in doubles if len(doubles) == 1 or np.ptp(eeg[row]) > 0] or doubles[:1]
        if len(doubles) > 1:
            is_same = all(np.array_equal(eeg[live[0]], eeg[row]) for row in live[1:])
            rule = "electrode-twice" if is_same else "electrode-contradicts"
            what = "one is kept" if is_same else f"{len(live)} of them differ; left out"
            findings.append(Finding(rule, "repaired", key, f"{len(doubles)} channels mean {name}, {what}"))
            if not is_same:
                continue
        kept[name] = live[0]
    order = sorted(kept, key=montage.channels.index)
    places = [kept[name] for name in order]
    is_in_order = places == list(range(len(names)))
    return (eeg if is_in_order else eeg[places]), tuple(order), findings


def _most(values: Iterable[Value]) -> Value | None:
    """The commonest value, of equally common ones the largest; None without any."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value)) if counts else None
