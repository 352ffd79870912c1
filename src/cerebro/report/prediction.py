"""The picture of a prediction: windows over time, what carried it by moment, by channel, and on the head."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

Array = npt.NDArray[np.float64]
FOR, AGAINST, LINE, FAINT = "#b2182b", "#2166ac", "#222222", "#888888"
MOST_BARS = 20


@dataclass(frozen=True)
class Picture:
    """What is drawn of one recording; probabilities are those of one class.

    Parameters
    ----------
    title, what : str
        Above the picture; name of the class.
    probability, threshold : float
    start_s, end_s, windows : array (N,)
        Windows and their probabilities; NaN where one was not used.
    moments : sequence of (start_s, end_s, change)
        Probability minus that without the moment.
    channels : sequence of (name, change)
        The largest change first.
    places : array (C, 2)
        Azimuthal places of ``channels`` on the head, 1 = its rim; NaN where unknown.
    """

    title: str
    what: str
    probability: float
    threshold: float
    start_s: Array
    end_s: Array
    windows: Array
    moments: Sequence[tuple[float, float, float]]
    channels: Sequence[tuple[str, float]]
    places: Array


def draw(picture: Picture) -> bytes:
    """PNG of one recording."""
    figure = Figure(figsize=(10, 6.4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(2.1, 1), height_ratios=(1, 1))
    over_time = figure.add_subplot(grid[0, 0])
    _windows(over_time, picture)
    _moments(figure.add_subplot(grid[1, 0], sharex=over_time), picture)
    has_head = len(picture.channels) > 1 and bool(np.isfinite(picture.places).all())
    if has_head:
        _head(figure, figure.add_subplot(grid[0, 1]), picture)
    _channels(figure.add_subplot(grid[1, 1] if has_head else grid[:, 1]), picture)
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def places_on_head(positions: Array) -> Array:
    """Azimuthal equidistant places (C, 2) of positions (C, 3) in the head frame; 1 = the height of the ears."""
    norm = np.linalg.norm(positions, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        angle = np.arccos(np.clip(positions[:, 2] / norm, -1, 1)) / (np.pi / 2)
        flat = positions[:, :2] / np.linalg.norm(positions[:, :2], axis=1, keepdims=True)
    flat = np.where(np.isfinite(flat), flat, 0.0)
    return np.where(np.isfinite(norm)[:, None] & (norm > 0)[:, None], flat * angle[:, None], np.nan)


def _windows(axes: Axes, picture: Picture) -> None:
    axes.axhline(picture.threshold, color=FAINT, lw=0.8, ls=":", label=f"threshold {picture.threshold:g}")
    axes.axhline(picture.probability, color=LINE, lw=1, ls="--", label=f"recording {picture.probability:.2f}")
    middle = (picture.start_s + picture.end_s) / 2
    axes.plot(middle, picture.windows, "o-", color=LINE, ms=3, lw=0.8, label="each window alone")
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(f"probability of {picture.what}")
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))


def _moments(axes: Axes, picture: Picture) -> None:
    if picture.moments:
        start, end, change = (np.array(values) for values in zip(*picture.moments, strict=True))
        axes.bar(start, change, width=end - start, align="edge", color=_colours(change), edgecolor="white", lw=0.5)
        _symmetric(axes, change, is_x=False)
    else:
        axes.text(0.5, 0.5, "one moment only", ha="center", va="center", transform=axes.transAxes, color=FAINT)
    axes.axhline(0, color=FAINT, lw=0.8)
    axes.set_xlabel("seconds")
    axes.set_ylabel("what the moment added")


def _channels(axes: Axes, picture: Picture) -> None:
    shown = list(picture.channels[:MOST_BARS])[::-1]
    if not shown:
        axes.text(0.5, 0.5, "one channel only", ha="center", va="center", transform=axes.transAxes, color=FAINT)
        axes.set_axis_off()
        return
    change = np.array([value for _, value in shown])
    axes.barh(range(len(shown)), change, color=_colours(change), height=0.7)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8 if len(shown) < 12 else 6)
    axes.axvline(0, color=FAINT, lw=0.8)
    _symmetric(axes, change, is_x=True)
    axes.locator_params(axis="x", nbins=5)
    more = f" ({MOST_BARS} of {len(picture.channels)})" if len(picture.channels) > MOST_BARS else ""
    axes.set_xlabel(f"what the channel added{more}")


def _head(figure: Figure, axes: Axes, picture: Picture) -> None:
    change = np.array([value for _, value in picture.channels])
    most = max(float(np.abs(change).max()), 1e-6)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=FAINT, lw=1))
    axes.plot([-0.12, 0, 0.12], [0.99, 1.13, 0.99], color=FAINT, lw=1)  # the nose
    is_few = len(change) <= 32
    x, y = picture.places.T
    size = 260 if is_few else 60
    axes.scatter(x, y, s=size, c=change, cmap="RdBu_r", vmin=-most, vmax=most, edgecolor=FAINT, lw=0.6)
    if is_few:
        for (name, _), (right, front) in zip(picture.channels, picture.places.tolist(), strict=True):
            place = (right, front)
            axes.annotate(name, place, (0, -15), textcoords="offset points", ha="center", fontsize=7, color=LINE)
    reach = max(1.2, float(np.abs(picture.places).max()) + 0.25)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_axis_off()
    scale = ScalarMappable(Normalize(-most, most), "RdBu_r")
    figure.colorbar(scale, ax=axes, shrink=0.7, label="change in probability")


def _colours(change: Array) -> list[str]:
    return [FOR if value > 0 else AGAINST for value in change]


def _symmetric(axes: Axes, change: Array, is_x: bool) -> None:
    most = 1.15 * max(float(np.abs(change).max()), 1e-3)
    (axes.set_xlim if is_x else axes.set_ylim)(-most, most)
