"""The benchmark's formula counts what is computed, and its plain peer computes the same numbers as the product."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cerebro.objectives import VQNSP, MaskedCodes
from cerebro.objectives.masks import random_mask

N_CHANNELS, N_BATCH, N_CODES = 6, 3, 64


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return importlib.import_module("labram")


@pytest.fixture(scope="module")
def small(bench: ModuleType) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "BASE", bench.BASE | {"depth": 2})
        patch.setattr(bench, "TOKENIZER", bench.TOKENIZER | {"depth": 2})
        patch.setattr(bench, "N_CODES", N_CODES)
        yield bench


def counted(loss: object) -> float:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().total.backward()  # type: ignore[operator]
    return float(counter.get_total_flops())


def test_the_formula_of_a_tokenizer_step_equals_the_profilers_count(small: ModuleType) -> None:
    encoder, objective = small.build("vq", N_CHANNELS)
    batch = small.batch_of(N_CHANNELS, N_BATCH)
    found = counted(lambda: objective(encoder, batch))
    assert found == pytest.approx(small.vq_flops(N_CHANNELS, N_BATCH, 2, n_codes=N_CODES), rel=1e-3)


def test_the_formula_of_a_masked_code_step_equals_the_profilers_count(small: ModuleType) -> None:
    encoder, objective = small.build("mem", N_CHANNELS)
    batch = small.batch_of(N_CHANNELS, N_BATCH)
    found = counted(lambda: objective(encoder, batch))
    assert found == pytest.approx(small.mem_flops(N_CHANNELS, N_BATCH, 2, N_CODES), rel=1e-3)


def test_the_plain_step_gives_the_products_loss_and_gradients(small: ModuleType) -> None:
    plain = sys.modules["labram_plain"]
    encoder, objective = small.build("mem", N_CHANNELS)
    assert isinstance(objective, MaskedCodes)
    assert isinstance(objective.tokenizer.objective, VQNSP)
    batch = small.batch_of(N_CHANNELS, N_BATCH)
    hidden = random_mask(encoder.valid(batch), 0.5, batch.key).hidden.flatten(1)
    gradients = []
    for loss in (objective(encoder, batch).total, plain.masked_codes_loss(encoder, objective, batch, hidden)):
        encoder.zero_grad()
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
