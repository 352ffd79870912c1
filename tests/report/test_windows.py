"""The section about hidden windows: its figures bear what the arrays say, and its words the numbers of the run."""

import json

import numpy as np
import pytest

from cerebro.report import figures
from cerebro.report.evidence import gather
from cerebro.report.representation import tokenizer
from cerebro.report.windows import masked_windows
from cerebro.study.results import make_results

P, SFREQ, N_SHOWN = 64, 16.0, 3


def showcase(term=""):
    """Three windows of 4 s with a wave of 2 Hz, half of which is rebuilt."""
    draw = np.random.default_rng(0)
    time = np.arange(P) / SFREQ
    original = (30 * np.sin(2 * np.pi * 2 * time) + draw.normal(0, 5, (N_SHOWN, P))).astype(np.float32)
    frequency = np.arange(P // 2 + 1) * SFREQ / P
    density = 1 + 99.0 * (frequency == 2)
    arrays = {
        "channel": np.array([4, 0, 2]),
        "window": np.array([11, 0, 7]),
        "deviation_uV": np.array([12.3, 20.0, 31.4]),
        "original": original,
        "reconstructed": original / 2,
        "frequency_hz": frequency,
        "spectrum_original": density,
        "spectrum_reconstructed": density / 4,
        "n_windows": np.array(1234),
    }
    return {term + key: value for key, value in arrays.items()}


@pytest.fixture
def section(study_folder):
    """``section(term, **figures of the best epoch)``: what the page says of a pretraining phase with these arrays."""

    def of(term="", **logged):
        for folder in study_folder.glob("phases/pretrain*"):
            names = {"channel_names": np.array([f"E{n + 1}" for n in range(6)]), "positions": np.zeros((6, 3))}
            np.savez(folder / "showcase.npz", **names, **showcase(term))
            rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
            rows[7] |= {f"val/{term}{key}": value for key, value in logged.items()}
            (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        make_results(study_folder)
        return masked_windows(gather(study_folder))

    return of


@pytest.mark.parametrize("term", ["", "windows/"])
def test_the_words_have_the_numbers_of_the_best_epoch_and_of_the_arrays(section, term):
    text = section(term, explained=0.123)
    assert "12.3 % is explained (epoch 8, phase pretrain)" in text
    assert "here 12.3 to 31.4 µV" in text
    assert "first one drawn in each of 3 sequences" in text
    assert "Median correlation 1.00" in text
    assert "all 1,234 hidden windows" in text
    assert "25.0 % of the power" in text
    assert text.count("<svg") == 2
    assert "BERT" not in text


def test_traces_bear_their_electrode_and_window(section, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        figures, "traces", lambda *given: drawn.update(zip(("a", "b", "names", "sfreq"), given, strict=True)) or ""
    )
    section()
    assert drawn["names"] == ["E5, window 12", "E1, window 1", "E3, window 8"]
    assert drawn["sfreq"] == SFREQ
    np.testing.assert_array_equal(drawn["b"], showcase()["reconstructed"])


def test_the_three_groups_of_bert_style_stand_apart(section):
    text = section(mse_zeroed=0.911, mse_noised=0.922, mse_unchanged=0.1)
    for value in ("0.911", "0.922", "0.100", "can be copied"):
        assert value in text
    assert "explained" not in text


def test_windows_are_not_taken_for_those_of_a_tokenizer(section, study_folder):
    for path in study_folder.glob("phases/tokenizer*/showcase.npz"):
        path.unlink()
    section()
    assert tokenizer(gather(study_folder)) == ""


def test_a_flat_recording_says_nothing_of_power(section, study_folder, monkeypatch):
    flat = {key: np.zeros_like(value) if "spectrum" in key or key in ("original", "reconstructed") else value
            for key, value in showcase().items()}  # fmt: skip
    monkeypatch.setattr(f"{__name__}.showcase", lambda term="": flat)
    text = section()
    assert "of the power" not in text
    assert "correlation" not in text
    assert "nan" not in text.lower()


def test_a_study_without_masked_windows_has_no_such_section(study_folder):
    make_results(study_folder)
    assert masked_windows(gather(study_folder)) == ""
