"""Figures of a classification: ROC curve with its band, precision against recall, and everyone's probability."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cerebro.report.figures import FAINT, INK, SERIES, Array, style, svg

Ints = npt.NDArray[np.int64]


def roc(false: Array, true: Array, at: Array, band: tuple[Array, Array], label: str) -> str:
    """ROC curve through the points (``false``, ``true``), over the band (low, high) at the rates ``at``; a diagonal."""
    with style():
        figure = Figure(figsize=(3.3, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(at, *band, color=SERIES[0], alpha=0.18, linewidth=0)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(false, true, color=SERIES[0], linewidth=1.6)
        _unit_square(axes, "false positive rate", "true positive rate")
        return svg(figure, f"roc {label}")


def precision_recall(recall: Array, precision: Array, share: float, label: str) -> str:
    """Precision against recall as steps; the dashed line at ``share`` of class 1 is what guessing reaches."""
    with style():
        figure = Figure(figsize=(3.3, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(share, color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
        axes.step([0.0, *recall], [precision[0], *precision], where="pre", color=SERIES[0], linewidth=1.6)
        _unit_square(axes, "recall", "precision")
        return svg(figure, f"precision recall {label}")


def people(probability: Array, truth: Ints, sd: Array, unit: str, label: str) -> str:
    """Probability of class 1 of everyone (U,), sorted, coloured by the truth, with lines of one ``sd`` to each side."""
    order = np.argsort(probability, kind="stable")
    with style():
        figure = Figure(figsize=(float(np.clip(2.0 + 0.09 * len(order), 3.6, 9.2)), 3.2), layout="constrained")
        axes = figure.subplots()
        rank = np.arange(1, len(order) + 1)
        size = float(np.clip(220 / max(1, len(order)), 2.0, 5.0))
        axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
        for label_of, color in ((0, SERIES[0]), (1, SERIES[1])):
            mine = truth[order] == label_of
            value, spread = probability[order][mine], np.nan_to_num(sd[order][mine])
            low, high = np.clip(value - spread, 0, 1), np.clip(value + spread, 0, 1)
            axes.vlines(rank[mine], low, high, color=color, alpha=0.45, linewidth=1)
            axes.plot(rank[mine], value, "o", color=color, markersize=size, mew=0, label=f"class {label_of}")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(0, len(order) + 1)
        axes.set_xlabel(f"{unit}s, by probability")
        axes.set_ylabel("probability of class 1")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.yaxis.grid(True)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", fontsize=8, handlelength=1, ncols=2)
        return svg(figure, f"people {label}")


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.spines["left"].set_color(INK)
    axes.spines["bottom"].set_color(INK)
    axes.grid(True)
    axes.set_axisbelow(True)
