"""The formula counts what is computed, the plain peer gives the product's tokens, bytes are those that are kept."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cerebro.encoders import SignalJEPA


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return importlib.import_module("signal_jepa")


@pytest.mark.parametrize(("n_batch", "n_times"), [(2, 200), (1, 1600)])
def test_the_formula_of_a_step_equals_the_profilers_count(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, n_batch: int, n_times: int
) -> None:
    def plain(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
        fed: Tensor = second(F.relu(first(x)))
        return fed

    monkeypatch.setattr(
        "cerebro.nn.postnorm.is_narrow", lambda *_: False
    )  # products that the counter can see, once each
    monkeypatch.setattr("cerebro.nn.postnorm.feed_forward", plain)
    signal, batch = bench.signal_of(n_times), bench.batch_of(n_batch, n_times)
    encoder = SignalJEPA(signal, depth=1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tokens = encoder(batch)
        forward = counter.get_total_flops()
        tokens.backward(torch.ones_like(tokens))
    assert forward == pytest.approx(bench.step_flops(n_batch, n_times, depth=1, passes=1), rel=1e-6)
    assert counter.get_total_flops() == pytest.approx(bench.step_flops(n_batch, n_times, depth=1), rel=1e-6)


def test_the_plain_peer_gives_the_products_tokens_and_gradients(bench: ModuleType) -> None:
    torch.manual_seed(0)
    signal, batch = bench.signal_of(300), bench.batch_of(2, 300)
    ours, plain = SignalJEPA(signal), bench.plain(129)
    bench.set_dropout(plain, 0.0)
    with torch.no_grad():
        ours.pos_encoder.pos_encoder_spat.weight += torch.randn(129, 30)
    plain.load_state_dict(ours.state_dict(), strict=True)
    tokens, theirs = ours(batch).flatten(1, 2), plain(batch.eeg)
    torch.testing.assert_close(tokens, theirs, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(tokens)
    tokens.backward(direction)
    theirs.backward(direction)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_without_dropout_every_layer_of_the_peer_has_none(bench: ModuleType) -> None:
    plain = bench.plain(4)
    eeg = torch.randn(1, 4, 300)
    assert not torch.equal(plain(eeg), plain(eeg))
    bench.set_dropout(plain, 0.0)
    assert torch.equal(plain(eeg), plain(eeg))
    rates = {part.dropout for part in plain.modules() if isinstance(part, nn.MultiheadAttention)}
    assert rates == {0.0}


def test_kept_bytes_are_those_of_each_storage_once_without_weights_and_input(bench: ModuleType) -> None:
    layer, given = nn.Linear(8, 16), torch.randn(32, 8)

    def forward() -> Tensor:
        hidden: Tensor = layer(given)  # keeps the input and the weight
        squared = hidden * hidden  # keeps one storage twice
        return squared.exp()  # keeps its result

    assert bench.kept_bytes(forward, layer, given) == 2 * 32 * 16 * 4
