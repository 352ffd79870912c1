"""What one process of several computes on its share of global batches: RANK WORLD FOLDER -> FOLDER/WORLD-RANK.pt."""

import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import cerebro.objectives.vqnsp
from cerebro.encoders.labram import LaBraM
from cerebro.nn.processes import gather_uneven_rows, n_processes
from cerebro.nn.quantizer import CosineCodebook
from cerebro.objectives.base import Objective
from cerebro.objectives.block_masks import BlockMask
from cerebro.objectives.contrastive import Contrastive
from cerebro.objectives.jepa import JEPA
from cerebro.objectives.masked_codes import FrozenTokenizer, MaskedCodes
from cerebro.objectives.masked_windows import MaskedWindows
from cerebro.objectives.supervised import Supervised
from cerebro.objectives.vqnsp import VQNSP
from cerebro.readouts import LinearReadout, PowerReadout
from cerebro.signal import EEGBatch, SignalSpec

SIGNAL = SignalSpec(("A", "B", "C", "D"), tuple((0.08, 0.01 * i, 0.04) for i in range(4)), 100.0, 200, ("y",))
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
        targets={"y": torch.randn(N_WINDOWS, generator=draw)},
        known={"y": rows % 3 < 1 + (rows < N_WINDOWS // 2)},  # twice as many labels in the first half
    )


def share(batch: EEGBatch, rank: int, world_size: int) -> EEGBatch:
    size = N_WINDOWS // world_size
    mine = slice(rank * size, (rank + 1) * size)
    rows: dict[str, Any] = {
        f.name: getattr(batch, f.name)[mine]
        for f in fields(batch)
        if isinstance(getattr(batch, f.name), Tensor) and len(getattr(batch, f.name)) == N_WINDOWS
    }
    labels = {name: {"y": getattr(batch, name)["y"][mine]} for name in ("targets", "known")}
    return replace(batch, **rows, **labels)


def cut_short(batch: EEGBatch) -> EEGBatch:
    """A batch without what is padding in all of its rows, as a loader of sequences gives it."""
    longest = int(batch.n_valid.max())
    return replace(batch, eeg=batch.eeg[..., :longest], is_padded=bool((batch.n_valid < longest).any()))


def encoder_of() -> LaBraM:
    return LaBraM(SIGNAL, conv_channels=2, depth=1, n_heads=2)


def contrastive(rank: int, world_size: int) -> dict[str, Tensor]:
    """Gradient of every parameter, averaged over processes, in float64."""
    torch.manual_seed(0)
    encoder = encoder_of()
    objective = Contrastive(encoder, SIGNAL, temperature=0.2, learnable=True)
    return gradients(encoder, objective, share(global_batch(1), rank, world_size), torch.float64)


def supervised(rank: int, world_size: int) -> dict[str, Tensor]:
    """As `contrastive` in float32, of labels, after their mean and deviation were taken."""
    torch.manual_seed(0)
    encoder = encoder_of()
    objective = Supervised(encoder, SIGNAL, "y", LinearReadout)
    objective.start(encoder, [share(global_batch(seed), rank, world_size) for seed in range(3)])
    found = {"target_mean": objective.target_mean, "target_sd": objective.target_sd}
    return found | gradients(encoder, objective, share(global_batch(1), rank, world_size))


def power(rank: int, world_size: int) -> dict[str, Tensor]:
    """What a head takes from the tokens before it learns."""
    torch.manual_seed(0)
    encoder = LaBraM(SIGNAL, patch_samples=20, conv_channels=2, depth=1, n_heads=2).eval()
    head = PowerReadout(encoder, SIGNAL, 1, n_components=3, over_channels="concat")
    batches = [cut_short(share(global_batch(seed), rank, world_size)) for seed in range(3)]
    with torch.no_grad():
        head.start(encoder, lambda: ((batch, encoder(batch)) for batch in batches))
    return {"plane": head.axes @ head.axes.T, "centre": head.centre, "scale": head.scale}


def masked_codes(rank: int, world_size: int) -> dict[str, Tensor]:
    """As `contrastive` in float32, of codes of hidden patches."""
    torch.manual_seed(0)
    encoder = encoder_of()
    vqnsp = partial(VQNSP, n_codes=24, code_dim=8, decoder_depth=1, decoder_heads=2)
    tokenizer = partial(FrozenTokenizer, encoder=lambda signal: encoder_of(), objective=vqnsp)
    return gradients(encoder, MaskedCodes(encoder, SIGNAL, tokenizer), share(global_batch(1), rank, world_size))


def jepa(rank: int, world_size: int) -> dict[str, Tensor]:
    """As `contrastive` in float32, of what a teacher makes of hidden tokens."""
    torch.manual_seed(0)
    encoder = encoder_of()
    mask = partial(BlockMask, kind="spatial", radius_cm=1.5)
    objective = JEPA(
        encoder, SIGNAL, mask, predictor_depth=1, predictor_heads=2, predictor_feedforward=16, teacher_layers=1
    )
    return gradients(encoder, objective, share(global_batch(1), rank, world_size))


def masked_windows(rank: int, world_size: int) -> dict[str, Tensor]:
    """As `contrastive` in float32, of hidden windows of sequences of which the second process has the short ones."""
    torch.manual_seed(0)
    encoder = LaBraM(SIGNAL, patch_samples=20, conv_channels=2, depth=1, n_heads=2)
    objective = MaskedWindows(encoder, SIGNAL, 0.3, "bert")
    return gradients(encoder, objective, cut_short(share(global_batch(1), rank, world_size)))


def vqnsp_loss(rank: int, world_size: int) -> dict[str, Tensor]:
    """As `contrastive` in float32, of the tokenizer, whose codebook stays where it is."""
    torch.manual_seed(0)
    encoder = encoder_of()
    objective = VQNSP(encoder, SIGNAL, 24, 8, decoder_depth=1, decoder_heads=2, head_std=0.2)
    objective.codebook.eval()
    return gradients(encoder, objective, share(global_batch(1), rank, world_size))


def gradients(
    encoder: LaBraM, objective: Objective, batch: EEGBatch, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Loss, its parts, and the gradient of every parameter."""
    both: Any = Both(encoder, objective).to(dtype)
    if n_processes() > 1:
        both = DistributedDataParallel(both, find_unused_parameters=True)
    total, parts = both(replace(batch, eeg=batch.eeg.to(dtype)))
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
        "supervised": supervised(rank, world_size),
        "power": power(rank, world_size),
        "masked_codes": masked_codes(rank, world_size),
        "jepa": jepa(rank, world_size),
        "masked_windows": masked_windows(rank, world_size),
        "vqnsp_loss": vqnsp_loss(rank, world_size),
        "vqnsp": vqnsp(rank, world_size, 0.0),
        "vqnsp_revived": vqnsp(rank, world_size, 0.9),
        "uneven": uneven(rank, world_size),
    }
    torch.save(found, folder / f"{world_size}-{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()
