"""The transformer that takes the place of Mamba-2 when it is asked for by name."""

from dataclasses import replace

import torch
from torch import nn

from cerebro.encoders import Mamba2, Transformer


def small(signal, **changes):
    torch.manual_seed(0)
    return Transformer(signal, **({"patch_samples": 50, "d_model": 16, "n_layers": 2} | changes)).eval()


def test_a_layer_is_that_of_torch(toy_signal):
    encoder = small(toy_signal, n_layers=1)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    ours = encoder.layers[0]
    state = {
        "self_attn.in_proj_weight": ours.attn.qkv.weight,
        "self_attn.in_proj_bias": torch.cat([ours.attn.q_bias, torch.zeros(16), ours.attn.v_bias]),
        "self_attn.out_proj.weight": ours.attn.proj.weight,
        "self_attn.out_proj.bias": ours.attn.proj.bias,
    }
    for there, here in (("norm1", "norm1"), ("norm2", "norm2"), ("linear1", "fc1"), ("linear2", "fc2")):
        state |= {f"{there}.{kind}": getattr(getattr(ours, here), kind) for kind in ("weight", "bias")}
    theirs.load_state_dict(state)
    tokens = torch.randn(3, 9, 16)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)


def test_its_input_side_is_that_of_mamba2(toy_signal, toy_eeg):
    ours, other = small(toy_signal), Mamba2(toy_signal, 50, 16, 1, d_state=8, headdim=8)
    other.input_proj.load_state_dict(ours.input_proj.state_dict())
    batch = toy_eeg(2)
    assert torch.equal(ours.embed(batch), other.embed(batch))
    assert ours.codes.state_dict().keys() == other.codes.state_dict().keys()
    assert torch.equal(ours.codes.place_projection, other.codes.place_projection)


def test_a_padded_key_has_no_influence(toy_signal, toy_eeg):
    encoder = small(toy_signal)
    batch = replace(toy_eeg(2), n_valid=torch.tensor([200, 100]), is_padded=True)
    with torch.no_grad():
        found = encoder(batch)[1, :, :2]
        shorter = replace(batch, eeg=batch.eeg[..., :100], n_valid=torch.tensor([100, 100]))
        torch.testing.assert_close(found, encoder(shorter)[1], rtol=1e-4, atol=1e-5)


def test_channels_are_sequences_of_their_own(toy_signal, toy_eeg):
    encoder, batch = small(toy_signal), toy_eeg(2)
    other = replace(batch, eeg=batch.eeg.clone())
    other.eeg[:, 4] += 30
    with torch.no_grad():
        is_changed = ((encoder(other) - encoder(batch)).abs() > 1e-6).any(dim=-1).any(dim=-1)
    assert is_changed.tolist() == [[False, False, False, False, True, False]] * 2


def test_layers_are_counted_from_the_input_to_the_last_norm(toy_signal):
    encoder = small(toy_signal)
    names = ("input_proj.weight", "codes.time_proj.bias", "layers.1.fc1.weight", "norm.weight")
    assert [encoder.layer_of(name) for name in names] == [0, 0, 2, 3]
