"""Projection of windows, codes of place and time, which windows count."""

import math
from dataclasses import replace

import pytest
import torch

from cerebro.errors import ConfigError
from cerebro.nn.window_tokens import PlaceAndTime, WindowProjection, check_windows, n_valid_windows, valid_windows


def test_a_token_is_the_projection_of_the_standardised_window(toy_eeg):
    batch = toy_eeg(3)
    deviation = batch.eeg.std(dim=2)
    torch.manual_seed(0)
    project = WindowProjection(50, 16, scale_uV=20.0)
    standardised = (batch.eeg / deviation[:, :, None]).unflatten(2, (4, 50))
    expected = standardised @ project.weight.t() + project.bias
    torch.testing.assert_close(project(replace(batch, deviation=deviation)), expected, rtol=1e-5, atol=1e-5)


def test_without_a_known_deviation_windows_are_divided_by_scale_uV(toy_eeg):
    batch = toy_eeg(2)
    project = WindowProjection(50, 16, scale_uV=25.0)
    expected = (batch.eeg / 25).unflatten(2, (4, 50)) @ project.weight.t() + project.bias
    torch.testing.assert_close(project(batch), expected, rtol=1e-5, atol=1e-5)


def test_a_flat_channel_gives_finite_tokens_and_gradients(toy_eeg):
    batch = toy_eeg(2)
    deviation = batch.eeg.std(dim=2)
    batch.eeg[:, 2], deviation[:, 2] = 7.0, 0.0
    project = WindowProjection(50, 16, scale_uV=20.0)
    tokens = project(replace(batch, deviation=deviation))
    assert bool(tokens.isfinite().all())
    tokens.square().sum().backward()
    assert bool(project.weight.grad.isfinite().all())


def test_behind_the_valid_samples_of_the_last_window_all_counts_as_zeros(toy_eeg):
    batch = replace(toy_eeg(3), n_valid=torch.tensor([170, 150, 30]), is_padded=True)
    project = WindowProjection(50, 16, scale_uV=20.0)
    known = torch.arange(200) < batch.n_valid[:, None]
    zeroed = project(replace(batch, eeg=batch.eeg * known[:, None]))
    counts = valid_windows(batch, 50)
    assert counts[:, 0].tolist() == [[True] * 4, [True] * 3 + [False], [True] + [False] * 3]
    assert n_valid_windows(batch, 50).tolist() == [4, 3, 1]
    torch.testing.assert_close(project(batch)[counts], zeroed[counts])


def test_a_hidden_window_is_a_window_of_zeros(toy_eeg):
    batch, project = toy_eeg(2), WindowProjection(50, 16, scale_uV=20.0)
    hidden = torch.zeros(2, 6, 4, dtype=torch.bool)
    hidden[0, 1, 2] = hidden[1, 4, 0] = True
    zeroed = batch.eeg.unflatten(2, (4, 50)).masked_fill(hidden[..., None], 0.0).flatten(2)
    torch.testing.assert_close(project.hide(project(batch), hidden), project(replace(batch, eeg=zeroed)))


def test_places_are_directions_times_a_matrix_that_checkpoints_keep(toy_signal, toy_eeg):
    batch = toy_eeg(1)
    codes, others = PlaceAndTime(toy_signal, 16, seed=0), PlaceAndTime(toy_signal, 16, seed=1)
    farther = PlaceAndTime(
        replace(toy_signal, positions=tuple((3 * x, 3 * y, 3 * z) for x, y, z in toy_signal.positions)), 16, 0
    )
    assert {name: tuple(value.shape) for name, value in codes.state_dict().items()} == {
        "place_projection": (3, 16),
        "time_proj.weight": (16, 1),
        "time_proj.bias": (16,),
    }
    with torch.no_grad():
        place = codes(batch.channel, 4, 4)[:, :, 0] - codes.time_proj.bias
        directions = torch.tensor(toy_signal.positions) / torch.tensor(toy_signal.positions).norm(dim=1, keepdim=True)
        torch.testing.assert_close(place[0], directions @ codes.place_projection)
        assert not torch.allclose(others(batch.channel, 4, 4), codes(batch.channel, 4, 4), atol=0.1)
        for other in (others, farther):
            other.load_state_dict(codes.state_dict())
            torch.testing.assert_close(other(batch.channel, 4, 4), codes(batch.channel, 4, 4))


def test_time_is_the_share_of_the_valid_windows(toy_signal, toy_eeg):
    batch, codes = toy_eeg(2), PlaceAndTime(toy_signal, 16, seed=0)
    with torch.no_grad():
        found = codes(batch.channel, torch.tensor([4, 2]), 4)
        time = found - found[:, :, :1]  # (B, C, N, D)
    slope = codes.time_proj.weight[:, 0].detach()
    for row, n_valid in enumerate((4, 2)):
        torch.testing.assert_close(time[row, 3], (torch.arange(4) / n_valid)[:, None] * slope, rtol=1e-4, atol=1e-6)


def test_codes_are_float32_under_autocast(toy_signal, toy_eeg):
    batch, codes = toy_eeg(1), PlaceAndTime(toy_signal, 16, seed=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = codes(batch.channel, 4, 4)
    assert torch.equal(rounded, codes(batch.channel, 4, 4))


@pytest.mark.parametrize(
    ("samples", "said"), [(64, r"one of \[10, 20, 25, 40, 50, 100\], or cut"), (201, r"0 samples of a row \(2 s at")]
)
def test_windows_that_do_not_fill_a_row_are_refused(toy_signal, samples, said):
    with pytest.raises(ConfigError, match=said):
        check_windows(toy_signal, samples, "Mamba2")


@pytest.mark.parametrize("lost", [(math.nan, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_a_channel_without_a_position_is_refused_by_name(toy_signal, lost):
    signal = replace(toy_signal, positions=(*toy_signal.positions[:5], lost))
    with pytest.raises(ConfigError, match=r"1 of 6 channels have no position \(E6\)"):
        PlaceAndTime(signal, 16, seed=0)
