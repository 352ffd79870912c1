"""What one process of several computes on its share of global batches: RANK WORLD FOLDER -> FOLDER/WORLD-RANK.pt."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import cerebro.objectives.vqnsp
from cerebro.encoders.labram import LaBraM
from cerebro.nn.processes import gather_uneven_rows
from cerebro.nn.quantizer import CosineCodebook
from cerebro.objectives.base import Objective
from cerebro.objectives.contrastive import Contrastive
from cerebro.objectives.vqnsp import VQNSP
from cerebro.signal import EEGBatch, SignalSpec

SIGNAL = SignalSpec(("A", "B", "C", "D"), tuple((0.08, 0.01 * i, 0.04) for i in range(4)), 100.0, 200)
N_WINDOWS = 12


class Both(nn.Module):
    """Encoder and objective as the one module that DistributedDataParallel takes."""

    def __init__(self, encoder: LaBraM, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective

    def forward(self, batch: EEGBatch) -> Any:
        loss = self.objective(self.encoder, batch)
        return loss.total, loss.parts


def global_batch(seed: int) -> EEGBatch:
    """Twelve windows of six couples; the second half of the rows lacks their second patch."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.arange(N_WINDOWS)
    return EEGBatch(
        eeg=20 * torch.randn(N_WINDOWS, 4, 200, generator=draw),
        channel=torch.arange(4).repeat(N_WINDOWS, 1),
        n_valid=torch.where(rows < N_WINDOWS // 2, 200, 100),
        key=torch.randint(0, 2**62, (N_WINDOWS,), generator=draw),
        sample=rows,
        recording=rows,
        participant=torch.randint(0, 4, (N_WINDOWS,), generator=draw),
        pair=torch.randint(-1, 4, (N_WINDOWS,), generator=draw),
    )


def share(batch: EEGBatch, rank: int, world_size: int) -> EEGBatch:
    size = N_WINDOWS // world_size
    mine = slice(rank * size, (rank + 1) * size)
    rows = {f.name: getattr(batch, f.name)[mine] for f in fields(batch) if isinstance(getattr(batch, f.name), Tensor)}
    return replace(batch, **rows)


def encoder_of() -> LaBraM:
    return LaBraM(SIGNAL, conv_channels=2, depth=1, n_heads=2)


def contrastive(rank: int, world_size: int) -> dict[str, Tensor]:
    """Gradient of every parameter, averaged over processes, in float64."""
    torch.manual_seed(0)
    encoder = encoder_of()
    both: Any = Both(encoder, Contrastive(encoder, SIGNAL, temperature=0.2, learnable=True)).double()
    if world_size > 1:
        both = DistributedDataParallel(both, find_unused_parameters=True)
    batch = share(global_batch(1), rank, world_size)
    total, parts = both(replace(batch, eeg=batch.eeg.double()))
    total.backward()
    gradients = {name.removeprefix("module."): p.grad for name, p in both.named_parameters() if p.grad is not None}
    return {"total": total.detach(), **{f"part/{name}": value for name, value in parts.items()}, **gradients}


def vqnsp(rank: int, world_size: int, revive_below: float) -> dict[str, Tensor]:
    """Codebook after its start and after six steps, and what the last step reported."""
    torch.manual_seed(0)
    encoder = encoder_of()
    objective = VQNSP(encoder, SIGNAL, 24, 8, decoder_depth=1, decoder_heads=2, revive_below=revive_below, head_std=0.2)
    taken = 0

    def batches() -> Any:
        nonlocal taken
        for seed in range(20):
            taken += 1
            yield share(global_batch(seed), rank, world_size)

    objective.start(encoder, batches())
    found = {"taken": torch.tensor(taken), "started": objective.codebook.weight.clone()}
    for step in range(6):
        parts = objective(encoder, share(global_batch(30 + step), rank, world_size)).parts
    codebook = objective.codebook
    return found | {"weight": codebook.weight, "use": codebook.use, "perplexity": parts["perplexity"]}


def uneven(rank: int, world_size: int) -> dict[str, Tensor]:
    """A first process without a token; rows of different numbers."""
    torch.manual_seed(0)
    tokens, codebook = torch.randn(30, 4), CosineCodebook(8, 4, revive_below=0.9)
    for step in range(3):
        codebook(tokens if rank == world_size - 1 else tokens[:0], torch.tensor([step + rank]))
    rows = gather_uneven_rows(tokens[: 3 * rank + 1])
    return {"weight": codebook.weight, "use": codebook.use, "rows": rows, "none": gather_uneven_rows(tokens[:0])}


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    cerebro.objectives.vqnsp.TOKENS_FOR_KMEANS = 300  # 72 a batch: more than one is needed
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    found = {
        "contrastive": contrastive(rank, world_size),
        "vqnsp": vqnsp(rank, world_size, 0.0),
        "vqnsp_revived": vqnsp(rank, world_size, 0.9),
        "uneven": uneven(rank, world_size),
    }
    torch.save(found, folder / f"{world_size}-{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()
