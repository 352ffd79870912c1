"""What every objective promises."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cerebro.objectives  # registers every objective
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.objectives import (
    JEPA,
    VQNSP,
    BlockMask,
    Contrastive,
    DiskMask,
    FrozenTokenizer,
    MaskedCodes,
    MaskedWindows,
    Objective,
    Supervised,
    WeightedSum,
)
from cerebro.readouts import LinearReadout, MLPReadout
from cerebro.signal import EEGBatch, SignalSpec


def encoder_of(signal: SignalSpec) -> LaBraM:
    return LaBraM(signal, conv_channels=2, depth=1, n_heads=2)


def vqnsp(encoder: Encoder, signal: SignalSpec) -> VQNSP:
    return VQNSP(encoder, signal, n_codes=32, code_dim=8, decoder_depth=1, decoder_heads=2)


def masked_codes(encoder: Encoder, signal: SignalSpec) -> MaskedCodes:
    return MaskedCodes(encoder, signal, tokenizer=lambda s: FrozenTokenizer(s, encoder_of, vqnsp))


def trait(encoder: Encoder, signal: SignalSpec) -> Supervised:
    return Supervised(encoder, signal, target="trait", readout=LinearReadout)


def state(encoder: Encoder, signal: SignalSpec) -> Supervised:
    return Supervised(encoder, signal, target="state", readout=MLPReadout, kind="classification")


def vote(encoder: Encoder, signal: SignalSpec) -> Supervised:
    readout = partial(MLPReadout, over_channels="concat", over_windows="vote")
    return Supervised(encoder, signal, target="state", readout=readout, kind="classification")


def weighted_sum(encoder: Encoder, signal: SignalSpec) -> WeightedSum:
    return WeightedSum(encoder, signal, {"codes": masked_codes, "trait": trait}, {"codes": 1.0, "trait": 0.15})


def jepa(encoder: Encoder, signal: SignalSpec) -> JEPA:
    return of_jepa(encoder, signal, lambda s, n: BlockMask(s, n, "spatial", ratio=0.5))


def of_jepa(encoder: Encoder, signal: SignalSpec, mask: Callable[[SignalSpec, int], Any]) -> JEPA:
    return JEPA(encoder, signal, mask, 1, 2, 32, momentum=(0.9, 0.99), teacher_layers=1)


Build = Callable[[Encoder, SignalSpec], Objective]
EXAMPLES: dict[str, list[Build]] = {
    "JEPA": [jepa, lambda e, s: of_jepa(e, s, lambda s, n: DiskMask(s, n, "80%"))],
    "VQNSP": [vqnsp, lambda e, s: VQNSP(e, s, 32, 8, decoder_depth=1, decoder_heads=2, targets="sincos")],
    "MaskedCodes": [masked_codes, lambda e, s: MaskedCodes(e, s, masked_codes_tokenizer, 0.3, symmetric=False)],
    "MaskedWindows": [lambda e, s: MaskedWindows(e, s, 0.5), lambda e, s: MaskedWindows(e, s, 0.5, "bert")],
    "Contrastive": [Contrastive, lambda e, s: Contrastive(e, s, learnable=True)],
    "Supervised": [trait, state, vote],
    "WeightedSum": [weighted_sum],
}
FINAL = [cls for cls in Objective.__subclasses__() if cls.__module__.startswith("cerebro.")]


def masked_codes_tokenizer(signal: SignalSpec) -> FrozenTokenizer:
    return FrozenTokenizer(signal, encoder_of, vqnsp)


CASES = [(cls, i) for cls in FINAL for i in range(max(1, len(EXAMPLES.get(cls.__name__, []))))]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def build(request: pytest.FixtureRequest, example_of: Any, toy_signal: SignalSpec) -> Any:
    cls, number = request.param
    examples = example_of(EXAMPLES, cls)

    def with_seed(seed: int = 0) -> tuple[Encoder, Objective]:
        torch.manual_seed(seed)
        encoder = encoder_of(toy_signal)
        return encoder, examples[number](encoder, toy_signal)

    return with_seed


def train(encoder: Encoder, objective: Objective, batches: list[EEGBatch], n_steps: int) -> list[float]:
    parameters = [p for p in [*encoder.parameters(), *objective.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
    losses = []
    for step in range(n_steps):
        loss = objective(encoder, batches[step % len(batches)])
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        objective.after_step(encoder, (step + 1) / n_steps)
        losses.append(float(loss.total.detach()))
    return losses


def test_the_loss_is_a_finite_scalar_with_scalar_parts(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    loss = objective(encoder, toy_eeg(8))
    assert loss.total.shape == ()
    assert bool(loss.total.isfinite())
    assert loss.parts
    assert all(part.numel() == 1 and bool(part.isfinite().all()) for part in loss.parts.values())
    assert not any(part.requires_grad for part in loss.parts.values())


def test_the_loss_falls_in_fifty_steps(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    batches = [toy_eeg(16, seed) for seed in range(4)]
    objective.start(encoder, batches * 12)
    losses = train(encoder, objective, batches, 50)
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4]), losses


def test_the_same_seed_gives_the_same_losses(build: Any, toy_eeg: Any) -> None:
    batches = [toy_eeg(8, seed) for seed in range(2)]
    runs = []
    for _ in range(2):
        encoder, objective = build(3)
        objective.start(encoder, batches * 24)
        runs.append(train(encoder, objective, batches, 3))
    assert runs[0] == runs[1]


def test_the_encoder_is_not_registered(build: Any) -> None:
    encoder, objective = build()
    mine = {id(parameter) for parameter in objective.parameters()}
    assert not mine & {id(parameter) for parameter in encoder.parameters()}


def test_tokens_handed_in_change_nothing(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    encoder.eval()
    objective.eval()
    batch = toy_eeg(8)
    with torch.no_grad():
        own, given = objective(encoder, batch), objective(encoder, batch, encoder(batch))
    torch.testing.assert_close(own.total, given.total)


def test_evaluation_changes_no_state(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    encoder.eval()
    objective.eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    batch = toy_eeg(8)
    with torch.no_grad():
        first = objective(encoder, batch).total
        assert torch.equal(objective(encoder, batch).total, first)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_a_state_dict_makes_another_instance_equal(build: Any, toy_eeg: Any) -> None:
    (encoder, first), (_, second) = build(0), build(1)
    batches = [toy_eeg(16, seed) for seed in range(2)]
    first.start(encoder, batches * 24)
    second.load_state_dict(first.state_dict(), strict=True)
    encoder.eval(), first.eval(), second.eval()
    with torch.no_grad():
        assert torch.equal(first(encoder, batches[0]).total, second(encoder, batches[0]).total)


def test_predictions_and_showcase_are_finite(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    encoder.eval()
    objective.eval()
    batch = toy_eeg(8)
    for arrays in (objective.predict(encoder, batch), objective.showcase(encoder, batch)):
        assert isinstance(arrays, Mapping)
        assert all(isinstance(value, Tensor) and not value.requires_grad for value in arrays.values())
    assert all(bool(value.isfinite().all()) for value in objective.predict(encoder, batch).values())


def test_bfloat16_gives_nearly_the_same_loss(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    encoder.eval()
    objective.eval()
    batch = toy_eeg(8)
    with torch.no_grad():
        exact = objective(encoder, batch).total
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = objective(encoder, batch).total
    assert abs(float(rounded - exact)) < 0.05 * abs(float(exact)) + 0.02


class HostWaits(TorchDispatchMode):
    """Notes every operation that would make the host wait for an accelerator: shapes or numbers made of values."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "item", "nonzero", "masked_select", "bincount", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith(("index", "_index_put", "_unsafe_index")) and len(args) > 1 else ()
        is_masked = isinstance(indices, (list, tuple)) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices
        )
        if name.startswith(self.NAMES) or is_masked:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_training_step_without_padding_never_makes_the_host_wait(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    batch = toy_eeg(8)
    with HostWaits() as waits:
        objective(encoder, batch).total.backward()
        objective.after_step(encoder, 0.5)
    assert waits.found == []


def test_a_batch_that_is_called_padded_without_need_gives_the_same_loss(build: Any, toy_eeg: Any) -> None:
    encoder, objective = build()
    encoder.eval()
    objective.eval()
    batch = toy_eeg(8)
    with torch.no_grad():
        plain, checked = (objective(encoder, replace(batch, is_padded=padded)) for padded in (False, True))
    torch.testing.assert_close(checked.total, plain.total, rtol=1e-4, atol=1e-5)
    assert set(checked.parts) == set(plain.parts)


def test_every_objective_can_be_named_in_a_config() -> None:
    assert {cls.__name__ for cls in FINAL} <= set(cerebro.objectives.__all__)
