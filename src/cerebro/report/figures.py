"""Figures as inline SVG whose ink follows the page, so that light and dark read alike.

Colours are drawn as placeholders and then replaced by the CSS variables of ``page.css``.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import RBFInterpolator

Array = npt.NDArray[np.float64]

INK, FAINT, GRID = "#010203", "#020304", "#030405"
SERIES = ("#110001", "#110002", "#110003", "#110004", "#110005", "#110006", "#110007", "#110008")
_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid"} | {c: f"--s{n + 1}" for n, c in enumerate(SERIES)}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


MAX_POINTS = 1500  # of a scatter; above it every k-th is drawn


def style() -> AbstractContextManager[None]:
    """Context in which figures are drawn."""
    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]  # the stubs want literal keys


def score_bars(
    entries: Sequence[tuple[str, float, tuple[float, float]]],
    constant: float,
    lines: Mapping[str, float],
    label: str,
    n_baselines: int = 0,
) -> str:
    """Bars from the constant predictor to each score, with 95 % intervals, and lines at known bounds.

    Parameters
    ----------
    entries : sequence of (name, score, (low, high))
        From top to bottom.
    constant : float
        Score of the constant predictor, where bars start.
    lines : mapping
        Name -> score, such as the oracle of a simulated cohort.
    label : str
        What is measured.
    n_baselines : int
        So many entries at the top are baselines and stay grey.
    """
    with style():
        figure = Figure(figsize=(4.3, 0.8 + 0.32 * len(entries)), layout="constrained")
        axes = figure.subplots()
        for row, (_, score, (low, high)) in enumerate(entries):
            color = FAINT if row < n_baselines else SERIES[(row - n_baselines) % len(SERIES)]
            axes.barh(row, score - constant, left=constant, height=0.5, color=color, alpha=0.85)
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2, solid_capstyle="butt")
        axes.set_yticks(range(len(entries)), [name for name, _, _ in entries])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.axvline(constant, color=INK, linewidth=1)
        marks = {"constant": constant, **lines}
        for number, (name, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
            if name != "constant":
                axes.axvline(value, color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
            axes.annotate(
                name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3 + 10 * (number % 2)), fontsize=8,
                textcoords="offset points", ha="center", va="bottom", color=INK if name == "constant" else FAINT,
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.margins(x=0.06)
        axes.xaxis.grid(True)
        axes.set_axisbelow(True)
        return svg(figure, f"bars {label}")


def gain_intervals(entries: Sequence[tuple[str, float, tuple[float, float]]], label: str) -> str:
    """Gains in per cent with 95 % intervals around a line at zero; ``entries`` as in ``score_bars``, as shares."""
    with style():
        figure = Figure(figsize=(4.3, 0.6 + 0.28 * len(entries)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1)
        for row, (_, value, (low, high)) in enumerate(entries):
            is_clear = low > 0 or high < 0
            axes.plot([100 * low, 100 * high], [row, row], color=SERIES[0] if is_clear else FAINT, linewidth=1.6)
            axes.plot(100 * value, row, "o", color=SERIES[0] if is_clear else FAINT, markersize=5)
        axes.set_yticks(range(len(entries)), [name for name, _, _ in entries])
        axes.invert_yaxis()
        axes.margins(y=0.15)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        axes.xaxis.grid(True)
        axes.set_axisbelow(True)
        return svg(figure, f"gains {label}")


def learning_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], names: Sequence[str], measure: str
) -> str:
    """One panel per phase, one line per run: training thin and dashed, validation full.

    Parameters
    ----------
    panels : mapping
        Phase -> name of the run -> (training, validation) values per epoch; an empty sequence is not drawn.
    names : sequence of str
        All names of runs, in the order of their colours.
    measure : str
        Label of the vertical axis.
    """
    with style():
        n_columns = min(3, len(panels))
        n_rows = -(-len(panels) // n_columns)
        figure = Figure(figsize=(3.05 * n_columns, 2.25 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes, (phase, runs) in zip(grid.flat, panels.items(), strict=False):
            for name, (train, val) in runs.items():
                color = SERIES[list(names).index(name) % len(SERIES)]
                axes.plot(range(1, len(train) + 1), train, color=color, linewidth=0.9, linestyle=(0, (2, 1.5)))
                axes.plot(range(1, len(val) + 1), val, color=color, marker="o", markersize=2.5, label=name)
            axes.set_title(phase)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
            axes.yaxis.grid(True)
        for axes in grid[:, 0]:
            axes.set_ylabel(measure)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        handles = {line.get_label(): line for axes in grid.flat for line in axes.lines if line.get_label() in names}
        shown = [name for name in names if name in handles]
        figure.legend([handles[name] for name in shown], shown, loc="outside lower left", ncols=4, handlelength=1.2)
        return svg(figure, f"curves {measure}")


def traces(original: Array, reconstructed: Array, names: Sequence[str], sfreq: float) -> str:
    """Original and reconstructed EEG (C, T) in microvolts, channels below each other at one scale."""
    with style():
        n_channels, n_times = original.shape
        step = 6 * float(np.median(original.std(axis=1))) or 6.0  # flat EEG has none
        figure = Figure(figsize=(9.2, 0.8 + 0.55 * n_channels), layout="constrained")
        axes = figure.subplots()
        time = np.arange(n_times) / sfreq
        for row in range(n_channels):
            axes.plot(time, original[row] - original[row].mean() - row * step, color=INK, linewidth=0.9)
            axes.plot(time, reconstructed[row] - original[row].mean() - row * step, color=SERIES[0], linewidth=1.1)
        axes.set_yticks([-row * step for row in range(n_channels)], names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, n_times / sfreq)
        scale = _round_microvolts(step / 2)
        axes.plot([n_times / sfreq] * 2, [-scale / 2, scale / 2], color=INK, linewidth=2, clip_on=False)
        axes.annotate(
            f"{scale:g} µV", (n_times / sfreq, 0), xytext=(5, 0), textcoords="offset points", va="center",
            annotation_clip=False, fontsize=8,
        )  # fmt: skip
        axes.set_xlabel("time (s)")
        return svg(figure, "traces")


def spectra(frequency_hz: Array, original: Array, reconstructed: Array) -> str:
    """Power density (F,) in microvolt^2 / Hz of recorded and rebuilt EEG, without 0 Hz, on a logarithmic scale."""
    with style():
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        axes = figure.subplots()
        for density, color, name in ((original, INK, "recorded"), (reconstructed, SERIES[0], "rebuilt")):
            axes.plot(frequency_hz[1:], np.maximum(density[1:], 1e-12), color=color, linewidth=1.1, label=name)
        axes.set_yscale("log")
        axes.set_ylim(max(float(reconstructed[1:].min()), 1e-6 * float(original[1:].max()), 1e-12) / 2, None)
        axes.set_xlim(0, float(frequency_hz[-1]))
        axes.set_xlabel("frequency (Hz)")
        axes.set_ylabel("µV² / Hz")
        axes.yaxis.grid(True)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", fontsize=8, handlelength=1.2, ncols=2)
        return svg(figure, "spectra")


def scalp_map(values: Array, positions: Array, label: str) -> str:
    """Values (C,) of electrodes at ``positions`` (C, 3), metres in the head frame, seen from above, nose up."""
    known = np.isfinite(positions).all(axis=1) & np.isfinite(values)
    flat = flatten_positions(positions[known])
    reach = max(1.0, float(np.linalg.norm(flat, axis=1).max()) * 1.03)
    side = np.linspace(-reach, reach, 90)
    grid_x, grid_y = np.meshgrid(side, side)
    points = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    smooth = RBFInterpolator(flat, values[known], kernel="thin_plate_spline", smoothing=1e-3)(points)
    field = smooth.reshape(grid_x.shape)
    low, high = float(values[known].min()), float(values[known].max())
    with style():
        figure = Figure(figsize=(3.7, 3.2), layout="constrained")
        axes = figure.subplots()
        levels = np.linspace(low, max(high, low + 1e-6), 13)
        filled = axes.contourf(grid_x, grid_y, np.clip(field, low, high), levels=levels, cmap="viridis")
        filled.set_clip_path(Circle((0, 0), reach, transform=axes.transData))
        axes.plot(*flat.T, ".", color="white", markersize=1.8, alpha=0.8)
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(reach * np.cos(turn), reach * np.sin(turn), color=INK, linewidth=1.2)
        nose = reach * np.array([[-0.12, 0, 0.12], [0.993, 1.11, 0.993]])
        axes.plot(*nose, color=INK, linewidth=1.2)
        axes.set_aspect("equal")
        axes.set_axis_off()
        bar = figure.colorbar(filled, ax=axes, shrink=0.7, pad=0.02, ticks=np.linspace(low, high, 4))
        bar.ax.set_yticklabels([f"{tick:.2f}" for tick in np.linspace(low, high, 4)])
        bar.outline.set_visible(False)
        axes.set_title(label)
        return svg(figure, label)


def flatten_positions(positions: Array) -> Array:
    """Azimuthal equidistant projection (C, 2) of positions (C, 3); the circle of radius 1 is the head's equator."""
    centre = np.array([0.0, 0.0, 0.04])  # of the sphere that fits scalp electrodes, above the head frame's origin
    centred = positions - centre
    radius = np.linalg.norm(centred, axis=1)
    angle = np.arccos(np.clip(centred[:, 2] / np.maximum(radius, 1e-9), -1, 1))  # from the top
    azimuth = np.arctan2(centred[:, 1], centred[:, 0])
    distance = angle / (np.pi / 2)
    return np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth)], axis=1)


def code_use(counts: Array) -> str:
    """How often each code of a codebook occurs, most frequent first."""
    with style():
        figure = Figure(figsize=(4.6, 2.4), layout="constrained")
        axes = figure.subplots()
        ordered = np.sort(counts)[::-1]
        axes.fill_between(np.arange(len(ordered)) + 1, ordered, step="mid", color=SERIES[0], alpha=0.85, linewidth=0)
        axes.set_xlim(1, max(2, len(ordered)))
        axes.set_ylim(0, None)
        axes.set_xlabel("codes, most frequent first")
        axes.set_ylabel("patches")
        axes.yaxis.grid(True)
        axes.set_axisbelow(True)
        return svg(figure, "codes")


def similarity(positive: Array, negative: Array) -> str:
    """Cosine similarity of positive and negative pairs as densities."""
    with style():
        figure = Figure(figsize=(4.6, 2.4), layout="constrained")
        axes = figure.subplots()
        low = min(-0.2, float(min(positive.min(), negative.min())))
        edges = np.linspace(low, 1, int(np.clip(3 * np.sqrt(len(positive)), 12, 50))).tolist()
        for values, color, name in ((negative, FAINT, "other moment"), (positive, SERIES[0], "same film, same time")):
            axes.hist(values, edges, density=True, color=color, alpha=0.55, label=f"{name}, mean {values.mean():+.2f}")
        axes.set_xlabel("cosine similarity of two people's windows")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", fontsize=8, handlelength=1, ncols=2)
        return svg(figure, "similarity")


def synchrony(entries: Sequence[tuple[str, float, tuple[float, float]]], label: str, ends: tuple[float, float]) -> str:
    """Inter-subject correlation by row, over the span from mean to 95 % quantile of its shuffles; axis: ``ends``."""
    with style():
        figure = Figure(figsize=(4.6, 0.6 + 0.28 * len(entries)), layout="constrained")
        axes = figure.subplots()
        for row, (_, value, (mean, q95)) in enumerate(entries):
            axes.plot([mean, q95], [row, row], color=FAINT, linewidth=5, alpha=0.45, solid_capstyle="butt")
            axes.plot(value, row, "o", color=SERIES[0] if value > q95 else FAINT, markersize=5)
        axes.set_yticks(range(len(entries)), [name for name, _, _ in entries])
        axes.invert_yaxis()
        axes.margins(y=0.15)
        margin = 0.05 * (ends[1] - ends[0])
        axes.set_xlim(ends[0] - margin, ends[1] + margin)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"inter-subject correlation, {label}")
        axes.xaxis.grid(True)
        axes.set_axisbelow(True)
        return svg(figure, f"synchrony {label}")


def prediction_scatter(truth: Array, prediction: Array, constant: float, label: str) -> str:
    """Prediction against truth, one point per row, with the diagonal and the constant predictor."""
    with style():
        figure = Figure(figsize=(3.3, 3.1), layout="constrained")
        axes = figure.subplots()
        low, high = (float(f([truth.min(), truth.max(), constant])) for f in (np.min, np.max))
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
        axes.axhline(constant, color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
        every = -(-len(truth) // MAX_POINTS)
        alpha = float(np.clip(200 / len(truth[::every]), 0.25, 0.9))
        axes.plot(truth[::every], prediction[::every], "o", color=SERIES[0], alpha=alpha, markersize=3.5, mew=0)
        axes.set_xlabel(f"{label}, true")
        axes.set_ylabel("predicted")
        return svg(figure, f"scatter {label}")


def _round_microvolts(value: float) -> float:
    magnitude = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    return float(next(step * magnitude for step in (5, 2, 1) if step * magnitude <= value))


def svg(figure: Figure, salt: str) -> str:
    """SVG text of a figure: the page's colours, no file header, no ids that clash with other figures."""
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        target = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(target, metadata=nothing)  # type: ignore[no-untyped-call]
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", salt)
    text = re.sub(r'id="((?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib)[^"]*)"', "", text)
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text
