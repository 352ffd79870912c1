"""What the training recordings of a model are like, so that a new recording can be said to be unlike them.

Four likenesses: how strong each channel is, how its power is spread over frequencies, how channels go together, and
where the encoder puts the recording. Each has the score of the training recordings themselves, of people who were left
out in turn, and a new recording is unlike them where it goes beyond nearly all of those. The last is the distance of
Lee et al. 2018 (arXiv:1807.03888) with one class, on the mean token, and a shrunk covariance (Ledoit & Wolf 2004,
doi:10.1016/S0047-259X(03)00096-4).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.describe import BANDS, Described, Describer

Array = npt.NDArray[np.float64]
N_FOLDS = 5
FEWEST_RECORDINGS = 10  # of which a profile is made
QUANTILE = 0.99
MARGIN = 1.2  # beyond the quantile: scores of few people do not reach as far as those of many
SMALLEST_SPREAD = 0.1  # of logarithms and of Fisher's z: less is chance between few recordings
LIKENESSES = ("amplitude", "spectrum", "coupling", "embedding")
MOST_TOLD = 3  # remarks of one kind


@dataclass(frozen=True)
class Unlike:
    """One way in which a recording is unlike the training data.

    Parameters
    ----------
    likeness : str
        One of ``LIKENESSES``.
    score, limit : float
        Its score, and what nearly no training recording reaches.
    detail : str
        What was seen, in words.
    """

    likeness: str
    score: float
    limit: float
    detail: str


@dataclass(frozen=True)
class Profile:
    """Medians and spreads over the training recordings, and the limits of the scores.

    Parameters
    ----------
    middle, spread : dict of array
        ``amplitude`` (S,), ``spectrum`` (S, F) and ``coupling`` (S, S) of S channels; NaN where no recording has one.
    mean : array (D,)
        Mean embedding.
    whitener : array (D, D)
        The distance of an embedding x is the norm of ``whitener @ (x - mean)``.
    limits : dict of float
        By likeness.
    n_recordings, n_participants : int
        What it was made of.
    """

    middle: dict[str, Array]
    spread: dict[str, Array]
    mean: Array
    whitener: Array
    limits: dict[str, float]
    n_recordings: int
    n_participants: int

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that `from_tensors` reads."""
        arrays = {f"middle.{name}": value for name, value in self.middle.items()}
        arrays |= {f"spread.{name}": value for name, value in self.spread.items()}
        arrays |= {"mean": self.mean, "whitener": self.whitener}
        arrays["limits"] = np.array([self.limits[name] for name in LIKENESSES])
        arrays["counts"] = np.array([self.n_recordings, self.n_participants], np.float64)
        return {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Profile":
        """The profile that `tensors` wrote; KeyError if it lacks something."""
        arrays = {name: value.double().numpy() for name, value in tensors.items()}
        names = LIKENESSES[:3]
        return cls(
            middle={name: arrays[f"middle.{name}"] for name in names},
            spread={name: arrays[f"spread.{name}"] for name in names},
            mean=arrays["mean"],
            whitener=arrays["whitener"],
            limits=dict(zip(LIKENESSES, arrays["limits"].tolist(), strict=True)),
            n_recordings=int(arrays["counts"][0]),
            n_participants=int(arrays["counts"][1]),
        )

    def scores(self, found: Described) -> dict[str, float]:
        """Score of each likeness; 0 where nothing can be compared."""
        z = self._z(found)
        coupling = z["coupling"][np.isfinite(z["coupling"])]
        distance = float(np.linalg.norm(self.whitener @ (found.embedding - self.mean)))
        return {
            "amplitude": float(np.nanmax(np.abs(z["amplitude"]), initial=0.0)),
            "spectrum": float(np.nanmax(np.abs(z["spectrum"]), initial=0.0)),
            "coupling": float(np.sqrt(np.mean(np.square(coupling)))) if coupling.size else 0.0,
            "embedding": distance,
        }

    def compare(self, found: Described, signal: SignalSpec) -> list[Unlike]:
        """In what a recording is unlike the training data; empty if in nothing."""
        scores, z = self.scores(found), self._z(found)
        is_beyond = {name: scores[name] > self.limits[name] for name in LIKENESSES}
        words = {}
        if is_beyond["amplitude"]:
            words["amplitude"] = self._amplitude(found, z["amplitude"], signal)
        if is_beyond["spectrum"]:
            words["spectrum"] = self._spectrum(found, z["spectrum"], signal)
        if is_beyond["coupling"]:
            words["coupling"] = "channels go together otherwise (another reference, or another order of channels?)"
        if is_beyond["embedding"]:
            times = scores["embedding"] / max(self.limits["embedding"], 1e-9)
            words["embedding"] = f"the encoder puts it {times:.3g} times as far out as nearly all training recordings"
        return [Unlike(name, scores[name], self.limits[name], text) for name, text in words.items()]

    def _z(self, found: Described) -> dict[str, Array]:
        values = {"amplitude": found.amplitude, "spectrum": found.spectrum, "coupling": found.coupling}
        return {name: (value - self.middle[name]) / self.spread[name] for name, value in values.items()}

    def _amplitude(self, found: Described, z: Array, signal: SignalSpec) -> str:
        ratio = np.exp(found.amplitude - self.middle["amplitude"])
        worst = [
            row for row in np.argsort(-np.nan_to_num(np.abs(z))).tolist() if abs(z[row]) > self.limits["amplitude"]
        ]
        told = ", ".join(f"{signal.channels[row]} {_times(ratio[row])}" for row in worst[:MOST_TOLD])
        more = f" and {len(worst) - MOST_TOLD} more" if len(worst) > MOST_TOLD else ""
        middle = float(np.nanmedian(ratio))
        unit = " (another unit, volts for microvolts?)" if middle > 100 or middle < 0.01 else ""
        return f"amplitude at {told}{more} the training median{unit}"

    def _spectrum(self, found: Described, z: Array, signal: SignalSpec) -> str:
        change = np.abs(found.spectrum - self.middle["spectrum"])
        change[~(np.abs(z) > self.limits["spectrum"])] = -1  # NaN too
        row, band = np.unravel_index(int(np.argmax(change)), z.shape)
        ratio = float(np.exp(found.spectrum[row, band] - self.middle["spectrum"][row, band]))
        low, high = BANDS[int(band)]
        line = " (power line?)" if ratio > 1 and low in (48.0, 58.0) else ""
        return (
            f"share of power between {low:g} and {high:g} Hz at {signal.channels[int(row)]} {_times(ratio)} the "
            f"training median{line}"
        )


def profile_of(
    encoder: Encoder, signal: SignalSpec, batches: Iterable[EEGBatch]
) -> tuple[Profile | None, dict[int, Described]]:
    """Profile of the recordings in ``batches``, and what each is like; None where they are fewer than ten.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode, on the device of the batches.
    signal : SignalSpec
        Channels that ``EEGBatch.channel`` counts.
    batches : iterable of EEGBatch
        Rows of one recording follow each other.
    """
    describer = Describer(encoder, signal)
    for batch in batches:
        describer.add(batch)
    found = describer.finish()
    return fit_profile(list(found.values())), found


def fit_profile(found: list[Described]) -> Profile | None:
    """Profile of recordings; None where they are fewer than ten, or of fewer than five people."""
    found = [one for one in found if np.isfinite(one.embedding).all()]
    people = sorted({one.participant for one in found})
    if len(found) < FEWEST_RECORDINGS or len(people) < N_FOLDS:
        return None
    fold_of = {person: number % N_FOLDS for number, person in enumerate(people)}
    scores: list[dict[str, float]] = []
    for fold in range(N_FOLDS):
        profile = _fitted([one for one in found if fold_of[one.participant] != fold], {})
        scores += [profile.scores(one) for one in found if fold_of[one.participant] == fold]
    limits = {
        name: MARGIN * float(np.quantile([score[name] for score in scores], QUANTILE, method="higher"))
        for name in LIKENESSES
    }
    return _fitted(found, limits)


def _fitted(found: list[Described], limits: dict[str, float]) -> Profile:
    stacked = {
        "amplitude": np.stack([one.amplitude for one in found]),
        "spectrum": np.stack([one.spectrum for one in found]),
        "coupling": np.stack([one.coupling for one in found]),
    }
    middle = {name: _median(values) for name, values in stacked.items()}
    spread = {
        name: np.maximum(1.4826 * _median(np.abs(values - middle[name])), SMALLEST_SPREAD)
        for name, values in stacked.items()
    }
    embedding = np.stack([one.embedding for one in found])
    shrunk = LedoitWolf().fit(embedding)
    values, vectors = np.linalg.eigh(shrunk.covariance_)
    floor = max(float(values.max()) * 1e-6, 1e-12)  # embeddings that never differ
    whitener = (vectors / np.sqrt(np.maximum(values, floor))).T
    people = {one.participant for one in found}
    return Profile(middle, spread, embedding.mean(axis=0), whitener, limits, len(found), len(people))


def _median(values: Array) -> Array:
    """Median over the first axis without NaN; NaN where nothing else is there."""
    is_there = np.isfinite(values).any(axis=0)
    return np.where(is_there, np.nanmedian(np.where(is_there, values, 0.0), axis=0), np.nan)


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times" if ratio >= 1 or ratio == 0 else f"1/{1 / ratio:.3g} of"
