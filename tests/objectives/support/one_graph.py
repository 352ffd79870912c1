"""Loss and gradients of two batches, plain and traced, for each objective: FOLDER -> FOLDER/graphs.pt.

In a process of its own, for the tracer cannot follow the shape checks that tests put into every function.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cerebro.encoders import Encoder, LaBraM, SignalJEPA
from cerebro.objectives import (
    JEPA,
    VQNSP,
    BlockMask,
    Contrastive,
    FrozenTokenizer,
    MaskedCodes,
    MaskedWindows,
    Objective,
    Supervised,
    WeightedSum,
)
from cerebro.readouts import Contextual, LinearReadout, PostLocal, PreLocal
from cerebro.signal import EEGBatch, SignalSpec

SIGNAL = SignalSpec(tuple("ABCDEF"), tuple((0.08, 0.01 * i, 0.04) for i in range(6)), 100.0, 200, ("trait",))
HEADS = {"PreLocal": PreLocal, "PostLocal": PostLocal, "Contextual": Contextual}
PADDED = ("vqnsp", "codes_and_trait", "windows", "jepa", *HEADS)
FIELDS = ("eeg", "channel", "key", "pair")
N_WINDOWS = 6


def encoder_of(signal: SignalSpec) -> LaBraM:
    return LaBraM(signal, conv_channels=2, depth=2, n_heads=2)


def vqnsp(encoder: Any, signal: SignalSpec) -> VQNSP:
    return VQNSP(encoder, signal, n_codes=32, code_dim=8, decoder_depth=1, decoder_heads=2)


def masked_codes(encoder: Any, signal: SignalSpec) -> MaskedCodes:
    return MaskedCodes(encoder, signal, lambda s: FrozenTokenizer(s, encoder_of, vqnsp))


def supervised(encoder: Any, signal: SignalSpec) -> Supervised:
    return Supervised(encoder, signal, "trait", LinearReadout)


def codes_and_trait(encoder: Any, signal: SignalSpec) -> WeightedSum:
    return WeightedSum(encoder, signal, {"codes": masked_codes, "trait": supervised}, {"codes": 1.0, "trait": 0.15})


def jepa_of(signal: SignalSpec, depth: int) -> SignalJEPA:
    layers = ((8, 16, 8), (16, 8, 8))
    return SignalJEPA(signal, layers, depth, n_heads=2, feedforward=8, place_width=6)


def short_tokens_of(signal: SignalSpec) -> SignalJEPA:
    return SignalJEPA(signal, ((8, 16, 8), (16, 4, 4)), depth=2, n_heads=2, feedforward=32, place_width=6)


def jepa(encoder: Any, signal: SignalSpec) -> JEPA:
    return JEPA(encoder, signal, lambda s, n: BlockMask(s, n, ratio=0.5), 2, 2, 32, teacher_layers=2)


def behind(head: Any) -> Callable[[Any, SignalSpec], Supervised]:
    return lambda encoder, signal: Supervised(encoder, signal, "trait", head)


class ReadsBack(Contrastive):
    """Waits for the host: what the tracer must refuse."""

    def forward(self, encoder: Any, batch: EEGBatch, tokens: Tensor | None = None) -> Any:
        loss = super().forward(encoder, batch, tokens)
        if loss.total.item() < 0:
            raise ValueError(loss)
        return loss


OBJECTIVES: dict[str, Callable[[Any, SignalSpec], Objective]] = {
    "vqnsp": vqnsp,
    "codes_and_trait": codes_and_trait,
    "windows": lambda encoder, signal: MaskedWindows(encoder, signal, 0.5, "bert"),
    "contrastive": Contrastive,
    "jepa": jepa,
    "reads_back": ReadsBack,
    **{name: behind(head) for name, head in HEADS.items()},
}
ENCODERS: dict[str, Callable[[SignalSpec], Encoder]] = {
    name: lambda signal, depth=int(name == "Contextual"): jepa_of(signal, depth) for name in HEADS
}
ENCODERS["jepa"] = short_tokens_of


def batch_of(seed: int, is_padded: bool) -> EEGBatch:
    """Three couples; of a padded batch the first window lacks some channels, how many depends on the seed."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.arange(N_WINDOWS)
    channel = torch.arange(6).repeat(N_WINDOWS, 1)
    if is_padded:
        channel[0, 3 + seed :] = -1
    return EEGBatch(
        eeg=20 * torch.randn(N_WINDOWS, 6, SIGNAL.n_times, generator=draw),
        channel=channel,
        n_valid=torch.full((N_WINDOWS,), SIGNAL.n_times),
        key=torch.randint(0, 2**60, (N_WINDOWS,), generator=draw),
        sample=rows,
        recording=rows,
        participant=rows % 2,
        pair=rows // 2,
        targets={"trait": torch.randn(N_WINDOWS, generator=draw)},
        known={"trait": torch.rand(N_WINDOWS, generator=draw) < 0.8},
        is_padded=is_padded,
    )


def compare(name: str, is_padded: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    encoder = ENCODERS.get(name, encoder_of)(SIGNAL)
    objective = OBJECTIVES[name](encoder, SIGNAL)
    batches = [batch_of(seed, is_padded) for seed in (0, 1)]
    start = copy.deepcopy((encoder.state_dict(), objective.state_dict()))
    graphs: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def loss(*values: Tensor) -> Tensor:
        total: Tensor = objective(encoder, replace(batches[0], **dict(zip(FIELDS, values, strict=True)))).total
        return total

    def run(step: Callable[..., Tensor]) -> list[Tensor]:
        encoder.load_state_dict(start[0])
        objective.load_state_dict(start[1])
        encoder.zero_grad()
        objective.zero_grad()
        losses = []
        for batch in batches:
            losses.append(step(*(getattr(batch, field) for field in FIELDS)))
            losses[-1].backward()
        parameters = [*encoder.parameters(), *objective.parameters()]
        return [value.detach() for value in losses] + [p.grad for p in parameters if p.grad is not None]

    torch._dynamo.reset()
    try:
        traced = run(torch.compile(loss, backend=backend, fullgraph=True, dynamic=False))
    except torch._dynamo.exc.TorchDynamoException as error:
        return {"refused": str(error)}
    return {"plain": run(loss), "traced": traced, "n_graphs": len(graphs)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = [(name, is_padded) for name in OBJECTIVES for is_padded in (False, True) if name in PADDED or not is_padded]
    found = {case: compare(*case) for case in cases}
    torch.save(found, Path(sys.argv[1]) / "graphs.pt")
