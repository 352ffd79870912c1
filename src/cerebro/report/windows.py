"""Section about masked windows: traces and spectra as recorded and as rebuilt, and how much of them is explained."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cerebro.report import figures
from cerebro.report.evidence import Evidence, RunEvidence
from cerebro.report.html import figure, table, tag
from cerebro.report.representation import row_correlation

BERT_GROUPS = {
    "mse_zeroed": "zeroed",
    "mse_noised": "replaced by noise",
    "mse_unchanged": "left as they were, which can be copied",
}


def masked_windows(evidence: Evidence) -> str:
    """Hidden windows of a validation batch as recorded and as rebuilt, with their mean spectra. Empty = left out."""
    found = evidence.example_of_term("spectrum_reconstructed")
    if found is None:
        return ""
    run, name = found
    term = name.removesuffix("spectrum_reconstructed")  # "windows/" in a sum that calls it so
    shown = {key: np.asarray(run.showcase[term + key], np.float64) for key in ARRAYS}
    row = _best_row(run)
    return _explained(row.get(f"val/{term}explained"), run) + _traces(run, shown) + _spectra(shown) + _groups(row, term)


ARRAYS = (
    *("channel", "window", "deviation_uV", "original", "reconstructed"),
    *("frequency_hz", "spectrum_original", "spectrum_reconstructed", "n_windows"),
)


def _best_row(run: RunEvidence) -> Mapping[str, Any]:
    """History of the epoch whose weights made the showcase; empty if there is none."""
    epoch = run.record.get("best", {}).get("epoch")
    return next((row for row in run.history if row.get("epoch") == epoch), {})


def _explained(share: float | None, run: RunEvidence) -> str:
    if share is None:
        return ""
    return tag(
        "p",
        f"Of the variance of hidden windows of validation participants {100 * share:.1f} % is explained (epoch "
        f"{run.record['best']['epoch'] + 1}, phase {run.phase}); 0 is what their mean alone would reach.",
    )


def _traces(run: RunEvidence, shown: Mapping[str, Any]) -> str:
    channel, window, deviation = shown["channel"].astype(int), shown["window"].astype(int), shown["deviation_uV"]
    names = [
        f"{run.showcase['channel_names'][at]}, window {number + 1}" for at, number in zip(channel, window, strict=True)
    ]
    sfreq = shown["frequency_hz"][1] * shown["original"].shape[1]
    correlation = row_correlation(shown["original"], shown["reconstructed"])
    median = f" Median correlation {np.nanmedian(correlation):.2f}." if np.isfinite(correlation).any() else ""
    return figure(
        figures.traces(shown["original"], shown["reconstructed"], names, sfreq),
        "Hidden windows as recorded (thin) and as rebuilt from the visible windows of the same channel "
        f"(coloured): the first one drawn in each of {len(names)} sequences of one validation batch, not chosen by "
        f"their looks. The model sees windows divided by the deviation of their channel, here {deviation.min():.1f} to "
        f"{deviation.max():.1f} µV.{median}",
    )


def _spectra(shown: Mapping[str, Any]) -> str:
    original, rebuilt = shown["spectrum_original"], shown["spectrum_reconstructed"]
    caption = (
        f"Mean power density of all {int(shown['n_windows']):,} hidden windows of the batch and of what was rebuilt of "
        "them (Hann window, one transform a window)."
    )
    if original[1:].sum() > 0:
        share = 100 * rebuilt[1:].sum() / original[1:].sum()
        caption += (
            f" What is rebuilt has {share:.1f} % of the power: the mean squared error leaves out what the visible "
            "windows do not tell, above all the phase of rhythms."
        )
    return figure(figures.spectra(shown["frequency_hz"], original, rebuilt), caption)


def _groups(row: Mapping[str, Any], term: str) -> str:
    """Error of each group of BERT style; empty in MAE style."""
    rows = [
        ("", [what, f"{row[key]:.3f}"])
        for group, what in BERT_GROUPS.items()
        if row.get(key := f"val/{term}{group}") is not None
    ]
    return table(["masked windows, BERT style", "mean squared error"], rows, numbers=(1,)) if rows else ""
