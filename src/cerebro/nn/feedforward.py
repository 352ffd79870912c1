"""Two linear layers with a ReLU between them, a few tokens at a time on a CPU, nothing of the hidden layer kept."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cerebro.nn.threads import side_by_side

ROWS = 192  # tokens at once: with 2048 hidden units they fit a cache


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

        def mix(tokens: tuple[Tensor, ...]) -> None:
            hidden = x.new_empty(min(ROWS, len(tokens[0])), len(w1))
            for some, out in _in_rows(*tokens):
                part = hidden[: len(some)]
                torch.addmm(b1, some, w1.t(), out=part).relu_()
                torch.addmm(b2, part, w2.t(), out=out)

        side_by_side(mix, _in_shares(x, mixed))
        ctx.save_for_backward(x, w1, b1, w2)
        return mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x, w1, b1, w2 = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.empty_like(x)
        with_one = F.pad(x, (0, 1), value=1.0)  # its product with the gradient gives that of the bias as well
        shares = _in_shares(x, with_one, grad, grad_x)
        grads_w1_t, grads_w2 = x.new_zeros(len(shares), w1.shape[1] + 1, len(w1)), w2.new_zeros(len(shares), *w2.shape)

        def mix_back(share: tuple[tuple[Tensor, ...], Tensor, Tensor]) -> None:
            tokens, grad_w1_t, grad_w2 = share
            buffers = [x.new_empty(min(ROWS, len(tokens[0])), len(w1)) for _ in range(2)]
            for some, some_with_one, wanted, out in _in_rows(*tokens):
                hidden, grad_hidden = (buffer[: len(some)] for buffer in buffers)
                torch.addmm(b1, some, w1.t(), out=hidden).relu_()
                grad_w2.addmm_(wanted.t(), hidden)
                torch.mm(wanted, w2, out=grad_hidden)
                torch.ops.aten.threshold_backward.grad_input(grad_hidden, hidden, 0.0, grad_input=grad_hidden)
                grad_w1_t.addmm_(some_with_one.t(), grad_hidden)
                torch.mm(grad_hidden, w1, out=out)

        side_by_side(mix_back, zip(shares, grads_w1_t, grads_w2, strict=True))
        grad_w1_t = grads_w1_t.sum(dim=0)
        return grad_x, grad_w1_t[:-1].t(), grad_w1_t[-1], grads_w2.sum(dim=0), grad.sum(dim=0)


def _in_shares(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The tokens of each thread: as many for each, not fewer than one piece."""
    n_tokens = len(tensors[0])
    n_shares = max(1, min(torch.get_num_threads(), n_tokens // ROWS))
    return list(zip(*(torch.tensor_split(tensor, n_shares) for tensor in tensors), strict=True))


def _in_rows(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, ROWS) for tensor in tensors), strict=True)
