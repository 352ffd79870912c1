"""Sums and copies over the processes of a distributed run; each does nothing in a single process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def n_processes() -> int:
    """Processes of this run; 1 without a distributed one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of ``value`` over all processes; no gradient."""
    if n_processes() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def from_first_process(value: Tensor) -> Tensor:
    """``value`` of the first process; no gradient."""
    if n_processes() > 1:
        value = value.detach().contiguous().clone()
        dist.broadcast(value, src=0)
    return value


def gather_rows(value: Tensor) -> Tensor:
    """Rows of all processes, one below the other, in the order of the processes.

    Where every process makes the same loss of the gathered rows, and the gradients of the parameters are averaged over
    processes as `torch.nn.parallel.DistributedDataParallel` does, the result is the gradient that one process would
    have on all rows: each row's gradient is summed over the processes and handed to the one that it came from.

    Every process must hold the same number of rows, as those of a training batch do.
    """
    if n_processes() == 1:
        return value
    gathered: Tensor = _GatherRows.apply(value)  # type: ignore[no-untyped-call]
    return gathered


def gather_uneven_rows(value: Tensor) -> Tensor:
    """As `gather_rows`, for any number of rows (0, too) on each process; no gradient, and the host waits."""
    if n_processes() == 1:
        return value
    n_rows = gather_rows(torch.tensor([len(value)], device=value.device)).tolist()
    if not max(n_rows):
        return value.detach()
    filled = value.new_zeros(max(n_rows), *value.shape[1:])
    filled[: len(value)] = value.detach()
    parts = gather_rows(filled).view(len(n_rows), max(n_rows), *value.shape[1:])
    return torch.cat([part[:n] for part, n in zip(parts, n_rows, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        rows = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(n_processes())]
        dist.all_gather(rows, value.detach().contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(n_processes())[dist.get_rank()]
