"""LaBraM base, batch 8, four one-second patches at 200 Hz, one thread, float32: shares of the machine's GEMM rate.

A step is forward, backward, gradient clipping and the optimiser, without the loader. Its FLOPs are counted by the
formulas below (two per multiply-add; fused attention as the four and eight of its plain form, without what it computes
twice), which `tests/benchmarks/test_labram.py` holds against torch's own counter. The GEMM rate is that of the largest
product of the encoder, tokens x D times D x 4 D, measured in the same round.

``memory_vs_plain`` compares the peak of a masked-code step above what stands before it with that of
`labram_plain`, each in a process of its own. ``encoder_ratio_vs_braindecode`` is forward and backward of the encoder
beside braindecode's ``Labram`` with the same sizes; it is left out where braindecode cannot be imported, and
``encoder_share_of_gemm`` is the same forward and backward: their quotient is braindecode's own share.
``tokenise_share_of_gemm`` is the frozen tokenizer alone. ``_two_threads`` figures count wall time.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labram_plain
from cerebro.encoders.labram import LaBraM
from cerebro.objectives import VQNSP, FrozenTokenizer, MaskedCodes, Objective
from cerebro.objectives.masks import random_mask
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.optim import Optim
from timing import compare

BATCH, N_PATCHES, SFREQ = 8, 4, 200.0
BASE = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 12, "n_heads": 10}
TOKENIZER = BASE | {"qkv_bias": True, "qk_norm": False, "layer_scale": 0.0}
N_CODES, CODE_DIM, DECODER_DEPTH, N_BINS = 8192, 32, 3, 200
STEPS = ("vq", "mem")


def main(rounds: int) -> dict[str, float]:
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for n_channels in (64, 128):
        figures |= shares(n_channels, rounds)
    figures |= speedups(64, rounds)
    figures |= memory(128)
    for n_channels in (64, 128):
        figures |= beside_braindecode(n_channels, rounds)
    torch.set_num_threads(2)
    figures |= {f"{name}_two_threads": value for name, value in shares(64, rounds, time.perf_counter).items()}
    return figures


# What is timed --------------------------------------------------------------------------------------------------------
def signal_of(n_channels: int) -> SignalSpec:
    names = tuple(f"ch{i}" for i in range(n_channels))
    return SignalSpec(names, ((float("nan"),) * 3,) * n_channels, SFREQ, round(N_PATCHES * SFREQ))


def batch_of(n_channels: int, n_batch: int = BATCH) -> EEGBatch:
    draw = torch.Generator().manual_seed(0)
    rows, n_times = torch.arange(n_batch), round(N_PATCHES * SFREQ)
    return EEGBatch(
        eeg=20 * torch.randn(n_batch, n_channels, n_times, generator=draw),
        channel=torch.arange(n_channels).expand(n_batch, -1).contiguous(),
        n_valid=torch.full((n_batch,), n_times),
        key=torch.randint(0, 2**60, (n_batch,), generator=draw),
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        is_padded=False,
    )


def tokenizer_of(signal: SignalSpec) -> FrozenTokenizer:
    return FrozenTokenizer(signal, lambda s: LaBraM(s, **TOKENIZER), lambda e, s: VQNSP(e, s, N_CODES, CODE_DIM))


def build(what: str, n_channels: int) -> tuple[LaBraM, Objective]:
    torch.manual_seed(0)
    signal = signal_of(n_channels)
    if what == "vq":
        encoder = LaBraM(signal, **TOKENIZER)
        return encoder, VQNSP(encoder, signal, N_CODES, CODE_DIM)
    encoder = LaBraM(signal, **BASE)
    return encoder, MaskedCodes(encoder, signal, tokenizer_of)


def step_of(
    encoder: LaBraM, objective: Objective, loss: Callable[[], Tensor], precision: str = "float32"
) -> Callable[[], None]:
    optim = Optim()
    optimizer = optim.build(encoder, objective)
    parameters = [p for module in (encoder, objective) for p in module.parameters() if p.requires_grad]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            total = loss()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()

    return step


def step(what: str, n_channels: int, precision: str = "float32") -> Callable[[], None]:
    encoder, objective = build(what, n_channels)
    batch = batch_of(n_channels)
    return step_of(encoder, objective, lambda: objective(encoder, batch).total, precision)


def encoder_step(n_channels: int) -> Callable[[], None]:
    """Forward and backward of the encoder alone, as braindecode's is timed."""
    torch.manual_seed(0)
    encoder, head, batch = LaBraM(signal_of(n_channels), **BASE), nn.Linear(200, 2), batch_of(n_channels)

    def step() -> None:
        head(encoder(batch).mean(dim=(1, 2))).sum().backward()

    return step


def gemm(n_channels: int) -> tuple[Callable[[], None], float]:
    """The encoder's largest product, as often as takes some tenths of a second, and its FLOPs."""
    n_tokens, width = BATCH * (1 + n_channels * N_PATCHES), 200
    tokens, weight = torch.randn(n_tokens, width), torch.randn(4 * width, width)
    n_times = 100

    def multiply() -> None:
        for _ in range(n_times):
            F.linear(tokens, weight)

    return multiply, n_times * 2.0 * n_tokens * width * 4 * width


# Figures --------------------------------------------------------------------------------------------------------------
def shares(n_channels: int, rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    figures: dict[str, float] = {}
    multiply, gemm_flops = gemm(n_channels)
    tokenizer, batch = tokenizer_of(signal_of(n_channels)), batch_of(n_channels)
    subjects: dict[str, tuple[Callable[[], object], float]] = {
        "vq_share_of_gemm": (step("vq", n_channels), vq_flops(n_channels)),
        "mem_share_of_gemm": (step("mem", n_channels), mem_flops(n_channels)),
        "tokenise_share_of_gemm": (lambda: tokenizer(batch), tokenise_flops(n_channels)),
        "encoder_share_of_gemm": (encoder_step(n_channels), encoder_flops(n_channels)),
    }
    for name, (run, flops) in subjects.items():
        found = compare(run, multiply, rounds, clock)
        scale = flops / gemm_flops
        figures[f"{name}_{n_channels}"] = found.ratio * scale
        figures[f"{name}_{n_channels}_lowest"] = found.lowest * scale
        figures[f"{name}_{n_channels}_highest"] = found.highest * scale
        figures[f"{name.replace('share_of_gemm', 'seconds')}_{n_channels}"] = found.ours_s
    figures[f"gemm_gflops_{n_channels}"] = gemm_flops / found.peer_s / 1e9
    return figures


def speedups(n_channels: int, rounds: int) -> dict[str, float]:
    """bfloat16 beside float32, and stored codes beside those computed in the step."""
    figures: dict[str, float] = {}
    for what in STEPS:
        found = compare(step(what, n_channels, "bfloat16"), step(what, n_channels), rounds)
        figures |= found.figures("bf16_speedup" if what == "mem" else "bf16_speedup_vq")
    encoder, objective = build("mem", n_channels)
    assert isinstance(objective, MaskedCodes)
    batch = batch_of(n_channels)
    codes = objective.tokenizer(batch)
    stored = step_of(encoder, objective, lambda: objective.loss(encoder, batch, codes).total)
    return figures | compare(stored, step("mem", n_channels), rounds).figures("cached_codes_speedup")


def memory(n_channels: int) -> dict[str, float]:
    ours, plain = (_peak_mb(which, n_channels) for which in ("ours", "plain"))
    return {"memory_vs_plain": ours / plain, "step_peak_mb": ours, "plain_step_peak_mb": plain}


def _peak_mb(which: str, n_channels: int) -> float:
    command = [sys.executable, str(Path(__file__).resolve()), which, str(n_channels)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_of_steps(which: str, n_channels: int) -> float:
    """Peak of three masked-code steps above what stood before them (parameters and batch), in MB."""
    torch.set_num_threads(1)
    encoder, objective = build("mem", n_channels)
    assert isinstance(objective, MaskedCodes)
    batch = batch_of(n_channels)
    hidden = random_mask(encoder.valid(batch), 0.5, batch.key).hidden.flatten(1)
    loss = {
        "ours": lambda: objective(encoder, batch).total,
        "plain": lambda: labram_plain.masked_codes_loss(encoder, objective, batch, hidden),
    }[which]
    run = step_of(encoder, objective, loss)
    before = _status_mb("VmRSS")
    for _ in range(3):
        run()
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def beside_braindecode(n_channels: int, rounds: int) -> dict[str, float]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from braindecode.models import Labram
            from braindecode.models.labram import LABRAM_CHANNEL_ORDER
    except ImportError as error:
        print(f"braindecode cannot be imported ({error}): its ratios are left out", file=sys.stderr)
        return {}
    signal, batch = signal_of(n_channels), batch_of(n_channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Labram(
            n_times=signal.n_times, n_chans=n_channels, n_outputs=2, sfreq=SFREQ, use_mean_pooling=True, init_values=0.1
        )
    names = LABRAM_CHANNEL_ORDER[:n_channels]  # it refuses fewer than its 128 channels without their names

    def peer() -> None:
        theirs(batch.eeg / 100, ch_names=names).sum().backward()

    return compare(encoder_step(n_channels), peer, rounds).figures(f"encoder_ratio_vs_braindecode_{n_channels}")


# FLOPs ----------------------------------------------------------------------------------------------------------------
def linear_flops(n_rows: int, n_inputs: int, n_outputs: int, passes: int = 3) -> float:
    """Forward, gradient of the input and gradient of the weight: three passes; forward alone is one."""
    return 2.0 * n_rows * n_inputs * n_outputs * passes


def patch_flops(n_patches: int, passes: int = 3, maps: int = 8, steps: int = 25) -> float:
    """The three convolutions; the first has no gradient of its input."""
    first = 2.0 * n_patches * steps * maps * 15 * min(passes, 2)
    return first + 2 * 2.0 * n_patches * steps * maps * maps * 3 * passes


def block_flops(n_batch: int, n_tokens: int, width: int, passes: int = 3, n_queries: int = 0) -> float:
    """A block on ``n_tokens`` of ``n_batch`` windows, of which ``n_queries`` (0 = all) go further."""
    n_queries = n_queries or n_tokens
    keys = linear_flops(n_batch * n_tokens, width, 2 * width, passes)
    rest = linear_flops(n_batch * n_queries, width, (1 + 1 + 4 + 4) * width, passes)  # query, projection, MLP
    attention = 4.0 * n_batch * n_queries * n_tokens * width * passes
    return keys + rest + attention


def encoder_flops(n_channels: int, passes: int = 3, n_batch: int = BATCH, depth: int = 12) -> float:
    n_tokens = n_channels * N_PATCHES
    return patch_flops(n_batch * n_tokens, passes) + depth * block_flops(n_batch, 1 + n_tokens, 200, passes)


def tokenise_flops(
    n_channels: int, passes: int = 1, n_batch: int = BATCH, depth: int = 12, n_codes: int = N_CODES
) -> float:
    """The tokenizer's encoder, its two layers to the code, and the distances, which have no gradient."""
    n_tokens, width = n_channels * N_PATCHES, 200
    encoder = encoder_flops(n_channels, passes, n_batch, depth)
    to_code = linear_flops(n_batch * n_tokens, width, width + CODE_DIM, passes)
    return encoder + to_code + linear_flops(n_batch * n_tokens, CODE_DIM, n_codes, 1)


def vq_flops(
    n_channels: int, n_batch: int = BATCH, depth: int = 12, decoder_depth: int = DECODER_DEPTH, n_codes: int = N_CODES
) -> float:
    """A step of the tokenizer phase with the published targets."""
    n_tokens, width = n_channels * N_PATCHES, 200
    n_rows = n_batch * n_tokens
    decoder = linear_flops(n_rows, CODE_DIM, width) + decoder_depth * block_flops(n_batch, 1 + n_tokens, width)
    heads = 2 * linear_flops(n_rows, width, width + N_BINS)
    return tokenise_flops(n_channels, 3, n_batch, depth, n_codes) + decoder + heads


def mem_flops(
    n_channels: int, n_batch: int = BATCH, depth: int = 12, n_codes: int = N_CODES, cached: bool = False
) -> float:
    """A step of symmetric masked codes: one patch embedding, two passes, hidden tokens alone in last block and head."""
    n_tokens, width = n_channels * N_PATCHES, 200
    n_hidden = n_tokens // 2
    a_pass = (depth - 1) * block_flops(n_batch, 1 + n_tokens, width)
    a_pass += block_flops(n_batch, 1 + n_tokens, width, n_queries=n_hidden)
    a_pass += linear_flops(n_batch * n_hidden, width, n_codes)
    codes = 0.0 if cached else tokenise_flops(n_channels, 1, n_batch, depth, n_codes)
    return codes + patch_flops(n_batch * n_tokens) + 2 * a_pass


if __name__ == "__main__":
    print(peak_of_steps(sys.argv[1], int(sys.argv[2])))
