"""Linear probes of a frozen encoder: what its embeddings say of people they were not fitted to, and who they say it is.

Fitted to training participants, scored on held-out ones.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cerebro.errors import DataError
from cerebro.metrics.bootstrap import (
    ParticipantBootstrap,
    ParticipantSums,
    balanced_error_sums,
    interval,
    nrmse_sums,
)
from cerebro.metrics.classification import predicted_classes
from cerebro.metrics.identity import identify
from cerebro.metrics.probe import fit_logistic, fit_ridge
from cerebro.training.confounds import describe_confound, fit_confound
from cerebro.training.embedding import Embedded, pooled
from cerebro.training.stamp import PhaseData

PARTICIPANT = "participant"
"""The target that asks who it is."""
NUMBERS = ("age", "p_factor", "attention", "internalizing", "externalizing", "response_time")
CLASSES = ("sex",)
MAX_CLASSES = 10
MAX_PEOPLE = 50
Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Level = Literal["window", "recording", "participant"]


@dataclass(frozen=True)
class ProbeScore:
    """What a probe found for one target.

    Parameters
    ----------
    target, metric : str
        ``nrmse`` (lower is better) of a number, ``balanced_accuracy`` (higher is better) of classes and people.
    level : {"window", "recording", "participant"}
        What a row of the fit is: a window, or the mean embedding of the windows of a recording or a participant.
    value : float
        Score on held-out participants.
    ci95 : (float, float)
        Interval over held-out participants; NaN where it was not asked for.
    constant : float
        The same score of the training mean, or 1 / classes.
    confound : float
        The same score of age and sex alone; NaN for labels of windows, and where it cannot be made.
    confound_ci95 : (float, float)
        Its interval.
    n_undefined : int
        Draws of participants that left the score undefined (all labels equal), which the interval leaves out.
    n_fitted, n_scored : int
        Rows: windows, recordings or participants.
    n_participants_fitted, n_participants : int
        Participants that it was fitted to, and scored on.
    note : str
        What else there is to say.
    """

    target: str
    metric: str
    level: Level
    value: float
    ci95: tuple[float, float]
    constant: float
    n_fitted: int
    n_scored: int
    n_participants_fitted: int
    n_participants: int
    confound: float = float("nan")
    confound_ci95: tuple[float, float] = (float("nan"), float("nan"))
    n_undefined: int = 0
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON: null where undefined."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Predicted:
    """What a probe says of held-out rows whose label is known.

    Parameters
    ----------
    row : int64 (M,)
        Their rows among all that are held out.
    participant : int64 (M,)
        Whose they are.
    truth : array (M,)
        Labels; of classes and people their numbers.
    prediction, constant : array (M,)
        What the probe says, and what the training mean (or one and the same class or person) would. Numbers are
        float64, classes and people int64.
    n_fitted, n_participants_fitted : int
        Rows that it was fitted to, and of how many participants.
    chance : float
        One in so many classes or people; NaN of numbers.
    note : str
        What else there is to say.
    """

    row: Ints
    participant: Ints
    truth: Array
    prediction: Array | Ints
    constant: Array | Ints
    n_fitted: int
    n_participants_fitted: int
    chance: float = float("nan")
    note: str = ""

    @property
    def is_class(self) -> bool:
        """Whether classes or people are named."""
        return self.prediction.dtype.kind == "i"


@dataclass(frozen=True)
class Prober:
    """Fits probes to the embeddings of training rows and scores them on those of held-out rows.

    Parameters
    ----------
    data : PhaseData
        Where labels of people and times of windows come from.
    train, held_out : Embedded
        Embeddings of both sides.
    n_resamples : int
        Draws of the held-out participants behind an interval; 0 = no intervals.
    max_people : int
        Candidates when the participant is probed; 0 = everyone.
    seed : int
        Seed of the draws and of the groups of participants that choose the penalty.
    level : {"window", "recording"}
        What the rows are; rows of recordings are made by `pooled`.
    """

    data: PhaseData
    train: Embedded
    held_out: Embedded
    n_resamples: int = 2000
    max_people: int = MAX_PEOPLE
    seed: int = 0
    level: Level = "window"
    _keys: npt.NDArray[np.str_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", np.asarray(self.data.participant_keys(), np.str_))

    def by_row(self, target: str) -> ProbeScore:
        """Probe of a target with a row per window, or per recording.

        Raises
        ------
        DataError
            If it cannot be fitted or scored.
        """
        return self.score(target, self.predict(target), self.level)

    def by_participant(self, target: str) -> ProbeScore | None:
        """Probe with a row per participant, the mean over their rows; None for labels of windows and identity."""
        if target == PARTICIPANT or target not in self.data.participant_values((target,)):
            return None
        found = self._fitted(target, pooled(self.train, "participant"), pooled(self.held_out, "participant"))
        return self.score(target, found, "participant")

    def predict(self, target: str) -> Predicted:
        """What the probe of a target says of held-out rows.

        Raises
        ------
        DataError
            If it cannot be fitted or scored.
        """
        return self._named() if target == PARTICIPANT else self._fitted(target, self.train, self.held_out)

    def score(self, target: str, found: Predicted, level: Level) -> ProbeScore:
        """Score of what a probe said, with its interval, and that of age and sex alone."""
        value, ci95, n_undefined = self._score(found, found.prediction)
        constant = found.chance if found.is_class else self._score(found, found.constant)[0]
        confound, confound_ci95, note = float("nan"), (float("nan"), float("nan")), ""
        if target != PARTICIPANT:
            confound, confound_ci95, note = self._confound(target, found)
        return ProbeScore(
            target=target,
            metric="balanced_accuracy" if found.is_class else "nrmse",
            level=level,
            value=value,
            ci95=ci95,
            constant=constant,
            n_fitted=found.n_fitted,
            n_scored=len(found.row),
            n_participants_fitted=found.n_participants_fitted,
            n_participants=len(np.unique(found.participant)),
            confound=confound,
            confound_ci95=confound_ci95,
            n_undefined=n_undefined,
            note=found.note or note,
        )

    def _fitted(self, target: str, train: Embedded, held_out: Embedded) -> Predicted:
        y, y_new = self._labels(target, train), self._labels(target, held_out)
        x, who = train.feature[np.isfinite(y)], train.participant[np.isfinite(y)]
        row = np.flatnonzero(np.isfinite(y_new))
        y, y_new = y[np.isfinite(y)], y_new[row]
        for side, labels in (("training", y), ("held-out", y_new)):
            if not len(labels):
                raise DataError(f"no {side} window has a label {target!r}")
        is_class = holds_classes(target, y)
        people = [str(name) for name in self._keys[who]]
        fit = fit_logistic if is_class else fit_ridge
        found = fit(x, y, people, seed=self.seed).predict(held_out.feature[row])
        one = np.bincount(y.astype(np.int64)).argmax() if is_class else y.mean()
        return Predicted(
            row=row,
            participant=held_out.participant[row],
            truth=y_new,
            prediction=predicted_classes(found) if is_class else found,
            constant=np.full(len(row), one),
            n_fitted=len(y),
            n_participants_fitted=len(np.unique(who)),
            chance=1 / len(np.unique(y_new)) if is_class else float("nan"),
        )

    def _named(self) -> Predicted:
        rows = self.held_out
        found = identify(
            rows.feature,
            rows.participant,
            rows.recording,
            self.data.window_spans(rows.sample),
            self.max_people,
            self.seed,
        )
        who = rows.participant[found.row]
        people = np.empty(found.n_people, np.int64)  # row of the participants table of each candidate
        people[found.truth] = who
        left_out = f", {found.n_left_out} participants left out" if found.n_left_out else ""
        return Predicted(
            row=found.row,
            participant=who,
            truth=who.astype(np.float64),
            prediction=people[found.prediction],
            constant=np.full(len(who), people[0]),
            n_fitted=found.n_known,
            n_participants_fitted=found.n_people,
            chance=1 / found.n_people,
            note=f"the same {found.n_people} people on both sides, {self.level}s apart in time{left_out}",
        )

    def _labels(self, target: str, side: Embedded) -> Array:
        """Labels (N,) of a side; NaN where missing."""
        of_people = self.data.participant_values((target,))
        if target in of_people:
            return np.asarray(of_people[target][side.participant], np.float64)
        return side.targets[target]

    def _confound(self, target: str, found: Predicted) -> tuple[float, tuple[float, float], str]:
        nothing = float("nan")
        try:
            alone = fit_confound(target, found.is_class, self.data)
        except DataError as error:
            return nothing, (nothing, nothing), f"no confound baseline: {str(error).rstrip('.')}"
        if alone is None:
            return nothing, (nothing, nothing), ""
        value, ci95, _ = self._score(found, alone.prediction[found.participant])
        return value, ci95, f"confound baseline {describe_confound(alone)}"

    def _score(self, found: Predicted, p: npt.NDArray[Any]) -> tuple[float, tuple[float, float], int]:
        """Score of ``p``, its interval, and how many draws left it undefined."""
        names = [str(name) for name in self._keys[found.participant]]
        if found.is_class:
            value, (low, high), n_undefined = self._interval(balanced_error_sums(names, found.truth, p))
            return 1 - value, (1 - high, 1 - low), n_undefined
        return self._interval(nrmse_sums(names, found.truth, p))

    def _interval(self, sums: ParticipantSums) -> tuple[float, tuple[float, float], int]:
        if not self.n_resamples:
            return sums.value(), (float("nan"), float("nan")), 0
        draws = ParticipantBootstrap(sums.participants, self.n_resamples, self.seed)
        return sums.value(), *interval(draws.resampled(sums))


def holds_classes(target: str, values: Array) -> bool:
    """Whether known labels are classes: sex is, age and factors are not, others if they are 0 ... K - 1, K <= 10."""
    if target in NUMBERS + CLASSES:
        return target in CLASSES
    found = np.unique(values)
    return 2 <= len(found) <= MAX_CLASSES and np.array_equal(found, np.arange(len(found)))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
