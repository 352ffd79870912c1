"""Where a head pools the tokens of a frozen encoder before anything learns, its epochs read features that are kept.

Features are hundreds of times smaller than tokens: an epoch takes milliseconds whatever the recordings' length, and the
tokens need not stay in memory, nor fit into it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cerebro.nn.processes import alone, most_over_processes
from cerebro.objectives.base import PooledSamples
from cerebro.progress import progress
from cerebro.training.encode_once import MOST_OF_FREE_MEMORY, free_bytes
from cerebro.training.keep import ResumableLoader
from cerebro.training.phase import Phase


@torch.no_grad()
def pool_once(phase: Phase, loaders: list[ResumableLoader], precision: str, say: Callable[[str], None]) -> bool:
    """Let the objective keep its features of all samples, in each process; gives whether they fit into all memories.

    Parameters
    ----------
    phase : Phase
        Its objective ``pools``, and heads that look at tokens before they learn have done so.
    loaders : list of ResumableLoader
        Batches of all training and validation samples; without signals where the tokens are kept.
    precision : str
        As given to the trainer.
    say : callable
        Takes a line for the user.
    """
    was_training = phase.training
    phase.eval()
    try:
        with alone():
            found = _pool(phase, loaders, precision)
    finally:
        phase.train(was_training)
    does_not_fit = torch.tensor(float(found is None), device=next(phase.parameters()).device)
    if found is None or bool(most_over_processes(does_not_fit) > 0):
        say("features of the head would take more than a quarter of the memory that is free: they are made anew")
        return False
    phase.objective.pooled_samples = PooledSamples(*found)
    n_samples, n_features = found[1].shape
    n_bytes = found[1].numel() * found[1].element_size()
    say(f"{n_features:,} features of {n_samples:,} windows are computed once ({n_bytes / 1e3:,.0f} kB)")
    return True


def _pool(phase: Phase, loaders: list[ResumableLoader], precision: str) -> tuple[Tensor, Tensor] | None:
    device = next(phase.parameters()).device
    n_batches = sum(map(len, loaders))
    known: set[int] = set()
    samples: list[Tensor] = []
    features: list[Tensor] = []
    raws = (raw for loader in loaders for raw in loader)
    for raw in progress(raws, "features of the head", "batch", n_batches, stays=False):
        batch = raw.to(device).to_microvolts()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            pooled = phase.objective.pooled(phase.encoder, batch, phase.tokens_of(batch))
        needed = n_batches * pooled.numel() * pooled.element_size()
        if not features and needed > MOST_OF_FREE_MEMORY * free_bytes(device):
            return None
        new = [row for row, sample in enumerate(batch.sample.tolist()) if sample not in known]
        known.update(batch.sample.tolist())
        samples.append(batch.sample[new])
        features.append(pooled[new])
    return torch.cat(samples), torch.cat(features)
