"""Sums, means and copies over the processes of a distributed run; each does nothing in a single process.

Every process makes its share of a global batch. An objective gives the loss of the whole batch on each of them, so that
all see the same number, and a gradient whose mean over the processes is that of one process with the whole batch.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Made = TypeVar("Made")
_is_alone = False  # see `alone`


def n_processes() -> int:
    """Processes of this run; 1 without a distributed one, and within `alone`."""
    return dist.get_world_size() if not _is_alone and dist.is_available() and dist.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks to the user."""
    return not (dist.is_available() and dist.is_initialized()) or bool(dist.get_rank() == 0)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let what is computed inside be of this process only, while the others do something else."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def made_by_first_process(make: Callable[[], Made]) -> Made:
    """What ``make`` gives in the first process, which alone calls it, on every process; the others wait for it."""
    if n_processes() == 1:
        return make()
    made: list[Any] = [None]
    if dist.get_rank() == 0:
        with alone():
            made = [make()]
    dist.broadcast_object_list(made, src=0)
    result: Made = made[0]
    return result


def mean_over_processes(total: Tensor, count: Tensor) -> Tensor:
    """``total / count`` of the global batch, where each process knows the sum and the number of its share; 0 of none.

    The mean of the processes' own means would be wrong, for their numbers differ: of labels that are known, of patches
    that are hidden. In a single process this is ``total / count.clamp(min=1)``.

    Parameters
    ----------
    total : Tensor, scalar
        Sum over this process's share.
    count : Tensor, scalar
        What was summed: a number of entries, >= 0.

    Returns
    -------
    Tensor, scalar
        The same number on every process. Its gradient, averaged over the processes as
        `torch.nn.parallel.DistributedDataParallel` does, is that of the mean in one process.
    """
    if n_processes() == 1:
        return total / count.clamp(min=1)
    sums = sum_over_processes(torch.stack([total.detach().double(), count.double()]))
    mean = (sums[0] / sums[1].clamp(min=1)).to(total.dtype)
    share = total * (n_processes() / sums[1].clamp(min=1)).to(total.dtype)  # carries the gradient
    return share + (mean - share).detach()


def most_over_processes(value: Tensor) -> Tensor:
    """Largest ``value`` of all processes; no gradient."""
    if n_processes() > 1:
        value = value.detach().clone()
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


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
