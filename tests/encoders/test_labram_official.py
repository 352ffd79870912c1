"""Our LaBraM against numbers that the official modules gave on the same weights and inputs, loaded from files."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cerebro.encoders.labram import LaBraM
from cerebro.objectives import VQNSP, FrozenTokenizer, MaskedCodes, Supervised
from cerebro.readouts import LinearReadout
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.checkpoint import Transfer, transfer_weights
from cerebro.training.foreign import read_source
from cerebro.training.labram.channels import OFFICIAL_CHANNELS
from cerebro.training.labram.layout import their_name
from cerebro.training.phase import Phase

SIGNAL = SignalSpec(OFFICIAL_CHANNELS, ((math.nan,) * 3,) * 128, 200.0, 600)
OFFICIAL = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 2, "n_heads": 10}
VQ_ENCODER = OFFICIAL | {"qkv_bias": True, "qk_norm": False, "layer_scale": 0.0}


def build(
    encoder: Callable[[SignalSpec], LaBraM], objective: Callable[[Any, SignalSpec], Any], signal: SignalSpec = SIGNAL
) -> Phase:
    return Phase("parity", signal, encoder, objective).eval()


def hand_over(phase: Phase, path: Path, *transfers: Transfer) -> None:
    """Load an official file the way that a user does."""
    for transfer in transfers:
        transfer_weights(phase, transfer, read_source(path))


def tokenizer_of(signal: SignalSpec) -> FrozenTokenizer:
    return FrozenTokenizer(signal, lambda s: LaBraM(s, **VQ_ENCODER), lambda e, s: VQNSP(e, s, 64, 16, 1))


def batch_of(reference: dict[str, Tensor]) -> EEGBatch:
    """The reference's input; it is in units of 100 microvolts there."""
    rows = torch.arange(len(reference["x"]))
    return EEGBatch(
        eeg=reference["x"] * 100,
        channel=(reference["channels"][1:] - 1).expand(len(rows), -1).contiguous(),
        n_valid=torch.full_like(rows, 600),
        key=rows,
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        is_padded=False,
    )


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module")
def vqnsp(
    golden: Path, official_file: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[LaBraM, VQNSP, dict[str, Tensor]]:
    phase = build(lambda s: LaBraM(s, **VQ_ENCODER), lambda e, s: VQNSP(e, s, 64, 16, 1))
    path = official_file(tmp_path_factory.mktemp("vqnsp"), "vqnsp")
    hand_over(phase, path, Transfer(path, take="", into=""))
    return phase.encoder, phase.objective, load_file(golden / "labram_vqnsp.safetensors")


def test_fine_tuned_logits_match_the_official_model(
    golden: Path, official_file: Callable[..., Path], tmp_path: Path
) -> None:
    reference = load_file(golden / "labram_finetune.safetensors")
    signal = replace(SIGNAL, targets=("event",))

    def objective(encoder: LaBraM, signal: SignalSpec) -> Supervised:
        return Supervised(encoder, signal, "event", LinearReadout, kind="classification", n_classes=3)

    phase = build(lambda s: LaBraM(s, **OFFICIAL), objective, signal)
    path = official_file(tmp_path, "finetune")
    hand_over(phase, path, Transfer(path), Transfer(path, "objective.readout", "objective.readout"))
    encoder, readout = phase.encoder, phase.objective.readout
    batch = batch_of(reference)
    with torch.no_grad():
        tokens = encoder(batch)
        assert relative(readout(encoder, batch), reference["logits"]) < 1e-5
        assert relative(readout.head(readout.norm(tokens)).flatten(1, 2), reference["patch_tokens"]) < 1e-5


def test_tokenizer_codes_and_losses_match_the_official_model(
    vqnsp: tuple[LaBraM, VQNSP, dict[str, Tensor]],
) -> None:
    encoder, objective, reference = vqnsp
    batch = batch_of(reference)
    with torch.no_grad():
        tokens = encoder(batch)
        assert relative(objective.norm(tokens).flatten(1, 2), reference["encoder_tokens"]) < 1e-5
        assert torch.equal(objective.codes(encoder, batch).flatten(1), reference["codes"])
        vectors = objective.codebook.weight[reference["codes"].flatten()]
        assert relative(vectors.view(2, 5, 3, 16).permute(0, 3, 1, 2), reference["quantized"]) < 1e-5
        amplitude, phase = objective.decode(vectors, batch, encoder.valid(batch))
        assert relative(amplitude.flatten(1, 2), reference["decoded_amplitude"]) < 1e-5
        assert relative(phase.flatten(1, 2), reference["decoded_phase"]) < 1e-5
        loss = objective(encoder, batch)
    assert relative(loss.parts["amplitude"], reference["amplitude_loss"]) < 1e-5
    assert relative(loss.parts["phase"], reference["phase_loss"]) < 1e-5
    assert relative(loss.parts["commitment"], reference["quant_loss"]) < 1e-5
    assert relative(loss.total, reference["loss"]) < 1e-5


@pytest.fixture(scope="module")
def pretraining(
    golden: Path, official_file: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[LaBraM, MaskedCodes, dict[str, Tensor]]:
    phase = build(lambda s: LaBraM(s, **OFFICIAL, class_token="official"), lambda e, s: MaskedCodes(e, s, tokenizer_of))
    folder = tmp_path_factory.mktemp("pretraining")
    path, codes = official_file(folder, "mem"), official_file(folder, "vqnsp")
    heads = Transfer(path, "objective", "objective", only=("norm", "head"))
    hand_over(phase, path, Transfer(path), heads)
    hand_over(phase, codes, Transfer(codes, "", "objective.tokenizer"))
    return phase.encoder, phase.objective, load_file(golden / "labram_mem.safetensors")


def test_masked_code_logits_and_gradients_match_the_official_model(
    pretraining: tuple[LaBraM, MaskedCodes, dict[str, Tensor]],
) -> None:
    encoder, objective, reference = pretraining
    batch = batch_of(reference)
    codes = objective.tokenizer(batch).flatten(1)
    assert torch.equal(codes, reference["codes"])
    hidden = reference["mask"].bool()
    local = encoder.embed(batch)
    every = torch.arange(15).expand(2, -1)
    total = torch.zeros(())
    for mask, name in ((hidden, "logits_masked"), (~hidden, "logits_complement")):
        logits = objective.logits(encoder, local, batch, mask.view(2, 5, 3), every)[mask]
        assert relative(logits.detach(), reference[name]) < 1e-5
        total = total + F.cross_entropy(logits, codes[mask])
    assert relative(total.detach(), reference["loss"]) < 1e-5
    total.backward()
    named = {their_name(f"encoder.{name}", "labram"): value for name, value in encoder.named_parameters()}
    named |= {
        their_name(f"objective.{name}", "labram"): value
        for name, value in objective.named_parameters()
        if not name.startswith("tokenizer.")
    }
    norms = {name.removeprefix("grad_norm/"): v for name, v in reference.items() if name.startswith("grad_norm/")}
    assert named.keys() == norms.keys()
    for name, parameter in named.items():
        assert parameter.grad is not None
        assert abs(float(parameter.grad.norm()) - float(norms[name])) <= 5e-5 * float(norms[name]) + 1e-6, name
