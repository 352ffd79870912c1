"""Two linear layers with a ReLU between them, a few tokens at a time on a CPU, nothing of the hidden layer kept."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ROWS = 192  # tokens at once for each thread: with 2048 hidden units they fit a cache


def feed_forward(x: Float[Tensor, "... D"], first: nn.Linear, second: nn.Linear) -> Float[Tensor, "... D"]:
    """``second(relu(first(x)))``.

    On a CPU the hidden layer, 32 times as wide as a token in Signal-JEPA, is made again in the backward pass instead of
    being kept: a sixth more arithmetic for a cache instead of the memory, and a quarter of the activations.
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        plain: Tensor = second(F.relu(first(x)))
        return plain
    flat = x.reshape(-1, x.shape[-1])
    mixed: Tensor = _FeedForward.apply(  # type: ignore[no-untyped-call]
        flat, first.weight, first.bias, second.weight, second.bias
    )
    return mixed.view(x.shape)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        mixed = x.new_empty(len(x), len(w2))
        n_rows = min(ROWS * torch.get_num_threads(), len(x))
        hidden = x.new_empty(n_rows, len(w1))
        for start in range(0, len(x), n_rows):
            rows = slice(start, start + n_rows)
            part = hidden[: len(x[rows])]
            torch.addmm(b1, x[rows], w1.t(), out=part).relu_()
            torch.addmm(b2, part, w2.t(), out=mixed[rows])
        ctx.save_for_backward(x, w1, b1, w2)
        return mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x, w1, b1, w2 = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.empty_like(x)
        with_one = F.pad(x, (0, 1), value=1.0)  # its product with the gradient gives that of the bias as well
        grad_w1_t, grad_w2 = x.new_zeros(w1.shape[1] + 1, len(w1)), torch.zeros_like(w2)
        n_rows = min(ROWS * torch.get_num_threads(), len(x))
        buffers = [x.new_empty(n_rows, len(w1)) for _ in range(2)]
        for start in range(0, len(x), n_rows):
            rows = slice(start, start + n_rows)
            hidden, grad_hidden = (buffer[: len(x[rows])] for buffer in buffers)
            torch.addmm(b1, x[rows], w1.t(), out=hidden).relu_()
            grad_w2.addmm_(grad[rows].t(), hidden)
            torch.mm(grad[rows], w2, out=grad_hidden)
            torch.ops.aten.threshold_backward.grad_input(grad_hidden, hidden, 0.0, grad_input=grad_hidden)
            grad_w1_t.addmm_(with_one[rows].t(), grad_hidden)
            torch.mm(grad_hidden, w1, out=grad_x[rows])
        return grad_x, grad_w1_t[:-1].t(), grad_w1_t[-1], grad_w2, grad.sum(dim=0)
