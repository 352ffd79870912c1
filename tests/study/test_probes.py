"""Probes in a recipe, their names in the results, and the band power beside them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cerebro.dsp.spectrum import BANDS, band_power
from cerebro.signal import EEGBatch
from cerebro.study.baselines import log_band_power
from cerebro.study.execute import describe
from cerebro.study.plan import plan_study
from cerebro.study.probes import probe_names, with_means
from cerebro.study.recipe import read_recipe
from cerebro.training.embedding import Embedded

SFREQ, LENGTH = 64.0, 64


def batch(n_windows: int = 4) -> EEGBatch:
    """Two sequences of one channel, white noise of 20 microvolts."""
    eeg = 20 * torch.randn(2, 1, n_windows * LENGTH, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(2)
    return EEGBatch(
        eeg=eeg,
        channel=torch.zeros(2, 1, dtype=torch.int64),
        n_valid=torch.full((2,), n_windows * LENGTH),
        key=numbers,
        sample=numbers,
        recording=numbers,
        participant=numbers,
        pair=-torch.ones(2, dtype=torch.int64),
    )


def test_band_power_of_a_sequence_is_the_mean_of_the_logarithms_of_its_windows():
    whole = batch()
    found = log_band_power(whole, SFREQ, LENGTH)
    windows = whole.eeg.numpy().reshape(2, 1, 4, LENGTH)
    assert found.shape == (2, 1, len(BANDS))
    np.testing.assert_allclose(found, np.log10(band_power(windows, SFREQ)).mean(axis=2), rtol=1e-6)
    np.testing.assert_allclose(
        log_band_power(whole, SFREQ, 0), np.log10(band_power(whole.eeg.numpy(), SFREQ)), rtol=1e-6
    )


def test_padding_and_a_last_window_that_is_shorter_do_not_enter_band_power():
    whole = batch()
    short = replace(whole, eeg=whole.eeg.clone(), n_valid=torch.tensor([4 * LENGTH, 2 * LENGTH + 5]))
    short.eeg[1, :, 2 * LENGTH + 5 :] = 0
    found, expected = log_band_power(short, SFREQ, LENGTH), log_band_power(batch(), SFREQ, LENGTH)
    np.testing.assert_array_equal(found[0], expected[0])
    first = replace(whole, eeg=whole.eeg[:, :, : 2 * LENGTH], n_valid=torch.full((2,), 2 * LENGTH))
    np.testing.assert_allclose(found[1], log_band_power(first, SFREQ, LENGTH)[1], rtol=1e-6)


def test_a_channel_that_a_row_lacks_counts_as_the_training_mean():
    nan = float("nan")
    number = np.arange(3)
    train = Embedded(np.array([[1, nan], [3, nan], [nan, nan]], np.float32), number, number, number, {})
    test = replace(train, feature=np.array([[nan, 7], [5, nan], [6, 8]], np.float32))
    filled = with_means(train, test)
    np.testing.assert_array_equal(filled[0].feature, np.array([[1, 0], [3, 0], [2, 0]], np.float32))
    np.testing.assert_array_equal(filled[1].feature, np.array([[2, 7], [5, 0], [6, 8]], np.float32))


def test_a_probed_phase_is_probed_on_its_test_people_after_it_is_trained(write_recipe):
    probes = {"pretrain": {"targets": ["age", "participant"], "by": "recording"}}
    out = Path("runs/tiny")
    plan = plan_study(read_recipe(write_recipe(probes=probes)), out, code_version="test")
    commands = [line.split() for line in plan.commands()]
    at = [number for number, line in enumerate(commands) if line[:2] == ["cerebro", "probe"]]
    assert len(at) == len([run for run in plan.runs if run.phase == "pretrain"]) == 2
    for number in at:
        folder = commands[number - 1][commands[number - 1].index("--out") + 1]
        asked = ["--side", "test", "--by", "recording", "--targets", "age,participant"]
        assert commands[number] == ["cerebro", "probe", f"{folder}/best.ckpt", *asked]
        assert folder.startswith("runs/tiny/phases/pretrain-")
    assert describe(plan)["probes"] == probes
    alone = plan_study(read_recipe(write_recipe()), out, code_version="test")
    assert [run.identity for run in plan.runs] == [run.identity for run in alone.runs]  # a probe makes no other run


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ({"a": {"targets": ["x", "y"]}}, {("a", "x"): "probe/x", ("a", "y"): "probe/y"}),
        (
            {"a": {"targets": ["x"]}, "b": {"targets": ["x", "y"]}},
            {("a", "x"): "probe/a.x", ("b", "x"): "probe/b.x", ("b", "y"): "probe/y"},
        ),
    ],
)
def test_probes_have_names_of_their_own(probes, expected):
    assert probe_names({"probes": probes}) == expected
    assert probe_names({}) == {}
