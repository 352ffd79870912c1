"""Sums and copies over the processes of a distributed run; each does nothing in a single process."""

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of ``value`` over all processes; no gradient."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def from_first_process(value: Tensor) -> Tensor:
    """``value`` of the first process; no gradient."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.detach().contiguous().clone()
        dist.broadcast(value, src=0)
    return value


def gather_rows(value: Tensor) -> Tensor:
    """Rows of all processes, one below the other; the gradient reaches this process's own rows.

    Every process must hold the same number of rows.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    rows = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, value.detach().contiguous())
    rows[dist.get_rank()] = value
    return torch.cat(rows)
