"""Signal-JEPA's encoder beside the stock one, 129 channels at 100 Hz, float32, one thread: times and memory as ratios.

``_2s`` is 16 windows of 200 samples (129 tokens each), ``_16s`` one window of 1600 samples (1548 tokens). The peer is
braindecode's ``SignalJEPA`` with the same weights or, where it cannot be imported, the same from torch's stock layers
(``tests/reference/signal_jepa_plain.py``); ``peer_is_braindecode`` and a line on stderr tell which. Time ratios say how
many times less time ours takes.

``step_ratio``: forward and backward of the encoder, dropout 0 on both sides. ``ratio_vs_shipped``: the peer in training
with its dropout of 0.1 on everything. ``teacher_ratio``: no gradient, the peer in evaluation. ``visible_half_ratio``:
the context pass of JEPA, forward and backward, on half of the tokens beside the same pass on all of them, both ours.
``activation_ratio`` is ours through peer, as all of memory here: bytes that autograd keeps for the backward pass, each
storage once, parameters and the input not counted. ``step_share_of_gemm`` counts FLOPs by the formula below, without
what is computed twice, beside the rate of the encoder's largest product, tokens x 64 x 2048, in the same rounds;
`tests/benchmarks/test_signal_jepa.py` holds the formula against torch's own counter. ``_two_threads`` figures count
wall time.
"""

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerebro.encoders.signal_jepa import CONV_LAYERS, SignalJEPA
from cerebro.montage import hbn_129
from cerebro.signal import EEGBatch, SignalSpec
from timing import compare

SFREQ, WIDTH, DEPTH, HIDDEN = 100.0, 64, 8, 2048
SIZES = {"2s": (16, 200), "16s": (1, 1600)}  # windows, samples
REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "reference"
MIB = 2**20


def main(rounds: int) -> dict[str, float]:
    theirs, why = braindecode()
    said = "braindecode's SignalJEPA" if theirs else f"torch's stock layers (braindecode cannot be imported: {why})"
    print(f"the peer is {said}", file=sys.stderr)
    figures = {"peer_is_braindecode": float(theirs is not None)}
    torch.set_num_threads(1)
    for size in SIZES:
        figures |= memory(size) | times(size, rounds)
    torch.set_num_threads(2)
    for size in SIZES:
        found = times(size, rounds, time.perf_counter)
        figures |= {f"{name}_two_threads": value for name, value in found.items()}
    return figures


# What is timed --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pair:
    """Our encoder and the peer with the same weights, the same windows, and a gradient of the tokens."""

    ours: SignalJEPA
    peer: nn.Module
    batch: EEGBatch
    gradient: Tensor  # (B, C N, D)

    def our_tokens(self) -> Tensor:
        return self.ours(self.batch).flatten(1, 2)

    def peer_tokens(self) -> Tensor:
        tokens: Tensor = self.peer(self.batch.eeg)
        return tokens

    def our_step(self) -> None:
        self.our_tokens().backward(self.gradient)

    def peer_step(self) -> None:
        self.peer_tokens().backward(self.gradient)


def pair_of(size: str, dropout: float = 0.0) -> Pair:
    """Both sides in training mode; ``dropout`` is the peer's, ours has none."""
    n_batch, n_times = SIZES[size]
    signal, batch = signal_of(n_times), batch_of(n_batch, n_times)
    torch.manual_seed(0)
    ours, peer = SignalJEPA(signal), peer_of(signal)
    peer.load_state_dict({**peer.state_dict(), **ours.state_dict()})
    set_dropout(peer, dropout)
    n_tokens = len(signal.channels) * ours.n_patches(n_times)
    pair = Pair(ours.train(), peer.train(), batch, torch.randn(n_batch, n_tokens, WIDTH))
    if dropout == 0:
        torch.testing.assert_close(pair.our_tokens(), pair.peer_tokens(), rtol=1e-4, atol=1e-5)
    return pair


def signal_of(n_times: int) -> SignalSpec:
    cap = hbn_129()
    places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
    return SignalSpec(tuple(cap.channels), places, SFREQ, n_times)


def batch_of(n_batch: int, n_times: int, n_channels: int = 129) -> EEGBatch:
    draw = torch.Generator().manual_seed(0)
    rows = torch.arange(n_batch)
    return EEGBatch(
        eeg=20 * torch.randn(n_batch, n_channels, n_times, generator=draw),
        channel=torch.arange(n_channels).expand(n_batch, -1).contiguous(),
        n_valid=torch.full((n_batch,), n_times),
        key=rows,
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        is_padded=False,
    )


def braindecode() -> tuple[Callable[..., nn.Module] | None, str]:
    """Its class, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from braindecode.models import SignalJEPA as Theirs
    except (ImportError, OSError) as error:
        return None, type(error).__name__
    return Theirs, ""


def peer_of(signal: SignalSpec) -> nn.Module:
    theirs, _ = braindecode()
    if theirs is None:
        return plain(len(signal.channels))
    places = [{"ch_name": n, "loc": list(p)} for n, p in zip(signal.channels, signal.positions, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs(n_chans=len(places), n_times=signal.n_times, sfreq=signal.sfreq, chs_info=places)


def plain(n_channels: int) -> nn.Module:
    sys.path.insert(0, str(REFERENCE))
    try:
        from signal_jepa_plain import PlainSignalJEPA
    finally:
        sys.path.remove(str(REFERENCE))
    module: nn.Module = PlainSignalJEPA(n_channels)
    return module


def set_dropout(module: nn.Module, rate: float) -> None:
    """Of all layers of a stock transformer; the convolutions of either peer have none."""
    for name, part in module.named_modules():
        if name.startswith("transformer") and isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = rate


def context_pass(pair: Pair, is_half: bool) -> Callable[[], None]:
    """Local tokens and positions of all, the transformer on those that are visible; forward and backward."""
    n_batch, n_tokens, _ = pair.gradient.shape
    draw = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(n_tokens, generator=draw) for _ in range(n_batch)])
    keep = order[:, : n_tokens // 2].sort(dim=1).values if is_half else None
    gradient = pair.gradient[:, : n_tokens // 2] if is_half else pair.gradient

    def step() -> None:
        local = pair.ours.embed(pair.batch)
        pair.ours.mix_subset(local, pair.batch, keep=keep).backward(gradient)

    return step


def without_gradient(run: Callable[[], Tensor]) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            run()

    return step


def gemm(n_rows: int) -> tuple[Callable[[], None], float]:
    """The encoder's largest product, as often as takes some tenths of a second, and its FLOPs."""
    tokens, weight = torch.randn(n_rows, WIDTH), torch.randn(HIDDEN, WIDTH)
    n_times = 20

    def multiply() -> None:
        for _ in range(n_times):
            F.linear(tokens, weight)

    return multiply, n_times * linear_flops(n_rows, WIDTH, HIDDEN, passes=1)


# Figures --------------------------------------------------------------------------------------------------------------
def times(size: str, rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    pair, shipped = pair_of(size), pair_of(size, dropout=0.1)
    step = compare(pair.our_step, pair.peer_step, rounds, clock)
    figures = step.figures(f"step_ratio_{size}")
    figures |= {f"step_seconds_{size}": step.ours_s, f"peer_step_seconds_{size}": step.peer_s}
    figures |= compare(pair.our_step, shipped.peer_step, rounds, clock).figures(f"ratio_vs_shipped_{size}")
    half = compare(context_pass(pair, is_half=True), context_pass(pair, is_half=False), rounds, clock)
    figures |= half.figures("visible_half_ratio" if size == "16s" else f"visible_half_ratio_{size}")
    n_batch, n_tokens, _ = pair.gradient.shape
    multiply, gemm_flops = gemm(n_batch * n_tokens)
    share = compare(pair.our_step, multiply, rounds, clock)
    scale = step_flops(n_batch, SIZES[size][1]) / gemm_flops
    named = share.figures(f"step_share_of_gemm_{size}")
    figures |= {name: value * scale for name, value in named.items()}
    figures[f"gemm_gflops_{size}"] = gemm_flops / share.peer_s / 1e9
    pair.ours.eval(), pair.peer.eval()
    teacher = compare(without_gradient(pair.our_tokens), without_gradient(pair.peer_tokens), rounds, clock)
    return figures | teacher.figures("teacher_ratio" if size == "16s" else f"teacher_ratio_{size}")


def memory(size: str) -> dict[str, float]:
    pair, shipped = pair_of(size), pair_of(size, dropout=0.1)
    ours = kept_bytes(pair.our_tokens, pair.ours, pair.batch.eeg)
    peer = kept_bytes(pair.peer_tokens, pair.peer, pair.batch.eeg)
    as_shipped = kept_bytes(shipped.peer_tokens, shipped.peer, shipped.batch.eeg)
    return {
        f"activation_ratio_{size}": ours / peer,
        f"activation_mib_{size}": ours / MIB,
        f"peer_activation_mib_{size}": peer / MIB,
        f"shipped_activation_mib_{size}": as_shipped / MIB,
    }


def kept_bytes(forward: Callable[[], Tensor], module: nn.Module, given: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, without the module's own and the input."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (given, *module.state_dict(keep_vars=True).values())}
    kept: dict[int, torch.UntypedStorage] = {}  # alive until the end, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tokens = forward()
    del tokens
    return sum(storage.nbytes() for storage in kept.values())


# FLOPs ----------------------------------------------------------------------------------------------------------------
def linear_flops(n_rows: int, n_inputs: int, n_outputs: int, passes: int = 3) -> float:
    """Two per multiply-add; forward, gradient of the input and gradient of the weight: three passes."""
    return 2.0 * n_rows * n_inputs * n_outputs * passes


def conv_flops(n_rows: int, n_times: int, passes: int = 3) -> float:
    """The convolutions over ``n_rows`` channels of all windows; the first has no gradient of its input."""
    total, n_inputs = 0.0, 1
    for n_maps, kernel, stride in CONV_LAYERS:
        n_times = (n_times - kernel) // stride + 1
        total += linear_flops(n_rows * n_times, n_inputs * kernel, n_maps, min(passes, 2) if n_inputs == 1 else passes)
        n_inputs = n_maps
    return total


def layer_flops(n_batch: int, n_tokens: int, passes: int = 3) -> float:
    """A layer of the transformer: queries, keys, values and projection; attention; the feed-forward branch."""
    linear = linear_flops(n_batch * n_tokens, WIDTH, 4 * WIDTH + 2 * HIDDEN, passes)
    return linear + 4.0 * n_batch * n_tokens**2 * WIDTH * passes


def step_flops(n_batch: int, n_times: int, n_channels: int = 129, depth: int = DEPTH, passes: int = 3) -> float:
    """Forward and backward of the encoder; ``passes=1``: forward alone."""
    n_tokens = n_channels * ((n_times - 152) // 128 + 1)
    return conv_flops(n_batch * n_channels, n_times, passes) + depth * layer_flops(n_batch, n_tokens, passes)
