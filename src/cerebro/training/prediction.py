"""What a packaged classifier says of new people: one result for each, from one recording or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cerebro.data.new_recordings import NewRecording
from cerebro.errors import CheckpointError
from cerebro.training.checkpoint import Stamp, hashed
from cerebro.training.describe import Describer
from cerebro.training.explain import Explained, explain
from cerebro.training.phase import Phase
from cerebro.training.profile import Profile, Unlike
from cerebro.training.rows import Layout, rows_of

Array = npt.NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Model:
    """A classifier ready for recordings.

    Parameters
    ----------
    phase : Phase
        In evaluation mode.
    target : str
        What it tells.
    classes : tuple of str
        Names of the classes, in the order of the probabilities.
    layout : Layout
        How a recording becomes rows.
    profile : Profile, optional
        What its training recordings are like.
    stamp : Stamp
        Who and what it has seen.
    corpora : tuple of str
        Names of data sets by which people it has seen may be known.
    """

    phase: Phase
    target: str
    classes: tuple[str, ...]
    layout: Layout
    profile: Profile | None
    stamp: Stamp
    corpora: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordingResult:
    """What is said of one recording.

    Parameters
    ----------
    recording : NewRecording
    explained : Explained
    unlike : list of Unlike
        In what it is unlike the training data.
    warnings : list of str
        Seen in training; channels that are absent.
    """

    recording: NewRecording
    explained: Explained
    unlike: list[Unlike]
    warnings: list[str]


@dataclass(frozen=True)
class PersonResult:
    """What is said of one person.

    Parameters
    ----------
    participant : str
    probability : array (K,)
        Mean over recordings.
    shown : int
        Class whose probability is spoken of: 1 of two classes, else the likeliest.
    quantiles : dict of float to float
        Of that probability over the windows of all recordings.
    recordings : list of RecordingResult
    """

    participant: str
    probability: Array
    shown: int
    quantiles: dict[float, float]
    recordings: list[RecordingResult]

    @property
    def is_unlike(self) -> bool:
        """Whether a recording is unlike the training data."""
        return any(one.unlike for one in self.recordings)

    def channels(self) -> list[tuple[int, float]]:
        """Channels of the signal and the change in probability, the largest change first; mean over recordings."""
        found: dict[int, list[float]] = {}
        for one in self.recordings:
            for channel, change in one.explained.channels.items():
                found.setdefault(channel, []).append(float(change[self.shown]))
        return sorted(((c, float(np.mean(v))) for c, v in found.items()), key=lambda pair: -abs(pair[1]))

    def moments(self) -> list[tuple[str, float, float, float]]:
        """Recording, start and end in seconds, and change in probability, the largest first."""
        found = []
        for one in self.recordings:
            for first, stop, change in one.explained.moments:
                start, end = one.recording.start_s[first], one.recording.end_s[stop - 1]
                found.append((one.recording.key, float(start), float(end), float(change[self.shown])))
        return sorted(found, key=lambda entry: -abs(entry[3]))


def predict_recording(model: Model, recording: NewRecording, number: int) -> RecordingResult:
    """Probability of a recording, what carried it, and what speaks against trusting it.

    Raises
    ------
    DataError
        In one line: another rate than the model's, or no channel of it.
    """
    signal = model.phase.signal
    rows = rows_of(recording, signal, model.layout, number)
    explained = explain(model.phase, model.target, rows, len(recording.eeg), recording.key)
    unlike: list[Unlike] = []
    if model.profile is not None:
        describer = Describer(model.phase.encoder, signal)
        device = next(model.phase.parameters()).device
        for batch in rows.batches:
            describer.add(batch.to(device))
        unlike = model.profile.compare(describer.finish()[number], signal)
    return RecordingResult(recording, explained, unlike, warnings_of(model, recording))


def mean_of_models(results: Sequence[RecordingResult]) -> RecordingResult:
    """What several models with the same channels and layout say of one recording, as one.

    Probabilities and what carried them are means over the models; what any of them remarks on is kept, a likeness as
    the first one words it.
    """
    first, explained = results[0], [one.explained for one in results]
    unlike: dict[Any, Unlike] = {}
    for remark in (remark for one in results for remark in one.unlike):
        unlike.setdefault(remark.likeness, remark)
    return RecordingResult(
        first.recording,
        Explained(
            probability=np.mean([one.probability for one in explained], axis=0),
            windows=np.mean([one.windows for one in explained], axis=0),
            channels={
                channel: np.mean([one.channels[channel] for one in explained], axis=0)
                for channel in first.explained.channels
            },
            moments=[
                (begin, stop, np.mean([one.moments[number][2] for one in explained], axis=0))
                for number, (begin, stop, _) in enumerate(first.explained.moments)
            ],
        ),
        list(unlike.values()),
        list(dict.fromkeys(line for one in results for line in one.warnings)),
    )


def warnings_of(model: Model, recording: NewRecording) -> list[str]:
    """Lines on what the model has seen of this recording or person, and on channels that are absent."""
    lines = []
    stamp = model.stamp
    for side, what in (("trained", "trained on"), ("validated", "validated on")):
        if recording.source_sha256 in stamp.recordings.get(side, []):
            lines.append(f"the model was {what} a recording of these very bytes; its probability says nothing new")
    names = {hashed(f"{corpus}:{recording.participant}") for corpus in model.corpora}
    if not lines and names & {hashed(person) for person in stamp.seen}:
        lines.append("the model has seen a participant of this id; is this a new person?")
    if recording.absent:
        n = len(recording.absent)
        lines.append(
            f"{n} channel{'s' if n > 1 else ''} of the model {'are' if n > 1 else 'is'} absent "
            f"({', '.join(recording.absent[:6])}{', ...' if n > 6 else ''}) and count as padding"
        )
    return lines


def by_person(results: Sequence[RecordingResult]) -> list[PersonResult]:
    """Results of people, in the order in which they came."""
    found: dict[str, list[RecordingResult]] = {}
    for one in results:
        found.setdefault(one.recording.participant, []).append(one)
    return [_person(name, mine) for name, mine in found.items()]


def _person(name: str, results: list[RecordingResult]) -> PersonResult:
    probability = np.mean([one.explained.probability for one in results], axis=0)
    shown = 1 if len(probability) == 2 else int(probability.argmax())
    windows = np.concatenate([one.explained.windows[:, shown] for one in results])
    windows = windows[np.isfinite(windows)]
    quantiles = {q: float(np.quantile(windows, q)) for q in QUANTILES} if len(windows) else {}
    return PersonResult(name, probability, shown, quantiles, results)


def classes_of(target: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of the classes of a package's target.

    Raises
    ------
    CheckpointError
        If it is no classification.
    """
    if not target:
        raise CheckpointError(
            f"{where} predicts no target (it is a pretrained encoder); fine-tune it first (cerebro fit --config "
            "configs/mamba2/finetune.yaml), or take its embeddings with cerebro probe."
        )
    if target["kind"] != "classification":
        raise CheckpointError(
            f"{where} predicts {target['name']!r}, a number, and cerebro predict MODEL RECORDING gives probabilities "
            "of classes; use cerebro predict --config RUN/config.yaml."
        )
    return tuple(target["classes"])
