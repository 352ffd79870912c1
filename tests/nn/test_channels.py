import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError
from cerebro.montage import hbn_129, standard_1005
from cerebro.nn.channels import PerceiverChannels

NET = torch.tensor(hbn_129().positions)
CAP = torch.tensor(standard_1005().positions[::16][:21])


def adapter_of(sources=CAP, n_out=128, patch=50, seed=0, **keys):
    torch.manual_seed(seed)
    return PerceiverChannels(sources, NET[:n_out], patch, width=16, **keys)


def run(adapter, eeg, channel):
    return adapter(eeg, channel, torch.full((len(eeg),), eeg.shape[-1]))


def windows(n=3, c=21, t=100, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 20 * torch.randn(n, c, t, generator=draw).cumsum(-1), torch.arange(c).repeat(n, 1)


@pytest.mark.parametrize(("sources", "n_out"), [(CAP, 128), (NET, 129)])
def test_any_number_of_channels_gives_those_of_the_target(sources, n_out):
    eeg, channel = windows(c=len(sources))
    out = run(adapter_of(sources, n_out), eeg, channel)
    assert out.shape == (3, n_out, 100)
    assert out.isfinite().all()
    assert run(adapter_of(sources, n_out), eeg[:, :7], channel[:, :7]).shape == (3, n_out, 100)


@given(order=st.permutations(range(21)), n_times=st.sampled_from([50, 100, 130]), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_the_order_of_channels_does_not_matter(order, n_times, seed):
    adapter, (eeg, channel) = adapter_of(), windows(t=n_times, seed=seed)
    with torch.no_grad():
        torch.testing.assert_close(
            run(adapter, eeg[:, order], channel[:, order]), run(adapter, eeg, channel), rtol=1e-4, atol=1e-3
        )


@given(n_padded=st.integers(1, 5), fill=st.floats(-1e4, 1e4))
@settings(max_examples=15, deadline=None)
def test_padded_channels_have_no_influence_whatever_they_hold(n_padded, fill):
    adapter, (eeg, channel) = adapter_of(), windows()
    longer = torch.cat([eeg, torch.full((3, n_padded, 100), fill)], dim=1)
    marked = torch.cat([channel, torch.full((3, n_padded), -1)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(run(adapter, longer, marked), run(adapter, eeg, channel), rtol=1e-4, atol=1e-3)


def test_padded_samples_have_no_influence_whatever_they_hold():
    adapter, (eeg, channel) = adapter_of(), windows()
    longer = torch.cat([eeg, torch.full((3, 21, 70), 1e3)], dim=2)
    with torch.no_grad():
        padded = adapter(longer, channel, torch.full((3,), 100))
        torch.testing.assert_close(padded[..., :100], run(adapter, eeg, channel), rtol=1e-4, atol=1e-3)
        assert not padded[..., 100:].any()


def test_a_window_of_padding_is_zero_and_leaves_finite_gradients():
    adapter, (eeg, channel) = adapter_of(), windows()
    channel[1] = -1
    out = run(adapter, eeg, channel)
    assert not out[1].any()
    assert out[0].any()
    out.square().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in adapter.parameters())


def test_the_gradient_reaches_every_parameter_and_every_channel():
    adapter, (eeg, channel) = adapter_of(), windows()
    eeg.requires_grad_(True)
    out = run(adapter, eeg, channel)
    (out * torch.randn_like(out)).sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in adapter.parameters())
    assert bool(adapter.source.grad.any(dim=1).all())
    assert bool(eeg.grad.any(dim=2).all())


def test_twice_the_voltage_gives_twice_the_voltage():
    adapter, (eeg, channel) = adapter_of(), windows()
    with torch.no_grad():
        torch.testing.assert_close(run(adapter, 2 * eeg, channel), 2 * run(adapter, eeg, channel), rtol=1e-4, atol=1e-3)


def test_an_untrained_adapter_follows_the_places():
    """A field that falls off smoothly from left to right comes out in the same order."""
    adapter = adapter_of(NET, 128)
    field = (NET[:, 0] / 0.1).float()[None, :, None] * torch.sin(torch.arange(100) / 5.0) * 30
    with torch.no_grad():
        out = run(adapter, field, torch.arange(129)[None])[0, :, 10]
    assert torch.corrcoef(torch.stack([out, field[0, :128, 10]]))[0, 1] > 0.95


def test_training_learns_the_net_from_21_electrodes():
    """Fields of dipoles that it has not seen, error relative to the field: 0.45 untrained, 0.30 after 80 steps."""
    adapter, channel, n_valid = adapter_of(n_heads=4), torch.arange(21).repeat(8, 1), torch.full((8,), 100)

    def fields(seed):
        draw = torch.Generator().manual_seed(seed)
        inside = torch.randn(8, 6, 3, generator=draw)
        inside = torch.tensor([0, 0.015, 0.04]) + 0.04 * inside / inside.norm(dim=2, keepdim=True)
        moment, course = (torch.randn(8, 6, n, generator=draw) for n in (3, 100))
        potentials = []
        for places in (CAP, NET[:128]):
            away = places.float() - inside[:, :, None]
            gain = (away * moment[:, :, None]).sum(3) / away.norm(dim=3) ** 3
            potentials.append(torch.einsum("bsc,bst->bct", gain, course))
        scale = 20 / potentials[0].std()
        return scale * potentials[0], scale * potentials[1]

    def error():
        eeg, truth = fields(1000)
        with torch.no_grad():
            return float((adapter(eeg, channel, n_valid) - truth).norm() / truth.norm())

    untrained = error()
    optimiser = torch.optim.Adam(adapter.parameters(), 0.01)
    for step in range(80):
        eeg, truth = fields(step)
        optimiser.zero_grad()
        (adapter(eeg, channel, n_valid) - truth).square().mean().backward()
        optimiser.step()
    assert error() < 0.9 * untrained


def test_bfloat16_stays_close_to_float32():
    adapter, (eeg, channel) = adapter_of(), windows()
    with torch.no_grad():
        exact = run(adapter, eeg, channel)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = run(adapter, eeg, channel).float()
    assert float((rounded - exact).norm() / exact.norm()) < 0.02


def test_a_channel_of_unknown_place_takes_part():
    sources = CAP.clone()
    sources[3] = float("nan")
    adapter, (eeg, channel) = adapter_of(sources), windows()
    with torch.no_grad():
        plain = run(adapter, eeg, channel)
        eeg[:, 3] += 50
        changed = run(adapter, eeg, channel)
    assert plain.isfinite().all()
    assert not torch.allclose(plain, changed)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"n_heads=3 does not divide the width 16; set n_heads to one of \[1, 2"):
        adapter_of(n_heads=3)
