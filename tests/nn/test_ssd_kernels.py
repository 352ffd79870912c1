"""When the kernels of mamba-ssm run, what they are handed, and that they compute what the plain operations do."""

import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

import cerebro.nn.mamba2
from cerebro.nn import ssd_kernels
from cerebro.nn.mamba2 import EPS, Mamba2Mixer
from cerebro.nn.ssd_kernels import kernel_or_reason, state_of_kernels, why_not
from cerebro.nn.ssd_plain import plain_gated_scan

CUDA, FLOAT = torch.device("cuda"), torch.float32


@pytest.fixture
def without(monkeypatch):
    """No mamba-ssm, whatever is installed."""
    for name in ("causal_conv1d", "mamba_ssm.ops.triton.ssd_combined"):
        monkeypatch.setitem(sys.modules, name, None)
    kernel_or_reason.cache_clear()
    yield
    kernel_or_reason.cache_clear()


@pytest.fixture
def fake(monkeypatch):
    """Modules in place of mamba-ssm's whose function has its signature, computes plainly and notes its calls."""
    calls = []

    def mamba_split_conv1d_scan_combined(
        zxbcdt,
        conv1d_weight,
        conv1d_bias,
        dt_bias,
        A,
        D,
        chunk_size,
        initial_states=None,
        seq_idx=None,
        dt_limit=(0.0, float("inf")),
        return_final_states=False,
        activation="silu",
        rmsnorm_weight=None,
        rmsnorm_eps=1e-6,
        outproj_weight=None,
        outproj_bias=None,
        headdim=None,
        ngroups=1,
        norm_before_gate=True,
    ):
        assert (activation, ngroups, norm_before_gate, chunk_size) == ("silu", 1, False, 256)
        assert (initial_states, seq_idx, return_final_states, outproj_bias) == (None, None, False, None)
        assert dt_limit == (0.0, float("inf"))
        assert headdim * len(D) == len(rmsnorm_weight)
        calls.append(tuple(zxbcdt.shape))
        weight = conv1d_weight[:, None]  # theirs has no axis of length one
        gated = plain_gated_scan(zxbcdt, weight, conv1d_bias, dt_bias, torch.log(-A), D, rmsnorm_eps)
        return F.linear(gated * rmsnorm_weight, outproj_weight)

    names = ("causal_conv1d", "mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].mamba_split_conv1d_scan_combined = mamba_split_conv1d_scan_combined
    kernel_or_reason.cache_clear()
    yield calls
    kernel_or_reason.cache_clear()


def test_kernels_run_on_a_gpu_where_they_import(fake):
    assert why_not(CUDA, FLOAT, n_heads=8, d_conv=4) == ""
    assert why_not(CUDA, torch.bfloat16, n_heads=16, d_conv=4) == ""


@pytest.mark.parametrize(
    ("device", "dtype", "n_heads", "d_conv", "said"),
    [
        ("cpu", FLOAT, 8, 4, "tokens lie on cpu"),
        ("cuda", torch.float64, 8, 4, "no float64"),
        ("cuda", FLOAT, 4, 4, "4 heads are no multiple of 8; choose another headdim"),
        ("cuda", FLOAT, 8, 5, "d_conv=5 is not in 2 ... 4"),
    ],
)
def test_what_the_kernels_cannot_take_has_a_reason(fake, device, dtype, n_heads, d_conv, said):
    assert said in why_not(torch.device(device), dtype, n_heads, d_conv)


def test_without_the_kernels_the_reason_is_that_of_python(without):
    assert "cannot be imported (ModuleNotFoundError: " in why_not(CUDA, FLOAT, 8, 4)


def test_a_gpu_without_the_kernels_is_told_of_once(without, caplog):
    ssd_kernels._tell.cache_clear()
    assert not any(ssd_kernels.runs_in_kernels(CUDA, FLOAT, 8, 4) for _ in range(3))
    assert not ssd_kernels.runs_in_kernels(torch.device("cpu"), FLOAT, 8, 4)
    assert len(caplog.records) == 1
    assert "plain PyTorch on the GPU, without the kernels of mamba-ssm: they cannot be imported" in caplog.text


def test_the_kernels_are_handed_what_gives_the_same_tokens_and_gradients(fake, monkeypatch):
    torch.manual_seed(0)
    mixer, tokens = Mamba2Mixer(32, d_state=16, headdim=8), torch.randn(2, 11, 32, requires_grad=True)
    torch.nn.init.uniform_(mixer.norm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(mixer.D, -1, 1)
    ask = torch.randn(2, 11, 32)
    plain = mixer(tokens)
    wanted = torch.autograd.grad(plain, [tokens, *mixer.parameters()], ask)
    assert fake == []
    monkeypatch.setattr(cerebro.nn.mamba2, "runs_in_kernels", lambda *_: True)
    found = mixer(tokens)
    assert fake == [(2, 11, 2 * 64 + 2 * 16 + 8)]
    torch.testing.assert_close(found, plain)
    for ours, theirs in zip(torch.autograd.grad(found, [tokens, *mixer.parameters()], ask), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_doctor_has_one_line_on_them(fake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert state_of_kernels().startswith("kernels of mamba-ssm: there; Mamba2 runs in them on the GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "installed, without use without a GPU" in state_of_kernels()


def test_doctor_says_what_runs_where_they_are_not(without, monkeypatch):
    assert "nor needed without a GPU; Mamba2 runs in cerebro's own operations" in state_of_kernels()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    line = state_of_kernels()
    assert "not there (ModuleNotFoundError: " in line
    assert line.endswith("Mamba2 runs on the GPU in plain PyTorch, slower")
    assert "\n" not in line


@pytest.mark.parametrize("n_times", [1, 124, 700])
def test_on_a_gpu_the_real_kernels_give_the_tokens_and_gradients_of_the_plain_operations(n_times):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here; the kernels of mamba-ssm run on one alone")
    if reason := kernel_or_reason()[1]:
        pytest.skip(f"the kernels of mamba-ssm cannot be imported here ({reason})")
    torch.manual_seed(0)
    mixer = Mamba2Mixer(128, headdim=32).cuda()
    tokens = torch.randn(4, n_times, 128, device="cuda", requires_grad=True)
    ask = torch.randn_like(tokens)
    inputs = [tokens, *mixer.parameters()]
    assert not why_not(tokens.device, tokens.dtype, len(mixer.D), 4)
    fused = mixer(tokens)
    found = torch.autograd.grad(fused, inputs, ask)
    scanned = plain_gated_scan(
        mixer.in_proj(tokens), mixer.conv1d.weight, mixer.conv1d.bias, mixer.dt_bias, mixer.A_log, mixer.D, EPS
    )
    plain = F.linear(scanned * mixer.norm.weight, mixer.out_proj.weight)
    torch.testing.assert_close(fused, plain, rtol=2e-3, atol=2e-3)  # triton multiplies in TF32
    for ours, theirs in zip(found, torch.autograd.grad(plain, inputs, ask), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))
