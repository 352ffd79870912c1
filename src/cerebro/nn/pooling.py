"""Pooling of tokens that leaves out padding."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean_over_valid(tokens: Float[Tensor, "B C N D"], valid: Bool[Tensor, "B C N"]) -> Float[Tensor, "B D"]:
    """Mean over channels and patches that are no padding; zero for a window of nothing but padding."""
    weight = valid[..., None].to(tokens.dtype)
    return (tokens * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)
