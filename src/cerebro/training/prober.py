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
from cerebro.metrics.identity import identify
from cerebro.metrics.probe import fit_logistic, fit_ridge
from cerebro.training.confounds import describe_confound, fit_confound
from cerebro.training.embedding import Embedded
from cerebro.training.stamp import PhaseData

PARTICIPANT = "participant"
"""The target that asks who it is."""
NUMBERS = ("age", "p_factor", "attention", "internalizing", "externalizing", "response_time")
CLASSES = ("sex",)
MAX_CLASSES = 10
MAX_PEOPLE = 50
Array = npt.NDArray[np.float64]
Level = Literal["window", "participant"]


@dataclass(frozen=True)
class ProbeScore:
    """What a probe found for one target.

    Parameters
    ----------
    target, metric : str
        ``nrmse`` (lower is better) of a number, ``balanced_accuracy`` (higher is better) of classes and people.
    level : {"window", "participant"}
        What a row of the fit is: a window, or the mean embedding of a participant's windows.
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
        Windows, or participants at their level.
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
class Prober:
    """Fits probes to the embeddings of training windows and scores them on those of held-out windows.

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
    """

    data: PhaseData
    train: Embedded
    held_out: Embedded
    n_resamples: int = 2000
    max_people: int = MAX_PEOPLE
    seed: int = 0
    _keys: npt.NDArray[np.str_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", np.asarray(self.data.participant_keys(), np.str_))

    def by_window(self, target: str) -> ProbeScore:
        """Probe of a target with a row per window.

        Raises
        ------
        DataError
            If it cannot be fitted or scored.
        """
        if target == PARTICIPANT:
            return self._participant()
        return self._fitted(target, "window", self.train, self.held_out)

    def by_participant(self, target: str) -> ProbeScore | None:
        """Probe with a row per participant, the mean over their windows; None for labels of windows and identity."""
        if target == PARTICIPANT or target not in self.data.participant_values((target,)):
            return None
        return self._fitted(target, "participant", _of_people(self.train), _of_people(self.held_out))

    def _fitted(self, target: str, level: Level, train: Embedded, held_out: Embedded) -> ProbeScore:
        y, y_new = self._labels(target, train), self._labels(target, held_out)
        x, who = train.feature[np.isfinite(y)], train.participant[np.isfinite(y)]
        x_new, who_new = held_out.feature[np.isfinite(y_new)], held_out.participant[np.isfinite(y_new)]
        y, y_new = y[np.isfinite(y)], y_new[np.isfinite(y_new)]
        for side, labels in (("training", y), ("held-out", y_new)):
            if not len(labels):
                raise DataError(f"no {side} window has a label {target!r}")
        is_class = holds_classes(target, y)
        people = [str(name) for name in self._keys[who]]
        fit = fit_logistic if is_class else fit_ridge
        found = fit(x, y, people, seed=self.seed).predict(x_new)
        value, ci95, n_undefined = self._score(is_class, who_new, y_new, found)
        constant = 1 / len(np.unique(y_new)) if is_class else self._score(is_class, who_new, y_new, y.mean())[0]
        confound, confound_ci95, note = self._confound(target, is_class, who_new, y_new)
        return ProbeScore(
            target=target,
            metric="balanced_accuracy" if is_class else "nrmse",
            level=level,
            value=value,
            ci95=ci95,
            constant=constant,
            n_fitted=len(y),
            n_scored=len(y_new),
            n_participants_fitted=len(np.unique(who)),
            n_participants=len(np.unique(who_new)),
            confound=confound,
            confound_ci95=confound_ci95,
            n_undefined=n_undefined,
            note=note,
        )

    def _participant(self) -> ProbeScore:
        rows = self.held_out
        found = identify(
            rows.feature,
            rows.participant,
            rows.recording,
            self.data.window_spans(rows.sample),
            self.max_people,
            self.seed,
        )
        truth, who = found.truth.astype(np.float64), rows.participant[found.row]
        value, ci95, _ = self._score(True, who, truth, found.prediction)
        left_out = f", {found.n_left_out} participants left out" if found.n_left_out else ""
        return ProbeScore(
            target=PARTICIPANT,
            metric="balanced_accuracy",
            level="window",
            value=value,
            ci95=ci95,
            constant=1 / found.n_people,
            n_fitted=found.n_known,
            n_scored=len(found.row),
            n_participants_fitted=found.n_people,
            n_participants=found.n_people,
            note=f"the same {found.n_people} people on both sides, windows apart in time{left_out}",
        )

    def _labels(self, target: str, side: Embedded) -> Array:
        """Labels (N,) of a side; NaN where missing."""
        of_people = self.data.participant_values((target,))
        if target in of_people:
            return np.asarray(of_people[target][side.participant], np.float64)
        return side.targets[target]

    def _confound(
        self, target: str, is_class: bool, who: npt.NDArray[np.int64], y: Array
    ) -> tuple[float, tuple[float, float], str]:
        nothing = float("nan")
        try:
            found = fit_confound(target, is_class, self.data)
        except DataError as error:
            return nothing, (nothing, nothing), f"no confound baseline: {str(error).rstrip('.')}"
        if found is None:
            return nothing, (nothing, nothing), ""
        value, ci95, _ = self._score(is_class, who, y, found.prediction[who])
        return value, ci95, f"confound baseline {describe_confound(found)}"

    def _score(
        self, is_class: bool, who: npt.NDArray[np.int64], y: Array, p: npt.ArrayLike
    ) -> tuple[float, tuple[float, float], int]:
        """Score, interval, and how many draws left it undefined."""
        names = [str(name) for name in self._keys[who]]
        if is_class:
            sums = balanced_error_sums(names, y, p)
            value, (low, high), n_undefined = self._interval(sums)
            return 1 - value, (1 - high, 1 - low), n_undefined
        return self._interval(nrmse_sums(names, y, np.broadcast_to(np.asarray(p, np.float64), y.shape)))

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


def _of_people(side: Embedded) -> Embedded:
    """A row per participant: the mean over their windows."""
    people, number = np.unique(side.participant, return_inverse=True)
    total = np.zeros((len(people), side.feature.shape[1]))
    np.add.at(total, number, side.feature)
    mean = (total / np.bincount(number)[:, None]).astype(np.float32)
    nobody = np.full(len(people), -1)
    return Embedded(mean, nobody, nobody, people, {})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
