"""A file of features by window (``cerebro process``) as means and standard deviations by recording or person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cerebro.data.feature_list import feature_of
from cerebro.data.readers.windows_file import floats, open_parquet, read_columns, recordings_of
from cerebro.errors import DataError, check_exists
from cerebro.progress import progress

Array = npt.NDArray[np.float64]

MAKE = "`cerebro process --config configs/processing.yaml`"
AT_ONCE = 32  # columns in memory


@dataclass(frozen=True)
class FeatureFile:
    """What a file says of each recording; of what grows with the signal, the logarithm.

    Parameters
    ----------
    path : Path
        The file.
    row : mapping
        Key of a recording (``P01_run-1``) -> its row R.
    columns : tuple of str
        Names of the features (F).
    n, mean, deviations : array (R, F)
        Windows with a value, their mean (NaN without any), and the sum of their squared deviations from it.
    """

    path: Path
    row: Mapping[str, int]
    columns: tuple[str, ...]
    n: Array
    mean: Array
    deviations: Array

    def summaries(self, units: Sequence[Sequence[int]]) -> Array:
        """Means, then standard deviations, (U, 2F), over all windows of the rows of each unit; NaN without any."""
        found = np.full((len(units), 2 * len(self.columns)), np.nan)
        for number, rows in enumerate(units):
            n, mean = self.n[rows], np.where(self.n[rows] > 0, self.mean[rows], 0.0)
            total = n.sum(axis=0)
            with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no window has a value
                centre = (n * mean).sum(axis=0) / total
                spread = self.deviations[rows].sum(axis=0) + (n * (mean - centre) ** 2).sum(axis=0)
                found[number] = np.concatenate([centre, np.sqrt(spread / total)])
        return found


def check_features(path: Path) -> None:
    """Refuse a file of features that is not there; DataError says which command makes it."""
    check_exists(path, "file of features", f"{MAKE} makes it; the recipe's key features says where it is.")


def read_features(path: Path) -> FeatureFile:
    """Read the features of every recording in a file; columns that are no features are left out, labels among them.

    Raises
    ------
    DataError
        In one line: no such file, a damaged one, one without the columns of windows or without features.
    """
    check_features(path)
    recordings = recordings_of(path)
    file = open_parquet(path)
    columns = [name for name in file.schema_arrow.names if feature_of(name) is not None]
    if not columns:
        raise DataError(
            f"{path} has no column of features (found {', '.join(file.schema_arrow.names[:9])}); make it with {MAKE}."
        )
    rows = list(recordings.rows.values())
    shape = len(rows), len(columns)
    n, mean, deviations = np.zeros(shape), np.full(shape, np.nan), np.zeros(shape)
    for first in progress(range(0, len(columns), AT_ONCE), f"features of {path.name}", "column", stays=False):
        names = columns[first : first + AT_ONCE]
        table = read_columns(file, names, path)
        for place, name in enumerate(names, start=first):
            values = _scaled(name, floats(table, name, path, "numbers"))
            for number, chosen in enumerate(rows):
                known = values[chosen]
                known = known[np.isfinite(known)]
                if len(known):
                    n[number, place], mean[number, place] = len(known), known.mean()
                    deviations[number, place] = ((known - known.mean()) ** 2).sum()
    keys = [f"{person}_run-{run.removeprefix('run-')}" for person, run in recordings.rows]
    return FeatureFile(path, {key: row for row, key in enumerate(keys)}, tuple(columns), n, mean, deviations)


def _scaled(name: str, values: Array) -> Array:
    """The values, or their natural logarithm where they grow with the signal; NaN where that is not defined."""
    feature = feature_of(name)
    assert feature is not None
    if not feature.is_scale:
        return values
    return np.log(values, out=np.full(len(values), np.nan), where=values > 0)
