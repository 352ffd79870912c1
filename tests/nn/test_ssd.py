"""The fast scan on a CPU is the plain one: results and gradients, tiles, steep decays, threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cerebro.nn import ssd
from cerebro.nn.mamba2 import EPS, Mamba2Mixer
from cerebro.nn.ssd import gated_scan, is_fast
from cerebro.nn.ssd_plain import plain_gated_scan, scan

NAMES = ("tokens", "in_proj.weight", "conv1d.weight", "conv1d.bias", "dt_bias", "A_log", "D")


def inputs_of(
    n_batch: int, n_times: int, seed: int = 0, d_state: int = 8, headdim: int = 8, d_conv: int = 4
) -> list[Tensor]:
    torch.manual_seed(seed)
    mixer = Mamba2Mixer(16, d_state=d_state, headdim=headdim, d_conv=d_conv)
    found = dict(mixer.named_parameters())
    return [torch.randn(n_batch, n_times, 16), *(found[name].detach() for name in NAMES[1:])]


def run(inputs: list[Tensor], is_plain: bool) -> dict[str, Tensor]:
    """Result and gradients, by the plain scan in float64 or by ours in float32; the loss weighs places differently."""
    given = [value.to(torch.float64 if is_plain else torch.float32, copy=True).requires_grad_() for value in inputs]
    tokens, in_weight, *others = given
    scanned = plain_gated_scan(tokens @ in_weight.t(), *others, EPS) if is_plain else gated_scan(*given, EPS)
    weight = torch.randn(scanned.shape, generator=torch.Generator().manual_seed(1))
    (scanned * weight.to(scanned.dtype)).sum().backward()
    return {"scanned": scanned.detach()} | {name: value.grad for name, value in zip(NAMES, given, strict=True)}


def check_equal(inputs: list[Tensor], most: float = 1e-5) -> None:
    """Within ``most`` of the largest entry (or 0.1); those of the heads are differences of larger sums."""
    ours, plain = run(inputs, is_plain=False), run(inputs, is_plain=True)
    for name, value in ours.items():
        wanted, allowed = plain[name], 3e-4 if name in ("dt_bias", "A_log", "D") else most
        apart = float((value.double() - wanted).abs().max()) / max(float(wanted.abs().max()), 0.1)
        assert apart < allowed, f"{name} is off by {apart:.1e} of its largest entry"


@settings(max_examples=30, deadline=None)
@given(
    n_batch=st.integers(1, 3),
    n_times=st.integers(1, 40),
    n_tile=st.integers(6, 20),
    headdim=st.sampled_from([2, 8, 32]),
    d_state=st.sampled_from([1, 5, 16]),
    d_conv=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_results_and_gradients_are_those_of_the_plain_scan_whatever_the_tiles(
    n_batch: int, n_times: int, n_tile: int, headdim: int, d_state: int, d_conv: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssd, "WHOLE", n_tile)
        patch.setattr(ssd, "TILE", n_tile)
        check_equal(inputs_of(n_batch, n_times, seed, d_state, headdim, d_conv))


@pytest.mark.parametrize("n_times", [124, 256, 257, 640])
def test_long_sequences_are_worked_off_in_tiles_with_the_same_result(n_times):
    check_equal(inputs_of(2, n_times))


@pytest.mark.parametrize("step", [3.0, 30.0, 1e4])
def test_decays_that_would_overflow_are_cut_into_shorter_tiles(step):
    inputs = inputs_of(2, 100)
    inputs[4] = inputs[4] + step  # of every head: exp(-16 step) from place to place
    tokens, in_weight, _, _, dt_bias, a_log, _ = inputs
    dt = torch.nn.functional.softplus((tokens @ in_weight.t())[..., -len(dt_bias) :] + dt_bias)
    assert ssd._decay(dt, a_log)[0] < 100
    assert float((a_log.exp() * dt).sum(dim=1).max()) > 150
    ours, plain = run(inputs, is_plain=False), run(inputs, is_plain=True)
    assert all(bool(value.isfinite().all()) for value in ours.values())
    for name in ("scanned", "tokens", "in_proj.weight", "conv1d.weight"):
        apart = float((ours[name].double() - plain[name]).abs().max() / plain[name].abs().max())
        assert apart < 1e-4, f"{name} is off by {apart:.1e}"  # float32 itself is, where exp(-16 step) is all there is


def test_one_wild_sequence_leaves_the_others_as_they_are():
    inputs = inputs_of(3, 60)
    calm = run(inputs, is_plain=False)["scanned"]
    inputs[0][1] *= 300
    wild = run(inputs, is_plain=False)["scanned"]
    torch.testing.assert_close(wild[[0, 2]], calm[[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_batch", [1, 20])
def test_threads_change_nothing(of_threads, n_batch):
    inputs, found = inputs_of(n_batch, 80), []
    for n in (1, 2, 3):
        with of_threads(n):
            found.append(run(inputs, is_plain=False))
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items() if name not in NAMES[:2])
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-4)


def test_inputs_and_parameters_stay_as_they_were():
    inputs = inputs_of(2, 30)
    before = [value.clone() for value in inputs]
    run(inputs, is_plain=False)
    assert all(torch.equal(value, old) for value, old in zip(inputs, before, strict=True))


def test_a_batch_of_nothing_gives_nothing():
    found = run(inputs_of(0, 5), is_plain=False)
    assert found["scanned"].shape[:2] == (0, 5)
    assert all(bool((found[name] == 0).all()) for name in NAMES)


def test_gradients_can_be_had_once():
    tokens, *others = inputs_of(1, 9)
    loss = gated_scan(tokens.requires_grad_(), *others, EPS).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be had once"):
        loss.backward()


def test_only_what_asks_for_a_gradient_gets_one():
    inputs = inputs_of(2, 12)
    inputs[5].requires_grad_()
    gated_scan(*inputs, EPS).sum().backward()
    assert inputs[5].grad is not None
    assert all(value.grad is None for value in inputs[:5])


def test_values_that_are_not_finite_stay_visible():
    inputs = inputs_of(2, 12)
    inputs[0][1, 5, 3] = float("nan")
    scanned = gated_scan(*inputs, EPS)
    assert bool(scanned[0].isfinite().all())
    assert bool(scanned[1, 5:].isnan().all())


def test_other_devices_types_and_compilers_take_the_plain_scan():
    assert is_fast(torch.zeros(1, 2, 3))
    assert not is_fast(torch.zeros(1, 2, 3, dtype=torch.float64))
    assert not is_fast(torch.zeros(1, 2, 3, device="meta"))


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_the_plain_scan_is_the_recurrence_whatever_the_chunk(chunk):
    draw = torch.Generator().manual_seed(0)
    x, b, c = (torch.randn(2, 11, *shape, generator=draw, dtype=torch.float64) for shape in ((3, 4), (5,), (5,)))
    log_decay = -torch.rand(2, 11, 3, generator=draw, dtype=torch.float64)
    state, wanted = torch.zeros(2, 3, 4, 5, dtype=torch.float64), []
    for t in range(11):
        state = state * log_decay[:, t, :, None, None].exp() + x[:, t, :, :, None] * b[:, t, None, None, :]
        wanted.append((state * c[:, t, None, None, :]).sum(dim=-1))
    torch.testing.assert_close(scan(x, log_decay, b, c, chunk), torch.stack(wanted, dim=1))
