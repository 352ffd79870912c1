"""Axes on which many covariance matrices are diagonal at once, as nearly as can be."""

import torch
from jaxtyping import Float64
from torch import Tensor

MOST_SWEEPS = 200  # over all pairs of axes; a dozen is usual
SMALLEST_GAIN = 1e-9  # of the criterion in a sweep, per matrix: less is the end
SMALLEST_DETERMINANT = 1e-9
TINY = 1e-12


def joint_diagonal_axes(covariances: Float64[Tensor, "M K K"]) -> Float64[Tensor, "K K"]:
    """Joint approximate diagonalisation of M positive definite matrices; the columns are axes of length 1.

    Axes need not be at right angles. They make the mean over matrices of ``log det diag(A' C A) - log det (A' C A)``
    least, which is 0 where all are diagonal and the same for every scaling of a matrix: sources whose strengths rise
    and fall apart from each other are told apart by that alone (Pham & Cardoso 2001, doi:10.1109/78.942614). Found by
    turning one pair of axes after another (Pham 2001, doi:10.1137/S089547980035689X). The axes of the largest mean
    share of a matrix's trace come first.

    On the CPU in float64; the same matrices in the same order give the same axes.

    Parameters
    ----------
    covariances : float64 (M, K, K)
        Symmetric; at least one.
    """
    width = covariances.shape[-1]
    eye = torch.eye(width, dtype=torch.float64)
    trace = covariances.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None].clamp(min=TINY)
    turned = (covariances / trace + TINY * eye).permute(1, 2, 0).contiguous()  # (K, K, M): a turn takes whole rows of M
    rows = eye.clone()  # its rows are the axes
    for _ in range(MOST_SWEEPS):
        gain = 0.0
        for first in range(1, width):
            for second in range(first):
                h, g, part = _shares(turned, first, second)
                _subtract(turned[first], turned[second], h, g)
                _subtract(turned[:, first], turned[:, second], h, g)
                _subtract(rows[first], rows[second], h, g)
                gain += part
        if gain < SMALLEST_GAIN:
            break
    rows /= rows.norm(dim=1, keepdim=True)
    share = torch.einsum("ak,mkl,al->ma", rows, covariances / trace, rows).mean(dim=0)
    return rows[share.argsort(descending=True, stable=True)].T.contiguous()


def _shares(turned: Float64[Tensor, "K K M"], first: int, second: int) -> tuple[float, float, float]:
    """What each of two axes is to lose of the other, and how much the criterion falls then, to the first order."""
    power, other, shared = turned[first, first], turned[second, second], turned[first, second]
    means = torch.stack([shared / power, shared / other, other / power, power / other]).mean(dim=1)
    slope, other_slope, ratio, other_ratio = means.tolist()
    # Two equations: ratio * h + g = slope and h + other_ratio * g = other_slope.
    determinant = ratio * other_ratio - 1
    if determinant > SMALLEST_DETERMINANT:
        h = (other_ratio * slope - other_slope) / determinant
        g = (ratio * other_slope - slope) / determinant
    else:  # the two powers never change apart, and the equations are one: the shortest of its solutions
        h, g = slope * ratio / (1 + ratio**2), slope / (1 + ratio**2)
    step = 2 / (1 + max(1 - 4 * h * g, 0.0) ** 0.5)
    return step * h, step * g, slope * h + other_slope * g


def _subtract(one: Tensor, other: Tensor, h: float, g: float) -> None:
    """One minus h times the other, and the other minus g times the one, both at once and in place."""
    new = torch.sub(one, other, alpha=h)
    other.sub_(one, alpha=g)
    one.copy_(new)
