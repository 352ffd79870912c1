"""Our LaBraM against numbers that the official modules gave on the same weights and inputs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from cerebro.encoders.labram import LaBraM, official_key
from cerebro.objectives import VQNSP, FrozenTokenizer, MaskedCodes
from cerebro.readouts import LinearReadout
from cerebro.signal import EEGBatch, SignalSpec

N_CHANNELS = 128
SIGNAL = SignalSpec(tuple(f"ch{i}" for i in range(N_CHANNELS)), ((math.nan,) * 3,) * N_CHANNELS, 200.0, 600)
OFFICIAL = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 2, "n_heads": 10}
VQ_ENCODER = OFFICIAL | {"qkv_bias": True, "qk_norm": False, "layer_scale": 0.0}
VQ_HEADS = {  # ours -> official
    "norm": "encoder.fc_norm",
    "to_code": "encode_task_layer",
    "from_code": "decoder.patch_embed.proj",
    "decoder_norm": "decoder.fc_norm",
    "to_amplitude": "decode_task_layer",
    "to_phase": "decode_task_layer_angle",
}


def official_state(keys: Path) -> dict[str, Tensor]:
    """Closed-form weights of the reference run."""
    state = {}
    for j, (key, shape) in enumerate(sorted(json.loads(keys.read_text()).items())):
        value = np.sin(0.7 * np.arange(math.prod(shape)) + 1.3 * j).reshape(shape)
        if len(shape) >= 2:
            fan = shape[-1] if len(shape) == 3 else math.prod(shape[1:])
            value = value * 2 / math.sqrt(fan) if key.endswith("weight") else value * 0.2
        else:
            value = 1 + 0.1 * value if key.endswith("weight") or "gamma" in key else 0.1 * value
        state[key] = torch.tensor(value, dtype=torch.float32)
    if "quantize.embedding.weight" in state:
        codes = torch.tensor(np.sin(1.9 * np.arange(64 * 16)).reshape(64, 16), dtype=torch.float32)
        state["quantize.embedding.weight"] = F.normalize(codes, dim=-1)
    return state


def load(module: nn.Module, values: dict[str, Tensor]) -> None:
    """Load values strictly, each reshaped to its place."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: value.reshape(shapes[name]) for name, value in values.items()}, strict=True)


def load_encoder(encoder: LaBraM, state: dict[str, Tensor], prefix: str) -> None:
    """Load the encoder's part of an official state dict; the mask token stays where there is none."""
    values = {"mask_token": encoder.mask_token.data}
    for name, value in state.items():
        key = official_key(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if key is not None:
            values[key] = value
    load(encoder, values)


def load_vqnsp(objective: VQNSP, state: dict[str, Tensor]) -> None:
    values = {"codebook.weight": state["quantize.embedding.weight"], "codebook.use": torch.full((64,), 1 / 64)}
    for ours, theirs in VQ_HEADS.items():
        values |= {ours + name.removeprefix(theirs): v for name, v in state.items() if name.startswith(theirs + ".")}
    for name, value in state.items():
        key = official_key(name.removeprefix("decoder.")) if name.startswith("decoder.") else None
        if key is not None and key.startswith("transformer."):
            values["decoder." + key.removeprefix("transformer.")] = value
    load(objective, values)


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
def vqnsp(golden: Path) -> tuple[LaBraM, VQNSP, dict[str, Tensor]]:
    state = official_state(golden / "labram_vqnsp_keys.json")
    encoder = LaBraM(SIGNAL, **VQ_ENCODER)
    objective = VQNSP(encoder, SIGNAL, n_codes=64, code_dim=16, decoder_depth=1)
    load_encoder(encoder, state, "encoder.")
    load_vqnsp(objective, state)
    return encoder.eval(), objective.eval(), load_file(golden / "labram_vqnsp.safetensors")


def test_fine_tuned_logits_match_the_official_model(golden: Path) -> None:
    state = official_state(golden / "labram_finetune_keys.json")
    reference = load_file(golden / "labram_finetune.safetensors")
    encoder = LaBraM(SIGNAL, **OFFICIAL)
    load_encoder(encoder, state, "")
    readout = LinearReadout(encoder, SIGNAL, 3)
    load(readout, {n.replace("fc_norm", "norm"): v for n, v in state.items() if n.startswith(("fc_norm", "head"))})
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
def pretraining(golden: Path) -> tuple[LaBraM, MaskedCodes, dict[str, Tensor]]:
    state = official_state(golden / "labram_mem_keys.json")
    encoder = LaBraM(SIGNAL, **OFFICIAL, class_token="official")
    load_encoder(encoder, state, "student.")

    def tokenizer(signal: SignalSpec) -> FrozenTokenizer:
        return FrozenTokenizer(signal, lambda s: LaBraM(s, **VQ_ENCODER), lambda e, s: VQNSP(e, s, 64, 16, 1))

    objective = MaskedCodes(encoder, SIGNAL, tokenizer)
    load_encoder(objective.tokenizer.encoder, official_state(golden / "labram_vqnsp_keys.json"), "encoder.")
    load_vqnsp(objective.tokenizer.objective, official_state(golden / "labram_vqnsp_keys.json"))
    for ours, theirs in (("norm", "student.norm"), ("head", "lm_head")):
        load(getattr(objective, ours), {part: state[f"{theirs}.{part}"] for part in ("weight", "bias")})
    return encoder, objective, load_file(golden / "labram_mem.safetensors")


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
    named = {f"student.{official}": encoder.get_parameter(ours) for official, ours in encoder_names(reference)}
    named |= {f"student.norm.{p}": objective.norm.get_parameter(p) for p in ("weight", "bias")}
    named |= {f"lm_head.{p}": objective.head.get_parameter(p) for p in ("weight", "bias")}
    norms = {name.removeprefix("grad_norm/"): v for name, v in reference.items() if name.startswith("grad_norm/")}
    assert named.keys() == norms.keys()
    for name, parameter in named.items():
        assert parameter.grad is not None
        assert abs(float(parameter.grad.norm()) - float(norms[name])) <= 1e-5 * float(norms[name]) + 1e-6, name


def encoder_names(reference: dict[str, Tensor]) -> list[tuple[str, str]]:
    names = [n.removeprefix("grad_norm/student.") for n in reference if n.startswith("grad_norm/student.")]
    return [(name, key) for name in names if (key := official_key(name)) is not None]
