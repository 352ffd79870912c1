"""The formula counts what is computed, peers give the product's numbers, errors and bytes are what is said."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cerebro.nn.ssd_plain import plain_gated_scan

BENCHMARKS, PACKAGE = (Path(__file__).resolve().parents[2] / folder for folder in ("benchmarks", "src"))
SIZES = ("", "_headdim64", "_d256")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return imported("mamba2")


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    return imported("mamba2_layers")


def imported(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


def scan_of(mixer: nn.Module, tokens: Tensor, chunk: int) -> Tensor:
    """The product's layer by its plain scan, in chunks of that size."""
    projected = mixer.in_proj(tokens)
    conv = mixer.conv1d
    scanned = plain_gated_scan(
        projected, conv.weight, conv.bias, mixer.dt_bias, mixer.A_log, mixer.D, 1e-5, chunk=chunk
    )
    mixed: Tensor = mixer.out_proj(scanned)
    return mixed


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_tiles", [2, 3])
def test_the_formula_of_a_step_equals_the_profilers_count(
    bench: ModuleType, layers: ModuleType, size: str, n_tiles: int
) -> None:
    n_batch, tile = 2, 16
    layer = layers.layer_of("ours", size, n_batch, n_tiles * tile)
    inner = layer.module.out_proj.in_features
    with FlopCounterMode(display=False) as counter:
        mixed = scan_of(layer.module, layer.tokens, tile)
        forward = counter.get_total_flops()
        mixed.backward(layer.gradient)
    # the plain scan also reads a state of zeros into its first chunk and writes one out of its last
    needless = 2 * 2 * n_batch * tile * bench.D_STATE * inner
    assert forward - needless == bench.layer_flops(size, n_batch, n_tiles * tile, tile, passes=1)
    # the counter takes a grouped convolution's backward pass for an ungrouped one's
    wrong = counter.get_flop_counts()["Global"][torch.ops.aten.convolution_backward]
    conv_backward = bench.linear_flops(n_batch * n_tiles * tile, bench.D_CONV, inner + 2 * bench.D_STATE, passes=2)
    counted = counter.get_total_flops() - wrong + conv_backward
    assert counted - 3 * needless == bench.layer_flops(size, n_batch, n_tiles * tile, tile)


def test_a_sequence_of_one_tile_needs_no_state(bench: ModuleType) -> None:
    squares = 2.0 * 124**2 * (128 + 256)
    assert bench.scan_flops(1, 124, 256, tile=124, passes=1) == squares
    assert bench.scan_flops(1, 124, 256, tile=200, passes=1) == squares
    halves = 2 * 2.0 * 62**2 * (128 + 256) + 2 * 2.0 * 62 * 128 * 256
    assert bench.scan_flops(1, 124, 256, tile=62, passes=1) == halves
    shorter_last = 2.0 * (100**2 + 24**2) * (128 + 256) + 2.0 * (24 + 100) * 128 * 256
    assert bench.scan_flops(1, 124, 256, tile=100, passes=1) == shorter_last


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["chunked_ssd", "chunked_ssd_shared", "transformers", "recurrence"])
@pytest.mark.filterwarnings("ignore:::transformers")
def test_peers_give_the_products_tokens_and_gradients(layers: ModuleType, size: str, kind: str) -> None:
    """``transformers`` is the plain form with its chunk where that package is not installed."""
    n_batch, n_times = 2, 150  # three chunks of 64, the last one padded
    ours = layers.layer_of("ours", size, n_batch, n_times)
    if kind == "recurrence":
        module = layers.recurrence(*layers.SIZES[size])
        module.load_state_dict(ours.module.state_dict(), strict=True)
        peer = layers.Layer(module, ours.tokens.detach().clone().requires_grad_(), ours.gradient)
    else:
        peer = layers.layer_of(kind, size, n_batch, n_times)
    torch.testing.assert_close(ours.mixed(), peer.mixed(), rtol=1e-4, atol=1e-5)
    ours.step(), peer.step()
    found, wanted = (
        {"tokens": layer.tokens.grad} | {name: value.grad for name, value in layer.module.named_parameters()}
        for layer in (ours, peer)
    )
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=3e-5 * float(value.abs().max()), msg=name)


def test_the_layer_with_its_norm_adds_what_it_mixed(layers: ModuleType) -> None:
    bare, whole = (layers.layer_of(kind, "", 2, 10) for kind in ("ours", "ours_with_norm"))
    mixed = bare.module(whole.module.norm(whole.tokens))
    torch.testing.assert_close(whole.mixed(), whole.tokens + mixed)


def test_a_wrong_gradient_is_seen_in_the_largest_error(
    bench: ModuleType, layers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.gradient_error("", n_batch=5, n_times=20)["max_gradient_error"] < 2e-5
    step = layers.Layer.step

    def wrong(layer: object) -> None:
        step(layer)
        grad = layer.module.D.grad  # type: ignore[attr-defined]
        grad[0] += 0.01 * grad.abs().max()

    monkeypatch.setattr(layers.Layer, "step", wrong)
    assert bench.gradient_error("", n_batch=5, n_times=20)["max_gradient_error"] == pytest.approx(0.01, rel=1e-2)


def test_the_peak_of_a_step_counts_what_is_alive_at_once_inside_a_function() -> None:
    """100 MB at once, then 20; in a process of its own, as the benchmark does."""
    script = """
import torch
import mamba2_layers, mamba2_memory

class Buffers(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        first, second = torch.ones(40 * 2**18), torch.ones(60 * 2**18)
        del first, second
        torch.ones(20 * 2**18)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clone()

class Needy(torch.nn.Module):
    def forward(self, tokens):
        return Buffers.apply(tokens) if len(tokens) > 1 else tokens.clone()

mamba2_layers.module_of = lambda *_: Needy()
torch.ones(300 * 2**18)  # an earlier peak
print(mamba2_memory.peak_of_steps("ours", ""))
"""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": f"{BENCHMARKS}:{PACKAGE}"}
    run = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert float(run.stdout) == pytest.approx(100, abs=5)


def test_the_lowest_ratio_of_long_sequences_is_the_lowest(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([1.4, 1.2, 1.3])
    comparison = importlib.import_module(bench.Comparison.__module__).Comparison
    monkeypatch.setattr(bench, "LONG", (8, 16, 32))
    monkeypatch.setattr(bench, "LONG_TOKENS", 32)
    monkeypatch.setattr(bench, "compare", lambda *_: comparison(next(ratios), 1.1, 1.5, 1.0, 1.2))
    figures = bench.long_sequences(7, None)
    assert figures["ratio_vs_transformer_layer_min_long"] == 1.2
    assert [figures[f"ratio_vs_transformer_layer_t{n}"] for n in (8, 16, 32)] == [1.4, 1.2, 1.3]


@pytest.mark.filterwarnings("ignore:::transformers")
def test_end_to_end_both_sides_read_mask_and_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sequences = imported("mamba2_end_to_end"), imported("sequences")
    for name, value in {"N_CHANNELS": 3, "N_WINDOWS": 12, "LENGTH": 64}.items():
        monkeypatch.setattr(sequences, name, value)
    monkeypatch.setattr(whole, "BATCH", 4)
    monkeypatch.setattr(whole, "N_LAYERS", 2)
    data, files = whole.write_data(tmp_path)
    readers = whole.StoreReader(data), whole.PandasReader(data, files)
    assert len(readers[0].batches) == 1  # of 6 sequences; that of the other 2 is left out
    ours, theirs = (reader.read() for reader in readers)
    assert ours.eeg.shape == (4, 1, 12 * 64)
    torch.testing.assert_close(ours.eeg, theirs.eeg, rtol=0, atol=0.05)  # microvolts; a step of the store's counts
    models = whole.ours_and_peer(data, headdim=32)
    losses = [model.loss(model.encoder, model.objective, ours) for model in models]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    found, wanted = ({name: value.grad for name, value in model.encoder.named_parameters()} for model in models)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4 * float(value.abs().max()), msg=name)
    before = losses[1].item()
    for model, reader in zip(models, readers, strict=True):
        step = whole.step_of(model, reader)
        for _ in range(5):
            step()
        assert model.loss(model.encoder, model.objective, ours).item() < before
