"""The Mamba-2 encoder on sequences of one channel and on challenge windows."""

import math
from dataclasses import replace

import pytest
import torch

from cerebro.encoders import Mamba2
from cerebro.errors import ConfigError
from cerebro.montage import hbn_129
from cerebro.objectives import Supervised
from cerebro.readouts import LinearReadout
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.optim import Optim, is_decayed


def small(signal, **changes):
    keys = {"patch_samples": 50, "d_model": 16, "n_layers": 2, "d_state": 8, "headdim": 8} | changes
    torch.manual_seed(0)
    return Mamba2(signal, **keys).eval()


def sequences(n_windows=(7, 3, 5), samples=50, seed=0):
    """One channel of several recordings, each with its own number of windows and its own deviation."""
    draw = torch.Generator().manual_seed(seed)
    rows, longest = torch.arange(len(n_windows)), max(n_windows) * samples
    n_valid = torch.tensor(n_windows) * samples
    deviation = torch.linspace(5, 40, len(n_windows))[:, None]
    eeg = deviation[..., None] * torch.randn(len(n_windows), 1, longest, generator=draw)
    return EEGBatch(
        eeg=eeg * (torch.arange(longest) < n_valid[:, None])[:, None],
        channel=rows[:, None] % 6,
        n_valid=n_valid,
        key=rows,
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        deviation=deviation,
    )


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_a_sequence_beside_longer_ones_has_the_tokens_that_it_has_alone(toy_signal, direction):
    encoder, batch = small(toy_signal, direction=direction), sequences()
    with torch.no_grad():
        tokens, counts = encoder(batch), encoder.valid(batch)
        assert counts.sum(dim=(1, 2)).tolist() == [7, 3, 5]
        for row, n in enumerate((7, 3, 5)):
            alone = replace(
                sequences((n,)),
                eeg=batch.eeg[row : row + 1, :, : n * 50],
                channel=batch.channel[row : row + 1],
                deviation=batch.deviation[row : row + 1],
                is_padded=False,
            )
            torch.testing.assert_close(tokens[row, 0, :n], encoder(alone)[0, 0], rtol=1e-4, atol=1e-5)


def test_rows_of_several_channels_are_padded_each_to_its_own_length(toy_signal, toy_eeg):
    encoder = small(toy_signal, direction="bidirectional")
    batch = replace(toy_eeg(3), n_valid=torch.tensor([200, 50, 130]), is_padded=True)
    with torch.no_grad():
        tokens = encoder(batch)
        for row, n in enumerate((4, 1, 3)):
            alone = encoder(replace(batch, eeg=batch.eeg[..., : n * 50], n_valid=batch.n_valid.clamp(max=n * 50)))
            torch.testing.assert_close(tokens[row, :, :n], alone[row], rtol=1e-4, atol=1e-5)


def test_a_channel_that_is_padding_has_no_valid_token(toy_signal, toy_eeg):
    batch = toy_eeg(1)
    batch = replace(batch, channel=torch.where(batch.channel == 4, -1, batch.channel), is_padded=True)
    assert small(toy_signal).valid(batch).sum(dim=2).tolist() == [[4, 4, 4, 4, 0, 4]]


def test_how_many_microvolts_a_recording_has_does_not_matter_where_its_deviation_is_known(toy_signal):
    encoder, batch = small(toy_signal), sequences()
    louder = replace(batch, eeg=10 * batch.eeg, deviation=10 * batch.deviation)
    with torch.no_grad():
        torch.testing.assert_close(encoder(louder), encoder(batch), rtol=1e-4, atol=1e-5)


def test_channels_are_sequences_of_their_own(toy_signal, toy_eeg):
    encoder, batch = small(toy_signal), toy_eeg(2)
    other = replace(batch, eeg=batch.eeg.clone())
    other.eeg[:, 4] += 30
    with torch.no_grad():
        is_changed = ((encoder(other) - encoder(batch)).abs() > 1e-6).any(dim=-1).any(dim=-1)
    assert is_changed.tolist() == [[False, False, False, False, True, False]] * 2


def test_a_hidden_window_tells_only_where_and_when_it_is(toy_signal, toy_eeg):
    encoder, batch = small(toy_signal), toy_eeg(2)
    hidden = torch.zeros(2, 6, 4, dtype=torch.bool)
    hidden[:, 3, 1] = True
    with torch.no_grad():
        local = encoder.embed(batch)
        changed = torch.where(hidden[..., None], 99.0, local)
        found = encoder.mix(local, batch, hidden)
        assert torch.equal(encoder.mix(changed, batch, hidden), found)
        zeroed = replace(batch, eeg=batch.eeg.unflatten(2, (4, 50)).masked_fill(hidden[..., None], 0.0).flatten(2))
        torch.testing.assert_close(encoder(zeroed), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("direction", "n_seen"), [("causal", 0), ("bidirectional", 3)])
def test_only_a_bidirectional_model_sees_later_windows(toy_signal, direction, n_seen):
    encoder, batch = small(toy_signal, direction=direction), replace(sequences((5,)), is_padded=False)
    other = replace(batch, eeg=batch.eeg.clone())
    other.eeg[..., 150:] += 20
    with torch.no_grad():
        is_changed = ((encoder(other) - encoder(batch)).abs() > 1e-6)[0, 0].any(dim=-1)
    assert is_changed.tolist() == [n_seen > 0] * 3 + [True] * 2


def test_a_sequence_of_one_window_has_finite_tokens(toy_signal):
    encoder = small(toy_signal, direction="bidirectional")
    for is_padded in (True, False):
        with torch.no_grad():
            tokens = encoder(replace(sequences((1, 1)), is_padded=is_padded))
        assert tokens.shape == (2, 1, 1, 16)
        assert bool(tokens.isfinite().all())


def test_challenge_windows_are_four_tokens_of_each_of_129_channels():
    cap = hbn_129()
    signal = SignalSpec(tuple(cap.channels), tuple(map(tuple, cap.positions.tolist())), 100.0, 200)
    assert small(signal).n_patches(200) == 4
    with pytest.raises(ConfigError, match=r"patch_samples=2048 of Mamba2 does not divide the 200 samples of a row"):
        Mamba2(signal)


def test_a_channel_without_a_position_is_refused_by_name(toy_signal):
    lost = (*toy_signal.positions[:5], (math.nan,) * 3)
    with pytest.raises(ConfigError, match=r"no position \(E6\)"):
        small(replace(toy_signal, positions=lost))


def test_a_single_layer_cannot_be_bidirectional(toy_signal):
    small(toy_signal, n_layers=1)
    with pytest.raises(ConfigError, match=r"n_layers is 1, so that none would; set n_layers to 2 or more"):
        small(toy_signal, n_layers=1, direction="bidirectional")


def test_weight_decay_leaves_step_sizes_decays_and_skips_alone(toy_signal):
    encoder = small(toy_signal)
    decayed = {name.rsplit(".", 2)[-2] for name, p in encoder.named_parameters() if is_decayed(name, p)}
    assert decayed == {"input_proj", "in_proj", "conv1d", "out_proj"}
    objective = Supervised(encoder, toy_signal, target="trait", readout=LinearReadout)
    groups = Optim(weight_decay=0.1, layer_decay=0.8).build(encoder, objective).param_groups
    free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for layer in encoder.stack.layers:
        assert {id(layer.mixer.dt_bias), id(layer.mixer.A_log), id(layer.mixer.D)} <= free


def test_states_and_their_gradients_stay_float32_under_bfloat16(toy_signal, toy_eeg):
    encoder = small(toy_signal).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encoder(toy_eeg(2))
    tokens.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if name.endswith((".dt_bias", ".A_log", ".D")):
            assert (parameter.dtype, parameter.grad.dtype) == (torch.float32, torch.float32)


def test_layers_are_counted_from_the_input_to_the_last_norm(toy_signal):
    encoder = small(toy_signal)
    names = ("input_proj.weight", "codes.time_proj.bias", "stack.layers.1.mixer.A_log", "stack.norm_f.weight")
    assert [encoder.layer_of(name) for name in names] == [0, 0, 2, 3]
