"""The scan of Mamba-2 on a CPU in float32: projection, convolution, scan, gate and norm, with their gradients.

Same mathematics as `cerebro.nn.ssd_plain`, the reference, where the letters of the shapes are explained. Worked off
sequence by sequence and tile by tile, so that what a step touches stays in the processor's cache. With one group of B
and C a head gives

    y[t] = sum over s <= t of (c[t]' b[s]) exp(total[t] - total[s]) dt[s] x[s]

with ``total`` the sum of its decays so far. The products ``c' b`` serve all heads, and the decay falls apart into
``up[t] = exp(total[t] - middle)`` and ``down[s] = exp(middle - total[s]) dt[s]``: no mask is written out per head. The
factors would overflow where a tile decays by more than exp(150), so tiles are as long as their decay allows. From tile
to tile the states of the heads are carried, (S, I).

Products of matrices are torch's; what happens between them are loops that numba compiles, over ``t`` places of a tile,
``k`` channels of the convolution, ``h`` heads and ``i`` places within a head. Figures: docs/experiments.md, Mamba-2.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from cerebro.compiled import compiled_loosely
from cerebro.nn.threads import side_by_side

WHOLE = 256  # places of a sequence that may be one tile
TILE = 96  # places of a tile of longer ones
WIDEST_DECAY = 100.0  # within a tile: exp of half of it, times sums, fits float32
STEEPEST_DECAY = 20.0  # from place to place: exp(-20) is nothing beside 1 in float32, so steeper ones count as this
SHORTEST = 6  # places of a tile whose decay always fits
PARTS = 8  # of a batch, each worked off by one thread


def is_fast(tokens: Tensor) -> bool:
    """Whether `gated_scan` takes these tokens: float32 on a CPU, under autocast too, but not under a compiler."""
    return tokens.device.type == "cpu" and tokens.dtype == torch.float32 and not torch.compiler.is_compiling()


def gated_scan(
    tokens: Float[Tensor, "B T D"],
    in_weight: Float[Tensor, "E D"],
    conv_weight: Float[Tensor, "K 1 W"],
    conv_bias: Float[Tensor, " K"],
    dt_bias: Float[Tensor, " H"],
    a_log: Float[Tensor, " H"],
    skip: Float[Tensor, " H"],
    eps: float,
) -> Float[Tensor, "B T I"]:
    """``plain_gated_scan(tokens @ in_weight', ...)`` in float32, several times faster; its gradient can be had once."""
    taps = conv_weight[:, 0].t().contiguous()  # (W, K)
    scanned: Tensor = _GatedScan.apply(tokens, in_weight, taps, conv_bias, dt_bias, a_log, skip, eps)  # type: ignore[no-untyped-call]
    return scanned


class _Decay(NamedTuple):
    """Factors of the decay; see the top of the file."""

    up: Float[Tensor, "B T H"]  # exp(total - middle)
    rise: Float[Tensor, "B T H"]  # exp(middle - total)
    down: Float[Tensor, "B T H"]  # the same times dt
    enter: Float[Tensor, "B J H"]  # exp(middle): of the state that comes into a tile
    leave: Float[Tensor, "B J H"]  # exp(total at the end - middle): of what a tile adds to the state
    whole: Float[Tensor, "B J H"]  # exp(total at the end): of the state on its way through a tile


class _Tile(NamedTuple):
    """Sequence, number of the tile in it, and its places."""

    b: int
    j: int
    places: slice
    n: int


class _Buffer(NamedTuple):
    """The same numbers for torch's products and for the loops."""

    tensor: Tensor
    array: ndarray

    @classmethod
    def of(cls, n_rows: int, n_columns: int) -> "_Buffer":
        tensor = torch.empty(n_rows, n_columns)
        return cls(tensor, tensor.numpy())

    def rows(self, n: int) -> "_Buffer":
        return self if n == len(self.array) else _Buffer(self.tensor[:n], self.array[:n])

    def square(self, n: int) -> Tensor:
        """A contiguous corner for a product."""
        return self.tensor.view(-1)[: n * n].view(n, n)


class _GatedScan(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        tokens: Tensor,
        in_weight: Tensor,
        taps: Tensor,
        conv_bias: Tensor,
        dt_bias: Tensor,
        a_log: Tensor,
        skip: Tensor,
        eps: float,
    ) -> Tensor:
        n_heads, n_conv = len(skip), len(conv_bias)
        projected = F.linear(tokens, in_weight).contiguous()  # (B, T, E): [z, x, b, c, dt]
        n_batch, n_times, n_inner = *projected.shape[:2], projected.shape[2] - n_conv - n_heads
        n_state = (n_conv - n_inner) // 2
        dt = F.softplus(projected[..., -n_heads:] + dt_bias)
        n_tile, decay = _decay(dt, a_log)
        n_tiles = decay.enter.shape[1]
        normed, scanned = projected.new_empty(2, n_batch, n_times, n_inner)
        inverse_rms = projected.new_empty(n_batch, n_times)
        states = projected.new_empty(n_batch, n_tiles - 1, n_state, n_inner)  # behind each tile but the last
        p, w, bias, d, y0, out, rms, state = _arrays(
            projected, taps, conv_bias, skip, scanned, normed, inverse_rms, states
        )
        up, _, down, enter, leave, whole = _arrays(*decay)

        def work(part: range) -> None:
            act_buffer, xs_buffer = _Buffer.of(n_tile, n_conv), _Buffer.of(n_tile, n_inner)
            gram, entering = _Buffer.of(n_tile, n_tile), _Buffer.of(n_state, n_inner)
            for b, j, at, n in _tiles(part, n_times, n_tile):
                act, xs, y = act_buffer.rows(n), xs_buffer.rows(n), scanned[b, at]
                key, query = _key_and_query(act.tensor, n_state)
                _convolve(p[b], n_inner, w, bias, at.start, act.array)
                _scale(act.array, down[b, at], xs.array)
                torch.mm(torch.mm(query, key.t(), out=gram.square(n)).tril_(), xs.tensor, out=y)
                if j > 0:
                    _scale(state[b, j - 1], enter[b, j : j + 1], entering.array)
                    y.addmm_(query, entering.tensor)
                if j < n_tiles - 1:
                    torch.mm(key.t(), xs.tensor, out=states[b, j])
                    _advance(state[b, j], leave[b, j], state[b, max(j - 1, 0)], whole[b, j], j > 0)
                _gate(p[b, at], act.array, y0[b, at], up[b, at], d, eps, out[b, at], rms[b, at])

        side_by_side(work, _parts(n_batch), is_shared_alone=False)
        ctx.save_for_backward(
            tokens, in_weight, taps, conv_bias, dt_bias, a_log, skip,
            projected, dt, *decay, normed, scanned, inverse_rms, states,
        )  # fmt: skip
        ctx.n_tile, ctx.is_used_up = n_tile, False
        return normed  # type: ignore[no-any-return]

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.is_used_up:  # gradients stand where what was projected stood
            raise RuntimeError("the gradient of a Mamba-2 layer can be had once; run its forward pass again.")
        ctx.is_used_up = True
        tokens, in_weight, taps, conv_bias, dt_bias, a_log, skip, *made = ctx.saved_tensors
        projected, dt, *factors, normed, scanned, inverse_rms, states = made
        decay, n_tile = _Decay(*factors), ctx.n_tile
        n_heads, n_conv = len(skip), len(conv_bias)
        n_batch, n_times, n_inner = normed.shape
        n_state, n_tiles, halo = (n_conv - n_inner) // 2, decay.enter.shape[1], len(taps) - 1
        parts = _parts(n_batch)
        d_up, d_down = projected.new_empty(2, *dt.shape)
        d_end = projected.new_zeros(n_batch, n_tiles, n_heads)  # of the total decay at the end of a tile
        d_taps = projected.new_zeros(len(parts), *taps.shape)
        d_bias, d_skip = projected.new_zeros(len(parts), n_conv), projected.new_zeros(len(parts), n_heads)
        p, w, bias, d, y0, out, rms, state, g = _arrays(
            projected, taps, conv_bias, skip, scanned, normed, inverse_rms, states, grad.contiguous()
        )
        up, _, down, enter, leave, whole = _arrays(*decay)
        of_up, of_down, of_end, of_taps, of_bias, of_skip = _arrays(d_up, d_down, d_end, d_taps, d_bias, d_skip)

        def work(part: range) -> None:
            number = parts.index(part)
            act_buffer, slope_buffer = _Buffer.of(n_tile, n_conv), _Buffer.of(n_tile, n_conv)
            d_act_buffer = _Buffer.of(n_tile + halo, n_conv)
            inner_buffers = [_Buffer.of(n_tile, n_inner) for _ in range(4)]
            gram, d_gram = _Buffer.of(n_tile, n_tile), _Buffer.of(n_tile, n_tile)
            entering, leaving, d_state, d_entering = (_Buffer.of(n_state, n_inner) for _ in range(4))
            for b, j, at, n in _tiles(part, n_times, n_tile, is_reversed=True):
                is_first, is_last = j == 0, j == n_tiles - 1
                act, slope = act_buffer.rows(n), slope_buffer.rows(n)
                xs, d_y, d_y0, d_xs = (buffer.rows(n) for buffer in inner_buffers)
                key, query = _key_and_query(act.tensor, n_state)
                _convolve_with_slope(p[b], n_inner, w, bias, at.start, act.array, slope.array)
                _scale(act.array, down[b, at], xs.array)
                # the norm, the gate, and what the scan gave
                _norm_backward(out[b, at], rms[b, at], g[b, at], d_y.array)
                _gate_backward(p[b, at], act.array, y0[b, at], up[b, at], d, d_y.array)
                _output_backward(act.array, y0[b, at], up[b, at], d_y.array, d_y0.array, of_up[b, at], of_skip[number])
                # the scan within the tile
                _keep_halo(d_act_buffer.array, n, 0 if is_last else halo)
                d_act = d_act_buffer.rows(n)
                d_key, d_query = _key_and_query(d_act.tensor, n_state)
                products = torch.mm(query, key.t(), out=gram.square(n)).tril_()
                d_products = torch.mm(d_y0.tensor, xs.tensor.t(), out=d_gram.square(n)).tril_()
                torch.mm(products.t(), d_y0.tensor, out=d_xs.tensor)
                torch.mm(d_products.t(), query, out=d_key)
                torch.mm(d_products, key, out=d_query)
                # the state behind the tile, then the one before it
                if not is_last:
                    _scale(d_state.array, leave[b, j : j + 1], leaving.array)
                    d_xs.tensor.addmm_(key, leaving.tensor)
                    d_key.addmm_(xs.tensor, leaving.tensor.t())
                    _add_products(d_state.array, state[b, j], of_end[b, j])
                if not is_first:
                    _scale(state[b, j - 1], enter[b, j : j + 1], entering.array)
                    d_query.addmm_(d_y0.tensor, entering.tensor.t())
                    torch.mm(query.t(), d_y0.tensor, out=d_entering.tensor)
                    _advance(d_entering.array, enter[b, j], d_state.array, whole[b, j], not is_last)
                    d_state, d_entering = d_entering, d_state
                # the inputs and the convolution
                _input_backward(act.array, d_y.array, d_xs.array, down[b, at], d, d_act.array, of_down[b, at])
                _convolve_backward(
                    p[b], n_inner, w, at.start, slope.array, d_act_buffer.array, of_taps[number], of_bias[number]
                )

        side_by_side(work, parts, is_shared_alone=False)
        rate = -a_log.exp()
        d_log = _sum_to_end((d_up * decay.up).sub_(d_down * decay.down), d_end, n_tile)
        d_log = torch.where(dt * rate > -STEEPEST_DECAY, d_log, 0.0)
        d_dt = (d_down * decay.rise).add_(d_log * rate)
        d_dt *= torch.sigmoid(projected[..., -n_heads:] + dt_bias)
        projected[..., -n_heads:] = d_dt
        flat, d_flat = tokens.flatten(0, 1), projected.flatten(0, 1)
        d_tokens = (d_flat @ in_weight).view_as(tokens) if ctx.needs_input_grad[0] else None
        d_in_weight = (flat.t() @ d_flat).t() if ctx.needs_input_grad[1] else None  # the long side of a product first
        d_a_log = (d_log * dt).sum((0, 1)) * rate
        return d_tokens, d_in_weight, d_taps.sum(0), d_bias.sum(0), d_dt.sum((0, 1)), d_a_log, d_skip.sum(0), None


# Decay and tiles ------------------------------------------------------------------------------------------------------
def _decay(dt: Float[Tensor, "B T H"], a_log: Float[Tensor, " H"]) -> tuple[int, _Decay]:
    """Places of a tile, and the factors."""
    log_decay = (-a_log.exp() * dt).clamp_(min=-STEEPEST_DECAY)
    n_tile = _tile_length(log_decay)
    total = _in_tiles(log_decay, n_tile).cumsum(dim=2)  # (B, J, Q, H)
    end = total[:, :, -1:]
    middle = (total[:, :, :1] + end) / 2
    rise = _as_sequence((middle - total).exp(), dt.shape[1])
    enter, leave, whole = (value.exp()[:, :, 0].contiguous() for value in (middle, end - middle, end))
    return n_tile, _Decay(_as_sequence((total - middle).exp(), dt.shape[1]), rise, rise * dt, enter, leave, whole)


def _tile_length(log_decay: Float[Tensor, "B T H"]) -> int:
    """Places of the longest tile within which no head decays by more than `WIDEST_DECAY`."""
    n_times = log_decay.shape[1]
    n_tile = n_times if n_times <= WHOLE else TILE
    while n_tile > SHORTEST and float(_in_tiles(log_decay, n_tile)[:, :, 1:].sum(dim=2).min()) < -WIDEST_DECAY:
        n_tile = max(SHORTEST, -(-n_tile // 2))
    return n_tile


def _in_tiles(value: Float[Tensor, "B T H"], n_tile: int) -> Float[Tensor, "B J Q H"]:
    return rearrange(F.pad(value, (0, 0, 0, -value.shape[1] % n_tile)), "b (j q) h -> b j q h", q=n_tile)


def _as_sequence(tiles: Float[Tensor, "B J Q H"], n_times: int) -> Float[Tensor, "B T H"]:
    return rearrange(tiles, "b j q h -> b (j q) h")[:, :n_times].contiguous()


def _sum_to_end(d_total: Float[Tensor, "B T H"], d_end: Float[Tensor, "B J H"], n_tile: int) -> Float[Tensor, "B T H"]:
    """Gradient of each place's decay: that of all totals from there to the end of its tile."""
    sums = _in_tiles(d_total, n_tile).flip(2).cumsum(dim=2).flip(2) + d_end[:, :, None]
    return _as_sequence(sums, d_total.shape[1])


def _parts(n_batch: int) -> list[range]:
    n_each = max(1, -(-n_batch // PARTS))
    return [range(first, min(first + n_each, n_batch)) for first in range(0, n_batch, n_each)]


def _tiles(part: range, n_times: int, n_tile: int, is_reversed: bool = False) -> Iterator[_Tile]:
    firsts = list(enumerate(range(0, n_times, n_tile)))
    for b in part:
        for j, first in firsts[::-1] if is_reversed else firsts:
            stop = min(first + n_tile, n_times)
            yield _Tile(b, j, slice(first, stop), stop - first)


def _key_and_query(act: Float[Tensor, "Q K"], n_state: int) -> tuple[Float[Tensor, "Q S"], Float[Tensor, "Q S"]]:
    """B and C of a tile."""
    return act[:, -2 * n_state : -n_state], act[:, -n_state:]


def _arrays(*tensors: Tensor) -> list[ndarray]:
    return [np.asarray(tensor.detach().numpy()) for tensor in tensors]


# Loops ----------------------------------------------------------------------------------------------------------------
# tanh(y) = y p(y^2) / q(y^2) for |y| <= 7.9 to 2e-7, coefficients of Eigen's ``ptanh`` (numbers only)
_P0, _P1, _P2 = np.float32(4.89352455891786e-03), np.float32(6.37261928875436e-04), np.float32(1.48572235717979e-05)
_P3, _P4, _P5 = np.float32(5.12229709037114e-08), np.float32(-8.60467152213735e-11), np.float32(2.00018790482477e-13)
_P6 = np.float32(-2.76076847742355e-16)
_Q0, _Q1 = np.float32(4.89352518554385e-03), np.float32(2.26843463243900e-03)
_Q2, _Q3 = np.float32(1.18534705686654e-04), np.float32(1.19825839466702e-06)
_HALF, _ONE, _FAR = np.float32(0.5), np.float32(1), np.float32(7.905311)


@compiled_loosely
def _head(row: ndarray, h: int, n_each: int) -> ndarray:
    return row[h * n_each : (h + 1) * n_each]


@compiled_loosely
def _sigmoid(x: np.float32) -> np.float32:
    y = min(max(_HALF * x, -_FAR), _FAR)
    s = y * y
    p = y * (_P0 + s * (_P1 + s * (_P2 + s * (_P3 + s * (_P4 + s * (_P5 + s * _P6))))))
    q = _Q0 + s * (_Q1 + s * (_Q2 + s * _Q3))
    return _HALF + _HALF * (p / q)


@compiled_loosely
def _convolve_row(p: ndarray, n_inner: int, taps: ndarray, bias: ndarray, here: int, row: ndarray) -> None:
    width, n_conv = taps.shape
    tap, source = taps[width - 1], p[here][n_inner : n_inner + n_conv]
    for k in range(n_conv):
        row[k] = bias[k] + tap[k] * source[k]
    for back in range(1, min(width, here + 1)):
        tap, source = taps[width - 1 - back], p[here - back][n_inner : n_inner + n_conv]
        for k in range(n_conv):
            row[k] += tap[k] * source[k]


@compiled_loosely
def _convolve(p: ndarray, n_inner: int, taps: ndarray, bias: ndarray, first: int, act: ndarray) -> None:
    for t in range(len(act)):
        row = act[t]
        _convolve_row(p, n_inner, taps, bias, first + t, row)
        for k in range(len(row)):
            x = row[k]
            row[k] = x * _sigmoid(x)


@compiled_loosely
def _convolve_with_slope(
    p: ndarray, n_inner: int, taps: ndarray, bias: ndarray, first: int, act: ndarray, slope: ndarray
) -> None:
    for t in range(len(act)):
        row, steep = act[t], slope[t]
        _convolve_row(p, n_inner, taps, bias, first + t, row)
        for k in range(len(row)):
            x = row[k]
            s = _sigmoid(x)
            row[k] = x * s
            steep[k] = s * (_ONE + x * (_ONE - s))


@compiled_loosely
def _keep_halo(d_act: ndarray, n: int, n_kept: int) -> None:
    """Move the first rows, of the tile worked off before, behind the ``n`` rows of this one; zeros behind them."""
    for t in range(n_kept - 1, -1, -1):
        d_act[n + t] = d_act[t]
    d_act[n + n_kept :] = np.float32(0)


@compiled_loosely
def _scale(x: ndarray, factor: ndarray, out: ndarray) -> None:
    """``out[t, i] = x[t, i] factor[t, h]``; a single row of factors serves all places."""
    n_heads = factor.shape[1]
    n_each = out.shape[1] // n_heads
    for t in range(len(out)):
        of_heads = factor[min(t, len(factor) - 1)]
        for h in range(n_heads):
            by, row, given = of_heads[h], _head(out[t], h, n_each), _head(x[t], h, n_each)
            for i in range(n_each):
                row[i] = given[i] * by


@compiled_loosely
def _advance(state: ndarray, leave: ndarray, before: ndarray, whole: ndarray, has_before: bool) -> None:
    """``state = leave state + whole before``, factors by head."""
    n_heads = len(leave)
    n_each = state.shape[1] // n_heads
    for s in range(len(state)):
        for h in range(n_heads):
            by, keep = leave[h], whole[h]
            row, old = _head(state[s], h, n_each), _head(before[s], h, n_each)
            if has_before:
                for i in range(n_each):
                    row[i] = by * row[i] + keep * old[i]
            else:
                for i in range(n_each):
                    row[i] = by * row[i]


@compiled_loosely
def _add_products(one: ndarray, other: ndarray, out: ndarray) -> None:
    """``out[h]`` grows by the sum over the head of ``one other``."""
    n_heads = len(out)
    n_each = one.shape[1] // n_heads
    for s in range(len(one)):
        for h in range(n_heads):
            a, b, found = _head(one[s], h, n_each), _head(other[s], h, n_each), np.float32(0)
            for i in range(n_each):
                found += a[i] * b[i]
            out[h] += found


@compiled_loosely
def _gate(
    p: ndarray, act: ndarray, y0: ndarray, up: ndarray, skip: ndarray, eps: float, normed: ndarray, inverse_rms: ndarray
) -> None:
    n_inner, n_heads = normed.shape[1], len(skip)
    n_each = n_inner // n_heads
    for t in range(len(normed)):
        squares = np.float32(0)
        for h in range(n_heads):
            by, straight = up[t, h], skip[h]
            x, y = _head(act[t], h, n_each), _head(y0[t], h, n_each)
            z, out = _head(p[t], h, n_each), _head(normed[t], h, n_each)
            for i in range(n_each):
                gate = z[i]
                value = (straight * x[i] + by * y[i]) * (gate * _sigmoid(gate))
                out[i] = value
                squares += value * value
        r = np.float32(1 / math.sqrt(squares / n_inner + eps))
        inverse_rms[t] = r
        row = normed[t]
        for i in range(n_inner):
            row[i] *= r


@compiled_loosely
def _norm_backward(normed: ndarray, inverse_rms: ndarray, grad: ndarray, d_gated: ndarray) -> None:
    n_inner = normed.shape[1]
    for t in range(len(normed)):
        g, n, d = grad[t], normed[t], d_gated[t]
        along = np.float32(0)
        for i in range(n_inner):
            along += g[i] * n[i]
        along /= np.float32(n_inner)
        r = inverse_rms[t]
        for i in range(n_inner):
            d[i] = (g[i] - along * n[i]) * r


@compiled_loosely
def _gate_backward(p: ndarray, act: ndarray, y0: ndarray, up: ndarray, skip: ndarray, d_y: ndarray) -> None:
    """Gradients of the gate, in its place, and of y, in the place of the gradient of what the gate lets through."""
    n_heads = len(skip)
    n_each = d_y.shape[1] // n_heads
    for t in range(len(d_y)):
        for h in range(n_heads):
            by, straight = up[t, h], skip[h]
            x, y = _head(act[t], h, n_each), _head(y0[t], h, n_each)
            z, d = _head(p[t], h, n_each), _head(d_y[t], h, n_each)
            for i in range(n_each):
                gate, gradient = z[i], d[i]
                s = _sigmoid(gate)
                z[i] = gradient * (straight * x[i] + by * y[i]) * s * (_ONE + gate * (_ONE - s))
                d[i] = gradient * gate * s


@compiled_loosely
def _output_backward(
    act: ndarray, y0: ndarray, up: ndarray, d_y: ndarray, d_y0: ndarray, d_up: ndarray, d_skip: ndarray
) -> None:
    """Gradients of what the scan gave before ``up``, of ``up``, and of the skip (added up)."""
    n_heads = len(d_skip)
    n_each = d_y.shape[1] // n_heads
    for t in range(len(d_y)):
        for h in range(n_heads):
            by, of_up, of_skip = up[t, h], np.float32(0), np.float32(0)
            x, y = _head(act[t], h, n_each), _head(y0[t], h, n_each)
            d, d0 = _head(d_y[t], h, n_each), _head(d_y0[t], h, n_each)
            for i in range(n_each):
                gradient = d[i]
                of_up += gradient * y[i]
                of_skip += gradient * x[i]
                d0[i] = gradient * by
            d_up[t, h] = of_up
            d_skip[h] += of_skip


@compiled_loosely
def _input_backward(
    act: ndarray, d_y: ndarray, d_xs: ndarray, down: ndarray, skip: ndarray, d_act: ndarray, d_down: ndarray
) -> None:
    """Gradient of x from skip and scan, and of ``down``."""
    n_heads = len(skip)
    n_each = d_y.shape[1] // n_heads
    for t in range(len(d_y)):
        for h in range(n_heads):
            by, straight, found = down[t, h], skip[h], np.float32(0)
            x, d = _head(act[t], h, n_each), _head(d_y[t], h, n_each)
            dx, out = _head(d_xs[t], h, n_each), _head(d_act[t], h, n_each)
            for i in range(n_each):
                gradient = dx[i]
                found += gradient * x[i]
                out[i] = straight * d[i] + by * gradient
            d_down[t, h] = found


@compiled_loosely
def _convolve_backward(
    p: ndarray,
    n_inner: int,
    taps: ndarray,
    first: int,
    slope: ndarray,
    d_act: ndarray,
    d_taps: ndarray,
    d_bias: ndarray,
) -> None:
    """Gradients of taps and bias (added up) and of the convolution's input, in the place of the input.

    ``d_act`` has W - 1 rows more than the tile: those of the next one, which are through the slope already.
    """
    width, n_conv = taps.shape
    n = len(slope)
    for t in range(n):
        row, steep = d_act[t], slope[t]
        for k in range(n_conv):
            gradient = row[k] * steep[k]
            row[k] = gradient
            d_bias[k] += gradient
        for back in range(min(width, first + t + 1)):
            into, source = d_taps[width - 1 - back], p[first + t - back][n_inner : n_inner + n_conv]
            for k in range(n_conv):
                into[k] += row[k] * source[k]
    for t in range(n):
        into = p[first + t][n_inner : n_inner + n_conv]
        tap, row = taps[width - 1], d_act[t]
        for k in range(n_conv):
            into[k] = tap[k] * row[k]
        for ahead in range(1, width):
            tap, row = taps[width - 1 - ahead], d_act[t + ahead]
            for k in range(n_conv):
                into[k] += tap[k] * row[k]
