"""Mamba-2 layers: mamba-ssm's numbers, both directions, padding, long sequences."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cerebro.errors import ConfigError
from cerebro.nn.mamba2 import Mamba2Mixer, Mamba2Stack, turned

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "mamba2.safetensors"
SHAPES = {  # of mamba-ssm's Mamba2 with d_model 128 and headdim 64
    "dt_bias": (4,),
    "A_log": (4,),
    "D": (4,),
    "in_proj.weight": (772, 128),
    "conv1d.weight": (512, 1, 4),
    "conv1d.bias": (512,),
    "norm.weight": (256,),
    "out_proj.weight": (128, 256),
}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def golden_mixer(golden, kind=torch.float64):
    mixer = Mamba2Mixer(32, d_state=16, headdim=16).double()  # the numbers as they are, then rounded
    mixer.load_state_dict({k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")})
    return mixer.to(kind)


def test_names_and_shapes_are_those_of_mamba_ssm():
    assert {name: tuple(value.shape) for name, value in Mamba2Mixer(128).state_dict().items()} == SHAPES


@pytest.mark.parametrize(("kind", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_results_and_gradients_are_those_of_the_recurrence(golden, kind, most):
    mixer = golden_mixer(golden, kind)
    tokens = golden["u"].to(kind, copy=True).requires_grad_()
    mixed = mixer(tokens)
    torch.testing.assert_close(mixed.double(), golden["y"].double(), rtol=0, atol=most)
    mixed.backward(golden["grad_y"].to(kind))
    found = {name: value.grad for name, value in mixer.named_parameters()} | {"u": tokens.grad}
    wanted = {k.removeprefix("grad/"): v for k, v in golden.items() if k.startswith("grad/")} | {"u": golden["grad_u"]}
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        scale = float(wanted[name].abs().max())
        torch.testing.assert_close(value.double(), wanted[name].double(), rtol=0, atol=most * scale, msg=name)


def test_backwards_a_sequence_is_turned_over_within_its_own_length(golden):
    mixer, tokens, lengths = golden_mixer(golden), golden["u"].double(), golden["lengths"]
    found = turned(mixer(turned(tokens, lengths)), lengths)
    is_valid = torch.arange(tokens.shape[1]) < lengths[:, None]
    torch.testing.assert_close(found[is_valid], golden["y_reverse_valid"].double()[is_valid], rtol=0, atol=1e-12)


def test_a_layer_that_runs_backwards_sees_later_tokens_and_a_causal_one_does_not():
    torch.manual_seed(0)
    tokens = torch.randn(1, 9, 16)
    for direction, seen in (("causal", 0), ("bidirectional", 9 - 4)):
        stack = Mamba2Stack(16, 2, direction, d_state=8, headdim=8)
        other = tokens.clone()
        other[0, 4:] += 1
        is_changed = ((stack(other) - stack(tokens)).abs() > 1e-7)[0, :4].any(dim=1)
        assert int(is_changed.sum()) == (4 if seen else 0)


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
def test_padding_changes_nothing(direction):
    torch.manual_seed(0)
    stack = Mamba2Stack(16, 3, direction, d_state=8, headdim=8)
    tokens, lengths = torch.randn(3, 20, 16), torch.tensor([20, 7, 1])
    tokens[1, 7:], tokens[2, 1:] = 50.0, -3.0
    padded = stack(tokens, lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(padded[row, :n], stack(tokens[row : row + 1, :n])[0], rtol=1e-5, atol=1e-6)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="headdim=48 does not divide the inner width 256"):
        Mamba2Mixer(128, headdim=48)


def test_steps_and_decays_start_in_the_published_ranges():
    torch.manual_seed(0)
    mixer = Mamba2Mixer(256, headdim=2)
    step = torch.nn.functional.softplus(mixer.dt_bias.detach())
    decay = mixer.A_log.detach().exp()
    assert float(step.min()) == pytest.approx(0.001, rel=1)
    assert 0.05 < float(step.max()) <= 0.1 + 1e-6
    assert float(decay.min()) == pytest.approx(1, rel=0.3)
    assert 13 < float(decay.max()) <= 16 + 1e-4
    assert bool((mixer.D == 1).all())
