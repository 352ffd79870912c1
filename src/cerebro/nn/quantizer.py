"""Codebook of directions that follows its tokens by a moving average."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.errors import ConfigError, check_between, check_positive
from cerebro.nn.processes import from_first_process, mean_over_processes, n_processes, sum_over_processes
from cerebro.randomness import uniform

USE_DECAY = 0.9  # of the average use; with the codes' own 0.99 a collapse would be over before a code counts as dead


class Quantized(NamedTuple):
    """What the codebook gives for M tokens."""

    vectors: Float[Tensor, "M D"]  # unit vectors of the codes; the gradient passes straight through to the tokens
    codes: Int64[Tensor, " M"]
    commitment: Float[Tensor, ""]  # mean squared distance of tokens to their (fixed) codes
    perplexity: Float[Tensor, ""]  # exp of the entropy of the batch's codes: 1 = collapsed, K = all equally used
    share_used: Float[Tensor, ""]  # share of codes that the batch uses, in [0, 1]


class CosineCodebook(nn.Module):
    """Nearest unit vector by cosine; the codes follow the mean direction of their tokens.

    While training, a code moves towards the normalised mean of its tokens (decay 0.99) and a code that has gone out of
    use is put onto a token of the batch. In ``eval()`` nothing changes. Distances are float32 whatever the precision of
    the run. Processes of a distributed run share one codebook, equal to the bit: it follows the tokens of all of them,
    use and perplexity count all of them, and dead codes are put onto tokens of the first.

    Parameters
    ----------
    n_codes : int
        Codes K.
    code_dim : int
        Width D of a code.
    decay : float
        Decay of the moving averages, in (0, 1).
    revive_below : float
        A code whose average use falls below this share of the mean use counts as dead (0.1: after 22 steps out of
        use); 0 never revives.

    References
    ----------
    van den Oord et al. 2017, arXiv:1711.00937 (moving average); Yu et al. 2022, arXiv:2110.04627 (unit codes).
    """

    weight: Tensor
    use: Tensor

    def __init__(self, n_codes: int, code_dim: int, decay: float = 0.99, revive_below: float = 0.1) -> None:
        super().__init__()
        check_positive("n_codes", n_codes)
        check_positive("code_dim", code_dim)
        check_between("decay", decay, 0, 1)
        if not 0 <= revive_below < 1:
            raise ConfigError(f"revive_below={revive_below} must lie in [0, 1); set it to 0.1, or 0 for never.")
        self.n_codes = n_codes
        self.decay = decay
        self.revive_below = revive_below
        self.register_buffer("weight", F.normalize(torch.randn(n_codes, code_dim), dim=-1))
        self.register_buffer("use", torch.full((n_codes,), 1.0 / n_codes))  # average share of tokens per code

    @torch.no_grad()
    def start(self, tokens: Float[Tensor, "M D"], key: Int64[Tensor, " 1"], n_iterations: int = 10) -> None:
        """Set the codes by k-means on the directions of ``tokens`` (spherical k-means; Dhillon & Modha 2001).

        ``tokens`` are those of all processes (`cerebro.nn.processes.gather_uneven_rows`), and ``key`` that of the
        first.

        Raises
        ------
        ConfigError
            If there are fewer tokens than codes.
        """
        if len(tokens) < self.n_codes:
            raise ConfigError(
                f"{len(tokens)} tokens cannot start {self.n_codes} codes; give more training batches or set n_codes to "
                f"at most {len(tokens)}."
            )
        unit = F.normalize(tokens.float(), dim=-1)
        first = uniform(key, len(unit))[0].argsort()[: self.n_codes]
        weight = unit[first]
        counts = torch.ones(self.n_codes, device=unit.device)
        for _ in range(n_iterations):
            codes = (unit @ weight.T).argmax(dim=-1)
            counts = count_codes(codes, self.n_codes)
            sums = torch.zeros_like(weight).index_add_(0, codes, unit)
            weight = torch.where(counts[:, None] > 0, F.normalize(sums, dim=-1), weight)
        self.weight.copy_(from_first_process(weight))
        self.use.copy_(from_first_process(counts.clamp(min=1) / counts.clamp(min=1).sum()))

    def codes(self, tokens: Float[Tensor, "M D"]) -> Int64[Tensor, " M"]:
        """Nearest code of each token."""
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            return (F.normalize(tokens.float(), dim=-1) @ self.weight.T).argmax(dim=-1)

    def forward(
        self, tokens: Float[Tensor, "M D"], key: Int64[Tensor, " 1"], valid: Bool[Tensor, " M"] | None = None
    ) -> Quantized:
        """Quantise tokens; those that are not ``valid`` (``None``: all are) get a code and have no influence.

        ``key`` decides onto which tokens dead codes are put. Shapes depend on M alone, and nothing waits for the host.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            unit = F.normalize(tokens.float(), dim=-1)
            with torch.no_grad():
                codes = (unit @ self.weight.T).argmax(dim=-1)
                nearest = self.weight[codes]
                counts = sum_over_processes(count_codes(codes, self.n_codes, valid))
            commitment = _mean_square(unit, nearest, valid)
            vectors = unit + (nearest - unit).detach()
            if self.training:
                self._follow(unit.detach(), codes, counts, key, valid)
            share = counts / counts.sum().clamp(min=1)
            perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum())
            return Quantized(vectors, codes, commitment, perplexity, (counts > 0).float().mean())

    @torch.no_grad()
    def _follow(
        self,
        unit: Float[Tensor, "M D"],
        codes: Int64[Tensor, " M"],
        counts: Float[Tensor, " K"],
        key: Int64[Tensor, " 1"],
        valid: Bool[Tensor, " M"] | None,
    ) -> None:
        counted = unit if valid is None else torch.where(valid[:, None], unit, 0.0)
        sums = sum_over_processes(torch.zeros_like(self.weight).index_add_(0, codes, counted))
        mean = F.normalize(sums, dim=-1)
        moved = F.normalize(self.weight * self.decay + mean * (1 - self.decay), dim=-1)
        weight = torch.where(counts[:, None] > 0, moved, self.weight)
        use = self.use * USE_DECAY + counts / counts.sum().clamp(min=1) * (1 - USE_DECAY)
        if self.revive_below > 0:
            dead = use * self.n_codes < self.revive_below
            fresh = weight  # a first process without a token leaves them where they are
            if len(unit) > 0:
                fresh = self._drawn(unit, key, valid, weight)
            weight = torch.where(dead[:, None], from_first_process(fresh), weight)
            use = torch.where(dead, 1.0 / self.n_codes, use)
        self.weight.copy_(weight)
        self.use.copy_(use)

    def _drawn(
        self,
        unit: Float[Tensor, "M D"],
        key: Int64[Tensor, " 1"],
        valid: Bool[Tensor, " M"] | None,
        weight: Float[Tensor, "K D"],
    ) -> Float[Tensor, "K D"]:
        """A valid token for each code, drawn; the code itself where there is none."""
        draw = uniform(key, self.n_codes)[0]
        if valid is None:
            return unit[(draw * len(unit)).long().clamp(max=len(unit) - 1)]
        n_valid = valid.sum()
        first = (~valid).to(torch.int8).argsort(stable=True)  # valid tokens first, in their order
        place = (draw * n_valid).long().clamp(max=len(unit) - 1).minimum((n_valid - 1).clamp(min=0))
        return torch.where(n_valid > 0, unit[first[place]], weight)


def _mean_square(
    found: Float[Tensor, "M D"], wanted: Float[Tensor, "M D"], valid: Bool[Tensor, " M"] | None
) -> Float[Tensor, ""]:
    """Mean squared difference over the valid rows (``None``: all) of all processes; 0 without any."""
    if valid is None and n_processes() == 1:
        return F.mse_loss(found, wanted)
    squares = (found - wanted).square()
    if valid is None:
        return mean_over_processes(squares.sum(), torch.tensor(squares.numel(), device=squares.device))
    return mean_over_processes(torch.where(valid[:, None], squares, 0.0).sum(), valid.sum() * found.shape[1])


def count_codes(
    codes: Int64[Tensor, " M"], n_codes: int, weight: Bool[Tensor, " M"] | None = None
) -> Float[Tensor, " K"]:
    """How often each code occurs where ``weight`` is True (``None``: everywhere); exact below 2**24.

    Unlike ``torch.bincount`` it does not wait for the device.
    """
    ones = torch.ones(codes.shape, device=codes.device) if weight is None else weight.float()
    return torch.zeros(n_codes, device=codes.device).index_add_(0, codes, ones)
